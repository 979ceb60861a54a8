package kv

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/retrievalattention/ra/host/kernel"
)

var geo = Geometry{Layers: 2, KVHeads: 3, HeadDim: 4, DType: kernel.F32}

// row is the key stored for one (sequence tag, layer, head, position); the
// value is its negative.
func row(tag, layer, head, pos int) []float32 {
	return []float32{float32(tag), float32(layer*10 + head), float32(pos), 1}
}

func fill(t *testing.T, c *Context, tag, n int) {
	t.Helper()
	if err := c.Reserve(n); err != nil {
		t.Fatal(err)
	}
	lo := c.Len()
	for l := range geo.Layers {
		for h := range geo.KVHeads {
			for p := lo; p < lo+n; p++ {
				k := row(tag, l, h, p)
				v := make([]float32, len(k))
				for i := range k {
					v[i] = -k[i]
				}
				c.Put(l, h, p, k, v)
			}
		}
	}
	c.Commit(n)
}

// verify reads all of c; tag says which sequence wrote a position.
func verify(t *testing.T, c *Context, tag func(pos int) int) {
	t.Helper()
	buf := make([]float32, geo.HeadDim)
	for l := range geo.Layers {
		for h := range geo.KVHeads {
			next := 0
			for s := range c.Segments(l, h, 0, c.Len()) {
				if s.Start != next {
					t.Fatalf("segment starts at %d, want %d", s.Start, next)
				}
				for i := range s.Keys.N {
					want := row(tag(s.Start+i), l, h, s.Start+i)
					s.Keys.Widen(i, buf)
					for j := range want {
						if buf[j] != want[j] {
							t.Fatalf("key (%d,%d,%d) = %v, want %v", l, h, s.Start+i, buf, want)
						}
					}
					s.Values.Widen(i, buf)
					for j := range want {
						if buf[j] != -want[j] {
							t.Fatalf("value (%d,%d,%d) = %v", l, h, s.Start+i, buf)
						}
					}
				}
				next += s.Keys.N
			}
			if next != c.Len() {
				t.Fatalf("read %d of %d tokens", next, c.Len())
			}
		}
	}
}

func TestContextForks(t *testing.T) {
	mem := NewAllocator(0)
	c, err := NewContext(geo, 10, mem)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, c, 1, 10)
	fill(t, c, 1, minSegment+5) // grows by a second segment
	cut := c.Len()
	f := c.Fork()
	fill(t, f, 2, 3)
	fill(t, c, 3, 7) // the first sequence goes on beside the fork
	g := f.Fork()
	fill(t, g, 4, 2)
	tag := func(pos int) int {
		switch {
		case pos < cut:
			return 1
		case pos < cut+3:
			return 2
		}
		return 4
	}
	verify(t, f, tag)
	verify(t, g, tag)
	verify(t, c, func(pos int) int {
		if pos < cut {
			return 1
		}
		return 3
	})
	// A fork keeps the shared memory alive.
	for _, x := range []*Context{c, f} {
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	verify(t, g, tag)
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if mem.Used() != 0 {
		t.Errorf("%d bytes still accounted after closing all", mem.Used())
	}
}

