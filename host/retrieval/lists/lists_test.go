package lists

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
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
	mem  *kv.Allocator // of lists
	head compute.Head
}

func newSet(t testing.TB, p synth.Params) *set {
	t.Helper()
	p.Prefill, p.Seed = 1, 9
	made, err := synth.New(p)
	if err != nil {
		t.Fatal(err)
	}
	s := &set{Set: made, ix: compute.NewCPU(), mem: kv.NewAllocator(0)}
	if s.head.Context, err = kv.NewContext(kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: p.Dim, DType: kernel.BF16}, 0, kv.NewAllocator(0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.head.Context.Close() })
	if err := made.Fill(s.head.Context, 0, p.Keys); err != nil {
		t.Fatal(err)
	}
	return s
}

func small(t testing.TB) *set {
	return newSet(t, synth.Params{Keys: 3000, Dim: 32, Group: 2, Hard: true, Decode: 500})
}

func (s *set) build(t testing.TB, tokens []kv.Range, p BuildParams) *Lists {
	t.Helper()
	l, err := Build(context.Background(), s.ix, s.head, s.mem, tokens, p)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func all(n int) []kv.Range { return []kv.Range{{Lo: 0, Hi: n}} }

// search returns the k hits of each query of a decode step, and keys scored.
func (s *set) search(l *Lists, head compute.Head, step, k int, p SearchParams) (hits [][]uint32, scored int) {
	x := NewSearcher(s.ix)
	x.Open(l, head)
	var qs [][]float32
	var tops []*kernel.TopK
	for h := range s.Group {
		qs, tops = append(qs, s.Query(step, h)), append(tops, kernel.NewTopK(k))
	}
	scored = x.Search(qs, p, tops)
	for _, top := range tops {
		ids := make([]uint32, top.Len())
		top.Take(ids, make([]float32, len(ids)))
		hits = append(hits, ids)
	}
	return hits, scored
}

func (s *set) exact(t testing.TB, head compute.Head, tokens []kv.Range, k int) []uint32 {
	t.Helper()
	q := kernel.RowsF32(s.Test, s.Dim)
	ids := make([]uint32, q.N*k)
	if _, err := s.ix.KNN(context.Background(), head, q, tokens, k, ids, nil, nil); err != nil {
		t.Fatal(err)
	}
	return ids
}

func (s *set) recall(t testing.TB, l *Lists, head compute.Head, exact []uint32, steps int, p SearchParams) (recall, scored float64) {
	k := len(exact) / (len(s.Test) / s.Dim)
	for step := range steps {
		hits, n := s.search(l, head, step, k, p)
		scored += float64(n) / float64(l.Len()*steps*s.Group)
		for h, ids := range hits {
			at := (step*s.Group + h) * k
			for _, id := range exact[at : at+k] {
				if slices.Contains(ids, id) {
					recall += 1 / float64(steps*s.Group*k)
				}
			}
		}
	}
	return recall, scored
}

// Every token is in one list; reading more lists finds more, and reading all
// finds everything.
func TestRecall(t *testing.T) {
	p := synth.Params{Keys: 16384, Dim: 64, Group: 2, Decode: 100}
	if os.Getenv("RA_LONG") != "" {
		p.Keys, p.Dim, p.Hard = 131072, 128, true
	}
	s := newSet(t, p)
	l := s.build(t, all(p.Keys), BuildParams{})
	defer l.Close()
	var ids []uint32
	for i := range l.Lists() {
		if n := len(ids); true {
			ids = l.Members(i, ids)
			if len(ids)-n != l.Count(i) || l.Count(i) == 0 {
				t.Fatalf("list %d has %d tokens, counted %d", i, len(ids)-n, l.Count(i))
			}
		}
	}
	slices.Sort(ids)
	if len(ids) != p.Keys || len(slices.Compact(ids)) != p.Keys || l.Len() != p.Keys {
		t.Errorf("%d tokens in the lists", len(ids))
	}
	exact := s.exact(t, s.head, all(p.Keys), 100)
	last, share := 0.0, 0.0
	for _, c := range []struct {
		p      SearchParams
		recall float64
		scored float64
	}{
		{SearchParams{Lists: l.Lists() / 32}, .3, .07},
		{SearchParams{Lists: l.Lists() / 8}, .8, .2},
		{SearchParams{Keys: p.Keys / 4}, .9, .27},
		{SearchParams{Lists: 10_000}, 1, 1},
	} {
		recall, scored := s.recall(t, l, s.head, exact, 100, c.p)
		t.Logf("%+v: recall@100 %.3f, %.2f %% of keys scored", c.p, recall, 100*scored)
		if recall < c.recall-1e-9 || scored > c.scored+1e-9 || recall < last || scored < share {
			t.Errorf("%+v: recall@100 %.3f with %.3f of keys scored, want %.3f with %.3f", c.p, recall, scored, c.recall, c.scored)
		}
		last, share = recall, scored
	}
	if l.Summaries() {
		t.Error("summaries that nobody asked for")
	}
}

// Centroids and summaries are the means of the lists' keys and values, also
// after tokens were added, and a token is in the list of the nearest one.
func TestSummaries(t *testing.T) {
	s := small(t)
	l := s.build(t, all(2900), BuildParams{Summaries: true, Segment: 1000})
	defer l.Close()
	f := l.Fork().(*Lists)
	defer f.Close()
	if err := f.Append(kv.Range{Lo: 2900, Hi: 3000}, s.ix.Reader(s.head)); err != nil {
		t.Fatal(err)
	}
	check := func(l *Lists, n int) {
		t.Helper()
		sum := 0
		reader := s.ix.Reader(s.head)
		row := make([]float32, s.Dim)
		for i := range l.Lists() {
			sum += l.Count(i)
			means := [2][]float64{make([]float64, s.Dim), make([]float64, s.Dim)}
			for _, id := range l.Members(i, nil) {
				for part, read := range []func(uint32, []float32){reader.Key, reader.Value} {
					read(id, row)
					for j, x := range row {
						means[part][j] += float64(x) / float64(l.Count(i))
					}
				}
			}
			k, v := l.Summary(i)
			for j := range k {
				if math.Abs(float64(k[j])-means[0][j]) > 1e-4 || math.Abs(float64(v[j])-means[1][j]) > 1e-4 {
					t.Fatalf("list %d, dimension %d: means %v and %v, want %v and %v", i, j, k[j], v[j], means[0][j], means[1][j])
				}
			}
		}
		if sum != n || l.Len() != n {
			t.Errorf("%d tokens in the lists, %d counted, want %d", sum, l.Len(), n)
		}
	}
	check(l, 2900)
	check(f, 3000)
	// Appended tokens went to the list whose centroid is nearest by cosine,
	// the mean key taken off both.
	var mean []float64
	key := make([]float32, s.Dim)
	mean = make([]float64, s.Dim)
	reader := s.ix.Reader(s.head)
	for id := range uint32(2900) {
		reader.Key(id, key)
		for j, x := range key {
			mean[j] += float64(x) / 2900
		}
	}
	wrong := 0
	for i := range f.Lists() {
		for _, id := range f.Members(i, nil) {
			if id < 2900 {
				continue
			}
			reader.Key(id, key)
			cos := func(list int) float64 {
				var dot, norm float64
				for j, c := range f.Centroids().F32[list*s.Dim : (list+1)*s.Dim] {
					d := float64(c) - mean[j]
					dot += d * (float64(key[j]) - mean[j])
					norm += d * d
				}
				return dot / math.Sqrt(norm)
			}
			for other := range f.Lists() {
				if cos(other) > cos(i)+1e-3 {
					wrong++
					break
				}
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%d of 100 tokens are in a list that is not the nearest", wrong)
	}
}

// Two forks append different tokens and see their own alone.
func TestForks(t *testing.T) {
	s := small(t)
	l := s.build(t, all(3000), BuildParams{Summaries: true})
	before := saved(t, l)
	built := s.mem.Used()
	var forks []*Lists
	for i := range 2 {
		c := s.head.Context.Fork()
		defer c.Close()
		if err := s.Fill(c, 3000+100*i, 3150+100*i); err != nil {
			t.Fatal(err)
		}
		f := l.Fork().(*Lists)
		if s.mem.Used() != built && i == 0 {
			t.Errorf("a fork took %d bytes", s.mem.Used()-built)
		}
		head := compute.Head{Context: c}
		for lo := 3000; lo < 3150; lo += 50 {
			if err := f.Append(kv.Range{Lo: lo, Hi: lo + 50}, s.ix.Reader(head)); err != nil {
				t.Fatal(err)
			}
		}
		forks = append(forks, f)
		recall, _ := s.recall(t, f, head, s.exact(t, head, all(3150), 20), 100, SearchParams{Lists: 1000})
		if math.Abs(recall-1) > 1e-9 || f.Len() != 3150 {
			t.Errorf("fork %d of %d tokens: recall %.4f reading all lists", i, f.Len(), recall)
		}
	}
	if !bytes.Equal(saved(t, l), before) || l.Len() != 3000 {
		t.Error("the lists changed under their forks")
	}
	if bytes.Equal(saved(t, forks[0]), saved(t, forks[1])) {
		t.Error("the forks are one")
	}
	want := saved(t, forks[0])
	ff := forks[0].Fork().(*Lists)
	for _, x := range []*Lists{l, forks[0], forks[1]} {
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(saved(t, ff), want) {
		t.Error("a fork of a fork differs")
	}
	if err := ff.Close(); err != nil || s.mem.Used() != 0 {
		t.Errorf("%v, %d bytes left", err, s.mem.Used())
	}
}

func TestDeterministic(t *testing.T) {
	s := small(t)
	var first []byte
	for _, procs := range []int{1, 2, 5} {
		func() {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			l := s.build(t, all(3000), BuildParams{Summaries: true, Segment: 1024})
			defer l.Close()
			if got := saved(t, l); first == nil {
				first = got
			} else if !bytes.Equal(got, first) {
				t.Errorf("other lists on %d cores", procs)
			}
		}()
	}
}

func TestCancel(t *testing.T) {
	s := small(t)
	ctx, cancel := context.WithCancel(context.Background())
	p := BuildParams{Segment: 1000, Progress: func(stage string, done, total int) {
		if done == 1000 && total == 3000 {
			cancel()
		}
	}}
	l, err := Build(ctx, s.ix, s.head, s.mem, all(3000), p)
	if l != nil || !errors.Is(err, context.Canceled) || s.mem.Used() != 0 {
		t.Errorf("%v, %d bytes left", err, s.mem.Used())
	}
}

func TestDegenerate(t *testing.T) {
	const dim = 8
	r := rand.New(rand.NewPCG(3, 3))
	random := func() []float32 {
		v := make([]float32, dim)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	fixed := random()
	for _, c := range []struct {
		name   string
		n      int
		key    func(i int) []float32
		tokens []kv.Range
	}{
		{"none", 5, func(int) []float32 { return fixed }, nil},
		{"one", 1, func(int) []float32 { return fixed }, all(1)},
		{"all equal", 1000, func(int) []float32 { return fixed }, all(1000)},
		{"all zero", 1000, func(int) []float32 { return make([]float32, dim) }, all(1000)},
		{"gaps", 1000, func(int) []float32 { return random() }, []kv.Range{{Lo: 3, Hi: 40}, {Lo: 41, Hi: 42}, {Lo: 500, Hi: 900}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			kvc, err := kv.NewContext(kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: dim, DType: kernel.F32}, c.n, kv.NewAllocator(0))
			if err != nil {
				t.Fatal(err)
			}
			defer kvc.Close()
			for i := range c.n {
				kvc.Put(0, 0, i, c.key(i), fixed)
			}
			kvc.Commit(c.n)
			ix, mem := compute.NewCPU(), kv.NewAllocator(0)
			head := compute.Head{Context: kvc}
			l, err := Build(context.Background(), ix, head, mem, c.tokens, BuildParams{PerList: 16, Segment: 256, Summaries: true})
			if err != nil {
				t.Fatal(err)
			}
			x := NewSearcher(ix)
			x.Open(l, head)
			top := kernel.NewTopK(c.n)
			scored := x.Search([][]float32{random()}, SearchParams{Lists: 1000}, []*kernel.TopK{top})
			ids := make([]uint32, top.Len())
			top.Take(ids, make([]float32, len(ids)))
			slices.Sort(ids)
			var want []uint32
			for _, rg := range c.tokens {
				for id := rg.Lo; id < rg.Hi; id++ {
					want = append(want, uint32(id))
				}
			}
			if !slices.Equal(ids, want) || scored != len(want) {
				t.Errorf("%d tokens found, %d scored, want %d", len(ids), scored, len(want))
			}
			if err := l.Close(); err != nil || mem.Used() != 0 {
				t.Errorf("%v, %d bytes left", err, mem.Used())
			}
		})
	}
}

// The parts of a search do what the whole does, each query on its own lists.
func TestFine(t *testing.T) {
	s := small(t)
	l := s.build(t, all(3000), BuildParams{})
	defer l.Close()
	hits, scored := s.search(l, s.head, 7, 25, SearchParams{Lists: 5})
	x := NewSearcher(s.ix)
	x.Open(l, s.head)
	sum := 0
	for h := range s.Group {
		lists := make([]uint32, 5)
		if n := x.Rank(s.Query(7, h), lists); n != 5 {
			t.Fatalf("%d lists", n)
		}
		q := [][]float32{s.Query(7, h)}
		top := []*kernel.TopK{kernel.NewTopK(25)}
		for _, list := range lists {
			sum += x.Scan(int(list), q, top)
		}
		ids := make([]uint32, 25)
		top[0].Take(ids, make([]float32, 25))
		if !slices.Equal(ids, hits[h]) {
			t.Errorf("head %d: %v, want %v", h, ids, hits[h])
		}
		var best float32
		for i := range l.Lists() {
			best = max(best, kernel.Dot(q[0], l.Centroids().F32[i*s.Dim:(i+1)*s.Dim]))
		}
		if got := kernel.Dot(q[0], l.Centroids().F32[int(lists[0])*s.Dim:int(lists[0]+1)*s.Dim]); got < best {
			t.Errorf("the best list scores %v, there is one of %v", got, best)
		}
	}
	if sum != scored {
		t.Errorf("%d scored, want %d", scored, sum)
	}
	if err := l.Append(kv.Range{Lo: 2999, Hi: 3001}, s.ix.Reader(s.head)); !errors.Is(err, ErrToken) {
		t.Error(err)
	}
}

func TestBuildErrors(t *testing.T) {
	s := small(t)
	for _, c := range []struct {
		p    BuildParams
		text string
	}{
		{BuildParams{PerList: -1}, "tokens per list are -1"},
		{BuildParams{PerList: 100, Segment: 50}, "a segment is 50 tokens"},
		{BuildParams{Iterations: -1}, "iterations are -1"},
	} {
		if _, err := Build(context.Background(), s.ix, s.head, s.mem, all(3000), c.p); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v", c.p, err)
		}
	}
	if _, err := Build(context.Background(), s.ix, s.head, s.mem, []kv.Range{{Lo: 5, Hi: 9}, {Lo: 8, Hi: 10}}, BuildParams{}); !errors.Is(err, ErrToken) {
		t.Error(err)
	}
	for budget := int64(1 << 10); budget < 1<<17; budget *= 4 {
		mem := kv.NewAllocator(budget)
		if _, err := Build(context.Background(), s.ix, s.head, mem, all(3000), BuildParams{PerList: 8, Summaries: true}); !errors.Is(err, kv.ErrBudget) || mem.Used() != 0 {
			t.Errorf("budget %d: %v, %d bytes left", budget, err, mem.Used())
		}
	}
}

func saved(t testing.TB, l *Lists) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := l.Save(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSaveLoad(t *testing.T) {
	s := small(t)
	l := s.build(t, []kv.Range{{Lo: 10, Hi: 1000}, {Lo: 1200, Hi: 2900}}, BuildParams{Summaries: true})
	defer l.Close()
	if err := l.Append(kv.Range{Lo: 2900, Hi: 3000}, s.ix.Reader(s.head)); err != nil {
		t.Fatal(err)
	}
	data := saved(t, l)
	back, err := Load(s.mem, s.Dim, 3000, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if !bytes.Equal(saved(t, back), data) {
		t.Error("other lists came back")
	}
	a, n := s.search(l, s.head, 3, 50, SearchParams{Lists: 7})
	b, m := s.search(back, s.head, 3, 50, SearchParams{Lists: 7})
	if n != m || !slices.Equal(a[0], b[0]) || !slices.Equal(a[1], b[1]) {
		t.Error("what came back finds something else")
	}
	for _, c := range []struct{ dim, tokens int }{{s.Dim, 2999}, {s.Dim + 1, 3000}} {
		if _, err := Load(s.mem, c.dim, c.tokens, bytes.NewReader(data)); !errors.Is(err, ErrFormat) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	used := s.mem.Used()
	for at := 0; at < len(data); at += 7 {
		b := slices.Clone(data)
		b[at] ^= 1 << (at % 8)
		if x, err := Load(s.mem, s.Dim, 3000, bytes.NewReader(b)); x != nil || err == nil {
			t.Fatalf("byte %d damaged: accepted", at)
		}
	}
	for _, n := range []int{0, 11, 100, len(data) - 1} {
		if _, err := Load(s.mem, s.Dim, 3000, bytes.NewReader(data[:n])); !errors.Is(err, ErrFormat) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if s.mem.Used() != used {
		t.Errorf("%d bytes kept", s.mem.Used()-used)
	}
}

// No data makes Load panic, take memory beyond its budget, or return lists
// that lead out of the context.
func FuzzLoad(f *testing.F) {
	s := small(f)
	for _, tokens := range [][]kv.Range{nil, all(1), {{Lo: 3, Hi: 9}, {Lo: 20, Hi: 40}}} {
		l := s.build(f, tokens, BuildParams{PerList: 4, Summaries: len(tokens) == 1})
		f.Add(saved(f, l))
		l.Close()
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// The checksum would hide everything else.
		if len(data) >= 4 {
			data = binary.LittleEndian.AppendUint32(data[:len(data)-4:len(data)-4],
				crc32.Checksum(data[:len(data)-4], crc32.MakeTable(crc32.Castagnoli)))
		}
		mem := kv.NewAllocator(4 << 20)
		l, err := Load(mem, s.Dim, 3000, bytes.NewReader(data))
		if err != nil {
			if mem.Used() != 0 {
				t.Errorf("%d bytes kept", mem.Used())
			}
			return
		}
		hits, scored := s.search(l, s.head, 0, 5000, SearchParams{Lists: 5000})
		if len(hits[0]) != l.Len() || scored != 2*l.Len() {
			t.Errorf("%d of %d found", len(hits[0]), l.Len())
		}
		if err := l.Close(); err != nil || mem.Used() != 0 {
			t.Error(err, mem.Used())
		}
	})
}
