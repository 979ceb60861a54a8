package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/model/sampling"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/retrieval"
)

// ModelOptions say what of a model is measured and how long.
type ModelOptions struct {
	Name     string
	Weights  *compute.Weights // of all layers, or of the first few
	Layers   int              // of the whole model: times are scaled to it when Weights has fewer
	Random   bool             // the weights are random
	Backend  compute.Backend
	Strategy retrieval.Strategy // searches in retrieval attention; nil when that is not among Modes
	Modes    []engine.Mode
	Memory   *kv.Allocator // for keys and values; nil means without budget
	DType    kernel.DType  // of keys and values
	TopK     int
	Policy   placement.Policy // places tokens, in all modes but full

	Contexts   []int // tokens in context of the decode steps
	Prompts    []int // tokens prefilled
	MaxContext int   // most tokens that the model takes; 0: no limit
	Steps      int   // decode steps measured in a turn of a mode
	Repeats    int   // least turns of every mode
	MinTime    time.Duration
	Seed       uint64
	// WorkingSet is the bytes that the memory's bandwidth is measured on.
	WorkingSet int64
	// Progress, when not nil, is told of units of work done; [ModelOptions.Units]
	// are the whole.
	Progress func(units int)
}

// ModelReport is the result of [Model]. Times are those of the whole model:
// scaled where fewer layers were measured.
type ModelReport struct {
	Machine Machine         `json:"machine"`
	Seed    uint64          `json:"seed"`
	Model   ModelShape      `json:"model"`
	KVDType string          `json:"kv_dtype"`
	Search  *retrieval.Info `json:"search"` // null when no mode searches
	TopK    int             `json:"top_k"`
	Policy  retrieval.Info  `json:"policy"`
	// Memory is the read bandwidth of all threads, measured between the
	// decode steps.
	Memory  Ceiling         `json:"memory"`
	Decode  []DecodeResult  `json:"decode"`
	Prefill []PrefillResult `json:"prefill"`
}

// ModelShape says what was measured.
type ModelShape struct {
	Name           string `json:"name"`
	RandomWeights  bool   `json:"random_weights"`
	Layers         int    `json:"layers"`
	LayersMeasured int    `json:"layers_measured"` // below Layers: all times are scaled
	Hidden         int    `json:"hidden"`
	Intermediate   int    `json:"intermediate"`
	Heads          int    `json:"heads"`
	KVHeads        int    `json:"kv_heads"`
	HeadDim        int    `json:"head_dim"`
	Vocab          int    `json:"vocab"`
	Parameters     int64  `json:"parameters"` // of all layers; a tied embedding counts once
	WeightDType    string `json:"weight_dtype"`
}

// Scaled says whether fewer layers were measured than the model has.
func (m *ModelShape) Scaled() bool { return m.LayersMeasured < m.Layers }

// DecodeResult is the decode steps of one mode at one context length. Times
// are wall-clock seconds of a step; medians of parts need not add up to the
// median of the whole.
type DecodeResult struct {
	Context   int         `json:"context"`
	Attention engine.Mode `json:"attention"`
	Step      Sample      `json:"step_seconds"`
	// The step divides into these four, and what they leave (sampling,
	// bookkeeping).
	Projections Sample `json:"projections_seconds"` // linear layers of attention and MLP, norms, RoPE
	Attend      Sample `json:"attention_seconds"`   // from the queries to the merged output
	Logits      Sample `json:"logits_seconds"`
	Other       Sample `json:"other_seconds"`
	// Attention consists of these; static runs beside search and retrieved.
	Static    Sample `json:"static_seconds"`
	Search    Sample `json:"search_seconds"`
	Retrieved Sample `json:"retrieved_seconds"` // attention over the hits

	// IndexSeconds is what building the search index of the context took;
	// 0 where the mode does not search.
	IndexSeconds float64 `json:"index_seconds"`

	StaticTokens    float64 `json:"static_tokens"` // of a layer, in the mean
	TokensPerSecond float64 `json:"tokens_per_second"`
	AttendedShare   float64 `json:"attended_share"`
	KeysScoredShare float64 `json:"keys_scored_share"`
	// Bytes is what a step must read at least: the weights, the static
	// tokens' keys and values, each scored key once for the heads that share
	// it, the values of the hits. What an index reads beside keys is not counted.
	Bytes int64 `json:"bytes"`
	// FloorSeconds is the time that Bytes take at the memory's bandwidth,
	// and FloorRatio the step's time over it; 0 where caches may hold the bytes.
	FloorSeconds float64 `json:"floor_seconds"`
	FloorRatio   float64 `json:"floor_ratio"`
}

