package engine_test

import (
	"context"
	"fmt"
	"testing"

	referencemodel "github.com/retrievalattention/ra/examples/reference-model"
	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/model"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/retrieval"
)

// BenchmarkDecode is decode steps of the reference model after a document of
// 4,096 tokens, in each attention mode.
func BenchmarkDecode(b *testing.B) {
	m, err := model.OpenFS(referencemodel.Files, referencemodel.Name)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	backend := compute.NewCPU()
	loaded, err := backend.Load(m.Weights)
	if err != nil {
		b.Fatal(err)
	}
	e, err := engine.New(engine.Options{
		Model: loaded, Backend: backend, Strategy: retrieval.NewFlat(backend), DType: kernel.BF16,
		TopK: 100, Policy: placement.SinkWindow{Sink: 128, Window: 512}, MaxContext: 1 << 16,
	})
	if err != nil {
		b.Fatal(err)
	}
	document := make([]int32, 4096)
	for i := range document {
		document[i] = int32(i*i%1999 + 3)
	}
	d, err := e.Prefill(context.Background(), document, engine.PrefillOptions{Modes: engine.Modes()})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	const steps = 64
	for _, mode := range engine.Modes() {
		b.Run(fmt.Sprint(mode), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				// Reading a question of n tokens is n steps.
				o := engine.AnswerOptions{Mode: mode, Question: document[:steps], MaxTokens: 1, Sampler: &last{}}
				if _, err := d.Answer(context.Background(), o); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*steps), "us/step")
		})
	}
}