func TestBudget(t *testing.T) {
	mem := NewAllocator(8 << 20)
	g := Geometry{Layers: 4, KVHeads: 2, HeadDim: 64, DType: kernel.BF16} // 2 KiB a token
	c, err := NewContext(g, 2048, mem)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = NewContext(g, 3000, mem)
	if !errors.Is(err, ErrBudget) {
		t.Fatalf("error %v, want ErrBudget", err)
	}
	want := "memory budget exceeded: 6 MiB more needed, 4 of 8 MiB in use; raise model.cpu_memory_mib or shorten the prompt"
	if err.Error() != want {
		t.Errorf("error text\n%s\nwant\n%s", err, want)
	}
	fork := func(n int) error {
		size, err := g.GrowthBytes(n)
		if err != nil {
			t.Fatal(err)
		}
		return mem.Check(Need{"an answer", size})
	}
	if err := fork(1500); err != nil {
		t.Error(err)
	}
	if err := fork(3000); err == nil || err.Error() != want {
		t.Errorf("check of a fork: %v, want %s", err, want)
	}
	err = mem.Check(Need{"the prompt", 3 << 20}, Need{"an answer", 1}, Need{"no index", 0}, Need{"prefill queries", 2<<20 - 1})
	want = "memory budget exceeded: 5 MiB more needed (3 for the prompt, 1 for an answer, 2 for prefill queries), 4 of 8 MiB in use; raise model.cpu_memory_mib or shorten the prompt"
	if err == nil || err.Error() != want {
		t.Errorf("check of several needs: %v\nwant %s", err, want)
	}
	if mem.Used() != 4<<20 {
		t.Errorf("used %d bytes after a refusal", mem.Used())
	}
	for _, n := range []int{1 << 52, 1 << 55, 1 << 60, math.MaxInt} {
		if _, err := NewContext(g, n, NewAllocator(0)); !errors.Is(err, ErrBudget) {
			t.Errorf("capacity %d: %v", n, err)
		}
		if err := c.Reserve(n); !errors.Is(err, ErrBudget) {
			t.Errorf("reserve %d: %v", n, err)
		}
	}
	if _, err := NewContext(g, -1, NewAllocator(0)); err != nil {
		t.Errorf("no room: %v", err)
	}
	if _, err := NewContext(Geometry{Layers: 1, KVHeads: 1, HeadDim: 3}, 1, mem); err == nil || !strings.Contains(err.Error(), "head dimension even") {
		t.Errorf("odd head dimension: %v", err)
	}
}

// One goroutine appends while others read what is committed; run with -race.
func TestConcurrentReaders(t *testing.T) {
	c, err := NewContext(geo, 1, NewAllocator(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fill(t, c, 1, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			buf := make([]float32, geo.HeadDim)
			for {
				n := c.Len()
				for s := range c.Segments(1, 2, 0, n) {
					s.Keys.Widen(s.Keys.N-1, buf)
					if int(buf[2]) != s.Start+s.Keys.N-1 {
						t.Errorf("read key %v at %d", buf, s.Start+s.Keys.N-1)
						return
					}
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for range 30 {
		fill(t, c, 1, 100)
	}
	close(done)
	wg.Wait()
}

// A view's states equal those of a plain array under random placements.
func TestViewAgainstArray(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		c, err := NewContext(geo, 1, NewAllocator(0))
		if err != nil {
			t.Fatal(err)
		}
		v := NewView(c)
		want := make([][]State, geo.Layers)
		for range 60 {
			if r.IntN(3) == 0 || v.Len() == 0 {
				n := r.IntN(20)
				v.Extend(n)
				for l := range want {
					want[l] = append(want[l], make([]State, n)...)
				}
				continue
			}
			l, lo := r.IntN(geo.Layers), r.IntN(v.Len())
			hi := lo + r.IntN(v.Len()-lo+1)
			s := State(r.IntN(3))
			v.Place(l, Range{lo, hi}, s)
			for p := lo; p < hi; p++ {
				want[l][p] = s
			}
		}
		f := v.Fork(c)
		v.Place(0, Range{0, v.Len()}, Dropped) // must not reach the fork
		for l, states := range want {
			got := make([]int, len(states)) // how often a range covers a position
			for _, s := range []State{Static, Indexed, Dropped} {
				last := -1
				for rg := range f.Ranges(l, s) {
					if rg.Len() < 1 || rg.Lo <= last {
						t.Fatalf("range %+v after position %d", rg, last)
					}
					last = rg.Hi // maximal: the next range may not touch
					for p := rg.Lo; p < rg.Hi; p++ {
						got[p]++
						if states[p] != s {
							t.Fatalf("position %d is in a %v range, want %v", p, s, states[p])
						}
					}
				}
			}
			for p, n := range got {
				if n != 1 || f.State(l, p) != states[p] {
					t.Fatalf("position %d covered %d times, state %v, want %v", p, n, f.State(l, p), states[p])
				}
			}
		}
		if f.Count(0, Static)+f.Count(0, Indexed)+f.Count(0, Dropped) != f.Len() {
			t.Fatal("counts do not add up")
		}
		c.Close()
	}
}

func TestStateString(t *testing.T) {
	if got := fmt.Sprint(Static, Indexed, Dropped, State(9)); got != "static indexed dropped state(9)" {
		t.Error(got)
	}
}
