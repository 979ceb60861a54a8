package bench

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/retrievalattention/ra/host/sched"
)

// Sample summarises repeated measurements of one figure.
type Sample struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"` // first quartile
	Q3     float64 `json:"q3"` // third quartile
	N      int     `json:"n"`  // measurements
}

// summarize orders x and returns its quartiles, interpolated between
// neighbours.
func summarize(x []float64) Sample {
	if len(x) == 0 {
		return Sample{}
	}
	slices.Sort(x)
	return Sample{Median: quantile(x, 0.5), Q1: quantile(x, 0.25), Q3: quantile(x, 0.75), N: len(x)}
}

// quantile returns the figure below which the share q of the ordered ones is.
func quantile(x []float64, q float64) float64 {
	p := q * float64(len(x)-1)
	i := int(p)
	j := min(i+1, len(x)-1)
	return x[i] + (p-float64(i))*(x[j]-x[i])
}

// Scale returns the sample of the figures multiplied by f > 0.
func (s Sample) Scale(f float64) Sample {
	return Sample{s.Median * f, s.Q1 * f, s.Q3 * f, s.N}
}

// invert returns the sample of f divided by each figure.
func (s Sample) invert(f float64) Sample {
	return Sample{f / s.Median, f / s.Q3, f / s.Q1, s.N}
}

// Spread is half the distance of the quartiles as a share of the median.
func (s Sample) Spread() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.Q3 - s.Q1) / 2 / s.Median
}

// spread calls f(0) to f(n-1) on all cores.
func spread(n int, f func(i int)) {
	_ = sched.Run(context.Background(), n, 0, func(i int, _ []float32) { f(i) }) // fails only with its context
}

// rate runs the workers side by side, each for at least d, and returns the
// calls a second of all.
func rate(d time.Duration, workers []func()) float64 {
	rates := make([]float64, len(workers))
	var wg sync.WaitGroup
	for w, f := range workers {
		wg.Go(func() {
			start := time.Now()
			for n := 1.0; ; n++ {
				f()
				if t := time.Since(start); t >= d {
					rates[w] = n / t.Seconds()
					return
				}
			}
		})
	}
	wg.Wait()
	sum := 0.0
	for _, r := range rates {
		sum += r
	}
	return sum
}
