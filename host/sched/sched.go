package sched

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Run calls f(i, scratch) once for each i in [0, n), on the calling goroutine
// and on idle cores, and returns when all calls have. scratch is memory of the
// given number of f32, of unspecified content, that no other call uses at the
// time. Which goroutine makes which call, and in which order, is open.
//
// When ctx ends, no further call is made and Run returns its error. When a
// call panics, the others end and Run panics: with the same value if it was
// made on the calling goroutine, with a [*Panic] if not.
func Run(ctx context.Context, n, scratch int, f func(i int, scratch []float32)) error {
	return process.run(ctx, n, scratch, f)
}

// Enter counts the calling goroutine as one that computes, until leave is
// called: loops elsewhere leave a core for it. Without it a goroutine is
// taken for the only one that is outside of all loops. Not for use within a
// loop's body.
func Enter() (leave func()) {
	process.enter(1)
	return func() { process.enter(-1) }
}

// Panic is a panic of a loop's body on another goroutine than the caller's.
type Panic struct {
	Value any
	Stack []byte // of the goroutine that panicked
}

// Error returns the value and the stack.
func (p *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Unwrap returns the value if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

var errGoexit = errors.New("runtime.Goexit in the body of a parallel loop")

const (
	// linger is how long a helper looks for the next loop: longer than the
	// sequential stretches of a decode step, so that it need not be woken.
	linger = 50 * time.Microsecond
	// patience is how long a caller looks for its helpers to end before it
	// sleeps.
	patience = 20 * time.Microsecond
	// pieces is how many claims each core makes of a loop of many items: few,
	// for each costs a shared cache line, but enough to even out.
	pieces = 8
)

var process crew

// crew is the helpers of one process.
type crew struct {
	mu       sync.Mutex
	procs    int          // GOMAXPROCS when the last loop opened
	open     []*region    // that may have unclaimed items; the innermost are last
	entered  int          // goroutines that said so by Enter
	sleeping int          // callers that wait for the helpers of their loop
	helpers  int          // alive
	idle     atomic.Int32 // helpers that look for a loop
	opened   atomic.Int32 // len(open), for those who look

	regions sync.Pool // *region
	scratch sync.Pool // *[]float32
}

// region is one loop.
type region struct {
	ctx      context.Context
	n, chunk int64
	scratch  int
	f        func(i int, scratch []float32)
	next     atomic.Int64 // first unclaimed item
	inside   atomic.Int32 // helpers; changed under the lock
	done     chan struct{}

	asleep  bool // the caller waits on done; under the lock
	failure atomic.Pointer[Panic]
}

func (c *crew) run(ctx context.Context, n, scratch int, f func(int, []float32)) error {
	procs := 1
	if n > 1 {
		procs = runtime.GOMAXPROCS(0)
	}
	b := c.borrow(scratch)
	if procs == 1 {
		defer c.scratch.Put(b)
		for i := 0; i < n && ctx.Err() == nil; i++ {
			f(i, (*b)[:scratch])
		}
		return ctx.Err()
	}
	r, _ := c.regions.Get().(*region)
	if r == nil {
		r = &region{done: make(chan struct{}, 1)}
	}
	r.ctx, r.n, r.chunk, r.scratch, r.f = ctx, int64(n), int64(max(1, n/(procs*pieces))), scratch, f
	r.next.Store(0)
	c.publish(r, procs)
	// Even when f panics, nobody may be at work once the caller's frame is
	// gone.
	finished := false
	defer func() {
		if !finished {
			r.next.Store(r.n)
			c.retire(r)
		}
	}()
	r.work(*b)
	finished = true
	c.retire(r)
	c.scratch.Put(b)
	failure := r.failure.Swap(nil)
	r.ctx, r.f = nil, nil
	c.regions.Put(r)
	if failure != nil {
		panic(failure)
	}
	return ctx.Err()
}

// work makes calls until none is left.
func (r *region) work(scratch []float32) {
	for {
		hi := r.next.Add(r.chunk)
		lo := hi - r.chunk
		if lo >= r.n {
			return
		}
		for i := lo; i < min(hi, r.n); i++ {
			if r.ctx.Err() != nil {
				r.next.Store(r.n)
				return
			}
			r.f(int(i), scratch[:r.scratch])
		}
	}
}

func (r *region) exhausted() bool { return r.next.Load() >= r.n }

// publish opens a loop to helpers and starts as many as it lacks.
func (c *crew) publish(r *region, procs int) {
	c.mu.Lock()
	c.procs = procs
	c.open = append(c.open, r)
	c.opened.Store(int32(len(c.open)))
	claims := int((r.n + r.chunk - 1) / r.chunk)
	start := min(claims-1-int(c.idle.Load()), c.room())
	for range start {
		c.start()
	}
	c.mu.Unlock()
}

// room is how many more helpers there may be: one goroutine a core, callers
// outside of loops counted, callers asleep not.
func (c *crew) room() int { return c.procs - max(1, c.entered) + c.sleeping - c.helpers }

// staff starts a helper when there is work and nobody to look at it.
func (c *crew) staff() {
	if c.idle.Load() == 0 && c.room() > 0 && c.available() != nil {
		c.start()
	}
}

func (c *crew) start() {
	c.helpers++
	c.idle.Add(1)
	go c.help()
}

// retire closes a loop without unclaimed items and waits until no helper is
// at work on it.
func (c *crew) retire(r *region) {
	c.mu.Lock()
	for i, o := range c.open {
		if o == r {
			c.remove(i)
			break
		}
	}
	c.available() // drops what would look like work below
	if r.inside.Load() == 0 {
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	// The helpers' last calls are under way. Look on for a little, unless
	// there is other work that nobody does for want of a core.
	lacking := func() bool { return c.opened.Load() > 0 && c.idle.Load() == 0 }
	for until := time.Now().Add(patience); ; {
		spun := spin(until, func() bool { return r.inside.Load() == 0 || lacking() })
		c.mu.Lock()
		if r.inside.Load() == 0 {
			c.mu.Unlock()
			return
		}
		work := c.available() != nil && lacking()
		if work || !spun {
			r.asleep = true
			c.sleeping++
			c.staff() // in this goroutine's place
			c.mu.Unlock()
			<-r.done
			return
		}
		c.mu.Unlock()
	}
}

// remove takes a loop from the list; the order of the others stays.
func (c *crew) remove(i int) {
	c.open = append(c.open[:i], c.open[i+1:]...)
	c.open[:len(c.open)+1][len(c.open)] = nil
	c.opened.Store(int32(len(c.open)))
}

// available returns the last loop opened that has unclaimed items.
func (c *crew) available() *region {
	for i := len(c.open) - 1; i >= 0; i-- {
		if r := c.open[i]; !r.exhausted() {
			return r
		}
		c.remove(i)
	}
	return nil
}

// help is the life of a helper.
func (c *crew) help() {
	b := c.borrow(0)
	var at *region
	defer func() {
		if at != nil { // a body called Goexit
			at.fail(errGoexit)
			c.leave(at, true)
		}
		c.scratch.Put(b)
	}()
	for {
		if at = c.join(); at == nil {
			return
		}
		if cap(*b) < at.scratch {
			*b = make([]float32, at.scratch)
		}
		at.assist((*b)[:cap(*b)])
		end := c.leave(at, false)
		at = nil
		if end {
			return
		}
	}
}

// join finds a loop for an idle helper; nil when it is to end.
func (c *crew) join() *region {
	for until, more := time.Now().Add(linger), true; ; {
		c.mu.Lock()
		r, surplus := c.available(), c.room() < 0
		if r != nil && !surplus {
			r.inside.Add(1)
			c.idle.Add(-1)
			c.mu.Unlock()
			return r
		}
		if surplus || !more {
			c.idle.Add(-1)
			c.helpers--
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		more = spin(until, func() bool { return c.opened.Load() > 0 })
	}
}

// assist is work that keeps a panic for the caller.
func (r *region) assist(scratch []float32) {
	defer func() {
		if v := recover(); v != nil {
			r.fail(v)
		}
	}()
	r.work(scratch)
}

// fail ends the loop for a panic on a helper; the first one counts.
func (r *region) fail(v any) {
	r.failure.CompareAndSwap(nil, &Panic{v, debug.Stack()})
	r.next.Store(r.n)
}

// leave takes a helper out of a loop and reports whether it is to end: when
// it must, or when there are more helpers than cores.
func (c *crew) leave(r *region, must bool) (end bool) {
	c.mu.Lock()
	wake := r.asleep && r.inside.Load() == 1
	if wake {
		r.asleep = false
		c.sleeping--
	}
	done := r.done
	r.inside.Add(-1) // the last use of r: its caller may be looking
	if end = must || c.room() < 0; end {
		c.helpers--
	} else {
		c.idle.Add(1)
	}
	c.mu.Unlock()
	if wake {
		done <- struct{}{}
		if !end {
			runtime.Gosched() // the caller goes on here, the helper elsewhere
		}
	}
	return end
}

func (c *crew) enter(n int) {
	c.mu.Lock()
	c.entered += n
	c.staff()
	c.mu.Unlock()
}

// borrow returns n f32 of unspecified content.
func (c *crew) borrow(n int) *[]float32 {
	b, _ := c.scratch.Get().(*[]float32)
	if b == nil {
		b = new([]float32)
	}
	if cap(*b) < n {
		*b = make([]float32, n)
	}
	*b = (*b)[:cap(*b)]
	return b
}

// spin looks for ok until it holds, or returns false at the given time.
func spin(until time.Time, ok func() bool) bool {
	for i := 1; !ok(); i++ {
		if i%64 == 0 && time.Now().After(until) {
			return false
		}
	}
	return true
}
