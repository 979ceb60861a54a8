// Package abi describes version 1 of the plugin ABI as data: the names and
// WebAssembly signatures of every function, the layouts of the structures
// that cross the boundary, the query tags and the limits.
//
// README.md in this folder is the ABI's document. The host builds its import
// table from this package, the SDKs use its constants, and a test binds all
// of them to the document.
package abi

import "strings"

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
)

// Limits that hold for every host.
const (
	// MaxQueries is the largest number of queries of one kernel call.
	MaxQueries = 8
	// MaxRows is the largest number of ids or positions of one call of
	// score, score_range and read_vectors. topk_range has no such limit.
	MaxRows = 1 << 16
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
	// QueryOfPrefill is a query kept from the prefill. Reserved: not served
	// in this version.
	QueryOfPrefill = 1
	// QueryOfKey is a stored key used as a query. Reserved: not served in
	// this version.
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

// Type is a WebAssembly value type.
type Type uint8

// Value types that the ABI uses.
const (
	I32 Type = iota + 1
	I64
)

// String returns the type's name in the WebAssembly text format.
func (t Type) String() string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	}
	return "unknown"
}

// Param is a named parameter.
type Param struct {
	Name string
	Type Type
}

// Scope is the set of exports during which a function may be called.
type Scope uint8

// Scopes. ScopeAny includes initialisation and ra_describe.
const (
	ScopeConfigure Scope = 1 << iota
	ScopeBuild
	ScopeAppend
	ScopeSearch
	ScopeInit // _initialize and ra_describe

	ScopeStatus = ScopeConfigure | ScopeBuild | ScopeAppend | ScopeSearch
	ScopeStore  = ScopeBuild | ScopeAppend | ScopeSearch
	ScopeAny    = ScopeStatus | ScopeInit
)

// String lists the scope as the document does.
func (s Scope) String() string {
	if s == ScopeAny {
		return "any"
	}
	var names []string
	for i, name := range []string{"configure", "build", "append", "search", "init"} {
		if s>>i&1 == 1 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Func is the name and signature of a function. For exports Scope is zero.
type Func struct {
	Name    string
	Params  []Param
	Results []Type
	Scope   Scope
}

// Signature returns the signature in the WebAssembly text format, without
// parameter names: "(param i32 i32) (result i32)"; "()" for none at all.
func (f Func) Signature() string { return f.text(false) }

// WAT returns the function as the document's table has it:
// "(func $score (param $query i32) ... (result i32))".
func (f Func) WAT() string {
	s := f.text(true)
	if s == "()" {
		return "(func $" + f.Name + ")"
	}
	return "(func $" + f.Name + " " + s + ")"
}

func (f Func) text(named bool) string {
	var parts []string
	switch {
	case named:
		for _, p := range f.Params {
			parts = append(parts, "(param $"+p.Name+" "+p.Type.String()+")")
		}
	case len(f.Params) > 0:
		s := "(param"
		for _, p := range f.Params {
			s += " " + p.Type.String()
		}
		parts = append(parts, s+")")
	}
	if len(f.Results) > 0 {
		s := "(result"
		for _, t := range f.Results {
			s += " " + t.String()
		}
		parts = append(parts, s+")")
	}
	if len(parts) == 0 {
		return "()"
	}
	return strings.Join(parts, " ")
}

func i32s(names ...string) []Param {
	ps := make([]Param, len(names))
	for i, n := range names {
		ps[i] = Param{n, I32}
	}
	return ps
}

// Exports are the functions that a search plugin must export, next to its
// memory, exported as "memory".
func Exports() []Func {
	status := []Type{I32}
	return []Func{
		{Name: Marker},
		{Name: "ra_describe", Results: []Type{I64}},
		{Name: "ra_configure", Params: i32s("params_len"), Results: status},
		{Name: "ra_build", Params: i32s("layer", "kv_head"), Results: status},
		{Name: "ra_append", Params: i32s("layer", "kv_head", "lo", "hi"), Results: status},
		{Name: "ra_search", Params: i32s("layer"), Results: status},
	}
}

// Imports are the functions that the host offers.
func Imports() []Func {
	n := []Type{I32}
	return []Func{
		{"log", i32s("level", "text", "text_len"), nil, ScopeAny},
		{"fail", i32s("text", "text_len"), nil, ScopeStatus},
		{"params_read", i32s("buf", "buf_limit"), n, ScopeConfigure},
		{"store_info", i32s("sequence", "kv_head", "buf", "buf_limit"), n, ScopeStore},
		{"indexed_ranges", i32s("sequence", "kv_head", "buf", "buf_limit"), n, ScopeStore},
		{"read_vectors", i32s("what", "sequence", "kv_head", "ids", "n", "out"), nil, ScopeStore},
		{"queries_info", i32s("buf", "buf_limit"), n, ScopeSearch},
		{"read_queries", i32s("query", "n_queries", "out"), nil, ScopeSearch},
		{"score", i32s("query", "n_queries", "ids", "n", "out"), nil, ScopeSearch},
		{"score_range", i32s("query", "n_queries", "lo", "hi", "out"), nil, ScopeSearch},
		{"topk_range", i32s("query", "n_queries", "lo", "hi", "k", "out_ids", "out_scores", "out_counts"), n, ScopeSearch},
		{"emit", i32s("query", "ids", "bias", "n"), nil, ScopeSearch},
	}
}
