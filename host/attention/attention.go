package attention

import (
	"context"
	"fmt"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
	"github.com/retrievalattention/ra/host/sched"
)

// Stats counts what one or more calls read. Sums are over query heads.
type Stats struct {
	Attended   int64 // tokens attended, static and retrieved
	KeysScored int64 // keys whose inner product with a query a search computed
	Context    int64 // tokens in context: what full attention would have attended
}

// Add adds o to s.
func (s *Stats) Add(o Stats) {
	s.Attended += o.Attended
	s.KeysScored += o.KeysScored
	s.Context += o.Context
}

// Layer computes attention for one request, reusing its buffers between
// steps. It is not safe for concurrent use.
type Layer struct {
	backend  compute.Attention
	strategy retrieval.Strategy
	topK     int
	heads    int

	static, found []kernel.Partial
	call          retrieval.Call
	result        retrieval.Result
	checker       retrieval.Checker
	ids           [][]uint32
	bias          [][]float32
}

// NewLayer returns attention for models with the given query heads and head
// dimension. The strategy may be nil when no token is ever indexed; it
// returns at most topK tokens a query head.
func NewLayer(backend compute.Attention, strategy retrieval.Strategy, topK, heads, dim int) *Layer {
	l := &Layer{backend: backend, strategy: strategy, topK: topK, heads: heads}
	l.static, l.found = partials(heads, dim), partials(heads, dim)
	l.ids, l.bias = make([][]uint32, heads), make([][]float32, heads)
	return l
}

func partials(n, dim int) []kernel.Partial {
	ps := make([]kernel.Partial, n)
	for i := range ps {
		ps[i].Acc = make([]float32, dim)
	}
	return ps
}

// Step writes to out, [heads][head dim], the attention of the token at
// position pos for the given layer and queries, [heads][head dim] after RoPE.
// The static part runs beside the search and the retrieved part.
func (l *Layer) Step(ctx context.Context, view *kv.View, layer, pos int, queries, out []float32) (Stats, error) {
	for h := range l.heads {
		l.static[h].Reset()
		l.found[h].Reset()
	}
	stats := Stats{
		Attended: int64(l.heads) * int64(view.Count(layer, kv.Static)),
		Context:  int64(l.heads) * int64(view.Len()),
	}
	var static, found error
	parts := 2 // the search first: whoever is done with the static part helps it
	if l.topK == 0 || view.Count(layer, kv.Indexed) == 0 {
		parts = 1
	}
	err := sched.Run(ctx, parts, 0, func(i int, _ []float32) {
		if i == parts-1 {
			static = l.backend.AttendStatic(view, layer, queries, l.static)
			return
		}
		var scored, attended int64
		scored, attended, found = l.retrieve(ctx, view, layer, pos, queries)
		stats.KeysScored += scored
		stats.Attended += attended
	})
	for _, e := range []error{found, static, err} {
		if e != nil {
			return Stats{}, e
		}
	}
	d := len(out) / l.heads
	for h := range l.heads {
		l.static[h].Merge(&l.found[h])
		l.static[h].Output(out[h*d : (h+1)*d])
	}
	return stats, nil
}

// retrieve searches the layer's indexed tokens and attends to what was found.
func (l *Layer) retrieve(ctx context.Context, view *kv.View, layer, pos int, queries []float32) (scored, attended int64, err error) {
	if l.strategy == nil {
		return 0, 0, fmt.Errorf("layer %d has indexed tokens but no search strategy", layer)
	}
	l.call = retrieval.Call{
		Views: append(l.call.Views[:0], view), Layer: layer, Tokens: 1, Heads: l.heads,
		Queries: queries, TopK: l.topK, Step: pos,
	}
	if err := l.strategy.Search(ctx, &l.call, &l.result); err != nil {
		return 0, 0, err
	}
	for h, hits := range l.result.Hits {
		if err := l.checker.Check(&l.call, h, hits); err != nil {
			return 0, 0, fmt.Errorf("search %s, layer %d, step %d: %w", l.strategy.Info(), layer, pos, err)
		}
		l.ids[h], l.bias[h] = hits.IDs, hits.Bias
		attended += int64(len(hits.IDs))
		d := l.call.Dim()
		for j, logit := range hits.Summaries.Logits {
			l.found[h].Add(logit+hits.Summaries.LogMults[j], hits.Summaries.Values[j*d:(j+1)*d])
		}
	}
	return l.result.KeysScored, attended, l.backend.AttendHits(view, layer, queries, l.ids, l.bias, l.found)
}
