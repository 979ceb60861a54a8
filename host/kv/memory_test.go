package kv

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/retrievalattention/ra/host/kernel"
)

// sources are tested with everything that a source must do.
var sources = map[string]Source{"anonymous": Anonymous, "shareable": Shareable}

func TestSources(t *testing.T) {
	for name, s := range sources {
		t.Run(name, func(t *testing.T) {
			a := NewAllocatorOn(s, 0)
			page := int64(os.Getpagesize())
			for _, n := range []int64{1, 64, page, page + 1, 2<<20 - 1, 2 << 20, 5<<20 + 3} {
				for _, dense := range []bool{true, false} {
					r, err := a.alloc(n, Index, dense)
					if err != nil {
						t.Fatal(err)
					}
					b := r.Bytes()
					if int64(len(b)) != n || int64(cap(b)) != n {
						t.Fatalf("%d bytes with room for %d, want %d", len(b), cap(b), n)
					}
					if at := uintptr(unsafe.Pointer(&b[0])); at%uintptr(page) != 0 {
						t.Errorf("%d bytes begin at %#x", n, at)
					}
					if want := (n + page - 1) / page * page; a.Used() != want {
						t.Errorf("%d bytes are accounted as %d, want %d", n, a.Used(), want)
					}
					for i, x := range b {
						if x != 0 {
							t.Fatalf("byte %d of %d is %d", i, n, x)
						}
						b[i] = byte(i)
					}
					if (r.File() != nil) != (s == Shareable) {
						t.Errorf("file %v", r.File())
					}
					if err := r.Release(); err != nil || a.Used() != 0 || r.Bytes() != nil {
						t.Errorf("release: %v, %d bytes used, %d bytes left", err, a.Used(), len(r.Bytes()))
					}
					if err := r.Release(); !errors.Is(err, ErrReleased) || a.Used() != 0 {
						t.Errorf("second release: %v, %d bytes used", err, a.Used())
					}
				}
			}
			for _, n := range []int64{1 << 60, math.MaxInt64 - 1, math.MaxInt64} {
				if _, err := a.Alloc(n, Index); err == nil || a.Used() != 0 {
					t.Errorf("%d bytes: %v, %d in use", n, err, a.Used())
				}
			}
			if _, err := a.Alloc(0, Index); err == nil || err.Error() != "allocate 0 bytes for search index: must be positive" {
				t.Error(err)
			}
		})
	}
}

// A budget holds over all kinds and under concurrent requests; what is refused
// leaves no trace.
func TestAccounting(t *testing.T) {
	const unit = 1 << 20
	a := NewAllocator(10 * unit)
	var zero Allocator
	if r, err := zero.Alloc(5, Queries); err != nil || r.Release() != nil {
		t.Error("the zero value:", err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var held []*Region
	refused := 0
	for i := range 30 {
		wg.Go(func() {
			r, err := a.Alloc(unit, Kind(i%3))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				held = append(held, r)
			} else if errors.Is(err, ErrBudget) {
				refused++
			}
		})
	}
	wg.Wait()
	if len(held) != 10 || refused != 20 || a.Used() != a.Budget() {
		t.Errorf("%d regions, %d refused, %d of %d bytes used", len(held), refused, a.Used(), a.Budget())
	}
	var sum, peaks int64
	for k := range kinds {
		used, peak := a.Usage(k)
		sum, peaks = sum+used, peaks+peak
	}
	if sum != a.Used() || peaks != a.Used() {
		t.Errorf("kinds add up to %d, peaks to %d, of %d", sum, peaks, a.Used())
	}
	for _, r := range held {
		if err := r.Release(); err != nil {
			t.Error(err)
		}
	}
	if used, peak := a.Usage(KeysValues); used != 0 || peak == 0 || a.Used() != 0 {
		t.Errorf("%d used, peak %d, %d in all after the end", used, peak, a.Used())
	}
	if err := a.Check(Need{"x", math.MaxInt64}, Need{"y", 1}); !errors.Is(err, ErrBudget) {
		t.Errorf("needs that overflow: %v", err)
	}
	if err := a.Check(Need{"x", math.MaxInt64}); !errors.Is(err, ErrBudget) {
		t.Errorf("an absurd need: %v", err)
	}
	if got := fmt.Sprint(KeysValues, Index, Queries, Kind(9)); got != "keys and values search index prefill queries kind(9)" {
		t.Error(got)
	}
}

// failing is a source whose memory cannot be had, or not be given back.
type failing struct{ mapping, unmapping error }

func (f failing) Map(n int64, dense bool) (*Mapping, error) {
	if f.mapping != nil {
		return nil, f.mapping
	}
	return &Mapping{Data: make([]byte, n), Unmap: func() error { return f.unmapping }}, nil
}

func TestSourceErrors(t *testing.T) {
	boom := errors.New("boom")
	a := NewAllocatorOn(failing{mapping: boom}, 0)
	if _, err := NewContext(geo, 1, a); !errors.Is(err, boom) || err.Error() != "map 1 MiB for keys and values: boom" || a.Used() != 0 {
		t.Errorf("%v, %d used", err, a.Used())
	}
	a = NewAllocatorOn(failing{unmapping: boom}, 0)
	c, err := NewContext(geo, 1, a)
	if err != nil {
		t.Fatal(err)
	}
	f := c.Fork()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); !errors.Is(err, boom) || err.Error() != "release keys and values: boom" || a.Used() != 0 {
		t.Errorf("%v, %d used", err, a.Used())
	}
}

