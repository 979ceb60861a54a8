package retrieval

import (
	"cmp"
	"context"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/sched"
)

// HeadQueries are the queries of a call that search one KV head of one
// sequence.
type HeadQueries struct {
	View   *kv.View
	KVHead int
	Index  []int // of the queries in the call, token by token
}

// EachHead calls f for every KV head of every sequence of the call, side by
// side on the cores that there are, and returns the sum of what they returned, the pairs
// scored, with the first error.
func (c *Call) EachHead(ctx context.Context, f func(h HeadQueries) (scored int64, err error)) (int64, error) {
	kvHeads := c.Views[0].Context().Geometry().KVHeads
	group := c.Heads / kvHeads
	n := len(c.Views) * kvHeads
	scored, errs := make([]int64, n), make([]error, n)
	err := sched.Run(ctx, n, 0, func(i int, _ []float32) {
		seq, head := i/kvHeads, i%kvHeads
		h := HeadQueries{View: c.Views[seq], KVHead: head, Index: make([]int, 0, c.Tokens*group)}
		for t := range c.Tokens {
			for g := range group {
				h.Index = append(h.Index, (seq*c.Tokens+t)*c.Heads+head*group+g)
			}
		}
		scored[i], errs[i] = f(h)
	})
	var sum int64
	for _, n := range scored {
		sum += n
	}
	for _, e := range errs {
		err = cmp.Or(err, e)
	}
	return sum, err
}

// Room returns the ids of h with space for n, keeping memory.
func (h *Hits) Room(n int) []uint32 {
	if cap(h.IDs) < n {
		h.IDs = make([]uint32, n)
	}
	return h.IDs[:n]
}

// SampleQueries copies at most n of the prefill's queries of the heads that
// share a KV head, of evenly spaced tokens. It returns no rows when the build
// has no queries.
func (b *Build) SampleQueries(kvHead, n int) kernel.Rows {
	g := b.View.Context().Geometry()
	d, group := g.HeadDim, b.Heads/g.KVHeads
	tokens := len(b.Queries) / (b.Heads * d)
	take := min(tokens, max(n/group, 1))
	out := make([]float32, 0, take*group*d)
	for i := range take {
		at := (i*tokens/take*b.Heads + kvHead*group) * d
		out = append(out, b.Queries[at:at+group*d]...)
	}
	return kernel.RowsF32(out, d)
}

// IndexedRanges returns the ranges of the view's indexed tokens of a layer.
func IndexedRanges(v *kv.View, layer int) []kv.Range {
	var rs []kv.Range
	for r := range v.Ranges(layer, kv.Indexed) {
		rs = append(rs, r)
	}
	return rs
}
