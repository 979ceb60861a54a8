//go:build wasip1

package ra

import (
	"runtime"
	"unsafe"
)

func addr[T any](s []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }

func logText(level uint32, text string) {
	importLog(level, unsafe.Pointer(unsafe.StringData(text)), uint32(len(text)))
}

func storeInfo(sequence, kvHead uint32, buf []uint32) {
	importStoreInfo(sequence, kvHead, addr(buf), uint32(4*len(buf)))
}

func indexedRanges(sequence, kvHead uint32, buf []Range) uint32 {
	return importIndexedRanges(sequence, kvHead, addr(buf), uint32(8*len(buf)))
}

func readVectors(what, sequence, kvHead uint32, ids []uint32, out []float32) {
	d := StoreInfo(int(sequence), int(kvHead)).HeadDim
	need("out", len(out), len(ids)*d)
	importReadVectors(what, sequence, kvHead, addr(ids), uint32(len(ids)), addr(out))
}

func queriesInfo(buf []uint32) { importQueriesInfo(addr(buf), uint32(4*len(buf))) }

func readQueries(q Query, n uint32, out []float32) {
	need("out", len(out), int(n)*current.HeadDim)
	importReadQueries(uint32(q), n, addr(out))
}

func score(q Query, n uint32, ids []uint32, out []float32) {
	importScore(uint32(q), n, addr(ids), uint32(len(ids)), addr(out))
}

func scoreRange(q Query, n, lo, hi uint32, out []float32) {
	importScoreRange(uint32(q), n, lo, hi, addr(out))
}

func topKRange(q Query, n, lo, hi, k uint32, ids []uint32, scores []float32, counts []uint32) uint32 {
	return importTopKRange(uint32(q), n, lo, hi, k, addr(ids), addr(scores), addr(counts))
}

func emitSummary(q Query, logits, logMults, values []float32) {
	importEmitSummary(uint32(q), uint32(len(logits)), addr(logits), addr(logMults), addr(values))
}

func readHits(q Query, ids []uint32, logits []float32) uint32 {
	return importHitsRead(uint32(q), addr(ids), addr(logits), uint32(len(ids)))
}

func emitBias(q Query, bias []float32) { importEmitBias(uint32(q), addr(bias), uint32(len(bias))) }

func putBlob(slot uint32, data []byte) { importBlobPut(slot, addr(data), uint32(len(data))) }

func getBlob(sequence, kvHead, slot, offset uint32, buf []byte) uint32 {
	return importBlobGet(sequence, kvHead, slot, offset, addr(buf), uint32(len(buf)))
}

func buildInfo(buf []uint32) { importBuildInfo(addr(buf), uint32(4*len(buf))) }

func placeInfo(buf []uint32) { importPlaceInfo(addr(buf), uint32(4*len(buf))) }

func stateRanges(s State, buf []Range) uint32 {
	return importStateRanges(uint32(s), addr(buf), uint32(8*len(buf)))
}

func place(s State, lo, hi uint32) { importPlace(uint32(s), lo, hi) }

func emit(q Query, ids []uint32, bias []float32) {
	importEmit(uint32(q), addr(ids), addr(bias), uint32(len(ids)))
}

// described keeps the text of ra_describe alive for the host to read.
var described string

//go:wasmexport ra_abi_v1
func exportMarker() {}

//go:wasmexport ra_describe
func exportDescribe() uint64 {
	described = Describe()
	p := uintptr(unsafe.Pointer(unsafe.StringData(described)))
	return uint64(p)<<32 | uint64(len(described))
}

//go:wasmexport ra_configure
func exportConfigure(paramsLen uint32) int32 {
	buf := make([]byte, paramsLen)
	n := importParamsRead(addr(buf), paramsLen)
	params := ParseParams(string(buf[:min(n, paramsLen)]))
	if policy != nil {
		return finish(policy.Configure(params))
	}
	return finish(plugin.Configure(params))
}

//go:wasmexport ra_build
func exportBuild(layer, kvHead uint32) int32 {
	return finish(plugin.Build(int(layer), int(kvHead)))
}

//go:wasmexport ra_append
func exportAppend(layer, kvHead, lo, hi uint32) int32 {
	return finish(plugin.Append(int(layer), int(kvHead), int(lo), int(hi)))
}

//go:wasmexport ra_search
func exportSearch(layer uint32) int32 { return finish(plugin.Search(BeginCall(int(layer)))) }

//go:wasmexport ra_weigh
func exportWeigh(layer uint32) int32 { return finish(plugin.(Weigher).Weigh(BeginCall(int(layer)))) }

//go:wasmexport ra_place
func exportPlace(layer uint32) int32 { return finish(policy.Place(int(layer))) }

// collectEvery is the number of calls between two garbage collections. The
// runtime gets no chance to collect in the background, for nothing of it runs
// between calls.
const collectEvery = 1024

var calls uint32

// finish ends a call: it reports err and collects garbage when it is time.
func finish(err error) int32 {
	status := int32(0)
	if err != nil {
		text := err.Error()
		importFail(unsafe.Pointer(unsafe.StringData(text)), uint32(len(text)))
		status = 1
	}
	if calls++; calls%collectEvery == 0 || current.u32.grew || current.f32.grew {
		current.u32.grew, current.f32.grew = false, false
		runtime.GC()
	}
	return status
}
