package bench

import (
	"bytes"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/retrievalattention/ra/host/kernel"
)

// Ceiling is what the machine gives at most, as measured in the same run.
type Ceiling struct {
	Name    string `json:"name"` // "memory read" or "f32 arithmetic"
	Unit    string `json:"unit"` // "GB/s" or "GFLOP/s"
	Threads int    `json:"threads"`
	Level   string `json:"level"`
	Sample
}

// Names of ceilings.
const (
	memoryRead    = "memory read"
	f32Arithmetic = "f32 arithmetic"
)

// reader measures the memory's read bandwidth on a buffer of its own. Two
// ways to read are tried, comparing two equal halves and counting a byte that
// is not there; the faster one counts, since each is a lower bound.
type reader struct{ data []byte }

func newReader(size int64) (*reader, error) {
	data, err := newBuffer(int(size))
	if err != nil {
		return nil, err
	}
	for i := range data {
		data[i] = 1 // reading pages that were never written is reading the one zero page
	}
	return &reader{data}, nil
}

func mapBytes(n int) ([]byte, error) {
	data, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map %d MiB: %w", n>>20, err)
	}
	return data, nil
}

func (r *reader) close() error { return unix.Munmap(r.data) }

// measure returns the bytes a second that the given number of threads read.
func (r *reader) measure(threads int, d time.Duration) float64 {
	part := len(r.data) / threads &^ 1
	step := min(part, 8<<20) // between looks at the clock
	ways := []func(b []byte){
		func(b []byte) { bytes.Equal(b[:len(b)/2], b[len(b)/2:]) },
		func(b []byte) { bytes.Count(b, []byte{0}) },
	}
	best := 0.0
	for _, read := range ways {
		workers := make([]func(), threads)
		for w := range workers {
			mine, at := r.data[w*part:(w+1)*part], 0
			workers[w] = func() {
				if at+step > len(mine) {
					at = 0
				}
				read(mine[at : at+step])
				at += step
			}
		}
		best = max(best, rate(d, workers)*float64(step))
	}
	return best
}

// arithmetic measures the f32 multiply-adds of one or more threads as the
// best that a product of small matrices in cache reaches: 2 FLOP each.
func arithmetic(threads int, d time.Duration) float64 {
	const n, dim, outs = 96, 512, 256
	workers := make([]func(), threads)
	for w := range workers {
		a, out := make([]float32, n*dim), make([]float32, n*outs)
		weights := kernel.RowsF32(make([]float32, outs*dim), dim)
		scratch := make([]float32, kernel.GEMMScratch(dim))
		workers[w] = func() {
			kernel.MatMul(a, n, weights, 0, outs, out, outs, scratch)
		}
	}
	return rate(d, workers) * 2 * n * dim * outs
}
