package bench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"github.com/retrievalattention/ra/host/internal/peak"
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

// reader measures the memory's read bandwidth on a buffer of its own. Three
// ways to read are tried, comparing two equal halves, counting a byte that is
// not there, and four streams that lie apart, as the products of few rows
// read; the fastest counts, since each is a lower bound.
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
	if level := kernel.Level(); peak.Read(level, r.data[:1024]) {
		ways = append(ways, func(b []byte) { peak.Read(level, b[:len(b)&^1023]) })
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

// multiplier measures the f32 multiply-adds of a core, 2 FLOP each: a loop on
// registers alone, or where the level has none the best that a product of
// matrices in cache reaches.
type multiplier struct {
	workers []func()
	flop    float64 // of one call
}

// The shape of the product, and the steps of one call of the loop.
const (
	peakRows, peakDim, peakOuts = 96, 512, 256

	peakSteps = 1 << 14
)

// newMultiplier prepares up to so many threads.
func newMultiplier(threads int) *multiplier {
	if l, ok := peak.Loops()[kernel.Level()]; ok {
		m := &multiplier{flop: peakSteps * l.FLOP}
		for range threads {
			m.workers = append(m.workers, func() { l.Run(peakSteps) })
		}
		return m
	}
	m := &multiplier{flop: 2 * peakRows * peakDim * peakOuts}
	r := rand.New(rand.NewPCG(1, 1))
	for range threads {
		a, out := vector(r, peakRows*peakDim), make([]float32, peakRows*peakOuts)
		weights := kernel.RowsF32(vector(r, peakOuts*peakDim), peakDim)
		scratch := make([]float32, kernel.GEMMScratch(peakDim))
		m.workers = append(m.workers, func() { kernel.MatMul(a, peakRows, weights, 0, peakOuts, out, peakOuts, scratch) })
	}
	return m
}

// measure returns the FLOP a second of the given number of threads.
func (m *multiplier) measure(threads int, d time.Duration) float64 {
	return rate(d, m.workers[:threads]) * m.flop
}
