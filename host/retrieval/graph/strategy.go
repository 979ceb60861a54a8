package graph

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
	"github.com/retrievalattention/ra/host/retrieval/internal/cow"
)

// Params set the graph strategy.
type Params struct {
	Build   BuildParams
	Insert  InsertParams
	Search  SearchParams
	Queries int // most prefill queries that the graph of a KV head is built from
	Recent  int // hits of a head's last search that the next one begins at, too
}

// DefaultParams are those that the benchmarks recommend.
func DefaultParams() Params {
	return Params{Search: SearchParams{Beam: 200}, Queries: 32768, Recent: 32}
}

// Strategy is search by one graph for each KV head.
type Strategy struct {
	ix        compute.Indexer
	mem       cow.Memory
	p         Params
	searchers sync.Pool // *scratch
}

type scratch struct {
	*Searcher
	scores []float32
}

// NewStrategy returns the strategy; the memory of its graphs is taken from
// mem.
func NewStrategy(ix compute.Indexer, mem cow.Memory, p Params) (*Strategy, error) {
	if err := p.Build.Validate(); err != nil {
		return nil, err
	}
	if p.Search.Beam < 1 || p.Search.Batch < 0 || p.Insert.Beam < 0 || p.Queries < 0 || p.Recent < 0 {
		return nil, fmt.Errorf("graph search %+v: the beam must be positive, nothing else negative", p)
	}
	return &Strategy{ix: ix, mem: mem, p: p}, nil
}

// Info names the strategy.
func (s *Strategy) Info() retrieval.Info {
	return retrieval.Info{Name: "graph", Version: "1", Runtime: "native"}
}

// UsesPrefillQueries asks for the queries that graphs are built from.
func (s *Strategy) UsesPrefillQueries() bool { return s.p.Queries > 0 }

// IndexBytes is the memory of the graphs of so many tokens.
func (s *Strategy) IndexBytes(g kv.Geometry, tokens int) int64 {
	row := 4 * int64(s.p.Build.withDefaults().Degree)
	return int64(g.Layers*g.KVHeads) * int64(tokens) * row
}

// head is what the strategy keeps for one KV head of a view.
type head struct {
	*Graph
	recent [][]uint32 // by query head of the group
}

func (h *head) Fork() kv.Attachment {
	f := &head{Graph: h.Graph.fork(), recent: make([][]uint32, len(h.recent))}
	for i, ids := range h.recent {
		f.recent[i] = slices.Clone(ids)
	}
	return f
}

func key(layer, kvHead int) kv.AttachmentKey {
	return kv.AttachmentKey{Owner: "graph", Layer: layer, KVHead: kvHead}
}

// Build makes the layer's graphs, one after the other, each on all cores.
func (s *Strategy) Build(ctx context.Context, b *retrieval.Build) error {
	for h := range b.View.Context().Geometry().KVHeads {
		queries := b.SampleQueries(h, s.p.Queries)
		if err := s.build(ctx, b.View, b.Layer, h, retrieval.IndexedRanges(b.View, b.Layer), queries); err != nil {
			return err
		}
	}
	return nil
}

func (s *Strategy) build(ctx context.Context, v *kv.View, layer, kvHead int, nodes []kv.Range, queries kernel.Rows) error {
	at := compute.Head{Context: v.Context(), Layer: layer, KVHead: kvHead}
	g, err := Build(ctx, s.ix, at, s.mem, nodes, queries, s.p.Build)
	if err != nil {
		return err
	}
	return v.Attach(key(layer, kvHead), &head{Graph: g})
}

// Append inserts the tokens into the view's graphs.
func (s *Strategy) Append(ctx context.Context, v *kv.View, layer int, r kv.Range) error {
	for h := range v.Context().Geometry().KVHeads {
		g, _ := v.Attachment(key(layer, h)).(*head)
		var err error
		if g == nil || g.Len() == 0 { // nothing was indexed before
			err = s.build(ctx, v, layer, h, []kv.Range{r}, kernel.RowsF32(nil, v.Context().Geometry().HeadDim))
		} else {
			err = g.Insert(ctx, s.ix, compute.Head{Context: v.Context(), Layer: layer, KVHead: h}, r, s.p.Insert)
		}
		if err != nil {
			return fmt.Errorf("layer %d, KV head %d: %w", layer, h, err)
		}
	}
	return nil
}

// Search walks the graphs, one goroutine a KV head and sequence.
func (s *Strategy) Search(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error {
	res.Reset(call.Count())
	var err error
	res.KeysScored, err = call.EachHead(ctx, func(h retrieval.HeadQueries) (int64, error) {
		return s.searchHead(ctx, call, h, res)
	})
	return err
}

func (s *Strategy) searchHead(ctx context.Context, call *retrieval.Call, h retrieval.HeadQueries, res *retrieval.Result) (scored int64, err error) {
	indexed := h.View.Count(call.Layer, kv.Indexed)
	if indexed == 0 {
		return 0, nil
	}
	g, _ := h.View.Attachment(key(call.Layer, h.KVHead)).(*head)
	if g == nil {
		return 0, fmt.Errorf("layer %d, KV head %d has no graph", call.Layer, h.KVHead)
	}
	sc, _ := s.searchers.Get().(*scratch)
	if sc == nil {
		sc = &scratch{Searcher: NewSearcher(s.ix)}
	}
	defer func() {
		sc.Keep = nil
		s.searchers.Put(sc)
	}()
	if len(sc.scores) < call.TopK {
		sc.scores = make([]float32, call.TopK)
	}
	sc.Open(g.Graph, compute.Head{Context: h.View.Context(), Layer: call.Layer, KVHead: h.KVHead})
	if g.Len() != indexed { // the view has placed some elsewhere since
		sc.Keep = func(id uint32) bool { return h.View.State(call.Layer, int(id)) == kv.Indexed }
	}
	group := len(h.Index) / call.Tokens
	for len(g.recent) < group {
		g.recent = append(g.recent, nil)
	}
	for i, q := range h.Index {
		if err := ctx.Err(); err != nil {
			return scored, err
		}
		hits, recent := &res.Hits[q], &g.recent[i%group]
		hits.IDs = hits.Room(call.TopK)
		n := sc.Searcher.Search(call.Query(q), s.p.Search, *recent, hits.IDs, sc.scores)
		scored += int64(sc.Scored())
		hits.IDs = hits.IDs[:n]
		*recent = append((*recent)[:0], hits.IDs[:min(n, s.p.Recent)]...)
	}
	return scored, nil
}

// Close does nothing: graphs belong to views.
func (s *Strategy) Close() error { return nil }
