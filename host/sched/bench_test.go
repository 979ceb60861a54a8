package sched

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// started is the loop that starts a goroutine a core each time: what crew is
// measured against.
func started(ctx context.Context, n, scratch int, f func(int, []float32)) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	work := func() {
		for ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			f(i, nil)
		}
	}
	for range min(runtime.GOMAXPROCS(0), n) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	return ctx.Err()
}

var sink atomic.Int64

// busy computes for about n nanoseconds.
func busy(n int) {
	x := uint64(n)
	for range n {
		x = x*6364136223846793005 + 1442695040888963407
	}
	if x == 0 {
		sink.Add(1)
	}
}

// BenchmarkRun is a loop of 8 items between short sequential stretches, as
// in a decode step. The items of "empty" do nothing, so that the figure is
// the cost of the loop itself.
func BenchmarkRun(b *testing.B) {
	for _, c := range []struct {
		name        string
		item, pause int
	}{{"empty", 0, 0}, {"10us", 1250, 3000}, {"50us", 6250, 3000}, {"400us", 50000, 3000}, {"50us after 100us", 6250, 100000}} {
		for _, s := range []struct {
			name string
			run  func(context.Context, int, int, func(int, []float32)) error
		}{{"sched", Run}, {"goroutines", started}} {
			b.Run(fmt.Sprintf("%s/%s", c.name, s.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					s.run(context.Background(), 8, 0, func(int, []float32) { busy(c.item) })
					busy(c.pause)
				}
			})
		}
	}
}

// BenchmarkNested is two loops side by side in a loop.
func BenchmarkNested(b *testing.B) {
	for _, s := range []struct {
		name string
		run  func(context.Context, int, int, func(int, []float32)) error
	}{{"sched", Run}, {"goroutines", started}} {
		b.Run(s.name, func(b *testing.B) {
			for b.Loop() {
				s.run(context.Background(), 2, 0, func(i int, _ []float32) {
					s.run(context.Background(), 4, 0, func(int, []float32) { busy(3000 + 9000*i) })
				})
			}
		})
	}
}
