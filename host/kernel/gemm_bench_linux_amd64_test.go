package kernel

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/retrievalattention/ra/host/internal/peak"
)

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
					share(b, float64(2*c.n*c.outs*c.dim), peak.Loops()[l].Run, peak.Loops()[l].FLOP, func() {
						MatMul(a, c.n, w, 0, c.outs, out, c.outs, scratch)
					})
				})
			}
		}
	}
}

// stream runs f, which reads a piece of [many], in turns with the read of as
// many bytes that does nothing else, going round all of it, and reports the
// rate of f, the other and the ratio of the two, all by medians.
func stream(b *testing.B, elements int, f func(lo int)) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	keys := many().U16
	half := len(keys) / 2
	bytesOf := func(x []uint16) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 2*len(x)) }
	var busy, bare []float64
	at := 0
	for b.Loop() {
		start := cpuTime(b)
		f(at)
		middle := cpuTime(b)
		// Equal halves: a comparison reads both.
		other := (at + half/2) % (half - elements)
		if !bytes.Equal(bytesOf(keys[other:other+elements/2]), bytesOf(keys[half+other:half+other+elements/2])) {
			b.Fatal("the halves differ")
		}
		busy, bare = append(busy, middle-start), append(bare, cpuTime(b)-middle)
		at = (at + elements) % (len(keys) / elements * elements)
	}
	slices.Sort(busy)
	slices.Sort(bare)
	rate, most := 2*float64(elements)/busy[len(busy)/2], 2*float64(elements)/bare[len(bare)/2]
	b.ReportMetric(rate/1e9, "GB/s")
	b.ReportMetric(most/1e9, "ceiling")
	b.ReportMetric(rate/most, "of-ceiling")
	b.ReportMetric(0, "ns/op")
}

// Linear layers of a few rows with bf16 weights read from memory, each beside
// the read of as many bytes.
func BenchmarkSmallBatch(b *testing.B) {
	for _, dim := range []int{2048, 4096, 8192, 14336} {
		for _, n := range []int{1, 2, 4, 8, 12, 16, 24} {
			for _, l := range []string{"avx2", "avx512"} {
				b.Run(fmt.Sprintf("%d/rows%d/%s", dim, n, l), func(b *testing.B) {
					use(b, l)
					outs := 8 << 20 / dim
					r := rand.New(rand.NewPCG(42, 2))
					a, out, scratch := random(r, n*dim), make([]float32, n*outs), make([]float32, GEMMScratch(dim))
					stream(b, outs*dim, func(at int) {
						MatMul(a, n, RowsU16(many().U16[at:at+outs*dim], dim, BF16), 0, outs, out, outs, scratch)
					})
				})
			}
		}
	}
}

// Decode attention of the queries of a group over bf16 keys and values read
// from memory, beside the read of as many bytes.
func BenchmarkDecodeAttention(b *testing.B) {
	for _, dim := range []int{64, 128} {
		for _, n := range []int{1, 2, 4, 8} {
			for _, l := range []string{"avx2", "avx512"} {
				b.Run(fmt.Sprintf("dim%d/queries%d/%s", dim, n, l), func(b *testing.B) {
					use(b, l)
					const elements = 8 << 20
					r := rand.New(rand.NewPCG(43, 3))
					q, ps, scratch := random(r, n*dim), make([]Partial, n), make([]float32, CausalScratch(n, dim))
					for i := range ps {
						ps[i] = partial(dim)
					}
					tokens := elements / 2 / dim
					stream(b, elements, func(at int) {
						rows := RowsU16(many().U16[at:at+elements], dim, BF16)
						AttendCausal(q, n, n, tokens, rows.Slice(0, tokens), rows.Slice(tokens, 2*tokens), 0, tokens, 0.01, ps, scratch)
					})
				})
			}
		}
	}
}
