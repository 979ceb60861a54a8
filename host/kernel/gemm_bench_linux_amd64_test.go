package kernel

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/retrievalattention/ra/host/kernel/internal/peak"
)

// peaks are the register-only loops of the levels and the multiply-adds of a
// step.
var peaks = map[string]struct {
	run  func(steps int)
	flop float64
}{
	"avx2":       {peak.FMAAVX2, 2 * 12 * 8},
	"avx512":     {peak.FMAAVX512, 2 * 24 * 16},
	"avx512vnni": {peak.FMAAVX512, 2 * 24 * 16},
}

// cpuTime returns the processor time of the calling thread: what neighbours
// take of a shared machine does not count.
func cpuTime(b *testing.B) float64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return float64(t.Nano()) / 1e9
}

// share runs f, of the given number of floating-point operations, in turns
// with a register-only loop, and reports its rate, the loop's and the ratio
// of the two, all by medians.
func share(b *testing.B, flop float64, run func(steps int), perStep float64, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	f() // touch everything once
	var busy, bare []float64
	const steps = 50_000
	for b.Loop() {
		start := cpuTime(b)
		f()
		middle := cpuTime(b)
		run(steps)
		busy, bare = append(busy, middle-start), append(bare, cpuTime(b)-middle)
	}
	slices.Sort(busy)
	slices.Sort(bare)
	rate := flop / busy[len(busy)/2]
	most := perStep * steps / bare[len(bare)/2]
	b.ReportMetric(rate/1e9, "GFLOP/s")
	b.ReportMetric(most/1e9, "peak")
	b.ReportMetric(rate/most, "of-peak")
	b.ReportMetric(0, "ns/op")
}

// Products of a prefill's size, each beside the core's multiply-adds on
// registers: of a small model, of wide layers, of odd sizes.
func BenchmarkProduct(b *testing.B) {
	for _, c := range []struct{ n, dim, outs int }{
		{512, 192, 512}, {256, 2048, 2048}, {256, 4096, 512}, {256, 8192, 256}, {256, 14336, 256}, {509, 2049, 517}, {64, 2048, 512}, {24, 2048, 512},
	} {
		for _, dtype := range []DType{BF16, F32} {
			r := rand.New(rand.NewPCG(39, 9))
			w, a := store(dtype, random(r, c.outs*c.dim), c.dim), random(r, c.n*c.dim)
			out := make([]float32, c.n*c.outs)
			for _, l := range []string{"avx2", "avx512"} {
				b.Run(fmt.Sprintf("%dx%dx%d/%v/%s", c.n, c.dim, c.outs, dtype, l), func(b *testing.B) {
					use(b, l)
					scratch := make([]float32, GEMMScratch(c.dim))
					share(b, float64(2*c.n*c.outs*c.dim), peaks[l].run, peaks[l].flop, func() {
						MatMul(a, c.n, w, 0, c.outs, out, c.outs, scratch)
					})
				})
			}
		}
	}
}
