package plugin

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

// load loads a plugin with the tests' cache and no log, and closes it at the
// end of the test.
func load(t testing.TB, o Options) *Plugin {
	t.Helper()
	p, err := tryLoad(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryLoad(t testing.TB, o Options) (*Plugin, error) {
	t.Helper()
	if o.CacheDir == "" {
		o.cache = moduleCache
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	p, err := Load(t.Context(), o)
	if err == nil {
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return p, err
}

// geometry of a test's store and call.
type geometry struct {
	layers, kvHeads, group, dim int
	dtype                       kernel.DType
	tokens                      []int // stored, by segment: a fork each
	sink, window                int   // static at the beginning and end
	callTokens                  int
	topK                        int
}

// newView returns a view of a context with random keys, tokens in sink and
// window static, the rest indexed.
func newView(t testing.TB, g geometry, seed uint64) *kv.View {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	mem := kv.NewAllocator(0)
	var c *kv.Context
	for i, n := range g.tokens {
		if i == 0 {
			var err error
			if c, err = kv.NewContext(kv.Geometry{Layers: g.layers, KVHeads: g.kvHeads, HeadDim: g.dim, DType: g.dtype}, n, mem); err != nil {
				t.Fatal(err)
			}
		} else {
			parent := c
			c = parent.Fork()
			if err := parent.Close(); err != nil {
				t.Fatal(err)
			}
			if err := c.Reserve(n); err != nil {
				t.Fatal(err)
			}
		}
		first := c.Len()
		key := make([]float32, g.dim)
		for l := range g.layers {
			for h := range g.kvHeads {
				for pos := first; pos < first+n; pos++ {
					for j := range key {
						key[j] = float32(rng.NormFloat64())
					}
					c.Put(l, h, pos, key, key)
				}
			}
		}
		c.Commit(n)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	v := kv.NewView(c)
	if lo, hi := g.sink, c.Len()-g.window; lo < hi {
		for l := range g.layers {
			v.Place(l, kv.Range{Lo: lo, Hi: hi}, kv.Indexed)
		}
	}
	return v
}

// newCall returns a call with random queries over the views.
func newCall(g geometry, seed uint64, views ...*kv.View) *retrieval.Call {
	rng := rand.New(rand.NewPCG(seed, 2))
	c := &retrieval.Call{Views: views, Layer: g.layers - 1, Tokens: max(1, g.callTokens), Heads: g.kvHeads * g.group, TopK: g.topK, Step: 7}
	c.Queries = make([]float32, c.Count()*g.dim)
	for i := range c.Queries {
		c.Queries[i] = float32(rng.NormFloat64())
	}
	return c
}

// sameHits fails unless two results hold the same sets.
func sameHits(t testing.TB, got, want *retrieval.Result) {
	t.Helper()
	if len(got.Hits) != len(want.Hits) {
		t.Fatalf("%d answers, want %d", len(got.Hits), len(want.Hits))
	}
	for i := range want.Hits {
		g, w := slices.Sorted(slices.Values(got.Hits[i].IDs)), slices.Sorted(slices.Values(want.Hits[i].IDs))
		if !slices.Equal(g, w) {
			t.Fatalf("query %d: got %v, want %v", i, g, w)
		}
	}
	if got.KeysScored != want.KeysScored {
		t.Fatalf("%d keys scored, want %d", got.KeysScored, want.KeysScored)
	}
}

func TestFlatEqualsNative(t *testing.T) {
	base := geometry{layers: 2, kvHeads: 2, group: 4, dim: 64, dtype: kernel.BF16, tokens: []int{600}, sink: 16, window: 64, topK: 20}
	with := func(f func(*geometry)) geometry { g := base; f(&g); return g }
	cases := map[string]geometry{
		"base":             base,
		"group 1":          with(func(g *geometry) { g.group = 1 }),
		"group 2":          with(func(g *geometry) { g.group = 2 }),
		"group 8":          with(func(g *geometry) { g.group = 8 }),
		"group 3, 5 heads": with(func(g *geometry) { g.group, g.kvHeads, g.callTokens = 3, 5, 4 }),
		"group 12":         with(func(g *geometry) { g.group = 12 }),
		"f32, dim 128":     with(func(g *geometry) { g.dtype, g.dim = kernel.F32, 128 }),
		"f16":              with(func(g *geometry) { g.dtype = kernel.F16 }),
		"13 tokens":        with(func(g *geometry) { g.callTokens = 13 }),
		"segments":         with(func(g *geometry) { g.tokens = []int{1024, 300, 1500} }),
		"k over n":         with(func(g *geometry) { g.topK = 5000 }),
		"k is all":         with(func(g *geometry) { g.topK = 520 }),
		"k 0":              with(func(g *geometry) { g.topK = 0 }),
		"nothing indexed":  with(func(g *geometry) { g.sink = 600 }),
		"one indexed":      with(func(g *geometry) { g.sink = 535 }),
	}
	for _, trusted := range []bool{false, true} {
		if trusted && testing.Short() {
			continue // compiled for this alone
		}
		p := load(t, Options{Name: "flat", Trusted: trusted, Instances: 3})
		exact := retrieval.NewFlat(compute.NewCPU())
		for name, g := range cases {
			t.Run(fmt.Sprintf("%s trusted %v", name, trusted), func(t *testing.T) {
				view := newView(t, g, 1)
				if err := p.Build(t.Context(), &retrieval.Build{View: view, Layer: g.layers - 1, Heads: g.kvHeads * g.group}); err != nil {
					t.Fatal(err)
				}
				var got, want retrieval.Result
				for seed := range uint64(3) {
					call := newCall(g, seed, view)
					if err := p.Search(t.Context(), call, &got); err != nil {
						t.Fatal(err)
					}
					if err := exact.Search(t.Context(), call, &want); err != nil {
						t.Fatal(err)
					}
					sameHits(t, &got, &want)
				}
			})
		}
	}
}

func TestFlatSequencesAndHoles(t *testing.T) {
	g := geometry{layers: 1, kvHeads: 2, group: 2, dim: 32, dtype: kernel.F32, tokens: []int{400}, sink: 4, window: 10, topK: 50, callTokens: 3}
	a := newView(t, g, 1)
	g2 := g
	g2.tokens = []int{90}
	b := newView(t, g2, 2)
	a.Place(0, kv.Range{Lo: 100, Hi: 150}, kv.Dropped)
	a.Place(0, kv.Range{Lo: 200, Hi: 201}, kv.Static)
	call := newCall(g, 3, a, b, a)
	p := load(t, Options{Name: "flat", Params: map[string]any{"batch": 3}})
	var got, want retrieval.Result
	if err := p.Search(t.Context(), call, &got); err != nil {
		t.Fatal(err)
	}
	if err := retrieval.NewFlat(compute.NewCPU()).Search(t.Context(), call, &want); err != nil {
		t.Fatal(err)
	}
	sameHits(t, &got, &want)
	if err := p.Append(t.Context(), a, 0, kv.Range{Lo: 380, Hi: 390}); err != nil {
		t.Fatal(err)
	}
}

func TestFlatNaNQuery(t *testing.T) {
	g := geometry{layers: 1, kvHeads: 2, group: 2, dim: 32, dtype: kernel.F32, tokens: []int{300}, sink: 4, window: 10, topK: 5}
	call := newCall(g, 1, newView(t, g, 1))
	for _, i := range []int{0, 40} {
		call.Queries[i] = float32(math.NaN())
	}
	call.Queries[100] = float32(math.Inf(1))
	p := load(t, Options{Name: "flat"})
	var got, want retrieval.Result
	if err := p.Search(t.Context(), call, &got); err != nil {
		t.Fatal(err)
	}
	if err := retrieval.NewFlat(compute.NewCPU()).Search(t.Context(), call, &want); err != nil {
		t.Fatal(err)
	}
	sameHits(t, &got, &want)
}

func TestSearchEndsWithItsContext(t *testing.T) {
	g := geometry{layers: 1, kvHeads: 1, group: 1, dim: 32, tokens: []int{20000}, topK: 5}
	p := load(t, Options{Name: "flat", OnFailure: Fallback})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var res retrieval.Result
	if err := p.Search(ctx, newCall(g, 1, newView(t, g, 1)), &res); err != context.Canceled {
		t.Fatalf("got %v, want %v", err, context.Canceled)
	}
	if s := p.Stats(); s.Failures != 0 || s.Fallbacks != 0 {
		t.Fatalf("a cancelled search was counted as a failure: %+v", s)
	}
}
