package par

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDo(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	var made atomic.Int32
	x := New(func() *atomic.Int32 { made.Add(1); return new(atomic.Int32) })
	for _, n := range []int{0, 1, 2, 1000} {
		times := make([]atomic.Int32, n)
		if err := x.Do(context.Background(), n, func(busy *atomic.Int32, i int) {
			if busy.Add(1) != 1 {
				t.Error("two calls use the same memory")
			}
			times[i].Add(1)
			busy.Add(-1)
		}); err != nil {
			t.Error(err)
		}
		for i := range times {
			if times[i].Load() != 1 {
				t.Errorf("%d was done %d times", i, times[i].Load())
			}
		}
	}
	if n := made.Load(); n < 1 || n > 4 {
		t.Errorf("memory was made %d times for 4 cores", n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := x.Do(ctx, 5, func(*atomic.Int32, int) { t.Error("called") }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
