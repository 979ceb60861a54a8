package retrieval_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/internal/synth"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval/graph"
	"github.com/retrievalattention/ra/host/retrieval/lists"
)

// benchSet is 131,072 keys of dimension 128 in bf16 with 32,768 queries of the
// prefill, 1,000 held-out ones and the exact top 100 of those.
type benchSet struct {
	*synth.Set
	ix    compute.Indexer
	head  compute.Head
	nodes []kv.Range
	exact []uint32
}

const benchKeys, benchTop = 131072, 100

func newBenchSet(hard bool) *benchSet {
	made, err := synth.New(synth.Params{Keys: benchKeys, Dim: 128, Group: 1, Hard: hard, Prefill: benchKeys / 4, Decode: 1000, Seed: 1})
	if err != nil {
		panic(err)
	}
	c, err := kv.NewContext(kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: 128, DType: kernel.BF16}, 0, kv.NewAllocator(0))
	if err != nil {
		panic(err)
	}
	if err := made.Fill(c, 0, benchKeys); err != nil {
		panic(err)
	}
	s := &benchSet{Set: made, ix: compute.NewCPU(), head: compute.Head{Context: c}, nodes: []kv.Range{{Lo: 0, Hi: benchKeys}}}
	s.exact = make([]uint32, 1000*benchTop)
	if _, err := s.ix.KNN(context.Background(), s.head, kernel.RowsF32(made.Test, 128), s.nodes, benchTop, s.exact, nil, nil); err != nil {
		panic(err)
	}
	return s
}

var benchSets = map[string]func() *benchSet{
	"mild": sync.OnceValue(func() *benchSet { return newBenchSet(false) }),
	"hard": sync.OnceValue(func() *benchSet { return newBenchSet(true) }),
}

// run reports the time of one query on one thread, and recall and the share
// of keys scored over all of them in order.
func (s *benchSet) run(b *testing.B, search func(query []float32, ids []uint32) (found, scored int)) {
	ids := make([]uint32, benchTop)
	hits, scored := 0, 0
	for i := range 1000 {
		n, m := search(s.Query(i, 0), ids)
		scored += m
		for _, id := range s.exact[i*benchTop : (i+1)*benchTop] {
			if slices.Contains(ids[:n], id) {
				hits++
			}
		}
	}
	i := 0
	for b.Loop() {
		search(s.Query(i%1000, 0), ids)
		i++
	}
	b.ReportMetric(float64(hits)/(1000*benchTop), "recall")
	b.ReportMetric(100*float64(scored)/(1000*benchKeys), "%keys")
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N), "us/query")
	b.ReportMetric(0, "ns/op")
}

func eachSet(b *testing.B, f func(b *testing.B, s *benchSet)) {
	for _, name := range []string{"mild", "hard"} {
		b.Run(name, func(b *testing.B) { f(b, benchSets[name]()) })
	}
}

func BenchmarkGraph(b *testing.B) {
	eachSet(b, func(b *testing.B, s *benchSet) {
		start := time.Now()
		g, err := graph.Build(context.Background(), s.ix, s.head, kv.NewAllocator(0), s.nodes, kernel.RowsF32(s.Queries, 128), graph.BuildParams{})
		if err != nil {
			b.Fatal(err)
		}
		defer g.Close()
		built := time.Since(start).Seconds()
		x := graph.NewSearcher(s.ix)
		x.Open(g, s.head)
		scores := make([]float32, benchTop)
		for _, beam := range []int{100, 150, 200, 300, 400, 800} {
			b.Run(fmt.Sprintf("beam=%d", beam), func(b *testing.B) {
				var recent []uint32
				s.run(b, func(q []float32, ids []uint32) (int, int) {
					n := x.Search(q, graph.SearchParams{Beam: beam}, recent, ids, scores)
					recent = append(recent[:0], ids[:min(n, 32)]...)
					return n, x.Scored()
				})
				b.ReportMetric(built, "s-build")
				b.ReportMetric(float64(g.Bytes())/benchKeys, "B/key")
			})
		}
	})
}

func BenchmarkLists(b *testing.B) {
	eachSet(b, func(b *testing.B, s *benchSet) {
		start := time.Now()
		l, err := lists.Build(context.Background(), s.ix, s.head, kv.NewAllocator(0), s.nodes, lists.BuildParams{})
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		built := time.Since(start).Seconds()
		x := lists.NewSearcher(s.ix)
		x.Open(l, s.head)
		scores, tops, queries := make([]float32, benchTop), []*kernel.TopK{kernel.NewTopK(benchTop)}, make([][]float32, 1)
		for _, n := range []int{32, 64, 128, 256, 512} {
			b.Run(fmt.Sprintf("lists=%d", n), func(b *testing.B) {
				s.run(b, func(q []float32, ids []uint32) (int, int) {
					queries[0] = q
					tops[0].Reset(benchTop)
					scored := x.Search(queries, lists.SearchParams{Lists: n}, tops)
					return tops[0].Take(ids, scores), scored
				})
				b.ReportMetric(built, "s-build")
				b.ReportMetric(float64(l.Bytes())/benchKeys, "B/key")
			})
		}
	})
}

func BenchmarkFlat(b *testing.B) {
	s := benchSets["hard"]()
	tops, queries, scores := []*kernel.TopK{kernel.NewTopK(benchTop)}, make([][]float32, 1), make([]float32, benchTop)
	s.run(b, func(q []float32, ids []uint32) (int, int) {
		queries[0] = q
		tops[0].Reset(benchTop)
		s.ix.TopK(s.head.Context, 0, 0, queries, s.nodes[0], tops)
		return tops[0].Take(ids, scores), benchKeys
	})
}

// BenchmarkInsert appends tokens to the graph of a fork, 64 at a time, in
// the time of one.
func BenchmarkInsert(b *testing.B) {
	s := benchSets["hard"]()
	nodes := []kv.Range{{Lo: 0, Hi: 1 << 15}}
	g, err := graph.Build(context.Background(), s.ix, s.head, kv.NewAllocator(0), nodes, kernel.RowsF32(s.Queries[:1<<20], 128), graph.BuildParams{})
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	at := 0
	f := g.Fork().(*graph.Graph)
	for b.Loop() {
		if at%64 == 0 {
			lo := 1<<15 + at
			if lo+64 > benchKeys { // begin again
				f.Close()
				f, at, lo = g.Fork().(*graph.Graph), 0, 1<<15
			}
			if err := f.Insert(context.Background(), s.ix, s.head, kv.Range{Lo: lo, Hi: lo + 64}, graph.InsertParams{}); err != nil {
				b.Fatal(err)
			}
		}
		at++
	}
	f.Close()
}