// PrefillResult is the exact prefill of one prompt, index building included.
type PrefillResult struct {
	Prompt          int     `json:"prompt"`
	Seconds         Sample  `json:"seconds"`
	TokensPerSecond float64 `json:"tokens_per_second"`
	GFLOPs          float64 `json:"gflop_per_s"` // two a multiply-add, causal attention counted as far as it looks
	// IndexSeconds is what building the search index took, beside the
	// prefill of later layers.
	IndexSeconds float64 `json:"index_seconds"`
}

// prefillRepeats is how often a prompt is prefilled at most: one takes long.
const prefillRepeats = 3

// Units is the work of a measurement, as [ModelOptions.Progress] counts it.
func (o *ModelOptions) Units() int {
	return len(o.Contexts)*(1+o.Repeats) + len(o.Prompts)*min(prefillRepeats, o.Repeats)
}

func (o *ModelOptions) check() error {
	switch {
	case len(o.Contexts)+len(o.Prompts) == 0:
		return badOption("name a context or a prompt length")
	case len(o.Contexts) > 0 && slices.Min(o.Contexts) < 2:
		return badOption("a context must have at least 2 tokens, not %d", slices.Min(o.Contexts))
	case len(o.Prompts) > 0 && slices.Min(o.Prompts) < 1:
		return badOption("a prompt must have at least 1 token, not %d", slices.Min(o.Prompts))
	case len(o.Modes) == 0:
		return badOption("name an attention mode")
	case o.Steps < 1 || o.Repeats < 1:
		return badOption("steps and repeats must be at least 1, not %d and %d", o.Steps, o.Repeats)
	}
	longest := slices.Max(slices.Concat(o.Contexts, o.Prompts))
	need, err := o.Weights.Geometry(o.DType).Bytes(longest)
	if err != nil {
		return err
	}
	if have := AvailableMemory(); have > 0 && need > have {
		return fmt.Errorf("%w: keys and values of %d tokens need %s (%v), %s are available; choose a shorter context",
			ErrMemory, longest, gib(need), o.DType, gib(have))
	}
	return nil
}

// Model measures a model's decode steps against the context length, and its
// prefill against the prompt length. Keys and values of a context are made up;
// a prompt is prefilled.
func Model(ctx context.Context, o ModelOptions) (rep *ModelReport, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = func(int) {}
	}
	loaded, err := o.Backend.Load(o.Weights)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, loaded.Close()) }()
	m := &modelBench{ModelOptions: o, loaded: loaded}
	rep = &ModelReport{
		Machine: ThisMachine(), Seed: o.Seed, Model: o.shape(), KVDType: o.DType.String(),
		TopK: o.TopK, Policy: o.Policy.Info(),
	}
	if o.Strategy != nil {
		info := o.Strategy.Info()
		rep.Search = &info
	}
	if len(o.Contexts) > 0 {
		if m.probe, err = newReader(o.WorkingSet); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, m.probe.close()) }()
	}
	for _, n := range o.Contexts {
		results, err := m.decode(ctx, n)
		if err != nil {
			return nil, err
		}
		rep.Decode = append(rep.Decode, results...)
	}
	for _, n := range o.Prompts {
		p, err := m.prefill(ctx, n)
		if err != nil {
			return nil, err
		}
		rep.Prefill = append(rep.Prefill, p)
	}
	rep.Memory = Ceiling{memoryRead, "GB/s", runtime.GOMAXPROCS(0), kernel.Level(), summarize(m.read).Scale(1e-9)}
	return rep, nil
}

// modelBench is a measurement under way.
type modelBench struct {
	ModelOptions
	loaded compute.Model
	probe  *reader
	read   []float64 // bytes a second, between the decode steps of all contexts
}

func (o *ModelOptions) shape() ModelShape {
	s := &o.Weights.Spec
	head := int64(s.Vocab) * int64(s.Hidden)
	tables := head
	if !o.tied() {
		tables += head
	}
	return ModelShape{
		Name: o.Name, RandomWeights: o.Random, Layers: o.Layers, LayersMeasured: s.Layers,
		Hidden: s.Hidden, Intermediate: s.Intermediate, Heads: s.Heads, KVHeads: s.KVHeads, HeadDim: s.HeadDim, Vocab: s.Vocab,
		Parameters: int64(o.Layers)*layerParameters(s) + tables, WeightDType: o.Weights.Head.DType.String(),
	}
}

