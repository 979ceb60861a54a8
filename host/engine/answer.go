package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/retrievalattention/ra/host/attention"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/retrieval"
	"github.com/retrievalattention/ra/host/sched"
)

// Sampler chooses the next token from logits (one a vocabulary entry, which
// it may overwrite).
type Sampler interface {
	Sample(logits []float32) (int32, error)
}

// AnswerOptions describe one question.
type AnswerOptions struct {
	Mode      Mode    // one that the document was prefilled for
	Question  []int32 // read token by token as decode steps; at least one
	MaxTokens int     // most tokens to generate
	Stop      []int32 // end-of-text ids; not part of the answer
	Sampler   Sampler
	// Token, when not nil, is called with each generated token.
	Token func(id int32)
	// Logits, when not nil, is called with each step's logits before
	// sampling; the slice is reused.
	Logits func(logits []float32)
}

// Answer is what was generated and what it cost.
type Answer struct {
	Tokens         []int32         // without the end-of-text token
	Stopped        bool            // ended by an end-of-text token, not by MaxTokens
	QuestionTokens int             // decode steps spent on reading the question
	DecodeSeconds  float64         // reading the question and generating
	Steps          int             // decode steps in all
	Stats          attention.Stats // summed over steps, layers and query heads
}

// AttendedShare is the mean share of the tokens in context that a query head
// attended to in a step.
func (a *Answer) AttendedShare() float64 { return share(a.Stats.Attended, a.Stats.Context) }

// KeysScoredShare is the mean share of the keys in context that the search
// scored for a query head in a step.
func (a *Answer) KeysScoredShare() float64 { return share(a.Stats.KeysScored, a.Stats.Context) }

func share(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// TokensPerSecond is the rate of decode steps, question tokens included.
func (a *Answer) TokensPerSecond() float64 {
	if a.DecodeSeconds == 0 {
		return 0
	}
	return float64(a.Steps) / a.DecodeSeconds
}

// Answer reads the question and generates. The document stays as it was.
func (d *Document) Answer(ctx context.Context, o AnswerOptions) (*Answer, error) {
	view, ok := d.views[o.Mode]
	switch {
	case !ok:
		return nil, fmt.Errorf("the document was not prefilled for %s attention", o.Mode)
	case len(o.Question) == 0:
		return nil, fmt.Errorf("%w: the question has no tokens", ErrEmptyPrompt)
	case o.MaxTokens < 1:
		return nil, fmt.Errorf("max tokens is %d, must be positive", o.MaxTokens)
	case o.Sampler == nil:
		return nil, errors.New("answer needs a sampler")
	case len(d.tokens)+len(o.Question)+o.MaxTokens > d.engine.o.MaxContext:
		return nil, d.engine.tooLong(len(d.tokens), len(o.Question)+o.MaxTokens)
	}
	if d.closed.Load() || !d.tenure.enter() {
		return nil, fmt.Errorf("answer: %w", kv.ErrClosed)
	}
	defer d.tenure.leave()
	kvc := d.kvc.Fork()
	defer kvc.Close()
	if err := kvc.Reserve(len(o.Question) + o.MaxTokens); err != nil {
		return nil, err
	}
	view = view.Fork(kvc)
	defer view.Close()
	defer sched.Enter()()
	s := newDecoder(d.engine, d.tenure.strategy, view, o.Mode)
	start := time.Now()
	a, err := s.run(ctx, o)
	if err != nil {
		return nil, err
	}
	a.DecodeSeconds = time.Since(start).Seconds()
	return a, nil
}

// decoder is the state of one answer.
type decoder struct {
	e       *Engine
	search  retrieval.Strategy
	view    *kv.View
	mode    Mode
	prefill int // tokens of the document
	placed  int // length of the view when the policy was last asked
	layer   *attention.Layer
	q, out  []float32 // [heads][head dim]
	logits  []float32
}

func newDecoder(e *Engine, search retrieval.Strategy, view *kv.View, mode Mode) *decoder {
	spec := e.o.Model.Spec()
	n := spec.Heads * spec.HeadDim
	return &decoder{
		e: e, search: search, view: view, mode: mode, prefill: view.Len(), placed: view.Len(),
		layer: attention.NewLayer(e.o.Backend, search, e.o.TopK, spec.Heads, spec.HeadDim),
		q:     make([]float32, n), out: make([]float32, n), logits: make([]float32, spec.Vocab),
	}
}

func (s *decoder) run(ctx context.Context, o AnswerOptions) (*Answer, error) {
	a := &Answer{QuestionTokens: len(o.Question)}
	for i, t := range o.Question {
		if err := s.step(ctx, t, i == len(o.Question)-1, a); err != nil {
			return nil, err
		}
	}
	for {
		if o.Logits != nil {
			o.Logits(s.logits)
		}
		next, err := o.Sampler.Sample(s.logits)
		if err != nil {
			return nil, fmt.Errorf("sample token %d of the answer: %w", len(a.Tokens)+1, err)
		}
		if slices.Contains(o.Stop, next) {
			a.Stopped = true
			return a, nil
		}
		a.Tokens = append(a.Tokens, next)
		if o.Token != nil {
			o.Token(next)
		}
		if len(a.Tokens) == o.MaxTokens {
			return a, nil
		}
		if err := s.step(ctx, next, true, a); err != nil {
			return nil, err
		}
	}
}

// step runs one token through the model and, when asked, leaves the logits
// of the next one in s.logits.
func (s *decoder) step(ctx context.Context, token int32, logits bool, a *Answer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	model, kvc := s.e.o.Model, s.view.Context()
	stream, err := model.Embed([]int32{token})
	if err != nil {
		return err
	}
	defer stream.Close()
	pos := kvc.Len()
	s.view.Extend(1)
	for l := range model.Spec().Layers {
		if err := model.Project(stream, l, pos, kvc, s.q); err != nil {
			return err
		}
		stats, err := s.layer.Step(ctx, s.view, l, pos, s.q, s.out)
		if err != nil {
			return err
		}
		a.Stats.Add(stats)
		if err := model.Finish(stream, l, s.out); err != nil {
			return err
		}
	}
	kvc.Commit(1)
	a.Steps++
	if err := s.slide(ctx); err != nil {
		return err
	}
	if logits {
		return model.Logits(stream, 0, s.logits)
	}
	return nil
}

// slide lets the policy move tokens out of the static set, when enough were
// decoded since the last time, and hands the search what it may find from now
// on.
func (s *decoder) slide(ctx context.Context) error {
	if s.mode == Full || s.view.Len()-s.placed < placement.Every {
		return nil
	}
	s.placed = s.view.Len()
	for l := range s.e.o.Model.Spec().Layers {
		indexed, err := s.e.place(ctx, &placement.Call{View: s.view, Layer: l, Prefill: s.prefill, Decoding: true}, s.mode)
		if err != nil {
			return err
		}
		for _, r := range indexed {
			if err := s.search.Append(ctx, s.view, l, r); err != nil {
				return fmt.Errorf("append tokens [%d, %d) of layer %d to the index: %w", r.Lo, r.Hi, l, err)
			}
		}
	}
	return nil
}
