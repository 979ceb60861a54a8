// Package par gives the bodies of parallel loops scratch memory of any type.
package par

import (
	"context"
	"sync"

	"github.com/retrievalattention/ra/host/sched"
)

// Scratch is memory that calls of a loop's body take turns to use. What they
// compute must not depend on which of it they get.
type Scratch[T any] struct {
	fresh func() T
	mu    sync.Mutex
	free  []T
}

// New returns scratch memory that fresh makes as it is needed.
func New[T any](fresh func() T) *Scratch[T] { return &Scratch[T]{fresh: fresh} }

// Do calls f(s, i) once for each i in [0, n) as [sched.Run] does; no other
// call uses s at the time.
func (x *Scratch[T]) Do(ctx context.Context, n int, f func(s T, i int)) error {
	return sched.Run(ctx, n, 0, func(i int, _ []float32) {
		s := x.get()
		f(s, i)
		x.mu.Lock()
		x.free = append(x.free, s)
		x.mu.Unlock()
	})
}

func (x *Scratch[T]) get() T {
	x.mu.Lock()
	defer x.mu.Unlock()
	if last := len(x.free) - 1; last >= 0 {
		s := x.free[last]
		x.free = x.free[:last]
		return s
	}
	return x.fresh()
}
