package abi

// Names of the ABI.
const (
	// Marker is the export that says which ABI a module speaks. It is never
	// called.
	Marker = "ra_abi_v1"
	// MarkerPrefix begins the marker of every version.
	MarkerPrefix = "ra_abi_v"
	// Module is the module under which the host offers its functions.
	Module = "ra"
	// KindSearch is the "kind" of a search plugin's description.
	KindSearch = "search"
	// KindPolicy is the "kind" of a placement policy's description.
	KindPolicy = "policy"
	// NeedPrefillQueries is listed under "needs" of a description by a plugin
	// whose ra_build reads the prefill's queries.
	NeedPrefillQueries = "prefill_queries"
	// NeedWeigh is listed under "needs" of a description by a plugin whose
	// ra_weigh is to be called after each search.
	NeedWeigh = "weigh"
)

// Limits that hold for every host.
const (
	// MaxQueries is the largest number of queries of one kernel call.
	MaxQueries = 8
	// MaxRows is the largest number of ids or positions of one call of
	// score, score_range and read_vectors. topk_range has no such limit.
	MaxRows = 1 << 16
	// MaxSummaries is the largest number of summaries of one query.
	MaxSummaries = 1 << 14
	// MaxSlots is how many objects of a kind a plugin may keep with each KV
	// head of a layer: slots are numbered from 0.
	MaxSlots = 64
	// NoBlob is what blob_get returns for a slot that was never written.
	NoBlob = 1<<32 - 1
	// MaxDescription bounds the JSON of ra_describe, in bytes.
	MaxDescription = 64 << 10
	// MaxParams bounds the text of params_read, in bytes.
	MaxParams = 64 << 10
	// MaxFailText bounds the text of fail, in bytes; the rest is cut off.
	MaxFailText = 1 << 10
	// MaxLogText bounds one log message, in bytes; the rest is cut off.
	MaxLogText = 4 << 10
	// MaxLogLines bounds the messages of one call; further ones are dropped
	// and counted.
	MaxLogLines = 64
)

// A query is selected by a u32: a tag in the two upper bits, an index below.
const (
	QueryTagShift  = 30
	QueryIndexMask = 1<<QueryTagShift - 1

	// QueryOfCall is a query of this search call; the index is
	// (sequence*tokens + token)*heads + head.
	QueryOfCall = 0
	// QueryOfPrefill is a query of the prefill, of the KV head that ra_build
	// is called for; the index is token*group + head of the group.
	QueryOfPrefill = 1
	// QueryOfKey is a stored key used as a query, of the KV head that ra_build
	// or ra_append is called for; the index is its position.
	QueryOfKey = 2
)

// Levels of log.
const (
	LogDebug = 0
	LogInfo  = 1
	LogWarn  = 2
	LogError = 3
)

// What read_vectors reads.
const (
	VectorKey   = 0
	VectorValue = 1
)

// Fields of store_info's structure, in u32 words.
const (
	StoreTokens  = iota // positions of the sequence, static ones included
	StoreIndexed        // positions that a search may return in this layer
	StoreRanges         // ranges that indexed_ranges returns
	StoreHeadDim        // elements of a key, a value, a query
	StoreLayers         // layers of the model
	StoreKVHeads        // KV heads of a layer
	StoreWords          // length of the structure
)

// Fields of queries_info's structure, in u32 words.
const (
	QueriesSequences   = iota // sequences in the call
	QueriesTokens             // tokens of each sequence
	QueriesHeads              // query heads of the model
	QueriesFirstKVHead        // first KV head that this call is to answer
	QueriesKVHeads            // number of KV heads that this call is to answer
	QueriesGroup              // query heads that share a KV head
	QueriesHeadDim            // elements of a query
	QueriesTopK               // most hits a query may have
	QueriesWords              // length of the structure
)

// Fields of build_info's structure, in u32 words.
const (
	BuildQueries = iota // tokens whose queries were kept from the prefill; 0 without the need
	BuildKVHead         // KV head to build
	BuildGroup          // query heads that share it
	BuildHeadDim        // elements of a key, a value, a query
	BuildWords          // length of the structure
)

// States of a token.
const (
	StateStatic  = 0 // attended at every step
	StateIndexed = 1 // attended when a search returns it
	StateDropped = 2 // never attended
)

// Fields of place_info's structure, in u32 words.
const (
	PlaceTokens   = iota // positions of the sequence
	PlacePrefill         // of these, tokens of the prefill; ids from there on were decoded
	PlaceDecoding        // 0: right after the prefill; 1: while decoding
	PlaceLayers          // layers of the model
	PlaceKVHeads         // KV heads of a layer
	PlaceHeadDim         // elements of a key
	PlaceWords           // length of the structure
)
