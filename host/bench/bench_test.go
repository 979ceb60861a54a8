package bench

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/model"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/retrieval"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want Sample
	}{
		{nil, Sample{}},
		{[]float64{3}, Sample{3, 3, 3, 1}},
		{[]float64{4, 1}, Sample{2.5, 1.75, 3.25, 2}},
		{[]float64{5, 1, 4, 2, 3}, Sample{3, 2, 4, 5}},
	} {
		if got := summarize(slices.Clone(c.in)); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.in, got, c.want)
		}
	}
	s := Sample{4, 2, 8, 3}
	if got := s.invert(16); got != (Sample{4, 2, 8, 3}) {
		t.Errorf("16 over %+v: %+v", s, got)
	}
	if got := s.Spread(); got != 0.75 {
		t.Errorf("spread %v", got)
	}
}

// Calls that take a known time give a rate that cannot be above it, and two
// workers give the sum.
func TestRate(t *testing.T) {
	calls := 0
	slow := func() { calls++; time.Sleep(2 * time.Millisecond) }
	if r := rate(10*time.Millisecond, []func(){slow}); r <= 0 || r > 500 || calls < 2 {
		t.Errorf("%v calls a second after %d", r, calls)
	}
	a, b := 0, 0
	rate(time.Millisecond, []func(){func() { a++ }, func() { b++ }})
	if a == 0 || b == 0 {
		t.Errorf("%d and %d calls", a, b)
	}
}

// Consecutive calls of a cursor read every row once before any again, and
// never across the end of a head.
func TestCursor(t *testing.T) {
	s := &store{heads: 3, n: 10}
	var c cursor
	seen := map[[2]int]int{}
	for range 9 {
		head, lo := c.next(s, 3)
		for r := lo; r < lo+3; r++ {
			if head >= s.heads || r >= s.n {
				t.Fatalf("row %d of head %d", r, head)
			}
			seen[[2]int{head, r}]++
		}
	}
	if len(seen) != 27 {
		t.Errorf("%d rows in 9 calls: %v", len(seen), seen)
	}
	if head, lo := c.next(s, 3); head != 0 || lo != 0 {
		t.Errorf("call 10 begins at row %d of head %d", lo, head)
	}
}

func TestStoreShape(t *testing.T) {
	for _, c := range []struct {
		dtype        kernel.DType
		dim, threads int
		bytes        int64
	}{
		{kernel.BF16, 128, 2, 256 << 20}, {kernel.F32, 128, 4, 256 << 20}, {kernel.BF16, 64, 2, 1 << 20}, {kernel.F32, 4096, 3, 1 << 10},
	} {
		s := shapeOf(c.dtype, c.dim, headRows, c.threads, c.bytes)
		got := int64(s.heads) * int64(s.n) * int64(s.rowBytes())
		if s.heads < c.threads || s.n < 1 || s.n > headRows || c.bytes > 1<<12 && (got > c.bytes || got < c.bytes/2) {
			t.Errorf("%+v: %d heads of %d rows", c, s.heads, s.n)
		}
	}
}

var smallKernels = KernelOptions{
	DTypes: []kernel.DType{kernel.BF16, kernel.F32, kernel.F16}, Dims: []int{64}, Queries: []int{1, 4}, Threads: []int{1, 2},
	Repeats: 2, Slice: 10 * time.Microsecond, WorkingSet: 1 << 20, Seed: 1,
}