// tied says whether the output matrix is the embedding's memory.
func (o *ModelOptions) tied() bool {
	e, h := o.Weights.Embedding, o.Weights.Head
	if e.DType != h.DType {
		return false
	}
	if e.DType == kernel.F32 {
		return &e.F32[0] == &h.F32[0]
	}
	return &e.U16[0] == &h.U16[0]
}

// engine returns an engine over the model, everything in it traced by t.
func (m *modelBench) engine(model compute.Model, t *trace, longest int) (*engine.Engine, error) {
	limit := m.MaxContext
	if limit == 0 {
		limit = longest
	}
	o := engine.Options{
		Model: t.model(model), Backend: t.backend(m.Backend), Memory: m.Memory, DType: m.DType, TopK: m.TopK, Policy: m.Policy, MaxContext: limit,
	}
	if m.Strategy != nil {
		o.Strategy = t.strategy(m.Strategy)
	}
	return engine.New(o)
}

// decode measures the decode steps at one context length; the modes and the
// memory take turns.
func (m *modelBench) decode(ctx context.Context, n int) (results []DecodeResult, err error) {
	t := &trace{}
	// A turn begins with a step that is not counted: it touches memory for
	// the first time.
	steps := 1 + m.Steps
	e, err := m.engine(newPrepared(m.loaded, m.Seed), t, n+steps+1)
	if err != nil {
		return nil, err
	}
	doc, err := e.Prefill(ctx, make([]int32, n), engine.PrefillOptions{Modes: m.Modes, Room: steps + 1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, doc.Close()) }()
	m.Progress(1)
	greedy, err := sampling.New(sampling.Params{})
	if err != nil {
		return nil, err
	}
	r := rand.New(rand.NewPCG(m.Seed, uint64(n)))
	turn := func(mode engine.Mode, steps int) (*engine.Answer, []step, error) {
		t.take()
		a, err := doc.Answer(ctx, engine.AnswerOptions{
			Mode: mode, Question: []int32{int32(r.IntN(m.Weights.Vocab))}, MaxTokens: steps, Sampler: t.sampler(greedy),
		})
		return a, t.take(), err
	}
	for _, mode := range m.Modes {
		if _, _, err := turn(mode, 1); err != nil {
			return nil, err
		}
	}
	taken, answers := make([][]step, len(m.Modes)), make([]*engine.Answer, len(m.Modes))
	var read []float64
	for start, round := time.Now(), 0; round < m.Repeats || time.Since(start) < m.MinTime; round++ {
		for i, mode := range m.Modes {
			read = append(read, m.probe.measure(runtime.GOMAXPROCS(0), 20*time.Millisecond))
			a, s, err := turn(mode, steps)
			if err != nil {
				return nil, err
			}
			answers[i], taken[i] = a, append(taken[i], s[1:]...)
		}
		if round < m.Repeats {
			m.Progress(1)
		}
	}
	m.read = append(m.read, read...)
	memory := summarize(read).Median
	for i, mode := range m.Modes {
		d := m.result(n, mode, taken[i], answers[i], memory)
		if mode == engine.Retrieval {
			d.IndexSeconds = m.scale() * t.builds.Seconds()
		}
		results = append(results, d)
	}
	return results, nil
}

// scale is what times of the measured layers are multiplied by.
func (m *modelBench) scale() float64 { return float64(m.Layers) / float64(m.Weights.Spec.Layers) }

// result summarises the steps of one mode, scaled to all layers.
func (m *modelBench) result(n int, mode engine.Mode, steps []step, a *engine.Answer, memory float64) DecodeResult {
	scale := m.scale()
	of := func(part func(s *step) float64) Sample {
		x := make([]float64, len(steps))
		for i := range steps {
			x[i] = part(&steps[i])
		}
		return summarize(x)
	}
	layers := func(s *step) float64 { return (s.projections + s.attention).Seconds() }
	d := DecodeResult{
		Context: n, Attention: mode,
		Step:        of(func(s *step) float64 { return s.total.Seconds() + (scale-1)*layers(s) }),
		Projections: of(func(s *step) float64 { return scale * s.projections.Seconds() }),
		Attend:      of(func(s *step) float64 { return scale * s.attention.Seconds() }),
		Logits:      of(func(s *step) float64 { return s.logits.Seconds() }),
		Other:       of(func(s *step) float64 { return s.total.Seconds() - layers(s) - s.logits.Seconds() }),
		Static:      of(func(s *step) float64 { return scale * s.static.Seconds() }),
		Search:      of(func(s *step) float64 { return scale * s.search.Seconds() }),
		Retrieved:   of(func(s *step) float64 { return scale * s.retrieved.Seconds() }),

		AttendedShare: a.AttendedShare(), KeysScoredShare: a.KeysScoredShare(),
	}
	d.TokensPerSecond = 1 / d.Step.Median
	last := steps[len(steps)-1]
	d.StaticTokens = float64(last.staticTokens) / float64(m.Weights.Spec.Layers)
	measured := m.stepBytes(&last, a)
	d.Bytes = measured.head + int64(scale*float64(measured.layers))
	if measured.head+measured.layers >= m.WorkingSet {
		d.FloorSeconds = float64(d.Bytes) / memory
		d.FloorRatio = d.Step.Median / d.FloorSeconds
	}
	return d
}

