//go:build !wasip1

package ra

// Host stands in for the real one when a plugin is tested off WebAssembly.
// Its methods are the ABI's functions; package ratest has an implementation.
type Host interface {
	Log(level uint32, text string)
	StoreInfo(sequence, kvHead uint32, buf []uint32)
	IndexedRanges(sequence, kvHead uint32, buf []Range) uint32
	ReadVectors(what, sequence, kvHead uint32, ids []uint32, out []float32)
	QueriesInfo(buf []uint32)
	ReadQueries(q Query, n uint32, out []float32)
	Score(q Query, n uint32, ids []uint32, out []float32)
	ScoreRange(q Query, n, lo, hi uint32, out []float32)
	TopKRange(q Query, n, lo, hi, k uint32, ids []uint32, scores []float32, counts []uint32) uint32
	Emit(q Query, ids []uint32, bias []float32)
	EmitSummary(q Query, logits, logMults, values []float32)
	ReadHits(q Query, ids []uint32, logits []float32) uint32
	EmitBias(q Query, bias []float32)
	PutBlob(slot uint32, data []byte)
	GetBlob(sequence, kvHead, slot, offset uint32, buf []byte) uint32
	BuildInfo(buf []uint32)
	PlaceInfo(buf []uint32)
	StateRanges(s State, buf []Range) uint32
	Place(s State, lo, hi uint32)
}

// host is the attached one.
var host Host

// Attach makes h the host of the package's functions until detach is called.
// Tests that attach must not run in parallel.
func Attach(h Host) (detach func()) {
	before := host
	host = h
	return func() { host = before }
}

func logText(level uint32, text string) { host.Log(level, text) }

func storeInfo(sequence, kvHead uint32, buf []uint32) { host.StoreInfo(sequence, kvHead, buf) }

func indexedRanges(sequence, kvHead uint32, buf []Range) uint32 {
	return host.IndexedRanges(sequence, kvHead, buf)
}

func readVectors(what, sequence, kvHead uint32, ids []uint32, out []float32) {
	host.ReadVectors(what, sequence, kvHead, ids, out)
}

func queriesInfo(buf []uint32) { host.QueriesInfo(buf) }

func readQueries(q Query, n uint32, out []float32) { host.ReadQueries(q, n, out) }

func score(q Query, n uint32, ids []uint32, out []float32) { host.Score(q, n, ids, out) }

func scoreRange(q Query, n, lo, hi uint32, out []float32) { host.ScoreRange(q, n, lo, hi, out) }

func topKRange(q Query, n, lo, hi, k uint32, ids []uint32, scores []float32, counts []uint32) uint32 {
	return host.TopKRange(q, n, lo, hi, k, ids, scores, counts)
}

func emit(q Query, ids []uint32, bias []float32) { host.Emit(q, ids, bias) }

func emitSummary(q Query, logits, logMults, values []float32) {
	host.EmitSummary(q, logits, logMults, values)
}

func readHits(q Query, ids []uint32, logits []float32) uint32 { return host.ReadHits(q, ids, logits) }

func emitBias(q Query, bias []float32) { host.EmitBias(q, bias) }

func putBlob(slot uint32, data []byte) { host.PutBlob(slot, data) }

func getBlob(sequence, kvHead, slot, offset uint32, buf []byte) uint32 {
	return host.GetBlob(sequence, kvHead, slot, offset, buf)
}

func buildInfo(buf []uint32) { host.BuildInfo(buf) }

func placeInfo(buf []uint32) { host.PlaceInfo(buf) }

func stateRanges(s State, buf []Range) uint32 { return host.StateRanges(s, buf) }

func place(s State, lo, hi uint32) { host.Place(s, lo, hi) }
