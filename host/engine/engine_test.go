package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"go.uber.org/goleak"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/retrieval"
	"github.com/retrievalattention/ra/host/retrieval/graph"
	"github.com/retrievalattention/ra/host/retrieval/lists"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// greedy picks the largest logit.
type greedy struct{}

func (greedy) Sample(logits []float32) (int32, error) {
	best := 0
	for i, l := range logits {
		if l > logits[best] {
			best = i
		}
	}
	return int32(best), nil
}

// randomWeights returns a seeded random model.
func randomWeights(seed uint64, heads, kvHeads int) *compute.Weights {
	r := rand.New(rand.NewPCG(seed, 0))
	const hidden, inter, vocab, dim, layers = 32, 48, 97, 16, 3
	matrix := func(rows, cols int) kernel.Rows {
		x := make([]float32, rows*cols)
		for i := range x {
			x[i] = float32(r.NormFloat64()) / float32(math.Sqrt(float64(cols))) * 2
		}
		return kernel.RowsF32(x, cols)
	}
	ones := make([]float32, hidden)
	for i := range ones {
		ones[i] = 1
	}
	w := &compute.Weights{
		Spec: compute.Spec{
			Layers: layers, Hidden: hidden, Intermediate: inter, Vocab: vocab,
			Heads: heads, KVHeads: kvHeads, HeadDim: dim, NormEps: 1e-5,
		},
		Embedding: matrix(vocab, hidden), Norm: ones, Head: matrix(vocab, hidden),
	}
	for i := range dim / 2 {
		w.InvFreq = append(w.InvFreq, float32(math.Pow(1e4, -float64(2*i)/dim)))
	}
	for range layers {
		w.Layers = append(w.Layers, compute.LayerWeights{
			AttentionNorm: ones, MLPNorm: ones,
			Q: matrix(heads*dim, hidden), K: matrix(kvHeads*dim, hidden), V: matrix(kvHeads*dim, hidden),
			O: matrix(hidden, heads*dim), Gate: matrix(inter, hidden), Up: matrix(inter, hidden), Down: matrix(hidden, inter),
		})
	}
	return w
}

func randomTokens(seed uint64, n int) []int32 {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(r.IntN(97))
	}
	return out
}