// stepBytes returns what a step must read for the measured layers and for
// the logits.
func (m *modelBench) stepBytes(s *step, a *engine.Answer) (b struct{ layers, head int64 }) {
	w := m.Weights
	size := func(r kernel.Rows) int64 { return int64(r.N) * int64(r.Dim) * int64(r.DType.Size()) }
	b.head = size(w.Head)
	for i := range w.Layers {
		l := &w.Layers[i]
		for _, r := range []kernel.Rows{l.Q, l.K, l.V, l.O, l.Gate, l.Up, l.Down} {
			b.layers += size(r)
		}
	}
	row, group := int64(w.HeadDim*m.DType.Size()), int64(w.Heads/w.KVHeads)
	scored := a.Stats.KeysScored / int64(a.Steps) / group
	b.layers += row * (2*int64(s.staticTokens*w.KVHeads) + scored + int64(s.hits))
	return b
}

// prefill measures the exact prefill of n random tokens.
func (m *modelBench) prefill(ctx context.Context, n int) (PrefillResult, error) {
	r := rand.New(rand.NewPCG(m.Seed, uint64(n)))
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(r.IntN(m.Weights.Vocab))
	}
	var seconds []float64
	t := &trace{}
	e, err := m.engine(m.loaded, t, n+1)
	if err != nil {
		return PrefillResult{}, err
	}
	repeats := min(prefillRepeats, m.Repeats)
	for range repeats {
		doc, err := e.Prefill(ctx, tokens, engine.PrefillOptions{Modes: m.Modes})
		if err != nil {
			return PrefillResult{}, err
		}
		seconds = append(seconds, doc.PrefillSeconds)
		if err := doc.Close(); err != nil {
			return PrefillResult{}, err
		}
		m.Progress(1)
	}
	s := &m.Weights.Spec
	scale := m.scale()
	tokensF := float64(n)
	flops := float64(m.Layers) * (2*tokensF*float64(layerParameters(s)) + 2*tokensF*(tokensF+1)*float64(s.Heads*s.HeadDim))
	p := PrefillResult{Prompt: n, Seconds: summarize(seconds).Scale(scale), IndexSeconds: scale * t.builds.Seconds() / float64(repeats)}
	p.TokensPerSecond = tokensF / p.Seconds.Median
	p.GFLOPs = flops / p.Seconds.Median / 1e9
	return p, nil
}

// CheckMemory refuses a measurement of the first layers of a geometry at up
// to longest tokens, for which the available bytes (0: unknown) do not suffice; the error
// says what would. working is the working set of the bandwidth measurement.
func CheckMemory(g Geometry, layers, longest int, dtype kernel.DType, working, available int64) error {
	need := func(layers int) (weights, kvs int64) {
		c := g.Config
		// An answer takes a segment of its own beside the context.
		tokens := int64(longest + 1024)
		return g.weightBytes(layers), 2 * tokens * int64(layers*c.KVHeads*c.HeadDim*dtype.Size())
	}
	weights, kvs := need(layers)
	spare := working + 512<<20 // and what the program itself needs
	if available == 0 || weights+kvs+spare <= available {
		return nil
	}
	fit := layers - 1
	for ; fit > 0; fit-- {
		if w, k := need(fit); w+k+spare <= available {
			break
		}
	}
	advice := "choose a smaller geometry or a shorter --context"
	if fit > 0 {
		advice = fmt.Sprintf("measure %d layers with --layers %d (times are then scaled to %d), or choose a shorter --context", fit, fit, g.Config.Layers)
	}
	return fmt.Errorf("%w: %d layers of %s with %d tokens need %s of weights (bf16), %s of keys and values (%v) and %s to work in; %s are available; %s",
		ErrMemory, layers, g.Name, longest, gib(weights), gib(kvs), dtype, gib(spare), gib(available), advice)
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
