package par

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDo(t *testing.T) {
	for _, workers := range []int{1, 3, 50} {
		for _, n := range []int{0, 1, 2, 1000} {
			times := make([]atomic.Int32, n)
			busy := make([]atomic.Int32, workers)
			if err := Do(context.Background(), workers, n, func(w, i int) {
				if busy[w].Add(1) != 1 {
					t.Errorf("two calls of worker %d at a time", w)
				}
				times[i].Add(1)
				busy[w].Add(-1)
			}); err != nil {
				t.Error(err)
			}
			for i := range times {
				if times[i].Load() != 1 {
					t.Errorf("%d workers: %d was done %d times", workers, i, times[i].Load())
				}
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done atomic.Int32
	if err := Do(ctx, 2, 1_000_000_000, func(_, i int) {
		if done.Add(1) == 10 {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) || done.Load() > 1000 {
		t.Errorf("%v after %d", err, done.Load())
	}
}