func TestSlice(t *testing.T) {
	r, err := NewAllocator(0).Alloc(100, Index)
	if err != nil {
		t.Fatal(err)
	}
	u := Slice[uint32](r, 4, 24)
	u[0], u[23] = 0x01020304, 7
	if b := r.Bytes(); b[4] != 4 || b[96] != 7 || len(u) != 24 {
		t.Errorf("%v", b)
	}
	if f := Slice[float32](r, 96, 1); len(f) != 1 {
		t.Error(f)
	}
	if s := Slice[uint64](r, 96, 0); s != nil {
		t.Error(s)
	}
	panics := func(name string, f func()) {
		t.Helper()
		defer func() {
			if v := recover(); v == nil || !strings.HasPrefix(fmt.Sprint(v), "kv: ") {
				t.Errorf("%s: %v", name, v)
			}
		}()
		f()
	}
	panics("beyond the end", func() { Slice[uint32](r, 4, 25) })
	panics("far beyond", func() { Slice[uint64](r, 0, math.MaxInt64) })
	panics("negative", func() { Slice[uint8](r, -1, 1) })
	panics("unaligned", func() { Slice[uint32](r, 2, 1) })
	if err := r.Release(); err != nil {
		t.Fatal(err)
	}
	panics("released", func() { Slice[uint8](r, 0, 1) })

	c, err := NewContext(geo, 4, NewAllocator(0))
	if err != nil {
		t.Fatal(err)
	}
	fill(t, c, 1, 4)
	x := make([]float32, geo.HeadDim)
	panics("put over a committed token", func() { c.Put(0, 0, 3, x, x) })
	panics("put beyond the room", func() { c.Put(0, 0, minSegment, x, x) })
	// What is closed says so.
	v := NewView(c)
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	panics("put when closed", func() { c.Put(0, 0, 4, x, x) })
	if err := c.Reserve(0); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if f := c.Fork(); !errors.Is(f.Reserve(1), ErrClosed) || f.Close() != nil {
		t.Error("a fork of a closed context is open")
	}
	for range c.Segments(0, 0, 0, v.Len()) {
		t.Error("a closed context has segments")
	}
}

