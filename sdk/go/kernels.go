package ra

import (
	"math"
	"strconv"

	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// End as the upper bound of [TopKRange] means the end of the sequence.
const End = math.MaxUint32

// Range is the positions [Lo, Hi).
type Range struct{ Lo, Hi uint32 }

// Store describes the keys of one sequence and KV head in the layer of the
// call.
type Store struct {
	Tokens  int // positions, those that are not indexed included
	Indexed int // positions that a search may return
	Ranges  int // ranges of indexed positions
	HeadDim int
	Layers  int // of the model
	KVHeads int // of a layer
}

// StoreInfo describes the store of a sequence (0 in Build and Append) and KV
// head. Cost: a crossing, some 50 ns.
func StoreInfo(sequence, kvHead int) Store {
	var f [abi.StoreWords]uint32
	storeInfo(uint32(sequence), uint32(kvHead), f[:])
	return Store{
		Tokens: int(f[abi.StoreTokens]), Indexed: int(f[abi.StoreIndexed]), Ranges: int(f[abi.StoreRanges]),
		HeadDim: int(f[abi.StoreHeadDim]), Layers: int(f[abi.StoreLayers]), KVHeads: int(f[abi.StoreKVHeads]),
	}
}

// IndexedRanges writes the ranges of indexed positions, in order, to buf and
// returns how many there are, which may be more than buf holds.
func IndexedRanges(sequence, kvHead int, buf []Range) int {
	return int(indexedRanges(uint32(sequence), uint32(kvHead), buf)) / 8
}

// ReadKeys writes the keys of the given positions, widened to f32, to out
// [len(ids)][HeadDim]. At most 65,536 ids. Cost: a copy; to compare keys with
// queries use Score.
func ReadKeys(sequence, kvHead int, ids []uint32, out []float32) {
	readVectors(abi.VectorKey, uint32(sequence), uint32(kvHead), ids, out)
}

// ReadValues is ReadKeys for the values.
func ReadValues(sequence, kvHead int, ids []uint32, out []float32) {
	readVectors(abi.VectorValue, uint32(sequence), uint32(kvHead), ids, out)
}

// ReadQueries writes the vectors of n queries from q on (in the order of
// [Batch]) to out [n][HeadDim].
func ReadQueries(q Query, n int, out []float32) { readQueries(q, uint32(n), out) }

// Score writes the inner products of n queries from q on (in the order of
// [Batch], at most MaxQueries) with the keys ids to out [n][len(ids)].
// At most 65,536 ids, which need not be indexed. Cost: about 15 ns a key
// with good kernels, hardly more for 8 queries than for one.
func Score(q Query, n int, ids []uint32, out []float32) {
	need("out", len(out), n*len(ids))
	score(q, uint32(n), ids, out)
}

// ScoreRange is Score for the positions [lo, hi), at most 65,536 of them; out
// is [n][hi-lo]. Cost: memory bandwidth.
func ScoreRange(q Query, n, lo, hi int, out []float32) {
	need("out", len(out), n*(hi-lo))
	scoreRange(q, uint32(n), uint32(lo), uint32(hi), out)
}

// TopKRange scans the indexed positions within [lo, hi) and writes, for each
// of n queries from q on (in the order of [Batch], at most MaxQueries), the k
// best, best first: ids [n][k], scores [n][k] unless nil, counts [n] (fewer
// than k when there are fewer). Ties go to the lower position. hi may be
// [End]. It returns the number of positions scanned. Each key is read once.
// Cost: memory bandwidth.
func TopKRange(q Query, n, lo, hi, k int, ids []uint32, scores []float32, counts []uint32) int {
	need("ids", len(ids), n*k)
	need("counts", len(counts), n)
	if scores != nil {
		need("scores", len(scores), n*k)
	}
	return int(topKRange(q, uint32(n), uint32(lo), uint32(hi), uint32(k), ids, scores, counts))
}

// Emit answers query q with the given tokens, which are added to those
// emitted before. bias, when not nil, has one finite addend a token for its
// logit. A token may be emitted once a query, must be indexed, and there may
// be at most TopK of them.
func Emit(q Query, ids []uint32, bias []float32) {
	if bias != nil {
		need("bias", len(bias), len(ids))
	}
	emit(q, ids, bias)
}

// EmitSummaries answers query q with entries that stand for tokens which are
// not emitted: entry j counts as exp(logMults[j]) tokens of the (scaled) logit
// logits[j] and the value values[j], values being [n][HeadDim].
func EmitSummaries(q Query, logits, logMults, values []float32) {
	need("logMults", len(logMults), len(logits))
	need("values", len(values), len(logits)*current.HeadDim)
	emitSummary(q, logits, logMults, values)
}

// ReadHits writes the ids that query q emitted and their logits, scaled as
// attention scales, as many as both hold, and returns how many there are. For
// Weigh.
func ReadHits(q Query, ids []uint32, logits []float32) int {
	n := len(ids)
	need("logits", len(logits), n)
	return int(readHits(q, ids, logits[:n]))
}

// EmitBias sets the biases of query q's hits, one a hit, in the order of
// [ReadHits]. For Weigh.
func EmitBias(q Query, bias []float32) { emitBias(q, bias) }

// PutBlob keeps bytes with the KV head that is built or appended to, in place
// of what the slot (below 64) had. All instances see them, a fork of the
// sequence begins with them. For Build and Append.
func PutBlob(slot int, data []byte) { putBlob(uint32(slot), data) }

// GetBlob writes what a slot of a KV head holds, from offset on, to buf and
// returns how many bytes the slot has, -1 when it was never written.
func GetBlob(sequence, kvHead, slot, offset int, buf []byte) int {
	n := getBlob(uint32(sequence), uint32(kvHead), uint32(slot), uint32(offset), buf)
	if n == abi.NoBlob {
		return -1
	}
	return int(n)
}

// BuildInfo describes a build of one KV head.
type BuildInfo struct {
	Queries int // tokens whose queries were kept from the prefill
	Group   int // query heads that share the KV head
	HeadDim int
}

// Building describes the build under way. For Build.
func Building() BuildInfo {
	var f [abi.BuildWords]uint32
	buildInfo(f[:])
	return BuildInfo{Queries: int(f[abi.BuildQueries]), Group: int(f[abi.BuildGroup]), HeadDim: int(f[abi.BuildHeadDim])}
}

// PrefillQuery selects a query of the prefill during Build: index is
// token*Group + head of the group, and those that follow are the next heads,
// then the next tokens.
func PrefillQuery(index int) Query { return abi.QueryOfPrefill<<abi.QueryTagShift | Query(index) }

// KeyQuery selects a stored key as a query during Build and Append; those
// that follow are the next positions.
func KeyQuery(position int) Query { return abi.QueryOfKey<<abi.QueryTagShift | Query(position) }

// State says how a token is treated.
type State uint32

// States.
const (
	Static  State = abi.StateStatic  // attended at every step
	Indexed State = abi.StateIndexed // attended when a search returns it
	Dropped State = abi.StateDropped // never attended
)

// Placing is what a policy is asked about.
type Placing struct {
	Tokens   int  // positions of the sequence
	Prefill  int  // of these, tokens of the prefill
	Decoding bool // false right after the prefill, when all tokens are static
	Layers   int
	KVHeads  int
	HeadDim  int
}

// PlaceInfo describes the call under way. For a policy's Place.
func PlaceInfo() Placing {
	var f [abi.PlaceWords]uint32
	placeInfo(f[:])
	return Placing{
		Tokens: int(f[abi.PlaceTokens]), Prefill: int(f[abi.PlacePrefill]), Decoding: f[abi.PlaceDecoding] != 0,
		Layers: int(f[abi.PlaceLayers]), KVHeads: int(f[abi.PlaceKVHeads]), HeadDim: int(f[abi.PlaceHeadDim]),
	}
}

// StateRanges writes the ranges of positions of a state in the layer, in
// order, to buf and returns how many there are, which may be more than buf
// holds. For a policy's Place.
func StateRanges(s State, buf []Range) int { return int(stateRanges(s, buf)) / 8 }

// Place gives positions [lo, hi) a state: Indexed or Dropped. The last token
// of the sequence must stay static, and a dropped one dropped. For a policy.
func Place(s State, lo, hi int) { place(s, uint32(lo), uint32(hi)) }

// Levels of [Log].
const (
	Debug = abi.LogDebug
	Info  = abi.LogInfo
	Warn  = abi.LogWarn
	Error = abi.LogError
)

// Log writes a line to the host's log: at most 4 KiB, 64 lines a call.
func Log(level int, text string) { logText(uint32(level), text) }

// need panics when a slice is too short for what the host would write to it.
func need(what string, have, want int) {
	if have < want {
		// fmt would add half again to a module.
		panic("ra: " + what + " has " + strconv.Itoa(have) + " elements, " + strconv.Itoa(want) + " are needed")
	}
}
