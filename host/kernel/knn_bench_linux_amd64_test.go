package kernel

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Exact top-32 of 131,072 keys of dimension 128 for 4,096 queries, in blocks
// of 1,024 queries on as many threads as GOMAXPROCS says. The rates are of wall
// time and, per core, of processor time; recall is against [KNN].
func BenchmarkKNN(b *testing.B) {
	const n, m, dim, k, block = 4096, 1 << 17, 128, 32, 1024
	r := rand.New(rand.NewPCG(44, 4))
	normal := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(r.NormFloat64())
		}
		return x
	}
	q, data := normal(n*dim), normal(m*dim)
	tops := make([]*TopK, n)
	for i := range tops {
		tops[i] = NewTopK(k)
	}
	run := func(f knnFunc, keys Rows) {
		var wg sync.WaitGroup
		blocks := make(chan int, n/block)
		for i := 0; i < n; i += block {
			blocks <- i
		}
		close(blocks)
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() {
				scratch := make([]float32, KNNScratch(dim))
				for i := range blocks {
					for _, t := range tops[i : i+block] {
						t.Reset(k)
					}
					for lo := 0; lo < m; lo += 1024 {
						f(q[i*dim:], block, keys, lo, lo+1024, 0, tops[i:i+block], scratch)
					}
				}
			})
		}
		wg.Wait()
	}
	cpu := func() float64 {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
			b.Fatal(err)
		}
		return float64(t.Nano()) / 1e9
	}
	take := func() [][]uint32 {
		var ids [][]uint32
		for _, t := range tops {
			id := make([]uint32, k)
			t.Take(id, make([]float32, k))
			ids = append(ids, id)
		}
		return ids
	}
	for _, dtype := range []DType{F32, BF16} {
		keys := store(dtype, data, dim)
		for _, c := range []struct {
			name, level string
			f           knnFunc
		}{{"exact", "avx2", KNN}, {"exact", "avx512", KNN}, {"rounded", "avx512vnni", KNNRounded}} {
			b.Run(fmt.Sprintf("%v/%s/%s", dtype, c.name, c.level), func(b *testing.B) {
				use(b, c.level)
				var wall, core []float64
				for b.Loop() {
					start, from := time.Now(), cpu()
					run(c.f, keys)
					wall, core = append(wall, time.Since(start).Seconds()), append(core, cpu()-from)
				}
				slices.Sort(wall)
				slices.Sort(core)
				const flop = 2 * n * m * dim
				b.ReportMetric(flop/wall[len(wall)/2]/1e9, "GFLOP/s")
				b.ReportMetric(flop/core[len(core)/2]/1e9, "GFLOP/s/core")
				if c.name == "rounded" {
					got, found := take(), 0
					run(KNN, keys)
					for i, want := range take() {
						for _, id := range want {
							if slices.Contains(got[i], id) {
								found++
							}
						}
					}
					b.ReportMetric(float64(found)/(n*k), "recall")
				}
			})
		}
	}
}