// Rows put as a block equal rows put one by one, over segment borders and with
// strides.
func TestPutRows(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for _, dtype := range []kernel.DType{kernel.F32, kernel.BF16, kernel.F16} {
		const dim, stride = 6, 17
		g := Geometry{Layers: 2, KVHeads: 2, HeadDim: dim, DType: dtype}
		var cs [2]*Context
		for i := range cs {
			c, err := NewContext(g, 10, NewAllocator(0))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for range 2 { // a second segment
				if err := c.Reserve(minSegment + 10); err != nil {
					t.Fatal(err)
				}
			}
			cs[i] = c
		}
		for pos := 0; pos < minSegment+20; {
			n := min(1+r.IntN(90), minSegment+20-pos)
			keys, values := make([]float32, n*stride), make([]float32, n*stride)
			for i := range keys {
				keys[i], values[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
			}
			cs[0].PutRows(1, 1, pos, n, stride, keys, values)
			for i := range n {
				cs[1].Put(1, 1, pos+i, keys[i*stride:][:dim], values[i*stride:][:dim])
			}
			pos += n
		}
		var got [2]string
		for i, c := range cs {
			for s := range c.Segments(1, 1, 0, minSegment+20) {
				got[i] += fmt.Sprint(s)
			}
		}
		if got[0] != got[1] || !strings.Contains(got[0], fmt.Sprint(dtype)) {
			t.Errorf("%v: a block differs from its rows", dtype)
		}
	}
}

// A context written to a file and mapped from it is the same, and goes on
// growing in memory of its own.
func TestMapFile(t *testing.T) {
	mem := NewAllocator(0)
	c, err := NewContext(geo, minSegment+300, mem)
	if err != nil {
		t.Fatal(err)
	}
	const n = minSegment + 300
	fill(t, c, 1, n)
	file := filepath.Join(t.TempDir(), "session")
	const header = 3 * align
	data := append(make([]byte, header), c.Blocks()[0].Region.Bytes()...)
	if err := os.WriteFile(file, append(data, "behind"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(data) - header)
	for _, bad := range [][2]int64{{header, size + 7}, {1 << 40, 1}, {7, 10}, {-64, 10}, {0, 0}, {64, math.MaxInt64}} {
		if r, err := MapFile(f, bad[0], bad[1]); err == nil {
			t.Errorf("%v is accepted: %v", bad, r)
		}
	}
	r, err := MapFile(f, header, size)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tokens := range []int{n - 4, n + 1, 0, -1, math.MaxInt} {
		if _, err := NewContextOn(geo, tokens, r, mem); err == nil {
			t.Errorf("%d tokens are accepted", tokens)
		}
	}
	m, err := NewContextOn(geo, n, r, mem)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, m, func(int) int { return 1 })
	if mem.Used() != 0 {
		t.Errorf("%d bytes accounted for a file", mem.Used())
	}
	fork := m.Fork()
	fill(t, m, 2, 5)
	fill(t, fork, 3, 6)
	for i, c := range []*Context{m, fork} {
		verify(t, c, func(pos int) int {
			if pos < n {
				return 1
			}
			return 2 + i
		})
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if r.Bytes() != nil || mem.Used() != 0 {
		t.Errorf("%d bytes used after the end", mem.Used())
	}
}

// What one process stores in shareable memory, another finds in its file: the
// committed tokens of every block, a fork's own among them.
func TestShareableContext(t *testing.T) {
	c, err := NewContext(geo, 5, NewAllocatorOn(Shareable, 0))
	if err != nil {
		t.Fatal(err)
	}
	fill(t, c, 1, 700)
	f := c.Fork()
	fill(t, f, 2, 400)
	mem, next := NewAllocator(0), 0
	for _, b := range f.Blocks() {
		r, err := MapFile(b.Region.File(), 0, int64(len(b.Region.Bytes())))
		if err != nil {
			t.Fatal(err)
		}
		seen, err := NewContextOn(geo, b.Capacity, r, mem)
		if err != nil {
			t.Fatal(err)
		}
		if b.Start != next {
			t.Errorf("a block begins at %d, want %d", b.Start, next)
		}
		next = b.End
		for s := range seen.Segments(1, 2, 0, min(b.End, f.Len())-b.Start) {
			for i := range s.Keys.N {
				pos := b.Start + i
				want := row(1, 1, 2, pos)
				if pos >= 700 {
					want = row(2, 1, 2, pos)
				}
				for j := range want {
					if k, v := s.Keys.F32[i*geo.HeadDim+j], s.Values.F32[i*geo.HeadDim+j]; k != want[j] || v != -want[j] {
						t.Fatalf("token %d: key %v, value %v, want %v", pos, k, v, want)
					}
				}
			}
		}
		if err := seen.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if next < 1100 {
		t.Errorf("blocks of %d tokens", next)
	}
	if err := errors.Join(f.Close(), c.Close()); err != nil || len(f.Blocks()) != 0 {
		t.Error(err)
	}
}

// One context grows while forks of it are made, read, grown and closed, views
// are placed, and an index copies what is committed; run with -race.
func TestConcurrentForksViewsAndIndex(t *testing.T) {
	mem := NewAllocator(0)
	c, err := NewContext(geo, 1, mem)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, c, 1, 50)
	base := NewView(c)
	base.Place(1, Range{10, 40}, Indexed)
	done := make(chan struct{})
	var wg sync.WaitGroup
	until := func(f func(i int)) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					f(i)
				}
			}
		})
	}
	for tag := 2; tag < 5; tag++ {
		until(func(i int) { // an answer on a fork
			f := c.Fork()
			n := f.Len()
			v := base.Fork(f)
			v.Extend(n - v.Len())
			fill(t, f, tag, 1+i%7)
			v.Extend(f.Len() - v.Len())
			v.Place(0, Range{n / 2, f.Len()}, Indexed)
			if v.State(0, f.Len()-1) != Indexed || v.State(1, 20) != Indexed || v.Count(0, Static) != n/2 {
				t.Error("the view has other states")
			}
			verify(t, f, func(pos int) int {
				if pos < n {
					return 1
				}
				return tag
			})
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	var blocks []*Region
	indexed := 0
	index := func(int) { // copies an element of each key
		n := c.Len()
		if n == indexed {
			return
		}
		r, err := mem.Alloc(int64(4*(n-indexed)), Index)
		if err != nil {
			t.Error(err)
			return
		}
		out := Slice[float32](r, 0, int64(n-indexed))
		for s := range c.Segments(1, 2, indexed, n) {
			for i := range s.Keys.N {
				out[s.Start-indexed+i] = s.Keys.F32[i*geo.HeadDim+2]
			}
		}
		for i, x := range out {
			if int(x) != indexed+i {
				t.Errorf("the index holds %v at %d", x, indexed+i)
			}
		}
		blocks, indexed = append(blocks, r), n
	}
	until(index)
	for range 60 {
		fill(t, c, 1, 70)
	}
	close(done)
	wg.Wait()
	index(0) // the rest
	if used, _ := mem.Usage(Index); used == 0 || indexed != c.Len() {
		t.Errorf("%d of %d tokens are indexed in %d bytes", indexed, c.Len(), used)
	}
	for _, r := range blocks {
		if err := r.Release(); err != nil {
			t.Error(err)
		}
	}
	if err := c.Close(); err != nil || mem.Used() != 0 {
		t.Errorf("%v, %d bytes used after the end", err, mem.Used())
	}
}
