// Package par runs the independent pieces of building an index on all cores.
package par

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// Workers returns how many workers make use of the cores.
func Workers() int { return runtime.GOMAXPROCS(0) }

// Do calls f(worker, i) once for each i in [0, n) on up to the given number
// of goroutines and returns when all are done. Calls with one worker number
// never overlap: they may share scratch memory, on which the results must not
// depend. It stops early when ctx ends, and returns its error then.
func Do(ctx context.Context, workers, n int, f func(worker, i int)) error {
	var next atomic.Int64
	work := func(w int) {
		for ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			f(w, i)
		}
	}
	var wg sync.WaitGroup
	for w := 1; w < min(workers, n); w++ {
		wg.Go(func() { work(w) })
	}
	work(0)
	wg.Wait()
	return ctx.Err()
}
