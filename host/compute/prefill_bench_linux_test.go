package compute_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	referencemodel "github.com/retrievalattention/ra/examples/reference-model"
	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/model"
)

// busy returns the processor time of the process in seconds: what neighbours
// take of a shared machine does not count.
func busy(b *testing.B) float64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return float64(t.Nano()) / 1e9
}

// BenchmarkPrefill32K prefills 32,768 tokens with the reference model. Its
// rate counts the linear layers and 4 x head dimension operations for each
// pair of a query and a token that it sees; beside it stands the rate of a
// matrix product alone in the same run. Both are rates of one core: of the
// processor time that they took.
func BenchmarkPrefill32K(b *testing.B) {
	m, err := model.OpenFS(referencemodel.Files, referencemodel.Name)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	loaded, err := compute.NewCPU().Load(m.Weights)
	if err != nil {
		b.Fatal(err)
	}
	w, n := loaded.Spec(), 32768
	r := rand.New(rand.NewPCG(41, 1))
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(r.IntN(m.Weights.Embedding.N))
	}
	var flop float64
	for _, l := range m.Weights.Layers {
		for _, x := range []kernel.Rows{l.Q, l.K, l.V, l.O, l.Gate, l.Up, l.Down} {
			flop += 2 * float64(n) * float64(x.N*x.Dim)
		}
		flop += 4 * float64(w.HeadDim*w.Heads) * float64(n) * float64(n+1) / 2
	}
	const rows, dim, outs = 512, 192, 512
	weights := kernel.RowsU16(make([]uint16, dim*outs), dim, kernel.BF16)
	x, out, scratch := make([]float32, rows*dim), make([]float32, rows*outs), make([]float32, kernel.GEMMScratch(dim))
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	for i := range outs {
		weights.Narrow(i, x[i*dim:])
	}
	const times = 200
	start := busy(b)
	for range times {
		kernel.MatMul(x, rows, weights, 0, outs, out, outs, scratch)
	}
	alone := 2 * rows * dim * outs * times / (busy(b) - start)
	var total float64
	for b.Loop() {
		kvc, err := kv.NewContext(w.Geometry(kernel.BF16), n, kv.NewAllocator(0))
		if err != nil {
			b.Fatal(err)
		}
		s, err := loaded.Embed(tokens)
		if err != nil {
			b.Fatal(err)
		}
		start := busy(b)
		for l := range w.Layers {
			if err := loaded.Prefill(context.Background(), s, l, 0, kvc, nil, nil); err != nil {
				b.Fatal(err)
			}
		}
		total += busy(b) - start
		if err := kvc.Close(); err != nil {
			b.Fatal(err)
		}
	}
	rate := flop * float64(b.N) / total
	b.ReportMetric(rate/1e9, "GFLOP/s")
	b.ReportMetric(alone/1e9, "product")
	b.ReportMetric(rate/alone, "of-product")
	b.ReportMetric(float64(runtime.GOMAXPROCS(0)), "threads")
}
