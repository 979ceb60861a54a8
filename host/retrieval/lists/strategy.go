package lists

import (
	"context"
	"fmt"
	"sync"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
	"github.com/retrievalattention/ra/host/retrieval/internal/cow"
)

// Params set the IVF strategy.
type Params struct {
	Build  BuildParams
	Search SearchParams
}

// DefaultParams read the best eighth of the keys.
func DefaultParams() Params { return Params{Search: SearchParams{Lists: 256}} }

// Strategy is search by inverted lists (IVF) for each KV head.
type Strategy struct {
	ix        compute.Indexer
	mem       cow.Memory
	p         Params
	searchers sync.Pool // *scratch
}

type scratch struct {
	*Searcher
	tops    []*kernel.TopK
	scores  []float32
	queries [][]float32
}

// NewStrategy returns the strategy; the memory of its lists is taken from
// mem.
func NewStrategy(ix compute.Indexer, mem cow.Memory, p Params) (*Strategy, error) {
	if err := p.Build.Validate(); err != nil {
		return nil, err
	}
	if p.Search.Lists < 0 || p.Search.Keys < 0 || p.Search == (SearchParams{}) {
		return nil, fmt.Errorf("list search %+v: the lists or the keys to read must be given, neither negative", p.Search)
	}
	return &Strategy{ix: ix, mem: mem, p: p}, nil
}

// Info names the strategy.
func (s *Strategy) Info() retrieval.Info {
	return retrieval.Info{Name: "ivf", Version: "1", Runtime: "native"}
}

// IndexBytes is the memory of the lists of so many tokens.
func (s *Strategy) IndexBytes(g kv.Geometry, tokens int) int64 {
	p := s.p.Build.withDefaults()
	rows := 1 // of head dimension, a list
	if p.Summaries {
		rows = 3
	}
	lists := (int64(tokens) + int64(p.PerList) - 1) / int64(p.PerList)
	return int64(g.Layers*g.KVHeads) * 4 * (int64(tokens) + lists*int64(rows*g.HeadDim))
}

func key(layer, kvHead int) kv.AttachmentKey {
	return kv.AttachmentKey{Owner: "ivf", Layer: layer, KVHead: kvHead}
}

// Build makes the layer's lists, one head after the other, each on all cores.
func (s *Strategy) Build(ctx context.Context, b *retrieval.Build) error {
	for h := range b.View.Context().Geometry().KVHeads {
		if err := s.build(ctx, b.View, b.Layer, h, retrieval.IndexedRanges(b.View, b.Layer)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Strategy) build(ctx context.Context, v *kv.View, layer, kvHead int, tokens []kv.Range) error {
	l, err := Build(ctx, s.ix, compute.Head{Context: v.Context(), Layer: layer, KVHead: kvHead}, s.mem, tokens, s.p.Build)
	if err != nil {
		return err
	}
	return v.Attach(key(layer, kvHead), l)
}

// Append assigns the tokens to the view's lists.
func (s *Strategy) Append(ctx context.Context, v *kv.View, layer int, r kv.Range) error {
	for h := range v.Context().Geometry().KVHeads {
		l, _ := v.Attachment(key(layer, h)).(*Lists)
		var err error
		if l == nil || l.Lists() == 0 { // nothing was indexed before
			err = s.build(ctx, v, layer, h, []kv.Range{r})
		} else if err = ctx.Err(); err == nil {
			err = l.Append(r, s.ix.Reader(compute.Head{Context: v.Context(), Layer: layer, KVHead: h}))
		}
		if err != nil {
			return fmt.Errorf("layer %d, KV head %d: %w", layer, h, err)
		}
	}
	return nil
}

// Search scans the best lists, one goroutine a KV head and sequence.
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
	l, _ := h.View.Attachment(key(call.Layer, h.KVHead)).(*Lists)
	if l == nil {
		return 0, fmt.Errorf("layer %d, KV head %d has no lists", call.Layer, h.KVHead)
	}
	sc, _ := s.searchers.Get().(*scratch)
	if sc == nil {
		sc = &scratch{Searcher: NewSearcher(s.ix)}
		for range kernel.MaxQueries {
			sc.tops = append(sc.tops, kernel.NewTopK(call.TopK))
		}
	}
	defer func() {
		sc.Keep = nil
		s.searchers.Put(sc)
	}()
	if len(sc.scores) < call.TopK {
		sc.scores = make([]float32, call.TopK)
	}
	sc.Open(l, compute.Head{Context: h.View.Context(), Layer: call.Layer, KVHead: h.KVHead})
	if l.Len() != indexed { // the view has placed some elsewhere since
		sc.Keep = func(id uint32) bool { return h.View.State(call.Layer, int(id)) == kv.Indexed }
	}
	for lo := 0; lo < len(h.Index); lo += kernel.MaxQueries {
		if err := ctx.Err(); err != nil {
			return scored, err
		}
		index := h.Index[lo:min(lo+kernel.MaxQueries, len(h.Index))]
		sc.queries = sc.queries[:0]
		for j, q := range index {
			sc.queries = append(sc.queries, call.Query(q))
			sc.tops[j].Reset(call.TopK)
		}
		scored += int64(sc.Searcher.Search(sc.queries, s.p.Search, sc.tops))
		for j, q := range index {
			hits := &res.Hits[q]
			hits.IDs = hits.Room(call.TopK)
			n := sc.tops[j].Take(hits.IDs, sc.scores)
			hits.IDs = hits.IDs[:n]
		}
	}
	return scored, nil
}

// Close does nothing: lists belong to views.
func (s *Strategy) Close() error { return nil }
