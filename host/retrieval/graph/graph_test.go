package graph

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/internal/synth"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// set is a synthetic head in the store.
type set struct {
	*synth.Set
	ix   compute.Indexer
	mem  *kv.Allocator // of graphs
	head compute.Head
}

func newSet(t testing.TB, p synth.Params) *set {
	t.Helper()
	made, err := synth.New(p)
	if err != nil {
		t.Fatal(err)
	}
	s := &set{Set: made, ix: compute.NewCPU(), mem: kv.NewAllocator(0)}
	s.head.Context = newContext(t, p.Dim, kernel.BF16)
	if err := made.Fill(s.head.Context, 0, p.Keys); err != nil {
		t.Fatal(err)
	}
	return s
}

func newContext(t testing.TB, dim int, dtype kernel.DType) *kv.Context {
	t.Helper()
	c, err := kv.NewContext(kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: dim, DType: dtype}, 0, kv.NewAllocator(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (s *set) prefill() kernel.Rows { return kernel.RowsF32(s.Queries, s.Dim) }

func (s *set) build(t testing.TB, nodes []kv.Range, p BuildParams) *Graph {
	t.Helper()
	g, err := Build(context.Background(), s.ix, s.head, s.mem, nodes, s.prefill(), p)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// exact returns the k best keys of the ranges for each of the test queries.
func (s *set) exact(t testing.TB, head compute.Head, nodes []kv.Range, k int) []uint32 {
	t.Helper()
	q := kernel.RowsF32(s.Test, s.Dim)
	ids := make([]uint32, q.N*k)
	if _, err := s.ix.KNN(context.Background(), head, q, nodes, k, ids, nil, nil); err != nil {
		t.Fatal(err)
	}
	return ids
}

// recall searches g for the test queries one after the other, each beginning
// at the hits of the one before, and returns the share of the exact answer
// that was found and the share of keys scored.
func (s *set) recall(g *Graph, head compute.Head, exact []uint32, beam int) (recall, scored float64) {
	n := len(s.Test) / s.Dim
	k := len(exact) / n
	x := NewSearcher(s.ix)
	x.Open(g, head)
	ids, scores := make([]uint32, k), make([]float32, k)
	var seeds []uint32
	for i := range n {
		m := x.Search(s.Test[i*s.Dim:(i+1)*s.Dim], SearchParams{Beam: beam}, seeds, ids, scores)
		seeds = append(seeds[:0], ids[:min(m, 32)]...)
		scored += float64(x.Scored()) / float64(n*g.Len())
		for _, id := range exact[i*k : (i+1)*k] {
			if slices.Contains(ids[:m], id) {
				recall += 1 / float64(n*k)
			}
		}
	}
	return recall, scored
}

func all(n int) []kv.Range { return []kv.Range{{Lo: 0, Hi: n}} }

// The share of the exact top 100 that is found, and what it may cost; every
// key can be reached.
func TestRecall(t *testing.T) {
	for _, c := range []struct {
		p              synth.Params
		beam           int
		recall, scored float64 // at least, at most
		short          bool
	}{
		{synth.Params{Keys: 2048, Dim: 32, Group: 2, Hard: true, Prefill: 500}, 150, .97, .6, true},
		{synth.Params{Keys: 16384, Dim: 64, Group: 2, Hard: true, Prefill: 4096}, 200, .97, .17, false},
		{synth.Params{Keys: 16384, Dim: 128, Group: 1, Prefill: 8192}, 200, .98, .1, false},
		{synth.Params{Keys: 131072, Dim: 128, Group: 1, Hard: true, Prefill: 32768}, 200, .92, .03, false},
	} {
		if testing.Short() && !c.short || c.p.Keys > 1<<16 && os.Getenv("RA_LONG") == "" {
			continue
		}
		c.p.Decode, c.p.Seed = 100, 3
		t.Run(fmt.Sprintf("%d x %d", c.p.Keys, c.p.Dim), func(t *testing.T) {
			s := newSet(t, c.p)
			g := s.build(t, all(c.p.Keys), BuildParams{})
			defer g.Close()
			if n := g.Reachable(); n != c.p.Keys {
				t.Errorf("%d of %d keys are reached", n, c.p.Keys)
			}
			recall, scored := s.recall(g, s.head, s.exact(t, s.head, all(c.p.Keys), 100), c.beam)
			t.Logf("recall@100 %.3f, %.2f %% of keys scored", recall, 100*scored)
			if recall < c.recall || scored > c.scored {
				t.Errorf("recall@100 %.3f with %.2f %% of keys scored, want %.3f with %.2f %%", recall, 100*scored, c.recall, 100*c.scored)
			}
		})
	}
}

func small(t testing.TB) *set {
	return newSet(t, synth.Params{Keys: 3000, Dim: 32, Group: 2, Hard: true, Prefill: 500, Decode: 700, Seed: 4})
}

func saved(t testing.TB, g *Graph) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := g.Save(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The same graph comes out of any number of cores, and insertion keeps that.
func TestDeterministic(t *testing.T) {
	s := small(t)
	var first []byte
	for _, procs := range []int{1, 2, 5} {
		func() {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			g := s.build(t, all(3000), BuildParams{})
			defer g.Close()
			c := s.head.Context.Fork()
			defer c.Close()
			if err := s.Fill(c, 3000, 3100); err != nil {
				t.Fatal(err)
			}
			if err := g.Insert(context.Background(), s.ix, compute.Head{Context: c}, kv.Range{Lo: 3000, Hi: 3100}, InsertParams{}); err != nil {
				t.Fatal(err)
			}
			got := saved(t, g)
			if first == nil {
				first = got
			}
			if !bytes.Equal(got, first) {
				t.Errorf("another graph on %d cores", procs)
			}
		}()
	}
}

// Two forks append different tokens; each finds its own and never the
// other's, and the graph that they come from stays as it was.
func TestForks(t *testing.T) {
	s := small(t)
	g := s.build(t, all(3000), BuildParams{})
	before := saved(t, g)
	built := s.mem.Used()
	type branch struct {
		g *Graph
		c *kv.Context
	}
	var branches []branch
	for i := range 2 {
		b := branch{g.Fork().(*Graph), s.head.Context.Fork()}
		defer b.c.Close()
		// The other branch's tokens are other keys at the same positions.
		if err := s.Fill(b.c, 3000+100*i, 3100+100*i); err != nil {
			t.Fatal(err)
		}
		branches = append(branches, b)
	}
	if s.mem.Used() != built {
		t.Errorf("forks took %d bytes", s.mem.Used()-built)
	}
	for _, b := range branches {
		if err := b.g.Insert(context.Background(), s.ix, compute.Head{Context: b.c}, kv.Range{Lo: 3000, Hi: 3100}, InsertParams{}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(saved(t, g), before) || g.Len() != 3000 {
		t.Error("the graph changed under its forks")
	}
	if bytes.Equal(saved(t, branches[0].g), saved(t, branches[1].g)) {
		t.Error("the branches are one")
	}
	for i, b := range branches {
		if n := b.g.Reachable(); n != 3100 {
			t.Errorf("branch %d: %d of 3100 keys are reached", i, n)
		}
		head := compute.Head{Context: b.c}
		recall, _ := s.recall(b.g, head, s.exact(t, head, all(3100), 20), 100)
		if recall < .9 {
			t.Errorf("branch %d: recall %.3f", i, recall)
		}
	}
	// A fork of a fork goes on from what that one has.
	ff := branches[0].g.Fork().(*Graph)
	if !bytes.Equal(saved(t, ff), saved(t, branches[0].g)) {
		t.Error("a fork of a fork differs")
	}
	for _, x := range []*Graph{g, branches[0].g, branches[1].g} {
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := ff.Reachable(); n != 3100 {
		t.Errorf("%d reached once the others are closed", n)
	}
	if err := ff.Close(); err != nil || s.mem.Used() != 0 {
		t.Errorf("%v, %d bytes left", err, s.mem.Used())
	}
}

// Recall holds while tokens are appended, among all keys and among the new
// ones alone; all stay reachable.
func TestInsertKeepsRecall(t *testing.T) {
	keys, more := 8192, 2048
	if testing.Short() {
		keys, more = 2048, 512
	}
	s := newSet(t, synth.Params{Keys: keys, Dim: 64, Group: 1, Hard: true, Prefill: keys / 2, Decode: more, Seed: 6})
	s.Test = s.Test[:150*s.Dim]
	g := s.build(t, all(keys), BuildParams{})
	defer g.Close()
	at, _ := s.recall(g, s.head, s.exact(t, s.head, all(keys), 50), 150)
	if err := s.Fill(s.head.Context, keys, keys+more); err != nil {
		t.Fatal(err)
	}
	f := g.Fork().(*Graph)
	defer f.Close()
	for lo := keys; lo < keys+more; lo += 64 {
		if err := f.Insert(context.Background(), s.ix, s.head, kv.Range{Lo: lo, Hi: lo + 64}, InsertParams{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.Reachable(); n != keys+more {
		t.Errorf("%d of %d keys are reached", n, keys+more)
	}
	end, scored := s.recall(f, s.head, s.exact(t, s.head, all(keys+more), 50), 150)
	t.Logf("recall %.3f, %.3f after %d more (%.1f %% of keys scored)", at, end, more, 100*scored)
	if end < at-.01 {
		t.Errorf("recall fell from %.3f to %.3f", at, end)
	}
	// What was appended is as easy to find as what was built.
	exact := s.exact(t, s.head, all(keys+more), 50)
	x := NewSearcher(s.ix)
	x.Open(f, s.head)
	ids, scores := make([]uint32, 50), make([]float32, 50)
	found, want := 0, 0
	for i := range 150 {
		x.Search(s.Test[i*s.Dim:(i+1)*s.Dim], SearchParams{Beam: 150}, nil, ids, scores)
		for _, id := range exact[i*50 : (i+1)*50] {
			if int(id) >= keys {
				want++
				if slices.Contains(ids, id) {
					found++
				}
			}
		}
	}
	t.Logf("%d of %d appended keys found", found, want)
	if want < 100 || float64(found) < .95*float64(want) {
		t.Errorf("%d of %d appended keys found", found, want)
	}
}

// A build or insertion that is cancelled ends soon, with that error, and
// keeps no memory; goleak sees to goroutines.
func TestCancel(t *testing.T) {
	s := small(t)
	for _, stage := range []string{"neighbours", "links", "rest", "connect"} {
		ctx, cancel := context.WithCancel(context.Background())
		var seen []string
		p := BuildParams{Progress: func(at string, done, total int) {
			if done < 0 || done > total {
				t.Errorf("%s: %d of %d", at, done, total)
			}
			if len(seen) == 0 || seen[len(seen)-1] != at {
				seen = append(seen, at)
			}
			if at == stage {
				cancel()
			}
		}}
		g, err := Build(ctx, s.ix, s.head, s.mem, all(3000), s.prefill(), p)
		if stage == "connect" { // told at the end: too late
			if err != nil || !slices.Equal(seen, []string{"neighbours", "links", "rest", "connect"}) {
				t.Errorf("%v, stages %v", err, seen)
			}
			g.Close()
		} else if !errors.Is(err, context.Canceled) || g != nil {
			t.Errorf("cancelled at %s: %v", stage, err)
		}
		if s.mem.Used() != 0 {
			t.Errorf("cancelled at %s: %d bytes left", stage, s.mem.Used())
		}
		cancel()
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := s.build(t, all(2900), BuildParams{})
	defer g.Close()
	cancel()
	if err := g.Insert(ctx, s.ix, s.head, kv.Range{Lo: 2900, Hi: 3000}, InsertParams{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled insertion: %v", err)
	}
}

// Keys and ranges that leave nothing to choose by.
func TestDegenerate(t *testing.T) {
	const dim = 16
	r := rand.New(rand.NewPCG(7, 7))
	random := func() []float32 {
		v := make([]float32, dim)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	fixed := random()
	two := [][]float32{random(), random()}
	for _, c := range []struct {
		name    string
		n       int
		key     func(i int) []float32
		nodes   []kv.Range
		queries int
	}{
		{"none", 10, func(int) []float32 { return random() }, nil, 10},
		{"one key", 1, func(int) []float32 { return random() }, all(1), 10},
		{"one key, no queries", 1, func(int) []float32 { return random() }, all(1), 0},
		{"two keys", 2, func(int) []float32 { return random() }, all(2), 3},
		{"least degree", 500, func(int) []float32 { return random() }, all(500), 200},
		{"no queries", 2000, func(int) []float32 { return random() }, all(2000), 0},
		{"one query", 2000, func(int) []float32 { return random() }, all(2000), 1},
		{"all equal", 1000, func(int) []float32 { return fixed }, all(1000), 50},
		{"all zero", 1000, func(int) []float32 { return make([]float32, dim) }, all(1000), 50},
		{"duplicates", 1000, func(i int) []float32 { return two[i%2] }, all(1000), 50},
		{"gaps", 1000, func(int) []float32 { return random() }, []kv.Range{{Lo: 3, Hi: 40}, {Lo: 41, Hi: 42}, {Lo: 500, Hi: 900}}, 50},
		{"fewer keys than neighbours", 30, func(int) []float32 { return random() }, all(30), 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := newContext(t, dim, kernel.F32)
			if err := ctx.Reserve(c.n); err != nil {
				t.Fatal(err)
			}
			for i := range c.n {
				ctx.Put(0, 0, i, c.key(i), fixed)
			}
			ctx.Commit(c.n)
			var queries []float32
			for range c.queries {
				queries = append(queries, random()...)
			}
			ix, mem := compute.NewCPU(), kv.NewAllocator(0)
			head := compute.Head{Context: ctx}
			var p BuildParams
			if c.name == "least degree" {
				p.Degree = 4
			}
			g, err := Build(context.Background(), ix, head, mem, c.nodes, kernel.RowsF32(queries, dim), p)
			if err != nil {
				t.Fatal(err)
			}
			if n := g.Reachable(); n != g.Len() {
				t.Errorf("%d of %d keys are reached", n, g.Len())
			}
			for _, rg := range g.Nodes() {
				for id := rg.Lo; id < rg.Hi; id++ {
					links := slices.Clone(g.Links(uint32(id)))
					if err := g.SetLinks(uint32(id), links); err != nil { // checks them
						t.Error(err)
					}
				}
			}
			// A beam that holds all finds all, each once.
			s := NewSearcher(ix)
			s.Open(g, head)
			ids, scores := make([]uint32, c.n), make([]float32, c.n)
			n := s.Search(random(), SearchParams{Beam: c.n}, nil, ids, scores)
			slices.Sort(ids[:n])
			if n != g.Len() || len(slices.Compact(ids[:n])) != n || s.Scored() != n {
				t.Errorf("%d of %d keys found, %d scored", n, g.Len(), s.Scored())
			}
			if err := g.Close(); err != nil || mem.Used() != 0 {
				t.Errorf("%v, %d bytes left", err, mem.Used())
			}
		})
	}
}

// The parts of a search do what the whole does, and what they are given is
// checked.
func TestFine(t *testing.T) {
	s := small(t)
	g := s.build(t, all(3000), BuildParams{})
	defer g.Close()
	x := NewSearcher(s.ix)
	x.Open(g, s.head)
	q := s.Query(5, 1)
	want, wantScores := make([]uint32, 40), make([]float32, 40)
	seeds := []uint32{17, 2999, 17}
	x.Search(q, SearchParams{Beam: 60, Batch: 2}, seeds, want, wantScores)
	scored := x.Scored()
	x.Begin(q, 60)
	x.Push(append(seeds, 3000, 1<<31, none))
	if x.Scored() != 2 {
		t.Errorf("%d scored of two seeds", x.Scored())
	}
	x.Push(g.Entries())
	for x.Step(2) {
	}
	got, gotScores := make([]uint32, 40), make([]float32, 40)
	if n := x.Take(got, gotScores); n != 40 || !slices.Equal(got, want) || !slices.Equal(gotScores, wantScores) || x.Scored() != scored {
		t.Errorf("%d: %v (%d scored), want %v (%d scored)", n, got, x.Scored(), want, scored)
	}
	// Scores are the keys' own.
	check := [][]float32{make([]float32, 40)}
	s.ix.Reader(s.head).Score([][]float32{q}, got, check)
	if !slices.Equal(check[0], gotScores) {
		t.Error("the scores are not those of the keys")
	}
	if allocs := testing.AllocsPerRun(10, func() {
		x.Open(g, s.head)
		x.Search(q, SearchParams{Beam: 60}, seeds, got, gotScores)
	}); allocs > 0 && !raced() {
		t.Errorf("%v allocations a search", allocs)
	}
	for _, links := range [][]uint32{{1, 1}, {0}, {3000}, make([]uint32, g.Degree()+1)} {
		if err := g.SetLinks(0, links); err == nil {
			t.Errorf("links %v are accepted", links)
		}
	}
	for _, bad := range [][2]uint32{{0, 0}, {0, 3000}, {3000, 0}} {
		if _, err := g.Link(bad[0], bad[1]); !errors.Is(err, ErrNode) {
			t.Errorf("link %v: %v", bad, err)
		}
	}
	if err := g.SetEntries([]uint32{3000}); !errors.Is(err, ErrNode) {
		t.Error(err)
	}
	if err := g.Insert(context.Background(), s.ix, s.head, kv.Range{Lo: 2999, Hi: 3001}, InsertParams{}); !errors.Is(err, ErrNode) {
		t.Error(err)
	}
	// However many links are asked for, nothing is lost.
	r := rand.New(rand.NewPCG(8, 8))
	made := 0
	for range 20_000 {
		from, to := uint32(r.IntN(3000)), uint32(r.IntN(3000))
		if from == to {
			continue
		}
		ok, err := g.Link(from, to)
		if err != nil {
			t.Fatal(err)
		}
		if ok != slices.Contains(g.Links(from), to) {
			t.Fatalf("link from %d to %d: %v", from, to, ok)
		}
		if ok {
			made++
		}
	}
	if n := g.Reachable(); n != 3000 || made < 1000 {
		t.Errorf("%d reached after %d links", n, made)
	}
}

// A graph can be made link by link, in a strategy's own way: here each node
// from a sample of others.
func TestLinker(t *testing.T) {
	s := small(t)
	g, err := New(s.mem, all(1000), 16)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.SetEntries([]uint32{0}); err != nil {
		t.Fatal(err)
	}
	l := NewLinker(g, s.ix, s.head)
	r := rand.New(rand.NewPCG(9, 9))
	for id := uint32(1); id < 1000; id++ {
		candidates := []uint32{id, id - 1, id - 1, 1000}
		for range 100 {
			candidates = append(candidates, uint32(r.IntN(int(id))))
		}
		if err := l.Link(id, candidates); err != nil {
			t.Fatal(err)
		}
		links := g.Links(id)
		if len(links) == 0 || len(links) > 15 || slices.Contains(links, id) {
			t.Fatalf("links of %d: %v", id, links)
		}
		// The nearest candidate by cosine is linked, and back.
		key, other := make([]float32, s.Dim), make([]float32, s.Dim)
		reader := s.ix.Reader(s.head)
		reader.Key(id, key)
		best, at := float32(-2), uint32(0)
		for _, c := range candidates[1:] {
			if c < id {
				reader.Key(c, other)
				cos := kernel.Dot(key, other) / float32(math.Sqrt(float64(kernel.Dot(key, key))*float64(kernel.Dot(other, other))))
				if cos > best {
					best, at = cos, c
				}
			}
		}
		if !slices.Contains(links, at) {
			t.Fatalf("node %d is not linked with the nearest, %d", id, at)
		}
	}
	if n := g.Reachable(); n < 990 {
		t.Errorf("%d reached", n)
	}
	if err := l.Link(1000, nil); !errors.Is(err, ErrNode) {
		t.Error(err)
	}
}

func TestBuildErrors(t *testing.T) {
	s := small(t)
	for _, c := range []struct {
		p    BuildParams
		text string
	}{
		{BuildParams{Degree: 3}, "graph degree is 3"},
		{BuildParams{Degree: 257}, "graph degree is 257"},
		{BuildParams{Neighbours: 1}, "neighbours per query are 1"},
		{BuildParams{Candidates: 31}, "candidates are 31"},
		{BuildParams{Entries: -1}, "entries are -1"},
		{BuildParams{Beam: 5}, "build beam is 5"},
	} {
		if _, err := Build(context.Background(), s.ix, s.head, s.mem, all(3000), s.prefill(), c.p); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v", c.p, err)
		}
	}
	for _, nodes := range [][]kv.Range{{{Lo: 5, Hi: 3}}, {{Lo: 5, Hi: 9}, {Lo: 8, Hi: 10}}, {{Lo: -1, Hi: 3}}} {
		if _, err := Build(context.Background(), s.ix, s.head, s.mem, nodes, s.prefill(), BuildParams{}); !errors.Is(err, ErrNode) {
			t.Errorf("%v: %v", nodes, err)
		}
	}
	if _, err := Build(context.Background(), s.ix, s.head, kv.NewAllocator(1000), all(3000), s.prefill(), BuildParams{}); !errors.Is(err, kv.ErrBudget) {
		t.Error(err)
	}
}

// raced reports whether the race detector is on, which allocates.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
