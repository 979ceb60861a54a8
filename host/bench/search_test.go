package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/internal/fbin"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

// worse is exact search whose answers are spoilt, and notes what it is asked
// for.
type worse struct {
	*retrieval.Flat
	spoil    func(*retrieval.Hits)
	queries  bool
	fail     string // the operation that fails
	built    *retrieval.Build
	prefill  []float32
	appended []kv.Range
}

func (w *worse) Info() retrieval.Info {
	return retrieval.Info{Name: "worse", Version: "2", Runtime: "native"}
}
func (w *worse) UsesPrefillQueries() bool { return w.queries }

func (w *worse) Build(_ context.Context, b *retrieval.Build) error {
	w.built, w.prefill = b, slices.Clone(b.Queries)
	return w.failed("build")
}

func (w *worse) Append(_ context.Context, v *kv.View, layer int, r kv.Range) error {
	if n := v.Count(layer, kv.Indexed); n != r.Hi {
		return fmt.Errorf("%d tokens are indexed, not %d", n, r.Hi)
	}
	w.appended = append(w.appended, r)
	return w.failed("append")
}

func (w *worse) Search(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error {
	if err := w.Flat.Search(ctx, call, res); err != nil {
		return err
	}
	for i := range res.Hits {
		w.spoil(&res.Hits[i])
	}
	res.KeysScored /= 4
	return w.failed("search")
}

var errWorse = errors.New("worse")

func (w *worse) failed(operation string) error {
	if operation == w.fail {
		return errWorse
	}
	return nil
}

func half(h *retrieval.Hits) { h.IDs = h.IDs[len(h.IDs)/2:] }

// tinySearch are options that take no time, with the searches given.
func tinySearch(t *testing.T, candidates ...*worse) SearchOptions {
	t.Helper()
	set, err := SynthSet(SynthOptions{Kind: "hard", Keys: 300, Appended: 70, Steps: 6, Dim: 16, KVHeads: 2, Group: 3, Seed: 7})
	if err != nil {
		t.Fatal(err)
	}
	b := compute.NewCPU()
	o := SearchOptions{Set: set, Backend: b, Memory: kv.NewAllocator(0), DType: kernel.F32, TopK: 10, Repeats: 2, Seed: 7}
	for i, w := range candidates {
		w.Flat = retrieval.NewFlat(b)
		o.Candidates = append(o.Candidates, Candidate{Name: fmt.Sprintf("worse:n=%d", i), Strategy: w})
	}
	return o
}

func TestSearch(t *testing.T) {
	w := &worse{spoil: half, queries: true}
	none := &worse{spoil: func(h *retrieval.Hits) { h.IDs = h.IDs[:0] }}
	o := tinySearch(t, w, none)
	o.Candidates[0].Memory = func() int64 { return 3 << 20 }
	done := 0
	o.Progress = func(n int) { done += n }
	rep, err := Search(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if done != o.Units() {
		t.Errorf("%d units of %d", done, o.Units())
	}
	if used := o.Memory.Used(); used != 0 {
		t.Errorf("%d bytes are still held", used)
	}
	for i, want := range []SearchResult{
		{Name: ExactSearch, Recall: 1, KeysScoredShare: 1},
		{Name: "worse:n=0", Recall: 0.5, KeysScoredShare: 0.25, MemoryBytes: 3 << 20},
		{Name: "worse:n=1", KeysScoredShare: 0.25},
	} {
		r := rep.Searches[i]
		if r.Name != want.Name || r.Recall != want.Recall || r.KeysScoredShare != want.KeysScoredShare || r.MemoryBytes != want.MemoryBytes {
			t.Errorf("%+v, want %+v", r, want)
		}
		c := r.Call
		if c.N != 12 || c.Q1 <= 0 || c.Median < c.Q1 || c.Q3 < c.Median || c.P95 < c.Q3 || c.P99 < c.P95 || r.Ratio.N != 12 || r.Ratio.Median <= 0 || r.BuildSeconds <= 0 || r.AppendSeconds <= 0 {
			t.Errorf("%+v", r)
		}
		if math.Abs(r.Query.Median*6-c.Median) > 1e-12 {
			t.Errorf("a query takes %g s of a call's %g", r.Query.Median, c.Median)
		}
	}
	if rep.Searches[0].Ratio.Median != 1 {
		t.Errorf("exact search takes %g times its own time", rep.Searches[0].Ratio.Median)
	}
	// Builds see the prefill, and its queries only where they ask for them.
	if w.built.Heads != 6 || none.prefill != nil || len(w.prefill) != 300*6*16 {
		t.Errorf("%d heads, %d and %d query values", w.built.Heads, len(w.prefill), len(none.prefill))
	}
	// Token 5, KV head 1, its second query head.
	if got, want := w.prefill[(5*6+4)*16:][:16], o.Set.heads[1].prefill[(5*3+1)*16:][:16]; !slices.Equal(got, want) {
		t.Errorf("query %v, want %v", got, want)
	}
	if want := []kv.Range{{Lo: 300, Hi: 364}, {Lo: 364, Hi: 370}}; !slices.Equal(w.appended, want) {
		t.Errorf("appended %v, want %v", w.appended, want)
	}
	// The same options measure the same set.
	if again := tinySearch(t); !reflect.DeepEqual(again.Set, o.Set) {
		t.Error("the set is another")
	}
}

// The oracle is right: its hits are the best by inner products in f64.
func TestSearchOracle(t *testing.T) {
	var hits [][]uint32
	w := &worse{spoil: func(h *retrieval.Hits) { hits = append(hits, slices.Clone(h.IDs)) }}
	o := tinySearch(t, w)
	o.Repeats = 1
	if _, err := Search(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	hits = hits[6:] // the call that counts for nothing
	q := make([]float32, 6*16)
	for step := range 6 {
		o.Set.step(step, q)
		for h := range 6 {
			score := func(id int) (s float64) {
				for j, x := range o.Set.heads[h/3].keys[id*16:][:16] {
					s += float64(x) * float64(q[h*16+j])
				}
				return s
			}
			got := hits[step*6+h]
			least := math.Inf(1)
			for _, id := range got {
				least = min(least, score(int(id)))
			}
			for id := range 300 {
				if s := score(id); s > least+1e-4 && !slices.Contains(got, uint32(id)) {
					t.Errorf("step %d, head %d: key %d scores %g, the least found %g", step, h, id, s, least)
				}
			}
			if len(got) != 10 {
				t.Errorf("%d hits", len(got))
			}
		}
	}
}

// A tie with the last of the exact answer counts as found.
func TestSearchTies(t *testing.T) {
	const first = 150
	w := &worse{spoil: func(h *retrieval.Hits) {
		for i := range h.IDs {
			h.IDs[i] = (h.IDs[i] + first) % (2 * first) // its twin
		}
	}}
	o := tinySearch(t, w)
	for _, h := range o.Set.heads {
		copy(h.keys[first*16:2*first*16], h.keys[:first*16])
	}
	rep, err := Search(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r := rep.Searches[1].Recall; r != 1 {
		t.Errorf("recall %g of equal keys", r)
	}
}

func TestSearchErrors(t *testing.T) {
	keep := func(*retrieval.Hits) {}
	for _, c := range []struct {
		w    worse
		edit func(*SearchOptions)
		want string
		is   error
	}{
		{worse{fail: "build"}, nil, "worse:n=0: build: worse", errWorse},
		{worse{fail: "search"}, nil, "worse:n=0: search: worse", errWorse},
		{worse{fail: "append"}, nil, "worse:n=0: append: worse", errWorse},
		{worse{spoil: func(h *retrieval.Hits) { h.IDs[1] = h.IDs[0] }}, nil, "worse:n=0: step 300: invalid search result: query 0: id", retrieval.ErrHits},
		{worse{spoil: func(h *retrieval.Hits) { h.IDs[0] = 300 }}, nil, "out of range", retrieval.ErrHits},
		{worse{}, func(o *SearchOptions) { o.TopK = 0 }, "top-k is 0", ErrOptions},
		{worse{}, func(o *SearchOptions) { o.Repeats = 0 }, "repeats are 0", ErrOptions},
		{worse{}, func(o *SearchOptions) { o.Memory = kv.NewAllocator(1000) }, "memory budget exceeded", kv.ErrBudget},
		{worse{queries: true}, func(o *SearchOptions) { o.Set.heads[0].prefill = nil }, "worse:n=0 builds from the prefill's queries and synth hard, seed 7 has only those of the steps", ErrOptions},
	} {
		if c.w.spoil == nil {
			c.w.spoil = keep
		}
		o := tinySearch(t, &c.w)
		if c.edit != nil {
			c.edit(&o)
		}
		if _, err := Search(t.Context(), o); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		if used := o.Memory.Used(); used != 0 {
			t.Errorf("%s: %d bytes are still held", c.want, used)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	o := tinySearch(t, &worse{spoil: func(*retrieval.Hits) { cancel() }})
	if _, err := Search(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// The text is that of the golden file; what was timed is put in its place.
func TestSearchText(t *testing.T) {
	rep, err := Search(t.Context(), tinySearch(t, &worse{spoil: half}))
	if err != nil {
		t.Fatal(err)
	}
	rep.Machine = Machine{CPU: "Some CPU", OS: "linux", Arch: "amd64", Threads: 2, Level: "avx512", Go: "go1.26", Version: "v1"}
	for i := range rep.Searches {
		r, f := &rep.Searches[i], float64(i+1)
		r.Call = Latency{Sample{4e-4 * f, 3.9e-4 * f, 4.2e-4 * f, 12}, 5e-4 * f, 6e-4 * f}
		r.Query, r.Ratio = r.Call.Scale(1./6), Sample{f, f, f, 12}
		r.BuildSeconds, r.AppendSeconds = 1.5*f, 2.5e-6*f
		r.IndexBytes, r.MemoryBytes = int64(i)<<22, int64(i)<<23
	}
	golden(t, "search", rep)
}

// Sets are read from files: the last keys are appended, the last queries are
// the steps'.
func TestFileSet(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, n, dim int) {
		t.Helper()
		m := &fbin.Matrix{N: n, Dim: dim}
		for i := range n * dim {
			m.Data = append(m.Data, float32(i))
		}
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(m.Write(f), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	o := FileOptions{Dir: dir, Appended: 4, Steps: 3, Group: 2}
	if _, err := FileSet(o); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "keys.fbin") {
		t.Errorf("no file: %v", err)
	}
	write("keys.fbin", 14, 2)
	if _, err := FileSet(o); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "queries.fbin") {
		t.Errorf("no file: %v", err)
	}
	write("queries.fbin", 11, 2) // 5 steps of 2 and one that is left over
	s, err := FileSet(o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Keys != 10 || s.Appended != 4 || s.Dim != 2 || s.KVHeads != 1 || s.Steps != 3 || s.prefillRows() != 2 {
		t.Errorf("%+v", s)
	}
	q := make([]float32, 4)
	if s.step(0, q); !slices.Equal(q, []float32{8, 9, 10, 11}) {
		t.Errorf("step 0 asks %v", q)
	}
	prefill := make([]float32, 10*4)
	s.prefill(prefill)
	for token, first := range map[int]float32{0: 0, 4: 0, 5: 4, 9: 4} { // two rows over ten tokens
		if prefill[token*4] != first {
			t.Errorf("token %d has the query %v", token, prefill[token*4:][:4])
		}
	}
	rep, err := Search(t.Context(), SearchOptions{Set: s, Backend: compute.NewCPU(), Memory: kv.NewAllocator(0), DType: kernel.F32, TopK: 100, Repeats: 1})
	if err != nil || rep.Searches[0].Recall != 1 || rep.Set.Source != dir {
		t.Errorf("%+v, %v", rep, err)
	}
	for _, c := range []struct {
		edit func(*FileOptions)
		want string
	}{
		{func(o *FileOptions) { o.Group = 0 }, "0 query heads, 3 steps"},
		{func(o *FileOptions) { o.Appended = 14 }, "keys.fbin has 14 vectors, of which 14 are to be appended; append fewer"},
		{func(o *FileOptions) { o.Steps = 6 }, "queries.fbin has 11 vectors, 5 steps of 2 query heads; 6 steps are asked for"},
		{func(*FileOptions) { write("queries.fbin", 6, 4) }, "keys.fbin has vectors of dimension 2, queries.fbin of 4; they must be the same"},
		{func(*FileOptions) { write("keys.fbin", 6, 3) }, "keys.fbin has vectors of dimension 3; pad them with a zero, it must be even"},
	} {
		o := o
		c.edit(&o)
		if _, err := FileSet(o); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "keys.fbin"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := FileSet(o); !errors.Is(err, fbin.ErrFormat) || !strings.Contains(err.Error(), "keys.fbin: ") {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestSynthSetErrors(t *testing.T) {
	for _, c := range []struct {
		edit func(*SynthOptions)
		want string
		is   error
	}{
		{func(o *SynthOptions) { o.Kind = "soft" }, `no synthetic set "soft"; there are mild and hard`, ErrOptions},
		{func(o *SynthOptions) { o.Dim = 3 }, "dimension is 3, must be positive and even", ErrOptions},
		{func(o *SynthOptions) { o.Steps = 0 }, "0 steps", ErrOptions},
		{func(o *SynthOptions) { o.Appended = -1 }, "-1 tokens appended", ErrOptions},
		{func(o *SynthOptions) { o.Keys, o.Available = 1<<40, 1<<30 }, "a set of 1099511627776 keys needs", ErrMemory},
	} {
		o := SynthOptions{Kind: "mild", Keys: 10, Steps: 1, Dim: 4, KVHeads: 1, Group: 1}
		c.edit(&o)
		if _, err := SynthSet(o); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