// Every kernel is measured on every shape asked for, with figures that agree
// with each other.
func TestKernels(t *testing.T) {
	o, units := smallKernels, 0
	o.Progress = func(n int) { units += n }
	rep, err := Kernels(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if units != o.Units() {
		t.Errorf("%d units of work, %d were announced", units, o.Units())
	}
	found := map[string]bool{}
	for _, k := range rep.Kernels {
		found[k.Name+" "+k.DType] = true
		if k.NSUnit.Median <= 0 || k.NSUnit.N != o.Repeats || k.NSUnit.Q1 > k.NSUnit.Q3 || k.Level != kernel.Level() {
			t.Errorf("%+v", k)
		}
		if bytes := k.GBps.Median * k.NSUnit.Median; k.Unit == "key" && k.Arithmetic == "f32" && math.Abs(bytes-float64(k.Dim*dtypeSize(k.DType))) > 1 {
			t.Errorf("%s %s x %d: %v bytes a key", k.Name, k.DType, k.Dim, bytes)
		}
		if flops := k.GFLOPs.Median * k.NSUnit.Median; k.Unit == "key" && math.Abs(flops-float64(2*k.Queries*k.Dim)) > 1 {
			t.Errorf("%s with %d queries: %v FLOP a key", k.Name, k.Queries, flops)
		}
		if k.Cache == "memory" && (k.Share.Median <= 0 || k.Bound == "") {
			t.Errorf("no share: %+v", k)
		}
	}
	for _, name := range KernelNames() {
		if !found[name+" f32"] || found[name+" bf16"] != found[name+" f16"] {
			t.Errorf("%s is not measured", name)
		}
	}
	for _, name := range []string{"score-range", "attend-prefill", "matmul"} {
		if !found[name+" f16"] {
			t.Errorf("%s is not measured in f16", name)
		}
	}
	if len(rep.Ceilings) != 4 {
		t.Errorf("ceilings %+v", rep.Ceilings)
	}
	for _, c := range rep.Ceilings {
		if c.Median <= 0 {
			t.Errorf("ceiling %+v", c)
		}
	}
}

func dtypeSize(name string) int {
	if name == "f32" {
		return 4
	}
	return 2
}

func TestKernelsOnly(t *testing.T) {
	o := smallKernels
	o.Only = "score"
	rep, err := Kernels(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range rep.Kernels {
		if !strings.Contains(k.Name, "score") {
			t.Errorf("%s is measured", k.Name)
		}
	}
	for _, c := range []struct {
		change func(o *KernelOptions)
		want   string
		is     error
	}{
		{func(o *KernelOptions) { o.Only = "scroe" }, `no kernel's name contains "scroe"; there are score-range`, ErrOptions},
		{func(o *KernelOptions) { o.Dims = []int{63} }, "positive and even", ErrOptions},
		{func(o *KernelOptions) { o.Queries = []int{9} }, "1 to 8 queries", ErrOptions},
		{func(o *KernelOptions) { o.Threads = []int{0} }, "threads must be at least 1", ErrOptions},
		{func(o *KernelOptions) { o.DTypes = nil }, "at least one value each", ErrOptions},
		{func(o *KernelOptions) { o.Repeats = 0 }, "repeats must be at least 1", ErrOptions},
	} {
		o := smallKernels
		c.change(&o)
		if _, err := Kernels(context.Background(), o); !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Kernels(ctx, smallKernels); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A report that went through JSON merges with another level's, and shares
// refer to the best level's arithmetic and each level's own memory.
func TestMerge(t *testing.T) {
	report := func(level string, memory, flops float64) *KernelReport {
		rep := &KernelReport{
			Ceilings: []Ceiling{
				{memoryRead, "GB/s", 1, level, Sample{Median: memory}},
				{f32Arithmetic, "GFLOP/s", 1, level, Sample{Median: flops}},
			},
			Kernels: []KernelResult{
				{Name: "a", Level: level, Threads: 1, Cache: "memory", Arithmetic: "f32", GBps: Sample{Median: 5}, GFLOPs: Sample{Median: 1}},
				{Name: "b", Level: level, Threads: 1, Cache: "cache", Arithmetic: "f32", GBps: Sample{Median: 5}, GFLOPs: Sample{Median: 10}},
				{Name: "c", Level: level, Threads: 1, Cache: "cache", Arithmetic: "bf16", GFLOPs: Sample{Median: 10}},
			},
		}
		data, err := json.Marshal(rep)
		if err != nil {
			t.Fatal(err)
		}
		out := &KernelReport{}
		if err := json.Unmarshal(data, out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	all := report("slow", 10, 20)
	all.Merge(report("fast", 20, 100))
	for i, want := range []struct {
		share float64
		bound string
	}{{0.5, memoryRead}, {0.1, f32Arithmetic}, {0, ""}, {0.25, memoryRead}, {0.1, f32Arithmetic}, {0, ""}} {
		if k := all.Kernels[i]; math.Abs(k.Share.Median-want.share) > 1e-12 || k.Bound != want.bound {
			t.Errorf("kernel %d: %v of %q, want %+v", i, k.Share.Median, k.Bound, want)
		}
	}
}

// The parameters of every shape are those that its model card or weight
// files state, biases and the norms of queries and keys left out.
func TestGeometries(t *testing.T) {
	published := map[string]int64{
		"llama-2-7b": 6738415616, "llama-3-8b": 8030261248, "llama-3.1-8b": 8030261248,
		"llama-3.2-1b": 1235814400, "llama-3.2-3b": 3212749824, "mistral-7b": 7248023552,
		"qwen2.5-7b": 7615616512 - 28*(3584+2*512), "qwen3-8b": 8190735360 - 36*2*128,
		"yi-6b-200k": 6061035520, "yi-9b-200k": 8829407232,
	}
	for _, g := range geometries {
		s := g.spec(g.Config.Layers)
		norms := int64((2*s.Layers + 1) * s.Hidden)
		if got := g.weightBytes(s.Layers)/2 + norms; got != published[g.Name] {
			t.Errorf("%s: %d parameters, published %d", g.Name, got, published[g.Name])
		}
		if len(s.InvFreq) != s.HeadDim/2 || s.InvFreq[0] != 1 || s.Heads%s.KVHeads != 0 {
			t.Errorf("%s: %+v", g.Name, s)
		}
	}
	if _, err := FindGeometry("Llama-3.2-1B-Instruct"); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), `the nearest is "llama-3.2-1b"; there are llama-2-7b, `) {
		t.Error(err)
	}
	if g, err := FindGeometry("mistral-7b"); err != nil || g.Name != "mistral-7b" {
		t.Errorf("%v, %v", g.Name, err)
	}
}

// tiny is a shape that computes in no time.
var tiny = llama("tiny", 3, 64, 96, 4, 2, 16, 50, model.RoPE{Theta: 1e4}, true)

func TestWeights(t *testing.T) {
	a, b, other := tiny.Weights(2, 1), tiny.Weights(2, 1), tiny.Weights(2, 2)
	if len(a.Layers) != 2 || a.Spec.Layers != 2 {
		t.Fatalf("%d layers", len(a.Layers))
	}
	if !slices.Equal(a.Layers[1].Down.U16, b.Layers[1].Down.U16) || slices.Equal(a.Layers[1].Down.U16, other.Layers[1].Down.U16) {
		t.Error("weights do not follow the seed")
	}
	if slices.Equal(a.Layers[0].Down.U16, a.Layers[1].Down.U16) || &a.Embedding.U16[0] != &a.Head.U16[0] {
		t.Error("layers share weights, or a tied embedding does not")
	}
	row, sum := make([]float32, 96), 0.0
	for i := range a.Layers[0].Down.N {
		a.Layers[0].Down.Widen(i, row)
		for _, v := range row {
			sum += float64(v) * float64(v)
		}
	}
	if sd := math.Sqrt(sum / (64 * 96)); sd < 0.019 || sd > 0.021 {
		t.Errorf("standard deviation %v", sd)
	}
	untied := tiny
	untied.Config.TieWordEmbeddings = false
	if w := untied.Weights(1, 1); &w.Embedding.U16[0] == &w.Head.U16[0] {
		t.Error("an untied embedding is shared")
	}
}

// Made-up keys follow the seed, differ between heads and layers, and have
// sinks and high norms.
func TestPreparedKeys(t *testing.T) {
	const n = 4096
	keys := func(seed uint64) [][]float32 {
		c, err := kv.NewContext(kv.Geometry{Layers: 2, KVHeads: 2, HeadDim: 16, DType: kernel.F32}, n, kv.NewAllocator(0))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p := newPrepared(nil, seed)
		queries := make([]float32, 64)
		var all [][]float32
		for l := range 2 {
			if err := p.Prefill(context.Background(), document(n), l, 0, c, queries, nil); err != nil {
				t.Fatal(err)
			}
			for h := range 2 {
				for s := range c.Segments(l, h, 0, n) {
					all = append(all, slices.Clone(s.Keys.F32))
				}
			}
		}
		if slices.Min(queries) >= 0 || slices.Max(queries) <= 0 {
			t.Error("queries are not normal")
		}
		return all
	}
	a, b := keys(1), keys(1)
	for i := range a {
		if !slices.Equal(a[i], b[i]) {
			t.Error("keys do not follow the seed")
		}
		for j := range i {
			if slices.Equal(a[i], a[j]) {
				t.Errorf("heads %d and %d have the same keys", i, j)
			}
		}
	}
	norm := func(i int) float64 {
		sum := 0.0
		for _, v := range a[0][i*16 : (i+1)*16] {
			sum += float64(v) * float64(v)
		}
		return math.Sqrt(sum)
	}
	mean := 0.0
	for i := sinks; i < n; i++ {
		mean += norm(i) / (n - sinks)
	}
	if norm(0) < 2*mean {
		t.Errorf("the first key's norm is %v, the mean %v", norm(0), mean)
	}
	if (&prepared{}).Prefill(context.Background(), nil, 0, 0, nil, nil, nil) == nil {
		t.Error("a stream of another kind is accepted")
	}
}

// queryUser is a strategy that reads the prefill's queries.
type queryUser struct {
	*retrieval.Flat
	built int
}

func (q *queryUser) UsesPrefillQueries() bool { return true }
func (q *queryUser) Build(_ context.Context, b *retrieval.Build) error {
	if len(b.Queries) == 0 {
		return errors.New("no queries")
	}
	q.built++
	return nil
}

func options(t *testing.T, layers int) ModelOptions {
	backend := compute.NewCPU()
	t.Cleanup(func() { backend.Close() })
	return ModelOptions{
		Name: "tiny", Weights: tiny.Weights(layers, 1), Layers: tiny.Config.Layers, Random: true,
		Backend: backend, Strategy: &queryUser{Flat: retrieval.NewFlat(backend)}, Modes: engine.Modes(), DType: kernel.BF16,
		TopK: 10, Policy: placement.SinkWindow{Sink: 4, Window: 20},
		Contexts: []int{100, 300}, Prompts: []int{40}, Steps: 3, Repeats: 2, WorkingSet: 1 << 16, Seed: 1,
	}
}

// The decode steps of all modes at all lengths run through the engine, and
// their parts make up the whole.
func TestModel(t *testing.T) {
	for _, layers := range []int{3, 2} {
		o, units := options(t, layers), 0
		o.Progress = func(n int) { units += n }
		rep, err := Model(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		if units != o.Units() {
			t.Errorf("%d units of work, %d were announced", units, o.Units())
		}
		if rep.Model.Scaled() != (layers < 3) || rep.Memory.Median <= 0 || rep.Search.Name != "flat" {
			t.Errorf("%+v", rep)
		}
		if built := o.Strategy.(*queryUser).built; built != 4*layers { // of two contexts and, in two repeats, of a prompt
			t.Errorf("%d indexes built", built)
		}
		if len(rep.Decode) != 6 {
			t.Fatalf("%d results", len(rep.Decode))
		}
		for _, d := range rep.Decode {
			if d.Step.N < o.Repeats*o.Steps || d.Step.Median <= 0 || d.Projections.Median <= 0 || d.Attend.Median <= 0 || d.Logits.Median <= 0 || d.Static.Median <= 0 {
				t.Errorf("%+v", d)
			}
			if searches := d.Attention == engine.Retrieval; searches != (d.Search.Median > 0) || searches != (d.Retrieved.Median > 0) || searches != (d.KeysScoredShare > 0) || searches != (d.IndexSeconds > 0) {
				t.Errorf("%s: search %v, retrieved %v, keys scored %v", d.Attention, d.Search.Median, d.Retrieved.Median, d.KeysScoredShare)
			}
			if static := float64(d.Context + o.Steps + 1); d.Attention == engine.Full && d.StaticTokens != static || d.Attention != engine.Full && d.StaticTokens >= static/2 {
				t.Errorf("%s: %v static tokens of %d", d.Attention, d.StaticTokens, d.Context)
			}
			if (d.Attention == engine.Full) != (d.AttendedShare == 1) {
				t.Errorf("%s attends to %v", d.Attention, d.AttendedShare)
			}
		}
		if p := rep.Prefill[0]; p.Prompt != 40 || p.TokensPerSecond <= 0 || p.GFLOPs <= 0 {
			t.Errorf("%+v", p)
		}
	}
}

// Times of layers are scaled to all layers, the rest is not; the bytes of a
// step are counted as documented.
func TestScaledResult(t *testing.T) {
	o := options(t, 1)
	o.WorkingSet = 1
	m := &modelBench{ModelOptions: o}
	const ms = time.Millisecond
	steps := []step{{total: 100 * ms, projections: 40 * ms, attention: 30 * ms, static: 10 * ms, search: 20 * ms, retrieved: 5 * ms, logits: 20 * ms, staticTokens: 24, hits: 40}}
	a := &engine.Answer{Steps: 2}
	a.Stats.KeysScored = 2 * 4 * 76
	d := m.result(100, engine.Retrieval, steps, a, 1e6)
	for _, c := range []struct {
		what string
		got  Sample
		want float64
	}{
		{"step", d.Step, 0.240}, {"projections", d.Projections, 0.120}, {"attention", d.Attend, 0.090}, {"static", d.Static, 0.030},
		{"search", d.Search, 0.060}, {"retrieved", d.Retrieved, 0.015}, {"logits", d.Logits, 0.020}, {"other", d.Other, 0.010},
	} {
		if math.Abs(c.got.Median-c.want) > 1e-9 {
			t.Errorf("%s %v, want %v", c.what, c.got.Median, c.want)
		}
	}
	const row = 32
	head := int64(50 * 64 * 2)
	layer := int64(2*(64*(2*64+2*32)+3*64*96) + 2*row*24*2 + row*(2*76+40))
	if d.Bytes != head+3*layer {
		t.Errorf("%d bytes, want %d", d.Bytes, head+3*layer)
	}
	if want := float64(d.Bytes) / 1e6; math.Abs(d.FloorSeconds-want) > 1e-9 || math.Abs(d.FloorRatio-0.240/want) > 1e-9 {
		t.Errorf("floor %v, ratio %v", d.FloorSeconds, d.FloorRatio)
	}
	m.WorkingSet = 1 << 40
	if d := m.result(100, engine.Retrieval, steps, a, 1e6); d.FloorRatio != 0 {
		t.Errorf("ratio %v to bytes that caches hold", d.FloorRatio)
	}
}

func TestModelErrors(t *testing.T) {
	for _, c := range []struct {
		change func(o *ModelOptions)
		want   string
	}{
		{func(o *ModelOptions) { o.Contexts, o.Prompts = nil, nil }, "name a context or a prompt"},
		{func(o *ModelOptions) { o.Contexts = []int{1} }, "at least 2 tokens"},
		{func(o *ModelOptions) { o.Prompts = []int{0} }, "at least 1 token"},
		{func(o *ModelOptions) { o.Modes = nil }, "attention mode"},
		{func(o *ModelOptions) { o.Steps = 0 }, "must be at least 1"},
		{func(o *ModelOptions) { o.MaxContext = 200 }, "the limit is 200"},
	} {
		o := options(t, 1)
		c.change(&o)
		if _, err := Model(context.Background(), o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// A measurement over the memory is refused with the figures, and what the
// error advises fits.
func TestCheckMemory(t *testing.T) {
	g, err := FindGeometry("llama-3-8b")
	if err != nil {
		t.Fatal(err)
	}
	const working = 256 << 20
	err = CheckMemory(g, 32, 131072, kernel.BF16, working, 20<<30)
	if !errors.Is(err, ErrMemory) {
		t.Fatal(err)
	}
	for _, w := range []string{"15.0 GiB of weights", "16.1 GiB of keys and values (bf16)", "20.0 GiB are available", "--layers 19 (times are then scaled to 32)"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q lacks %q", err, w)
		}
	}
	for layers, fits := range map[int]bool{19: true, 20: false} {
		if err := CheckMemory(g, layers, 131072, kernel.BF16, working, 20<<30); (err == nil) != fits {
			t.Errorf("%d layers: %v", layers, err)
		}
	}
	if err := CheckMemory(g, 32, 131072, kernel.BF16, working, 1<<30); err == nil || !strings.Contains(err.Error(), "smaller geometry") {
		t.Error(err)
	}
	if err := CheckMemory(g, 32, 131072, kernel.BF16, working, 0); err != nil {
		t.Errorf("memory unknown: %v", err)
	}
}

func someSample(v float64) Sample { return Sample{v, 0.9 * v, 1.2 * v, 9} }

var machine = Machine{CPU: "Some CPU", OS: "linux", Arch: "amd64", Threads: 2, Level: "avx2", Go: "go1.26", Version: "v1"}

func kernelReport() *KernelReport {
	rep := &KernelReport{Machine: machine, Seed: 1}
	for _, level := range []string{"generic", "avx2"} {
		rep.Ceilings = append(rep.Ceilings,
			Ceiling{memoryRead, "GB/s", 1, level, someSample(25)}, Ceiling{f32Arithmetic, "GFLOP/s", 1, level, someSample(100)})
		rep.Kernels = append(rep.Kernels,
			KernelResult{Name: "score-range", Level: level, DType: "bf16", Dim: 128, N: 4096, Queries: 4, Threads: 1, Cache: "memory", Arithmetic: "f32", Unit: "key",
				NSUnit: someSample(12.3), GBps: someSample(20.8), GFLOPs: someSample(83)},
			KernelResult{Name: "matmul", Level: level, DType: "f16", Dim: 4096, N: 4096, Queries: 256, Threads: 1, Cache: "memory", Arithmetic: "f32", Unit: "row",
				NSUnit: someSample(21000), GBps: someSample(0.39), GFLOPs: someSample(99.97)},
			KernelResult{Name: "exp", Level: level, DType: "f32", Dim: 4096, N: 4096, Threads: 1, Cache: "cache", Arithmetic: "f32", Unit: "element", NSUnit: someSample(0.0312)})
	}
	rep.Bind()
	return rep
}

func modelReport() *ModelReport {
	rep := &ModelReport{
		Machine: machine, Seed: 1, KVDType: "bf16", TopK: 100, Policy: retrieval.Info{Name: "sinkwindow", Version: "1", Runtime: "native"},
		Model: ModelShape{Name: "some-1b", RandomWeights: true, Layers: 16, LayersMeasured: 4, Hidden: 2048, Intermediate: 8192,
			Heads: 32, KVHeads: 8, HeadDim: 64, Vocab: 128256, Parameters: 1235748864, WeightDType: "bf16"},
		Search: &retrieval.Info{Name: "flat", Version: "1", Runtime: "native"},
		Memory: Ceiling{memoryRead, "GB/s", 2, "avx2", someSample(36.7)},
	}
	for i, n := range []int{4096, 32768} {
		for j, mode := range engine.Modes() {
			v := float64(1+i) / float64(1+j)
			rep.Decode = append(rep.Decode, DecodeResult{
				Context: n, Attention: mode, Step: someSample(0.1 * v), Projections: someSample(0.06 * v), Attend: someSample(0.03 * v),
				Logits: someSample(0.008 * v), Other: someSample(0.002 * v), Static: someSample(0.01 * v), Search: someSample(0.02 * v), Retrieved: someSample(0.005 * v),
				StaticTokens: 640, TokensPerSecond: 10 / v, AttendedShare: 0.1, KeysScoredShare: 0.9, Bytes: 3e9, FloorSeconds: 0.07 * v, FloorRatio: 1 / 0.7,
			})
		}
	}
	rep.Prefill = []PrefillResult{{256, someSample(3), 85.3, 170, 0.5}, {1024, someSample(13), 78.8, 160, 1}}
	return rep
}

type report interface {
	WriteText(io.Writer) error
	WritePlot(string) error
}

// The tables are those of the golden files.
func TestText(t *testing.T) {
	plain := modelReport()
	plain.Model.RandomWeights, plain.Model.LayersMeasured, plain.Search, plain.Prefill = false, 16, nil, nil
	plain.Decode = plain.Decode[1:2]
	plain.Decode[0].FloorSeconds, plain.Decode[0].FloorRatio = 0, 0
	plain.Machine.CPU = ""
	prefill := modelReport()
	prefill.Decode = nil
	for name, rep := range map[string]report{"kernels": kernelReport(), "model": modelReport(), "plain-model": plain, "prefill": prefill} {
		golden(t, name, rep)
	}
}

// golden compares the report's text with the file of that name.
func golden(t *testing.T, name string, rep interface{ WriteText(io.Writer) error }) {
	t.Helper()
	var out strings.Builder
	if err := rep.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, out.String(), want)
	}
}

// Plots are readable images, whatever was measured.
func TestPlot(t *testing.T) {
	one, prefill := modelReport(), modelReport()
	one.Decode, one.Prefill = one.Decode[:3], nil
	prefill.Decode, prefill.Prefill = nil, prefill.Prefill[:1]
	for name, rep := range map[string]report{"kernels": kernelReport(), "model": modelReport(), "one": one, "prefill": prefill} {
		file := filepath.Join(t.TempDir(), name+".png")
		if err := rep.WritePlot(file); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(f)
		f.Close()
		if err != nil || img.Bounds().Dx() < 400 {
			t.Errorf("%s: %v", name, err)
		}
		file = filepath.Join(t.TempDir(), name+".SVG")
		if err := rep.WritePlot(file); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var svg struct {
			XMLName xml.Name `xml:"svg"`
		}
		if err := xml.Unmarshal(data, &svg); err != nil || !strings.Contains(string(data), "Some CPU") {
			t.Errorf("%s: %v", name, err)
		}
	}
	bare := kernelReport()
	bare.Kernels = bare.Kernels[2:3]
	if err := bare.WritePlot(filepath.Join(t.TempDir(), "x.png")); !errors.Is(err, ErrOptions) {
		t.Errorf("nothing to plot: %v", err)
	}
	for file, want := range map[string]string{"x.pdf": ".png or .svg", "x": ".png or .svg", "none/x.png": "no folder none"} {
		if err := CheckPlot(file); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if err := CheckPlot("x.PNG"); err != nil {
		t.Error(err)
	}
}

func TestMachine(t *testing.T) {
	m := ThisMachine()
	if m.Go == "" || m.Level != kernel.Level() || m.Threads < 1 {
		t.Errorf("%+v", m)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("a : 1\nmodel name\t: A CPU: fast\nmodel name : other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := procField(file, "model name"); got != "A CPU: fast" {
		t.Errorf("%q", got)
	}
	if got := procField("missing", "a"); got != "" {
		t.Errorf("%q", got)
	}
}
