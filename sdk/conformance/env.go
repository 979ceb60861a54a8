package conformance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

// env is what a check works with: the strategy, the exact one beside it, and
// contexts that are closed when the check is over.
type env struct {
	ctx      context.Context
	o        *Options
	strategy retrieval.Strategy
	exact    *retrieval.Flat
	backend  compute.Backend
	rng      *rand.Rand
	checker  retrieval.Checker
	contexts []*kv.Context
	views    []*kv.View
}

func newEnv(ctx context.Context, s retrieval.Strategy, o *Options) *env {
	b := compute.NewCPU()
	return &env{ctx: ctx, o: o, strategy: s, backend: b, exact: retrieval.NewFlat(b), rng: rand.New(rand.NewPCG(o.Seed, 17))}
}

func (e *env) close() error {
	var errs []error
	for _, v := range e.views {
		errs = append(errs, v.Close())
	}
	for _, c := range e.contexts {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, e.backend.Close())...)
}

// shape of a sequence and of the calls on it.
type shape struct {
	kvHeads, group, dim int
	dtype               kernel.DType
	tokens              int // of the prefill
	sink, window        int
	topK                int
}

// usual is a shape like that of a small model.
var usual = shape{kvHeads: 2, group: 4, dim: 64, dtype: kernel.BF16, tokens: 700, sink: 16, window: 64, topK: 20}

// layer is the one of the two that checks work on.
const layer = 1

// sequence is a prefilled context and its view.
type sequence struct {
	shape
	kvc  *kv.Context
	view *kv.View
	// queries of the prefill, [tokens][heads][dim].
	queries []float32
}

// vector returns a random vector.
func (e *env) vector(dim int) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(e.rng.NormFloat64())
	}
	return v
}

// prefill returns a sequence of random tokens whose middle is indexed, and
// lets the strategy build. edit may change each key.
func (e *env) prefill(s shape, edit func(head, pos int, key []float32)) (*sequence, error) {
	geo := kv.Geometry{Layers: layer + 1, KVHeads: s.kvHeads, HeadDim: s.dim, DType: s.dtype}
	c, err := kv.NewContext(geo, max(s.tokens, 1), e.o.Allocator)
	if err != nil {
		return nil, err
	}
	e.contexts = append(e.contexts, c)
	q := &sequence{shape: s, kvc: c}
	e.store(q, s.tokens, edit)
	c.Commit(s.tokens)
	q.view = kv.NewView(c)
	e.views = append(e.views, q.view)
	if lo, hi := min(s.sink, s.tokens), s.tokens-s.window; lo < hi {
		q.view.Place(layer, kv.Range{Lo: lo, Hi: hi}, kv.Indexed)
	}
	for range s.tokens * s.kvHeads * s.group {
		q.queries = append(q.queries, e.vector(s.dim)...)
	}
	return q, e.strategy.Build(e.ctx, &retrieval.Build{View: q.view, Layer: layer, Heads: s.kvHeads * s.group, Queries: q.queries})
}

// store fills the next n tokens of the layer.
func (e *env) store(q *sequence, n int, edit func(head, pos int, key []float32)) {
	for h := range q.kvHeads {
		for p := q.kvc.Len(); p < q.kvc.Len()+n; p++ {
			key := e.vector(q.dim)
			if edit != nil {
				edit(h, p, key)
			}
			q.kvc.Put(layer, h, p, key, e.vector(q.dim))
		}
	}
}

// fork returns a second sequence that goes on from q.
func (e *env) fork(q *sequence) *sequence {
	f := *q
	f.kvc = q.kvc.Fork()
	e.contexts = append(e.contexts, f.kvc)
	f.view = q.view.Fork(f.kvc)
	e.views = append(e.views, f.view)
	return &f
}

// decode appends n tokens and lets those that left the window be indexed.
func (e *env) decode(q *sequence, n int, edit func(head, pos int, key []float32)) error {
	if err := q.kvc.Reserve(n); err != nil {
		return err
	}
	e.store(q, n, edit)
	q.kvc.Commit(n)
	q.view.Extend(n)
	for r := range q.view.Ranges(layer, kv.Static) {
		r = kv.Range{Lo: max(r.Lo, q.sink), Hi: min(r.Hi, q.kvc.Len()-q.window)}
		if r.Len() > 0 {
			q.view.Place(layer, r, kv.Indexed)
			return e.strategy.Append(e.ctx, q.view, layer, r)
		}
	}
	return nil
}

// call returns a search with random queries.
func (e *env) call(tokens int, seqs ...*sequence) *retrieval.Call {
	s := seqs[0].shape
	c := &retrieval.Call{Layer: layer, Tokens: tokens, Heads: s.kvHeads * s.group, TopK: s.topK, Step: seqs[0].kvc.Len()}
	for _, q := range seqs {
		c.Views = append(c.Views, q.view)
	}
	for range c.Count() {
		c.Queries = append(c.Queries, e.vector(s.dim)...)
	}
	return c
}

// search runs a call and checks its hits.
func (e *env) search(c *retrieval.Call) (*retrieval.Result, error) {
	res := &retrieval.Result{}
	if err := e.strategy.Search(e.ctx, c, res); err != nil {
		return nil, fmt.Errorf("search: %w", err)
	}
	if len(res.Hits) != c.Count() {
		return nil, fmt.Errorf("%d answers to %d queries", len(res.Hits), c.Count())
	}
	for i, h := range res.Hits {
		if err := e.checker.Check(c, i, h); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// recall returns the share of the exact top-k that res holds.
func (e *env) recall(c *retrieval.Call, res *retrieval.Result) (float64, error) {
	var exact retrieval.Result
	if err := e.exact.Search(e.ctx, c, &exact); err != nil {
		return 0, err
	}
	found, all := 0, 0
	for i, h := range exact.Hits {
		have := map[uint32]bool{}
		for _, id := range res.Hits[i].IDs {
			have[id] = true
		}
		for _, id := range h.IDs {
			all++
			if have[id] {
				found++
			}
		}
	}
	if all == 0 {
		return 1, nil
	}
	return float64(found) / float64(all), nil
}
