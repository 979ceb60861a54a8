package bench

import (
	"context"
	"time"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

// step is what one decode step took, in wall-clock time. Static attention
// runs beside search and retrieved attention: those three are parts of
// attention that overlap.
type step struct {
	total       time.Duration
	projections time.Duration // linear layers, norms, RoPE, MLP
	attention   time.Duration // from the queries to the merged output
	static      time.Duration
	search      time.Duration
	retrieved   time.Duration // attention over the hits
	logits      time.Duration

	// Tokens attended: static ones summed over layers, hits over layers and
	// query heads.
	staticTokens, hits int
}

// trace wraps what the engine decodes with, in wrappers that note how long
// each call took. It serves one answer at a time.
type trace struct {
	now     step
	begun   time.Time // of the step
	queried time.Time // when the layer's queries were there
	steps   []step
	builds  time.Duration // of search indexes, summed over layers
}

// model, backend, strategy and sampler return the wrapped form.
func (t *trace) model(m compute.Model) compute.Model       { return &tracedModel{m, t} }
func (t *trace) backend(b compute.Backend) compute.Backend { return &tracedBackend{b, t} }
func (t *trace) sampler(s engine.Sampler) engine.Sampler   { return &tracedSampler{s, t} }
func (t *trace) strategy(s retrieval.Strategy) retrieval.Strategy {
	return &tracedStrategy{s, t}
}

// take returns the steps since the last call.
func (t *trace) take() []step {
	steps := t.steps
	t.steps = nil
	return steps
}

type tracedModel struct {
	compute.Model
	t *trace
}

func (m *tracedModel) Embed(tokens []int32) (compute.Stream, error) {
	m.t.begun, m.t.now = time.Now(), step{}
	return m.Model.Embed(tokens)
}

func (m *tracedModel) Project(s compute.Stream, layer, first int, kvc *kv.Context, queries []float32) error {
	start := time.Now()
	err := m.Model.Project(s, layer, first, kvc, queries)
	m.t.queried = time.Now()
	m.t.now.projections += m.t.queried.Sub(start)
	return err
}

func (m *tracedModel) Finish(s compute.Stream, layer int, attention []float32) error {
	start := time.Now()
	m.t.now.attention += start.Sub(m.t.queried)
	err := m.Model.Finish(s, layer, attention)
	m.t.now.projections += time.Since(start)
	return err
}

func (m *tracedModel) Logits(s compute.Stream, i int, out []float32) error {
	start := time.Now()
	err := m.Model.Logits(s, i, out)
	m.t.now.logits += time.Since(start)
	return err
}

type tracedBackend struct {
	compute.Backend
	t *trace
}

func (b *tracedBackend) AttendStatic(view *kv.View, layer int, queries []float32, parts []kernel.Partial) error {
	start := time.Now()
	err := b.Backend.AttendStatic(view, layer, queries, parts)
	b.t.now.static += time.Since(start)
	b.t.now.staticTokens += view.Count(layer, kv.Static)
	return err
}

func (b *tracedBackend) AttendHits(view *kv.View, layer int, queries []float32, ids [][]uint32, bias [][]float32, parts []kernel.Partial) error {
	start := time.Now()
	err := b.Backend.AttendHits(view, layer, queries, ids, bias, parts)
	b.t.now.retrieved += time.Since(start)
	for _, list := range ids {
		b.t.now.hits += len(list)
	}
	return err
}

type tracedStrategy struct {
	retrieval.Strategy
	t *trace
}

// UsesPrefillQueries asks the wrapped strategy.
func (s *tracedStrategy) UsesPrefillQueries() bool {
	u, ok := s.Strategy.(retrieval.QueryUser)
	return ok && u.UsesPrefillQueries()
}

// IndexBytes asks the wrapped strategy.
func (s *tracedStrategy) IndexBytes(g kv.Geometry, tokens int) int64 {
	if i, ok := s.Strategy.(retrieval.IndexSizer); ok {
		return i.IndexBytes(g, tokens)
	}
	return 0
}

func (s *tracedStrategy) Search(ctx context.Context, call *retrieval.Call, res *retrieval.Result) error {
	start := time.Now()
	err := s.Strategy.Search(ctx, call, res)
	s.t.now.search += time.Since(start)
	return err
}

func (s *tracedStrategy) Build(ctx context.Context, b *retrieval.Build) error {
	start := time.Now()
	err := s.Strategy.Build(ctx, b)
	s.t.builds += time.Since(start)
	return err
}

// tracedSampler ends the step: the next token is known.
type tracedSampler struct {
	engine.Sampler
	t *trace
}

func (s *tracedSampler) Sample(logits []float32) (int32, error) {
	id, err := s.Sampler.Sample(logits)
	s.t.now.total = time.Since(s.t.begun)
	s.t.steps = append(s.t.steps, s.t.now)
	return id, err
}
