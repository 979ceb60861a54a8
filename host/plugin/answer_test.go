package plugin

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/model"
	"github.com/retrievalattention/ra/host/model/sampling"
	"github.com/retrievalattention/ra/host/placement"
	asm "github.com/retrievalattention/ra/host/plugin/internal/wasmasm"
	"github.com/retrievalattention/ra/host/retrieval"
)

// A whole answer comes out the same, bit by bit, by native exact search, by
// the flat plugin, and by plugins that loop or trap and fall back; these say
// how often they did. With OnFailure Fail the answer ends in an error.
func TestAnswersSurviveBadPlugins(t *testing.T) {
	m, err := model.Open("../model/testdata/gqa2-d64-bf16-tied-linear")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	backend := compute.NewCPU()
	loaded, err := backend.Load(m.Weights)
	if err != nil {
		t.Fatal(err)
	}
	document, err := m.Tokenizer.Encode("It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.", true)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(s retrieval.Strategy) (tokens []int32, logits [][]float32, steps int, err error) {
		e, err := engine.New(engine.Options{
			Model: loaded, Backend: backend, Strategy: s, DType: kernel.BF16, TopK: 10,
			Policy: placement.SinkWindow{Sink: 4, Window: 8}, MaxContext: len(document) + 20,
		})
		if err != nil {
			t.Fatal(err)
		}
		d, err := e.Prefill(context.Background(), document[:len(document)-3], engine.PrefillOptions{Modes: []engine.Mode{engine.Retrieval}})
		if err != nil {
			return nil, nil, 0, err
		}
		defer d.Close()
		greedy, err := sampling.New(sampling.Params{})
		if err != nil {
			t.Fatal(err)
		}
		a, err := d.Answer(context.Background(), engine.AnswerOptions{
			Mode: engine.Retrieval, Question: document[len(document)-3:], MaxTokens: 6, Sampler: greedy,
			Logits: func(l []float32) { logits = append(logits, append([]float32(nil), l...)) },
		})
		if err != nil {
			return nil, nil, 0, err
		}
		return a.Tokens, logits, a.Steps, nil
	}
	tokens, logits, steps, err := answer(retrieval.NewFlat(backend))
	if err != nil {
		t.Fatal(err)
	}
	looping := newGuest().search(forever()).module()
	trapping := newGuest().search(unreachable).module()
	unbuilt := newGuest().body("ra_build", unreachable, asm.I32Const(0)).module()
	empty := newGuest().module() // finds nothing: another answer, so the comparison can fail
	searches := int64(steps * m.Config.Layers)
	for name, c := range map[string]struct {
		options   Options
		fallbacks int64
		same      bool
	}{
		"flat":     {Options{Name: "flat"}, 0, true},
		"looping":  {Options{Bytes: looping, Limits: Limits{Fuel: 1e5}, OnFailure: Fallback}, searches, true},
		"trapping": {Options{Bytes: trapping, OnFailure: Fallback}, searches, true},
		"unbuilt":  {Options{Bytes: unbuilt, OnFailure: Fallback}, searches, true},
		"empty":    {Options{Bytes: empty}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, c.options)
			gotTokens, gotLogits, _, err := answer(p)
			if err != nil {
				t.Fatal(err)
			}
			if same := reflect.DeepEqual(gotLogits, logits) && reflect.DeepEqual(gotTokens, tokens); same != c.same {
				t.Errorf("the same answer as by exact search: %v, want %v", same, c.same)
			}
			if s := p.Stats(); s.Searches != searches || s.Fallbacks != c.fallbacks {
				t.Errorf("%d searches, %d fallbacks; want %d, %d", s.Searches, s.Fallbacks, searches, c.fallbacks)
			}
		})
	}
	p := load(t, Options{Bytes: trapping, OnFailure: Fail})
	if _, _, _, err := answer(p); !errors.Is(err, ErrTrap) {
		t.Errorf("with OnFailure Fail: %v", err)
	}
}
