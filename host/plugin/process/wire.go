package process

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

var dtypes = map[kernel.DType]contract.DType{
	kernel.F32: contract.DType_DTYPE_F32, kernel.BF16: contract.DType_DTYPE_BF16, kernel.F16: contract.DType_DTYPE_F16,
}

// sequence describes one layer of a view.
func sequence(v *kv.View, layer int) (*contract.Sequence, error) {
	c := v.Context()
	if !c.Shared() {
		return nil, fmt.Errorf("the context's memory is not shared")
	}
	geo := c.Geometry()
	s := &contract.Sequence{
		View: v.ID(), Tokens: uint32(v.Len()),
		KvHeads: uint32(geo.KVHeads), HeadDim: uint32(geo.HeadDim), Dtype: dtypes[geo.DType],
	}
	if parent := v.Parent(); parent != nil {
		s.Parent = parent.ID()
	}
	for e := range c.Extents(layer, v.Len()) {
		s.Segments = append(s.Segments, &contract.Segment{
			Start: uint32(e.Start), Rows: uint32(e.Rows), Keys: uint64(e.Keys), Values: uint64(e.Values),
			HeadStride: uint64(e.HeadStride), RowStride: uint64(e.RowStride),
		})
	}
	for r := range v.Ranges(layer, kv.Indexed) {
		s.Indexed = append(s.Indexed, wireRange(r))
	}
	return s, nil
}

func wireRange(r kv.Range) *contract.Range {
	return &contract.Range{Lo: uint32(r.Lo), Hi: uint32(r.Hi)}
}

func searchRequest(call *retrieval.Call) (*contract.SearchRequest, error) {
	q := &contract.SearchRequest{
		Layer: uint32(call.Layer), Heads: uint32(call.Heads), Tokens: uint32(call.Tokens),
		TopK: uint32(call.TopK), Step: uint32(call.Step), Queries: littleEndian(call.Queries),
	}
	for _, v := range call.Views {
		s, err := sequence(v, call.Layer)
		if err != nil {
			return nil, err
		}
		q.Sequences = append(q.Sequences, s)
	}
	return q, nil
}

// littleEndian views floats as bytes: the order of every machine that ra
// runs on.
func littleEndian(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

// answerLimit is the size of the largest valid answer.
func answerLimit(call *retrieval.Call) int {
	return min(call.Count()*(8*call.TopK+8)+1024, contract.MaxMessage)
}

// hits moves an answer to res, whose hits are still to be checked.
func hits(call *retrieval.Call, a *contract.SearchResponse, res *retrieval.Result) error {
	if len(a.Counts) != call.Count() {
		return fmt.Errorf("%w: %d counts for %d queries", retrieval.ErrHits, len(a.Counts), call.Count())
	}
	total := 0
	for _, n := range a.Counts {
		total += int(n)
	}
	if len(a.Ids) != 4*total {
		return fmt.Errorf("%w: %d bytes of ids, the counts say %d", retrieval.ErrHits, len(a.Ids), 4*total)
	}
	if len(a.Bias) != 0 && len(a.Bias) != len(a.Ids) {
		return fmt.Errorf("%w: %d bytes of biases for %d bytes of ids", retrieval.ErrHits, len(a.Bias), len(a.Ids))
	}
	ids, bias := a.Ids, a.Bias
	for i, n := range a.Counts {
		h := &res.Hits[i]
		for range n {
			h.IDs = append(h.IDs, binary.LittleEndian.Uint32(ids))
			ids = ids[4:]
		}
		if len(a.Bias) == 0 {
			continue
		}
		h.Bias = make([]float32, n)
		for j := range h.Bias {
			h.Bias[j] = math.Float32frombits(binary.LittleEndian.Uint32(bias))
			bias = bias[4:]
		}
	}
	res.KeysScored = int64(min(a.KeysScored, math.MaxInt64))
	return nil
}
