package retrieval

import (
	"context"
	"sync"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
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

// Search scans the indexed tokens, one goroutine a KV head and sequence.
func (f *Flat) Search(ctx context.Context, call *Call, res *Result) error {
	res.Reset(call.Count())
	kvHeads := call.Views[0].Context().Geometry().KVHeads
	var wg sync.WaitGroup
	scored := make([]int64, len(call.Views)*kvHeads)
	for s := range call.Views {
		for h := range kvHeads {
			wg.Go(func() { scored[s*kvHeads+h] = f.searchHead(ctx, call, s, h, kvHeads, res) })
		}
	}
	wg.Wait()
	for _, n := range scored {
		res.KeysScored += n
	}
	return ctx.Err()
}

// searchHead answers the queries of one KV head of one sequence and returns
// the pairs scored.
func (f *Flat) searchHead(ctx context.Context, call *Call, seq, kvHead, kvHeads int, res *Result) (scored int64) {
	group := call.Heads / kvHeads
	view := call.Views[seq]
	var queries [][]float32
	var index []int
	flush := func() {
		tops := f.getTops(len(queries), call.TopK)
		for r := range view.Ranges(call.Layer, kv.Indexed) {
			f.scanner.TopK(view.Context(), call.Layer, kvHead, queries, r, *tops)
			scored += int64(len(queries)) * int64(r.Len())
		}
		scores := make([]float32, call.TopK)
		for j, i := range index {
			hits := &res.Hits[i]
			n := (*tops)[j].Len()
			if cap(hits.IDs) < n {
				hits.IDs = make([]uint32, n)
			}
			hits.IDs = hits.IDs[:n]
			(*tops)[j].Take(hits.IDs, scores)
		}
		f.tops.Put(tops)
		queries, index = queries[:0], index[:0]
	}
	for t := range call.Tokens {
		for g := range group {
			if ctx.Err() != nil {
				return scored
			}
			i := (seq*call.Tokens+t)*call.Heads + kvHead*group + g
			queries, index = append(queries, call.Query(i)), append(index, i)
			if len(queries) == kernel.MaxQueries {
				flush()
			}
		}
	}
	if len(queries) > 0 {
		flush()
	}
	return scored
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