// testEngine returns an engine on random weights with flat search.
func testEngine(t *testing.T, heads, kvHeads int, change func(*Options)) *Engine {
	t.Helper()
	backend := compute.NewCPU()
	model, err := backend.Load(randomWeights(uint64(heads*10+kvHeads), heads, kvHeads))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Model: model, Backend: backend, Strategy: retrieval.NewFlat(backend),
		DType: kernel.F32, TopK: 20, Policy: placement.SinkWindow{Sink: 4, Window: 16}, MaxContext: 4096,
	}
	if change != nil {
		change(&o)
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// steps returns the logits of every sampled step and the answer.
func steps(t *testing.T, e *Engine, document, question []int32, mode Mode, n int) ([][]float32, *Answer) {
	t.Helper()
	d, err := e.Prefill(context.Background(), document, PrefillOptions{Modes: []Mode{mode}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return ask(t, d, question, mode, n)
}

func ask(t *testing.T, d *Document, question []int32, mode Mode, n int) (logits [][]float32, a *Answer) {
	t.Helper()
	a, err := d.Answer(context.Background(), AnswerOptions{
		Mode: mode, Question: question, MaxTokens: n, Sampler: greedy{},
		Logits: func(l []float32) { logits = append(logits, append([]float32(nil), l...)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return logits, a
}

func maxDiff(t *testing.T, a, b [][]float32) float64 {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("%d and %d steps", len(a), len(b))
	}
	var m float64
	for i := range a {
		for j := range a[i] {
			m = max(m, math.Abs(float64(a[i][j]-b[i][j])))
		}
	}
	return m
}

// Retrieval attention that may retrieve everything equals full attention
// within 1e-3 on logits, and steps equal an exact prefill of the same tokens.
func TestRetrieveEverythingEqualsFull(t *testing.T) {
	shapes := [][2]int{{4, 2}, {2, 2}, {8, 2}, {8, 1}}
	if testing.Short() {
		shapes = shapes[:1]
	}
	for _, heads := range shapes {
		t.Run(fmt.Sprintf("heads %d over %d", heads[0], heads[1]), func(t *testing.T) {
			all := testEngine(t, heads[0], heads[1], func(o *Options) { o.TopK = 100000 })
			// 300 tokens in the window's way, so that blocks move to the index.
			document, question := randomTokens(1, 300), randomTokens(2, 150)
			full, fa := steps(t, all, document, question, Full, 20)
			found, ra := steps(t, all, document, question, Retrieval, 20)
			if d := maxDiff(t, full, found); d > 1e-3 {
				t.Errorf("retrieving everything differs from full attention by %g", d)
			}
			if fa.AttendedShare() != 1 || ra.AttendedShare() != 1 || fa.Stats.KeysScored != 0 {
				t.Errorf("attended %v and %v of the context, full scored %d keys", fa.AttendedShare(), ra.AttendedShare(), fa.Stats.KeysScored)
			}
			once, _ := steps(t, all, append(append([]int32(nil), document...), question[:149]...), question[149:], Full, 20)
			if d := maxDiff(t, full, once); d > 1e-3 {
				t.Errorf("reading the question in steps differs from prefilling it by %g", d)
			}
			few := testEngine(t, heads[0], heads[1], nil)
			some, sa := steps(t, few, document, question, Retrieval, 20)
			static, _ := steps(t, few, document, question, StaticSet, 20)
			if maxDiff(t, full, static) < 10*1e-3 || maxDiff(t, some, static) == 0 {
				t.Error("the modes cannot be told apart")
			}
			if s := sa.AttendedShare(); s >= 0.5 || s <= 0 {
				t.Errorf("top-20 attended %v of the context", s)
			}
		})
	}
}

// Search by index objects that is told to find everything equals full
// attention, over a window that hands tokens to the index; what was built and
// appended goes back with the document.
func TestIndexesEqualFull(t *testing.T) {
	document, question := randomTokens(1, 300), randomTokens(2, 150)
	for _, name := range []string{"graph", "ivf"} {
		mem := kv.NewAllocator(0)
		e := testEngine(t, 8, 2, func(o *Options) {
			var err error
			o.TopK = 1000
			if name == "graph" {
				o.Strategy, err = graph.NewStrategy(o.Backend, mem, graph.Params{Search: graph.SearchParams{Beam: 1000}, Queries: 100})
			} else {
				o.Strategy, err = lists.NewStrategy(o.Backend, mem, lists.Params{Search: lists.SearchParams{Lists: 1000}})
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		d, err := e.Prefill(context.Background(), document, PrefillOptions{Modes: Modes()})
		if err != nil {
			t.Fatal(err)
		}
		built := mem.Used()
		full, _ := ask(t, d, question, Full, 20)
		for range 2 { // answers do not disturb each other
			found, a := ask(t, d, question, Retrieval, 20)
			if diff := maxDiff(t, full, found); diff > 1e-3 || a.AttendedShare() != 1 {
				t.Errorf("%s: differs from full attention by %g, %v of the context attended", name, diff, a.AttendedShare())
			}
		}
		if built == 0 || mem.Used() != built {
			t.Errorf("%s: %d bytes of indexes once the answers are done, %d before", name, mem.Used(), built)
		}
		if err := d.Close(); err != nil || mem.Used() != 0 {
			t.Errorf("%s: %v, %d bytes left", name, err, mem.Used())
		}
	}
}

// The number of cores does not show in a single bit of the logits.
func TestCoresDoNotShow(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	// Static attention over two spans, so that states merge.
	document, question := randomTokens(5, 2100), randomTokens(6, 70)
	for _, mode := range Modes() {
		var want [][]float32
		for _, procs := range []int{1, 2, 5} {
			runtime.GOMAXPROCS(procs)
			e := testEngine(t, 8, 2, func(o *Options) { o.DType = kernel.BF16 })
			got, _ := steps(t, e, document, question, mode, 5)
			if want == nil {
				want = got
			}
			if d := maxDiff(t, want, got); d != 0 {
				t.Errorf("%s on %d cores: logits differ by %g from those on one", mode, procs, d)
			}
		}
	}
}

// Answers on one prefill do not disturb each other or the document.
func TestAnswersShareOnePrefill(t *testing.T) {
	e := testEngine(t, 4, 2, nil)
	d, err := e.Prefill(context.Background(), randomTokens(1, 200), PrefillOptions{Modes: Modes()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, m := range Modes() {
		want, _ := ask(t, d, randomTokens(3, 90), m, 8)
		ask(t, d, randomTokens(4, 100), m, 8)
		got, _ := ask(t, d, randomTokens(3, 90), m, 8)
		if diff := maxDiff(t, want, got); diff != 0 {
			t.Errorf("%s: the same question differs by %g after another one", m, diff)
		}
	}
	if used := e.o.Memory.Used(); used > 2<<20 {
		t.Errorf("%d bytes held while no answer is under way", used)
	}
}

// A block leaves the window only when the window has its slack full, and the
// strategy is told of exactly the tokens that became indexed.
func TestWindowSlides(t *testing.T) {
	spy := &spy{Strategy: retrieval.NewFlat(compute.NewCPU())}
	e := testEngine(t, 4, 2, func(o *Options) { o.Strategy = spy })
	_, a := steps(t, e, randomTokens(1, 100), randomTokens(2, 140), Retrieval, 1)
	if a.Steps != 140 {
		t.Fatalf("%d steps", a.Steps)
	}
	want := []kv.Range{{Lo: 84, Hi: 148}, {Lo: 148, Hi: 212}}
	for l := range 3 {
		if got := spy.appended[l]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("layer %d: appended %v, want %v", l, got, want)
		}
	}
	if fmt.Sprint(spy.built) != fmt.Sprint([]kv.Range{{Lo: 4, Hi: 84}, {Lo: 4, Hi: 84}, {Lo: 4, Hi: 84}}) {
		t.Errorf("built on %v", spy.built)
	}
}

// spy records what a strategy is told.
type spy struct {
	retrieval.Strategy
	built    []kv.Range
	appended [3][]kv.Range
}

func (s *spy) UsesPrefillQueries() bool { return true }

func (s *spy) Build(ctx context.Context, b *retrieval.Build) error {
	for r := range b.View.Ranges(b.Layer, kv.Indexed) {
		s.built = append(s.built, r)
	}
	if want := b.View.Len() * b.Heads * 16; len(b.Queries) != want {
		return fmt.Errorf("%d query values, want %d", len(b.Queries), want)
	}
	return s.Strategy.Build(ctx, b)
}

func (s *spy) Append(ctx context.Context, v *kv.View, layer int, r kv.Range) error {
	s.appended[layer] = append(s.appended[layer], r)
	return s.Strategy.Append(ctx, v, layer, r)
}

func TestStop(t *testing.T) {
	e := testEngine(t, 4, 2, nil)
	d, err := e.Prefill(context.Background(), randomTokens(1, 50), PrefillOptions{Modes: []Mode{Full}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	o := AnswerOptions{Mode: Full, Question: randomTokens(2, 3), MaxTokens: 10, Sampler: greedy{}}
	a, err := d.Answer(context.Background(), o)
	if err != nil || len(a.Tokens) != 10 || a.Stopped {
		t.Fatalf("%+v, %v", a, err)
	}
	o.Stop = a.Tokens[4:5]
	var seen []int32
	o.Token = func(id int32) { seen = append(seen, id) }
	cut := 0
	for a.Tokens[cut] != o.Stop[0] {
		cut++
	}
	b, err := d.Answer(context.Background(), o)
	if err != nil || !b.Stopped || fmt.Sprint(b.Tokens) != fmt.Sprint(a.Tokens[:cut]) || fmt.Sprint(seen) != fmt.Sprint(b.Tokens) {
		t.Fatalf("%+v, %v; want the first %d of %v", b, err, cut, a.Tokens)
	}
}

func TestRefusals(t *testing.T) {
	ctx := context.Background()
	e := testEngine(t, 4, 2, func(o *Options) { o.MaxContext = 120; o.Memory = kv.NewAllocator(4 << 20) })
	prefill := func(n int) error {
		d, err := e.Prefill(ctx, randomTokens(1, n), PrefillOptions{Modes: Modes()})
		if err == nil {
			err = d.Close()
		}
		return err
	}
	for _, c := range []struct {
		name string
		err  error
		want error
		text string
	}{
		{"no tokens", prefill(0), ErrEmptyPrompt, "empty prompt"},
		{"over the limit", prefill(120), ErrPromptTooLong,
			"prompt too long: 120 tokens of document and 1 for question and answer are 121, the limit is 120; shorten the prompt, lower generate.max_tokens, or raise model.max_context if the model allows it"},
		{"fits", prefill(119), nil, ""},
	} {
		if !errors.Is(c.err, c.want) || c.err != nil && c.err.Error() != c.text {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
	d, err := e.Prefill(ctx, randomTokens(1, 100), PrefillOptions{Modes: []Mode{Full}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ok := AnswerOptions{Mode: Full, Question: []int32{1}, MaxTokens: 3, Sampler: greedy{}}
	for _, c := range []struct {
		change func(*AnswerOptions)
		text   string
	}{
		{func(o *AnswerOptions) { o.Mode = Retrieval }, "the document was not prefilled for retrieval attention"},
		{func(o *AnswerOptions) { o.Question = nil }, "empty prompt: the question has no tokens"},
		{func(o *AnswerOptions) { o.MaxTokens = 0 }, "max tokens is 0, must be positive"},
		{func(o *AnswerOptions) { o.MaxTokens = 20 },
			"prompt too long: 100 tokens of document and 21 for question and answer are 121, the limit is 120; shorten the prompt, lower generate.max_tokens, or raise model.max_context if the model allows it"},
		{func(o *AnswerOptions) { o.Question = []int32{97} }, "token id 97 is outside the vocabulary of 97"},
	} {
		o := ok
		c.change(&o)
		if _, err := d.Answer(ctx, o); err == nil || err.Error() != c.text {
			t.Errorf("got %v\nwant %s", err, c.text)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := d.Answer(cancelled, ok); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled answer: %v", err)
	}
	if _, err := e.Prefill(cancelled, randomTokens(1, 60), PrefillOptions{Modes: []Mode{Retrieval}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled prefill: %v", err)
	}
	if _, err := e.Prefill(ctx, randomTokens(1, 60), PrefillOptions{Room: 61}); !errors.Is(err, ErrPromptTooLong) {
		t.Errorf("no room for the answer: %v", err)
	}
	small := testEngine(t, 4, 2, func(o *Options) { o.Memory = kv.NewAllocator(1 << 10) })
	if _, err := small.Prefill(ctx, randomTokens(1, 60), PrefillOptions{}); !errors.Is(err, kv.ErrBudget) {
		t.Errorf("over the memory budget: %v", err)
	}
	if used := small.o.Memory.Used(); used != 0 {
		t.Errorf("%d bytes leaked", used)
	}
}

// hungry is a strategy with an index in the memory of the keys and values.
type hungry struct {
	spy
	mem  *kv.Allocator
	held []*kv.Region
}

func (h *hungry) IndexBytes(g kv.Geometry, tokens int) int64 {
	return int64(g.Layers) * int64(tokens) << 10
}

func (h *hungry) Build(ctx context.Context, b *retrieval.Build) error {
	r, err := h.mem.Alloc(int64(b.View.Len())<<10, kv.Index)
	if err != nil {
		return err
	}
	h.held = append(h.held, r)
	return h.spy.Build(ctx, b)
}

// What a session will need in all, of every kind, is refused before it starts
// or granted to its end.
func TestMemoryOfASession(t *testing.T) {
	const n, room = 1200, 1000 // 1200 and, at least, 1024 tokens of 3 layers x 2 heads x 16 x 2 x 4 bytes
	needs := []int64{1200 * 768, 1024 * 768, 2 * 1200 * 4 * 16 * 4, 3 * 2200 << 10}
	var sum int64
	for _, x := range needs {
		sum += x
	}
	session := func(budget int64) (*Document, *hungry, error) {
		mem := kv.NewAllocator(budget)
		h := &hungry{spy: spy{Strategy: retrieval.NewFlat(compute.NewCPU())}, mem: mem}
		e := testEngine(t, 4, 2, func(o *Options) { o.Memory, o.Strategy = mem, h })
		d, err := e.Prefill(context.Background(), randomTokens(1, n), PrefillOptions{Modes: []Mode{Retrieval}, Room: room})
		return d, h, err
	}
	d, h, err := session(sum - 1)
	want := "memory budget exceeded: 9 MiB more needed (1 for the document, 1 for an answer, 1 for prefill queries, 7 for the search index), 0 of 9 MiB in use; raise model.cpu_memory_mib or shorten the prompt"
	if !errors.Is(err, kv.ErrBudget) || err.Error() != want || len(h.built) != 0 || h.mem.Used() != 0 {
		t.Fatalf("%v, %v built, %d bytes used, document %v\nwant %s", err, h.built, h.mem.Used(), d, want)
	}
	d, h, err = session(sum)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, d, randomTokens(2, 40), Retrieval, 40)
	for k, want := range map[kv.Kind]int64{kv.KeysValues: needs[0] + needs[1], kv.Queries: needs[2], kv.Index: 3 * n << 10} {
		if _, peak := h.mem.Usage(k); peak < want || peak > want+3<<14 { // in pages
			t.Errorf("%s: %d bytes at the peak, want %d", k, peak, want)
		}
	}
	if used, _ := h.mem.Usage(kv.Queries); used != 0 {
		t.Errorf("%d bytes of queries are kept after the prefill", used)
	}
	for _, r := range h.held {
		if err := r.Release(); err != nil {
			t.Error(err)
		}
	}
	if err := d.Close(); err != nil || h.mem.Used() != 0 {
		t.Errorf("%v, %d bytes used after the end", err, h.mem.Used())
	}
	// A closed document is not answered from.
	o := AnswerOptions{Mode: Retrieval, Question: []int32{1}, MaxTokens: 1, Sampler: greedy{}}
	if _, err := d.Answer(context.Background(), o); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("answer from a closed document: %v", err)
	}
}

// A strategy that breaks the rules ends the answer with an error that names
// it, the layer and the step.
func TestBadHits(t *testing.T) {
	for _, c := range []struct {
		ids  []uint32
		bias []float32
		text string
	}{
		{[]uint32{9999}, nil, "id 9999 is out of range, the context has 101 tokens"},
		{[]uint32{5, 5}, nil, "id 5 was returned twice"},
		{[]uint32{0}, nil, "id 0 is a static token, only indexed ones may be returned"},
		{make([]uint32, 21), nil, "21 hits, at most 20 were asked for"},
		{[]uint32{5}, []float32{float32(math.NaN())}, "the bias of id 5 is NaN"},
		{[]uint32{5}, []float32{1, 2}, "2 biases for 1 ids"},
	} {
		e := testEngine(t, 4, 2, func(o *Options) {
			o.Strategy = &liar{retrieval.NewFlat(o.Backend), retrieval.Hits{IDs: c.ids, Bias: c.bias}}
		})
		d, err := e.Prefill(context.Background(), randomTokens(1, 100), PrefillOptions{Modes: []Mode{Retrieval}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Answer(context.Background(), AnswerOptions{Mode: Retrieval, Question: []int32{1}, MaxTokens: 1, Sampler: greedy{}})
		want := "search flat, layer 0, step 100: invalid search result: query 0: " + c.text
		if !errors.Is(err, retrieval.ErrHits) || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
		d.Close()
	}
}

type liar struct {
	retrieval.Strategy
	hits retrieval.Hits
}

func (l *liar) Search(_ context.Context, c *retrieval.Call, res *retrieval.Result) error {
	res.Reset(c.Count())
	for i := range res.Hits {
		res.Hits[i] = l.hits
	}
	return nil
}

func TestPrompt(t *testing.T) {
	for _, c := range []struct {
		text      string
		questions []string
		document  string
		asked     []string
		err       bool
	}{
		{"a\nb\n", []string{"q"}, "a\nb\n", []string{"q"}, false},
		{"a", []string{"q", "r"}, "a\n", []string{"q", "r"}, false},
		{"a\nb\nthe question is\n\n", nil, "a\nb\n", []string{"the question is"}, false},
		{"one line", nil, "", []string{"one line"}, false},
		{" \n\t\n", nil, "", nil, true},
		{"", []string{"q"}, "", nil, true},
		{"a", []string{" "}, "", nil, true},
	} {
		p, err := NewPrompt(c.text, c.questions)
		if c.err {
			if !errors.Is(err, ErrEmptyPrompt) {
				t.Errorf("%q: %v", c.text, err)
			}
			continue
		}
		if err != nil || p.Document != c.document || fmt.Sprint(p.Questions) != fmt.Sprint(c.asked) {
			t.Errorf("%q: %+v, %v", c.text, p, err)
		}
	}
	p, _ := NewPrompt("xyz", nil)
	d, q, err := p.Encode(bytewise{})
	if err != nil || fmt.Sprint(d, q) != "[1 120 121] [[122]]" {
		t.Error(d, q, err)
	}
	p, _ = NewPrompt("x\ny", nil)
	d, q, err = p.Encode(bytewise{})
	if err != nil || fmt.Sprint(d, q) != "[1 120 10] [[121]]" {
		t.Error(d, q, err)
	}
}

// bytewise encodes every byte as itself, after the special token 1.
type bytewise struct{}

func (bytewise) Encode(s string, special bool) (ids []int32, err error) {
	if special {
		ids = append(ids, 1)
	}
	for _, b := range []byte(s) {
		ids = append(ids, int32(b))
	}
	return ids, nil
}
