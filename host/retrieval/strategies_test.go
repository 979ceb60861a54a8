package retrieval_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/internal/synth"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
	"github.com/retrievalattention/ra/host/retrieval/graph"
	"github.com/retrievalattention/ra/host/retrieval/lists"
)

// strategies that search indexes, as exact as they get on small sets, with
// their memory.
func strategies(t *testing.T) (map[string]retrieval.Strategy, *kv.Allocator) {
	t.Helper()
	mem := kv.NewAllocator(0)
	ix := compute.NewCPU()
	g, err := graph.NewStrategy(ix, mem, graph.Params{Search: graph.SearchParams{Beam: 150}, Queries: 2000, Recent: 16})
	if err != nil {
		t.Fatal(err)
	}
	l, err := lists.NewStrategy(ix, mem, lists.Params{Build: lists.BuildParams{PerList: 32}, Search: lists.SearchParams{Keys: 1500}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]retrieval.Strategy{"graph": g, "ivf": l}, mem
}

// Through the Strategy interface, with several KV heads, sequences and
// tokens a call: answers pass the checks of hits and agree with flat search,
// also for tokens appended in forks, and views give back all memory.
func TestStrategiesAgainstFlat(t *testing.T) {
	const layer, kvHeads, group, dim, n, more = 1, 2, 2, 32, 3000, 256
	ctx := context.Background()
	var sets []*synth.Set
	for h := range kvHeads {
		s, err := synth.New(synth.Params{Keys: n, Decode: 2*more + 10, Dim: dim, Group: group, Seed: uint64(20 + h)})
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, s)
	}
	put := func(c *kv.Context, from, count int) {
		t.Helper()
		if err := c.Reserve(count); err != nil {
			t.Fatal(err)
		}
		for i := range count {
			for h, s := range sets {
				at := (from + i) * dim
				c.Put(layer, h, c.Len()+i, s.K[at:at+dim], s.V[at:at+dim])
			}
		}
		c.Commit(count)
	}
	base := filled(t, rand.New(rand.NewPCG(1, 1)), kv.Geometry{Layers: 2, KVHeads: kvHeads, HeadDim: dim, DType: kernel.BF16}, 0)
	put(base, 0, n)
	queries := make([]float32, 0, n*kvHeads*group*dim)
	for i := range n {
		for _, s := range sets {
			queries = append(queries, s.Queries[i*group*dim:(i+1)*group*dim]...)
		}
	}
	all, mem := strategies(t)
	for name, strategy := range all {
		t.Run(name, func(t *testing.T) {
			view := kv.NewView(base)
			view.Place(layer, kv.Range{Lo: 16, Hi: n - 100}, kv.Indexed)
			b := &retrieval.Build{View: view, Layer: layer, Heads: kvHeads * group, Queries: queries}
			if err := strategy.Build(ctx, b); err != nil {
				t.Fatal(err)
			}
			if view.AttachmentBytes() == 0 || mem.Used() < view.AttachmentBytes() {
				t.Errorf("%d bytes attached, %d taken", view.AttachmentBytes(), mem.Used())
			}
			// Two sequences go on differently from the same prefill.
			call := &retrieval.Call{Layer: layer, Tokens: 3, Heads: kvHeads * group, TopK: 20}
			for i := range 2 {
				c := base.Fork()
				t.Cleanup(func() { c.Close() })
				put(c, n+i*more, more)
				v := view.Fork(c)
				defer v.Close()
				v.Extend(more)
				for lo := n - 100; lo < n+more-100; lo += 64 {
					r := kv.Range{Lo: lo, Hi: min(lo+64, n+more-100)}
					v.Place(layer, r, kv.Indexed)
					if err := strategy.Append(ctx, v, layer, r); err != nil {
						t.Fatal(err)
					}
				}
				// A policy may take tokens back.
				v.Place(layer, kv.Range{Lo: 1000, Hi: 1100}, kv.Dropped)
				call.Views = append(call.Views, v)
			}
			if err := view.Close(); err != nil { // forks keep what they need
				t.Fatal(err)
			}
			var checker retrieval.Checker
			var found, want, scored int
			flat := retrieval.NewFlat(compute.NewCPU())
			for step := range 8 {
				call.Queries = call.Queries[:0]
				for i := range call.Views {
					for tok := range call.Tokens {
						for _, s := range sets {
							for g := range group {
								call.Queries = append(call.Queries, s.Query(i*more+step+tok, g)...)
							}
						}
					}
				}
				var got, exact retrieval.Result
				if err := errors.Join(strategy.Search(ctx, call, &got), flat.Search(ctx, call, &exact)); err != nil {
					t.Fatal(err)
				}
				for i, hits := range got.Hits {
					if err := checker.Check(call, i, hits); err != nil {
						t.Fatal(err)
					}
					for _, id := range exact.Hits[i].IDs {
						want++
						if slices.Contains(hits.IDs, id) {
							found++
						}
					}
				}
				scored += int(got.KeysScored)
				if got.KeysScored <= 0 || got.KeysScored >= exact.KeysScored {
					t.Errorf("%d keys scored, %d by exact search", got.KeysScored, exact.KeysScored)
				}
			}
			t.Logf("recall@20 %.3f", float64(found)/float64(want))
			if float64(found) < .97*float64(want) {
				t.Errorf("%d of %d found", found, want)
			}
			cancelled, cancel := context.WithCancel(ctx)
			cancel()
			var res retrieval.Result
			if err := strategy.Search(cancelled, call, &res); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			for _, v := range call.Views {
				if err := v.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if mem.Used() != 0 {
				t.Errorf("%d bytes left", mem.Used())
			}
		})
	}
}

// A view without indexed tokens has nothing to search; the first tokens that
// are appended make its index; a view that was not built says so.
func TestStrategiesFromNothing(t *testing.T) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(4, 4))
	all, mem := strategies(t)
	for name, strategy := range all {
		c := filled(t, r, kv.Geometry{Layers: 1, KVHeads: 2, HeadDim: 8}, 200)
		v := kv.NewView(c)
		call := &retrieval.Call{Views: []*kv.View{v}, Tokens: 1, Heads: 4, TopK: 10, Queries: vector(r, 4*8)}
		search := func() (int, error) {
			var res retrieval.Result
			err := strategy.Search(ctx, call, &res)
			n := 0
			for i, h := range res.Hits {
				n += len(h.IDs)
				if err := new(retrieval.Checker).Check(call, i, h); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			return n, err
		}
		if n, err := search(); n != 0 || err != nil {
			t.Errorf("%s: %d hits, %v", name, n, err)
		}
		if err := strategy.Build(ctx, &retrieval.Build{View: v, Heads: 4}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for i, want := range []int{4 * 5, 4 * 10, 4 * 10} {
			rg := kv.Range{Lo: 5 * i, Hi: 5*i + 5}
			v.Place(0, rg, kv.Indexed)
			if err := strategy.Append(ctx, v, 0, rg); err != nil {
				t.Fatal(err)
			}
			if n, err := search(); n != want || err != nil {
				t.Errorf("%s: %d hits of %d tokens, %v", name, n, rg.Hi, err)
			}
		}
		other := kv.NewView(c)
		other.Place(0, kv.Range{Lo: 0, Hi: 50}, kv.Indexed)
		call.Views[0] = other
		if _, err := search(); err == nil || !strings.Contains(err.Error(), "layer 0, KV head 0 has no") {
			t.Errorf("%s: %v", name, err)
		}
		if err := v.Close(); err != nil || mem.Used() != 0 {
			t.Errorf("%s: %v, %d bytes left", name, err, mem.Used())
		}
		if err := strategy.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestStrategyParams(t *testing.T) {
	ix, mem := compute.NewCPU(), kv.NewAllocator(0)
	for _, p := range []graph.Params{{}, {Search: graph.SearchParams{Beam: 10}, Recent: -1}, {Search: graph.SearchParams{Beam: 10}, Build: graph.BuildParams{Degree: 1}}} {
		if _, err := graph.NewStrategy(ix, mem, p); err == nil {
			t.Errorf("%+v is accepted", p)
		}
	}
	for _, p := range []lists.Params{{}, {Search: lists.SearchParams{Lists: -1}}, {Search: lists.SearchParams{Lists: 1}, Build: lists.BuildParams{PerList: -1}}} {
		if _, err := lists.NewStrategy(ix, mem, p); err == nil {
			t.Errorf("%+v is accepted", p)
		}
	}
	for want, s := range map[string]func() (retrieval.Strategy, error){
		"graph": func() (retrieval.Strategy, error) { return graph.NewStrategy(ix, mem, graph.DefaultParams()) },
		"ivf":   func() (retrieval.Strategy, error) { return lists.NewStrategy(ix, mem, lists.DefaultParams()) },
	} {
		x, err := s()
		if err != nil || fmt.Sprint(x.Info()) != want {
			t.Errorf("%v, %v", x, err)
		}
	}
}
