package process

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
	sdk "github.com/retrievalattention/ra/sdk/process"
)

// scan is the algorithm that BenchmarkSearch compares with itself: exact
// search of one KV head by the host's kernels.
func scan(queries [][]float32, k int, stretches func(yield func(int, kernel.Rows) bool)) [][]uint32 {
	const block = 1024
	tops, out := make([]*kernel.TopK, len(queries)), make([][]float32, len(queries))
	for j := range queries {
		tops[j], out[j] = kernel.NewTopK(k), make([]float32, block)
	}
	scratch := make([]float32, len(queries[0]))
	for start, rows := range stretches {
		for lo := 0; lo < rows.N; lo += block {
			hi := min(lo+block, rows.N)
			kernel.ScoreRange(queries, rows, lo, hi, out, scratch)
			for j, t := range tops {
				t.Push(uint32(start+lo), out[j][:hi-lo])
			}
		}
	}
	ids, scores := make([][]uint32, len(queries)), make([]float32, k)
	for j, t := range tops {
		ids[j] = make([]uint32, t.Len())
		t.Take(ids[j], scores)
	}
	return ids
}

// scanner runs scan in a plugin, the KV heads side by side.
type scanner struct{ sdk.NoIndex }

func (scanner) Search(_ context.Context, c *sdk.Call) error {
	s := c.Sequences[0]
	group := c.Heads / s.KVHeads
	var wg sync.WaitGroup
	for h := range s.KVHeads {
		wg.Go(func() {
			var queries [][]float32
			for g := range group {
				queries = append(queries, c.Query(h*group+g))
			}
			ids := scan(queries, c.TopK, func(yield func(int, kernel.Rows) bool) {
				for start, r := range s.IndexedKeys(h) {
					if !yield(start, kernel.RowsU16(r.U16, r.Dim, kernel.BF16)) {
						return
					}
				}
			})
			for g := range group {
				c.Emit(h*group+g, ids[g], nil)
			}
		})
	}
	wg.Wait()
	return nil
}

// native runs scan in the host.
func native(call *retrieval.Call, res *retrieval.Result) {
	res.Reset(call.Count())
	v := call.Views[0]
	kvHeads := v.Context().Geometry().KVHeads
	group := call.Heads / kvHeads
	var wg sync.WaitGroup
	for h := range kvHeads {
		wg.Go(func() {
			var queries [][]float32
			for g := range group {
				queries = append(queries, call.Query(h*group+g))
			}
			ids := scan(queries, call.TopK, func(yield func(int, kernel.Rows) bool) {
				for r := range v.Ranges(call.Layer, kv.Indexed) {
					for s := range v.Context().Segments(call.Layer, h, r.Lo, r.Hi) {
						if !yield(s.Start, s.Keys) {
							return
						}
					}
				}
			})
			for g := range group {
				res.Hits[h*group+g].IDs = ids[g]
			}
		})
	}
	wg.Wait()
}

// BenchmarkSearch is a layer call, 8 KV heads of 4 query heads, dimension 128,
// bf16, top 100, by a process and by the same code in the host, both with the
// check of the hits, taken in turns: medians, and the ratio of the two.
func BenchmarkSearch(b *testing.B) {
	for _, n := range []int{8 << 10, 32 << 10, 128 << 10} {
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			shared := memory(b)
			p := load(b, options(b, shared, "scan"))
			g := kv.Geometry{Layers: 1, KVHeads: 8, HeadDim: 128, DType: kernel.BF16}
			calls := make([]*retrieval.Call, 2) // over shared and over private memory
			for i, a := range []*kv.Allocator{shared, kv.NewAllocator(0)} {
				r := rand.New(rand.NewPCG(1, 1))
				calls[i] = newCall(r, 0, 1, 32, 100, indexed(tiled(b, a, r, g, n)))
			}
			var res, want retrieval.Result
			var checker retrieval.Checker
			var times [2][]time.Duration
			for b.Loop() {
				start := time.Now()
				if err := p.Search(b.Context(), calls[0], &res); err != nil {
					b.Fatal(err)
				}
				middle := time.Now()
				native(calls[1], &want)
				for i, h := range want.Hits {
					if err := checker.Check(calls[1], i, h); err != nil {
						b.Fatal(err)
					}
				}
				times[0] = append(times[0], middle.Sub(start))
				times[1] = append(times[1], time.Since(middle))
			}
			for i := range want.Hits {
				if !slices.Equal(res.Hits[i].IDs, want.Hits[i].IDs) {
					b.Fatalf("query %d is answered differently", i)
				}
			}
			process, inHost := median(times[0]), median(times[1])
			b.ReportMetric(process, "process-us")
			b.ReportMetric(inHost, "native-us")
			b.ReportMetric(process/inHost, "ratio")
		})
	}
}

// tiled is filled from few random vectors: a context that is large soon.
func tiled(b *testing.B, a *kv.Allocator, r *rand.Rand, g kv.Geometry, n int) *kv.Context {
	b.Helper()
	c, err := kv.NewContext(g, n, a)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	tiles := make([][]float32, 1021)
	for i := range tiles {
		tiles[i] = vector(r, g.HeadDim)
	}
	for h := range g.KVHeads {
		for pos := range n {
			c.Put(0, h, pos, tiles[r.IntN(len(tiles))], tiles[pos%len(tiles)])
		}
	}
	c.Commit(n)
	return c
}

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2].Nanoseconds()) / 1000
}

// BenchmarkEmptySearch is a search of 32 queries that finds nothing: the
// crossing alone.
func BenchmarkEmptySearch(b *testing.B) {
	a := memory(b)
	p := load(b, options(b, a, "empty"))
	r := rand.New(rand.NewPCG(2, 2))
	call := newCall(r, 0, 1, 32, 100, indexed(filled(b, a, r, kv.Geometry{Layers: 1, KVHeads: 8, HeadDim: 128, DType: kernel.BF16}, 1024)))
	var res retrieval.Result
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Search(b.Context(), call, &res); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStart is from nothing to a configured process, and its end.
func BenchmarkStart(b *testing.B) {
	o := options(b, memory(b), "flat")
	for b.Loop() {
		p, err := Load(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
