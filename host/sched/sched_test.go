package sched

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

// Helpers end by themselves.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cores sets GOMAXPROCS for one test.
func cores(t *testing.T, n int) {
	t.Helper()
	old := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(old) })
}

// onHelper reports whether the calling goroutine is a helper.
func onHelper() bool {
	buf := make([]byte, 1<<14)
	return strings.Contains(string(buf[:runtime.Stack(buf, false)]), ".(*crew).help(")
}

// together returns a function that returns once n goroutines are in it.
func together(n int) func() {
	var wg sync.WaitGroup
	wg.Add(n)
	return func() { wg.Done(); wg.Wait() }
}

// Every item of loops in loops is done once, whatever the number of cores,
// and never more than GOMAXPROCS innermost calls at a time.
func TestNestedLoops(t *testing.T) {
	for _, procs := range []int{1, 2, 3, 8} {
		cores(t, procs)
		r := rand.New(rand.NewPCG(1, uint64(procs)))
		var now, most atomic.Int64
		leaf := func() {
			n := now.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			busy(200)
			runtime.Gosched() // lets others in, if there are any
			now.Add(-1)
		}
		for range 60 {
			a, b, c := r.IntN(6), r.IntN(6), r.IntN(40)
			var calls atomic.Int64
			done := make([]atomic.Int32, a*b*c)
			err := Run(t.Context(), a, 0, func(i int, _ []float32) {
				busy(300 * i)
				Run(t.Context(), b, 0, func(j int, _ []float32) {
					Run(t.Context(), c, 0, func(k int, _ []float32) {
						leaf()
						calls.Add(1)
						done[(i*b+j)*c+k].Add(1)
					})
				})
			})
			if err != nil || int(calls.Load()) != a*b*c {
				t.Fatalf("%d cores, %dx%dx%d: %d calls, %v", procs, a, b, c, calls.Load(), err)
			}
			for i := range done {
				if done[i].Load() != 1 {
					t.Fatalf("%d cores: item %d was done %d times", procs, i, done[i].Load())
				}
			}
		}
		if most.Load() > int64(procs) {
			t.Errorf("%d calls at a time on %d cores", most.Load(), procs)
		}
	}
}

// Goroutines that entered share the cores: no more calls than cores are under
// way while there are no more of them.
func TestEntered(t *testing.T) {
	const procs = 4
	cores(t, procs)
	for _, callers := range []int{1, 2, 4} {
		var now, most atomic.Int64
		var wg sync.WaitGroup
		begin, end := together(callers), together(callers)
		for range callers {
			wg.Go(func() {
				defer Enter()()
				begin()
				for range 50 {
					Run(t.Context(), 16, 0, func(int, []float32) {
						n := now.Add(1)
						for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
						}
						busy(500)
						runtime.Gosched()
						now.Add(-1)
					})
				}
				end()
			})
		}
		wg.Wait()
		if most.Load() > procs {
			t.Errorf("%d callers: %d calls at a time on %d cores", callers, most.Load(), procs)
		}
	}
}

// On one core a loop is a plain one.
func TestOneCoreIsSequential(t *testing.T) {
	cores(t, 1)
	var got []int
	err := Run(t.Context(), 5, 3, func(i int, scratch []float32) {
		if onHelper() || len(scratch) != 3 {
			t.Errorf("item %d: on a helper: %v, scratch of %d", i, onHelper(), len(scratch))
		}
		Run(t.Context(), 2, 0, func(j int, _ []float32) { got = append(got, 10*i+j) })
	})
	if want := "[0 1 10 11 20 21 30 31 40 41]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v, %v, want %s", got, err, want)
	}
}

