package retrieval

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/sched"
)

// Flat is exact search: every indexed key is scored, each once for all query
// heads that share it.
type Flat struct {
	scanner compute.Scanner
	tops    sync.Pool // *[]*kernel.TopK
}

// NewFlat returns exact search on the given kernels.
func NewFlat(s compute.Scanner) *Flat { return &Flat{scanner: s} }

// Info names the strategy.
func (f *Flat) Info() Info { return Info{Name: "flat", Version: "1", Runtime: "native"} }

// Build does nothing: a scan needs no index.
func (f *Flat) Build(context.Context, *Build) error { return nil }

// Append does nothing: a scan needs no index.
func (f *Flat) Append(context.Context, *kv.View, int, kv.Range) error { return nil }

// Close does nothing.
func (f *Flat) Close() error { return nil }

// piece is the most positions that one unit of work scans: about a
// millisecond of work, next to which merging its hits is little.
const piece = 1 << 16

// Search scans the indexed tokens, split over sequences, KV heads, batches of
// queries and pieces of the context. A query's best of all pieces are the best
// of each piece's best, ties included, so that the split does not show.
func (f *Flat) Search(ctx context.Context, call *Call, res *Result) error {
	res.Reset(call.Count())
	kvHeads := call.Views[0].Context().Geometry().KVHeads
	batches := (call.Tokens*(call.Heads/kvHeads) + kernel.MaxQueries - 1) / kernel.MaxQueries
	pieces := 1
	for _, v := range call.Views {
		pieces = max(pieces, (v.Len()+piece-1)/piece)
		res.KeysScored += int64(call.Tokens*call.Heads) * int64(v.Count(call.Layer, kv.Indexed))
	}
	tops := make([]*[]*kernel.TopK, len(call.Views)*kvHeads*batches*pieces)
	scanned := make([]atomic.Int32, len(tops)/pieces) // pieces of each batch
	return sched.Run(ctx, len(tops), 0, func(i int, _ []float32) {
		b := i / pieces
		seq, head := b/batches/kvHeads, b/batches%kvHeads
		index := f.batch(call, seq, head, b%batches)
		tops[i] = f.scan(call, call.Views[seq], head, index, i%pieces)
		if int(scanned[b].Add(1)) == pieces {
			f.take(call, index, tops[b*pieces:(b+1)*pieces], res)
		}
	})
}

// batch returns the indices of some queries of one KV head of one sequence.
func (f *Flat) batch(call *Call, seq, head, batch int) []int {
	group := call.Heads / call.Views[0].Context().Geometry().KVHeads
	lo := batch * kernel.MaxQueries
	index := make([]int, min(kernel.MaxQueries, call.Tokens*group-lo))
	for j := range index {
		t, g := (lo+j)/group, (lo+j)%group
		index[j] = (seq*call.Tokens+t)*call.Heads + head*group + g
	}
	return index
}

// scan collects the best indexed keys of one piece of the view for each of
// the queries.
func (f *Flat) scan(call *Call, view *kv.View, head int, index []int, at int) *[]*kernel.TopK {
	queries := make([][]float32, len(index))
	for j, i := range index {
		queries[j] = call.Query(i)
	}
	tops := f.getTops(len(queries), call.TopK)
	for r := range view.Ranges(call.Layer, kv.Indexed) {
		r.Lo, r.Hi = max(r.Lo, at*piece), min(r.Hi, (at+1)*piece)
		if r.Lo < r.Hi {
			f.scanner.TopK(view.Context(), call.Layer, head, queries, r, *tops)
		}
	}
	return tops
}

// take merges what the pieces of a batch hold into the result.
func (f *Flat) take(call *Call, index []int, pieces []*[]*kernel.TopK, res *Result) {
	var scores []float32
	for j, i := range index {
		hits, n := &res.Hits[i], 0
		for _, p := range pieces {
			n += (*p)[j].Len()
		}
		n = min(n, call.TopK)
		hits.IDs, scores = slices.Grow(hits.IDs, n)[:n], slices.Grow(scores, n)[:n]
		best := (*pieces[0])[j]
		for _, p := range pieces[1:] {
			m := (*p)[j].Take(hits.IDs, scores)
			best.PushList(hits.IDs[:m], scores[:m])
		}
		best.Take(hits.IDs, scores)
	}
	for _, p := range pieces {
		f.tops.Put(p)
	}
}

func (f *Flat) getTops(n, k int) *[]*kernel.TopK {
	tops, _ := f.tops.Get().(*[]*kernel.TopK)
	if tops == nil {
		tops = new([]*kernel.TopK)
	}
	for len(*tops) < n {
		*tops = append(*tops, kernel.NewTopK(k))
	}
	*tops = (*tops)[:n]
	for _, t := range *tops {
		t.Reset(k)
	}
	return tops
}
