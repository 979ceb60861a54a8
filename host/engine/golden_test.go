package engine_test

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"testing"

	referencemodel "github.com/retrievalattention/ra/examples/reference-model"
	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/internal/golden"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/model"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/retrieval"
)

// last keeps the logits of the first step and ends the answer.
type last struct{ logits []float32 }

func (l *last) Sample(logits []float32) (int32, error) {
	l.logits = append([]float32(nil), logits...)
	return 0, nil
}

// logitsAt runs tokens[:split] as a prefill and the rest as decode steps and
// returns the logits after the last.
func logitsAt(t *testing.T, e *engine.Engine, tokens []int32, split int, mode engine.Mode) []float32 {
	t.Helper()
	d, err := e.Prefill(context.Background(), tokens[:split], engine.PrefillOptions{Modes: []engine.Mode{mode}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var s last
	if _, err := d.Answer(context.Background(), engine.AnswerOptions{Mode: mode, Question: tokens[split:], MaxTokens: 1, Sampler: &s}); err != nil {
		t.Fatal(err)
	}
	return s.logits
}

// Logits equal those of Hugging Face transformers within 1e-3 with keys and
// values in f32, by prefill, by decode steps, and by retrieval attention that
// retrieves everything. The distance with keys and values in bf16 is logged,
// and bounded loosely.
func TestLogitsEqualTransformers(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: arithmetic alone, slow under the race detector")
	}
	dirs, err := filepath.Glob("../model/testdata/*/golden.safetensors")
	if err != nil || len(dirs) < 4 {
		t.Fatalf("%d golden models, %v", len(dirs), err)
	}
	for _, file := range dirs {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			m, err := model.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			compareGolden(t, m, file)
		})
	}
	t.Run("reference model", func(t *testing.T) {
		const file = "../model/testdata/reference.golden.safetensors"
		m, err := model.OpenFS(referencemodel.Files, referencemodel.Name)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		compareGolden(t, m, file)
	})
}

func compareGolden(t *testing.T, m *model.Model, file string) {
	t.Helper()
	g, err := golden.Load(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%v; host/model/testdata/golden.py makes it", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	backend := compute.NewCPU()
	loaded, err := backend.Load(m.Weights)
	if err != nil {
		t.Fatal(err)
	}
	with := func(dtype kernel.DType) *engine.Engine {
		e, err := engine.New(engine.Options{
			Model: loaded, Backend: backend, Strategy: retrieval.NewFlat(backend), DType: dtype,
			TopK: len(g.Tokens), Policy: placement.SinkWindow{Sink: 2, Window: 8}, MaxContext: len(g.Tokens) + 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	exact, rounded := with(kernel.F32), with(kernel.BF16)
	var worst, worstRounded float64
	for i, p := range g.Positions {
		if p == 0 {
			continue // a prefill and a step need a token each
		}
		tokens := g.Tokens[:p+1]
		for _, c := range []struct {
			what  string
			split int
			mode  engine.Mode
		}{
			{"prefill", p, engine.Full}, {"steps", (p + 1) / 2, engine.Full}, {"retrieving everything", (p + 1) / 2, engine.Retrieval},
		} {
			d := distance(logitsAt(t, exact, tokens, c.split, c.mode), g.Logits[i])
			worst = max(worst, d)
			if d > 1e-3 {
				t.Errorf("position %d by %s: logits differ by %g", p, c.what, d)
			}
		}
		worstRounded = max(worstRounded, distance(logitsAt(t, rounded, tokens, p, engine.Full), g.Logits[i]))
	}
	t.Logf("largest distance of a logit: %.2g with f32 keys and values, %.2g with bf16", worst, worstRounded)
	if worstRounded > 0.2 {
		t.Errorf("bf16 keys and values move a logit by %g", worstRounded)
	}
}

func distance(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	var d float64
	for i := range a {
		d = max(d, math.Abs(float64(a[i])-float64(b[i])))
	}
	return d
}