// While a caller waits for the last call of its loop, its core works on the
// loops within that call: the innermost calls can only meet when it does.
func TestWaitingCallerLeavesItsCore(t *testing.T) {
	cores(t, 2)
	for range 200 {
		meet := together(2)
		err := Run(t.Context(), 2, 0, func(i int, _ []float32) {
			if i == 0 {
				return
			}
			busy(50_000) // the other one waits by now, most of the time
			Run(t.Context(), 2, 0, func(int, []float32) { meet() })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// No two calls have the same scratch at a time, nested ones included.
func TestScratch(t *testing.T) {
	var fill func(depth int, tag float32)
	fill = func(depth int, tag float32) {
		Run(t.Context(), 5, 100*depth, func(i int, scratch []float32) {
			if len(scratch) != 100*depth || cap(scratch) < len(scratch) {
				t.Errorf("scratch of %d", len(scratch))
			}
			own := tag*10 + float32(i)
			for j := range scratch {
				scratch[j] = own
			}
			if depth > 1 {
				fill(depth-1, own)
			}
			runtime.Gosched()
			for _, x := range scratch {
				if x != own {
					t.Fatalf("scratch holds %v, written was %v", x, own)
				}
			}
		})
	}
	for _, procs := range []int{4, 1} {
		cores(t, procs)
		for range 20 {
			fill(3, 1)
		}
	}
}

func TestContextEnds(t *testing.T) {
	for _, procs := range []int{1, 4} {
		cores(t, procs)
		ctx, cancel := context.WithCancel(t.Context())
		var calls atomic.Int64
		err := Run(ctx, 1_000_000_000, 0, func(i int, _ []float32) {
			calls.Add(1)
			cancel()
		})
		// One call at most was under way on each core.
		if !errors.Is(err, context.Canceled) || calls.Load() < 1 || calls.Load() > int64(procs) {
			t.Errorf("%d cores: %v after %d calls", procs, err, calls.Load())
		}
		if err := Run(ctx, 3, 0, func(int, []float32) { t.Error("called") }); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := Run(ctx, 0, 0, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// outcome calls f and returns what it panicked with.
func outcome(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

// A panic ends the loop and reaches the caller from any goroutine, after all
// other calls have ended; the next loop is not affected.
func TestPanics(t *testing.T) {
	cores(t, 4)
	boom := errors.New("boom")
	for round := range 100 {
		helper := round%2 == 0
		meet := together(2)
		var under, calls atomic.Int64
		value := outcome(func() {
			Run(t.Context(), 1000, 0, func(i int, _ []float32) {
				under.Add(1)
				defer under.Add(-1)
				if calls.Add(1) <= 2 {
					meet()
				}
				if onHelper() == helper {
					panic(boom)
				}
				runtime.Gosched()
			})
		})
		err, _ := value.(error)
		if !errors.Is(err, boom) || under.Load() != 0 {
			t.Fatalf("%v with %d calls under way", value, under.Load())
		}
		var p *Panic
		if errors.As(err, &p) != helper || helper && !strings.Contains(p.Error(), "boom\n\ngoroutine ") {
			t.Errorf("on a helper %v: %v", helper, err)
		}
		if err := Run(t.Context(), 10, 0, func(int, []float32) {}); err != nil {
			t.Fatal(err)
		}
	}
	if v := outcome(func() { Run(t.Context(), 1, 0, func(int, []float32) { panic(7) }) }); v != 7 {
		t.Errorf("got %v", v)
	}
	if err := (&Panic{Value: 7}).Unwrap(); err != nil {
		t.Error(err)
	}
}

// runtime.Goexit in a body, as testing's FailNow does, neither hangs nor is
// lost.
func TestGoexit(t *testing.T) {
	cores(t, 2)
	for _, helper := range []bool{true, false} {
		meet, returned, value := together(2), false, any(nil)
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() { value = recover() }()
			Run(context.Background(), 2, 0, func(int, []float32) {
				meet()
				if onHelper() == helper {
					runtime.Goexit()
				}
			})
			returned = true
		})
		wg.Wait()
		err, _ := value.(error)
		if returned || errors.Is(err, errGoexit) != helper {
			t.Errorf("on a helper %v: returned %v, %v", helper, returned, value)
		}
	}
}
