package engine_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	referencemodel "github.com/retrievalattention/ra/examples/reference-model"
	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/eval/ruler"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/model"
	"github.com/retrievalattention/ra/host/model/sampling"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/retrieval"
)

// reference returns the embedded model and an engine on it with flat search
// and the default static set and budget.
func reference(t *testing.T) (*model.Model, *engine.Engine) {
	t.Helper()
	m, err := model.OpenFS(referencemodel.Files, referencemodel.Name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	backend := compute.NewCPU()
	loaded, err := backend.Load(m.Weights)
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(engine.Options{
		Model: loaded, Backend: backend, Strategy: retrieval.NewFlat(backend), DType: kernel.BF16,
		TopK: 100, Policy: placement.SinkWindow{Sink: 128, Window: 512}, MaxContext: m.Config.MaxPosition,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m, e
}

// answer asks one needle question and returns the text generated.
func answer(t *testing.T, m *model.Model, d *engine.Document, question string, mode engine.Mode) string {
	t.Helper()
	ids, err := m.Tokenizer.Encode(question, false)
	if err != nil {
		t.Fatal(err)
	}
	greedy, err := sampling.New(sampling.Params{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Answer(context.Background(), engine.AnswerOptions{
		Mode: mode, Question: ids, MaxTokens: 12, Sampler: greedy, Stop: m.Config.EOSTokenIDs,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m.Tokenizer.Decode(a.Tokens, true)
}

// The reference model finds needles with full attention and with retrieval
// attention, on text and words that it has not seen. The default run is a
// spot check; RA_LONG=1 runs 10 documents a cell up to 16K tokens.
func TestReferenceModelFindsNeedles(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: prefills documents of the reference model")
	}
	type cell struct {
		tokens, keys int
		least        int // right answers of documents, in each mode
	}
	cells, documents := []cell{{1024, 1, 2}, {2048, 8, 2}}, 2
	if os.Getenv("RA_LONG") != "" {
		documents = 10
		cells = []cell{{1024, 1, 9}, {2048, 1, 9}, {4096, 1, 9}, {8192, 1, 9}, {16384, 1, 9}, {1024, 8, 9}, {2048, 8, 9}, {4096, 8, 9}}
	}
	m, e := reference(t)
	modes := []engine.Mode{engine.Full, engine.Retrieval}
	count := func(s string) (int, error) {
		ids, err := m.Tokenizer.Encode(s, false)
		return len(ids), err
	}
	for _, c := range cells {
		t.Run(fmt.Sprintf("%d tokens, %d keys", c.tokens, c.keys), func(t *testing.T) {
			right := map[engine.Mode]int{}
			for i := range documents {
				o := ruler.Options{Tokens: c.tokens, Keys: c.keys, Words: referencemodel.Words(), Seed: uint64(1000*c.tokens + i), Depth: -1, Count: count}
				if i%2 == 0 {
					o.Prose = referencemodel.Prose
				}
				task, err := ruler.New(o)
				if err != nil {
					t.Fatal(err)
				}
				ids, err := m.Tokenizer.Encode(task.Document, true)
				if err != nil {
					t.Fatal(err)
				}
				d, err := e.Prefill(context.Background(), ids, engine.PrefillOptions{Modes: modes})
				if err != nil {
					t.Fatal(err)
				}
				for _, mode := range modes {
					got := answer(t, m, d, task.Question, mode)
					if strings.Contains(got, task.Answer) {
						right[mode]++
					} else {
						t.Logf("document %d, %s: %q, want %s", i, mode, got, task.Answer)
					}
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("right of %d: full %d, retrieval %d", documents, right[engine.Full], right[engine.Retrieval])
			for _, mode := range modes {
				if right[mode] < c.least {
					t.Errorf("%s attention: %d of %d right, want at least %d", mode, right[mode], documents, c.least)
				}
			}
		})
	}
}
