package retrieval_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// filled returns a context of n random tokens.
func filled(t *testing.T, r *rand.Rand, g kv.Geometry, n int) *kv.Context {
	t.Helper()
	c, err := kv.NewContext(g, 0, kv.NewAllocator(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	grow(t, r, c, n)
	return c
}

func grow(t *testing.T, r *rand.Rand, c *kv.Context, n int) {
	t.Helper()
	if err := c.Reserve(n); err != nil {
		t.Fatal(err)
	}
	g := c.Geometry()
	for l := range g.Layers {
		for h := range g.KVHeads {
			for p := c.Len(); p < c.Len()+n; p++ {
				c.Put(l, h, p, vector(r, g.HeadDim), vector(r, g.HeadDim))
			}
		}
	}
	c.Commit(n)
}

func vector(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// key returns a stored key as f32.
func key(c *kv.Context, layer, head, pos int) []float32 {
	out := make([]float32, c.Geometry().HeadDim)
	for s := range c.Segments(layer, head, pos, pos+1) {
		s.Keys.Widen(0, out)
	}
	return out
}

// Flat search returns the same ids as sorting every indexed key by its inner
// product in f64, over several geometries, forks and token axes.
func TestFlatAgainstSort(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct{ kvHeads, group, seqs, tokens, n, k int }{
		{2, 1, 1, 1, 300, 10}, {2, 2, 1, 1, 1500, 100}, {1, 8, 1, 1, 200, 7}, {3, 4, 2, 3, 90, 5}, {1, 16, 1, 1, 64, 64}, {2, 2, 1, 1, 3, 10},
		{1, 2, 2, 1, 70_000, 50}, // in pieces
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			const layer, dim = 1, 16
			g := kv.Geometry{Layers: 2, KVHeads: c.kvHeads, HeadDim: dim, DType: kernel.F32}
			call := &retrieval.Call{Layer: layer, Tokens: c.tokens, Heads: c.kvHeads * c.group, TopK: c.k}
			base := filled(t, r, g, c.n)
			for range c.seqs {
				fork := base.Fork()
				t.Cleanup(func() { fork.Close() })
				grow(t, r, fork, 40)
				v := kv.NewView(fork)
				v.Place(layer, kv.Range{Lo: c.n / 10, Hi: c.n + 20}, kv.Indexed)
				v.Place(layer, kv.Range{Lo: c.n / 2, Hi: c.n/2 + c.n/10}, kv.Dropped)
				call.Views = append(call.Views, v)
			}
			call.Queries = vector(r, call.Count()*dim)
			var res retrieval.Result
			flat := retrieval.NewFlat(compute.NewCPU())
			for range 2 { // the second search reuses the result's memory
				if err := flat.Search(context.Background(), call, &res); err != nil {
					t.Fatal(err)
				}
				var checker retrieval.Checker
				var scored int64
				for i, hits := range res.Hits {
					if err := checker.Check(call, i, hits); err != nil {
						t.Error(err)
					}
					view := call.View(i)
					var ids []int
					scores := map[int]float64{}
					for rg := range view.Ranges(layer, kv.Indexed) {
						for p := rg.Lo; p < rg.Hi; p++ {
							ids = append(ids, p)
							for j, x := range key(view.Context(), layer, call.KVHead(i), p) {
								scores[p] += float64(x) * float64(call.Query(i)[j])
							}
						}
					}
					scored += int64(len(ids))
					slices.SortFunc(ids, func(a, b int) int {
						if scores[a] > scores[b] {
							return -1
						}
						return 1
					})
					var want []uint32
					for _, id := range ids[:min(c.k, len(ids))] {
						want = append(want, uint32(id))
					}
					if !slices.Equal(hits.IDs, want) {
						t.Fatalf("query %d: %v, want %v", i, hits.IDs, want)
					}
				}
				if res.KeysScored != scored {
					t.Errorf("%d keys scored, want %d", res.KeysScored, scored)
				}
			}
		})
	}
}

func TestCheck(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	c := filled(t, r, kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: 2}, 100)
	v := kv.NewView(c)
	v.Place(0, kv.Range{Lo: 10, Hi: 90}, kv.Indexed)
	v.Place(0, kv.Range{Lo: 50, Hi: 60}, kv.Dropped)
	call := &retrieval.Call{Views: []*kv.View{v}, Tokens: 1, Heads: 1, TopK: 4, Queries: vector(r, 2)}
	inf := float32(math.Inf(1))
	var checker retrieval.Checker
	for _, c := range []struct {
		hits retrieval.Hits
		want string // "" for valid
	}{
		{retrieval.Hits{}, ""},
		{retrieval.Hits{IDs: []uint32{10, 89, 49, 60}}, ""},
		{retrieval.Hits{IDs: []uint32{10}, Bias: []float32{-1e30}}, ""},
		{retrieval.Hits{IDs: []uint32{10, 11, 12, 13, 14}}, "5 hits, at most 4"},
		{retrieval.Hits{IDs: []uint32{100}}, "id 100 is out of range, the context has 100 tokens"},
		{retrieval.Hits{IDs: []uint32{math.MaxUint32}}, "id 4294967295 is out of range"},
		{retrieval.Hits{IDs: []uint32{20, 30, 20}}, "id 20 was returned twice"},
		{retrieval.Hits{IDs: []uint32{9}}, "id 9 is a static token"},
		{retrieval.Hits{IDs: []uint32{90}}, "id 90 is a static token"},
		{retrieval.Hits{IDs: []uint32{55}}, "id 55 is a dropped token"},
		{retrieval.Hits{IDs: []uint32{10}, Bias: []float32{inf}}, "the bias of id 10 is +Inf"},
		{retrieval.Hits{IDs: []uint32{10}, Bias: []float32{}}, "0 biases for 1 ids"},
		{summaries(1, -3, 1, 2), ""},
		{summaries(inf, 0, 1, 2), "a summary has the element +Inf"},
		{summaries(1, -inf, 1, 2), "a summary has the element -Inf"},
		{summaries(1, 0, 1, float32(math.NaN())), "a summary has the element NaN"},
		{summaries(1, 0, 1), "1 logits, 1 multiplicities and 1 value elements do not make summaries"},
		{retrieval.Hits{Summaries: retrieval.Summaries{Logits: make([]float32, retrieval.MaxSummaries+1)}}, "16385 summaries, at most 16384"},
	} {
		err := checker.Check(call, 0, c.hits)
		if c.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", c.hits, err)
			}
			continue
		}
		if !errors.Is(err, retrieval.ErrHits) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.hits, err, c.want)
		}
		// What one bad answer leaves behind must not spoil the next.
		if err := checker.Check(call, 0, retrieval.Hits{IDs: []uint32{20, 30, 49}}); err != nil {
			t.Errorf("after %+v: %v", c.hits, err)
		}
	}
}

func summaries(logit, logMult float32, value ...float32) (h retrieval.Hits) {
	h.Summaries.Add(logit, logMult, value)
	return h
}

func TestInfoString(t *testing.T) {
	for _, c := range []struct {
		info retrieval.Info
		want string
	}{
		{retrieval.Info{Name: "flat"}, "flat"},
		{retrieval.Info{Name: "x", Digest: "sha256:0123456789abcdef"}, "x@sha256:0123456789ab"},
	} {
		if got := c.info.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
