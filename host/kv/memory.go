package kv

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"unsafe"
)

// Errors that callers decide on.
var (
	// ErrBudget marks a request for more memory than the allocator may hand
	// out.
	ErrBudget = errors.New("memory budget exceeded")
	// ErrClosed marks the use of a closed context.
	ErrClosed = errors.New("context is closed")
	// ErrReleased marks a second release of a region.
	ErrReleased = errors.New("memory was released before")
)

// Kind says what memory is for. It is accounted by kind.
type Kind uint8

// Kinds of memory.
const (
	KeysValues Kind = iota // of contexts
	Index                  // search indexes: codes, links, lists
	Queries                // query vectors of a prefill, kept for building an index
	kinds
)

// String names the kind in messages.
func (k Kind) String() string {
	switch k {
	case KeysValues:
		return "keys and values"
	case Index:
		return "search index"
	case Queries:
		return "prefill queries"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Allocator hands out zeroed memory outside the Go heap and accounts for it.
// The zero value has no budget. It is safe for concurrent use.
type Allocator struct {
	budget int64
	source Source // nil: Anonymous
	shared *shared
	used   atomic.Int64
	kinds  [kinds]struct{ used, peak atomic.Int64 }
}

// NewAllocator returns an allocator of [Anonymous] memory that refuses to
// hold more than budget bytes at once; 0 means no limit.
func NewAllocator(budget int64) *Allocator { return NewAllocatorOn(Anonymous, budget) }

// NewAllocatorOn is [NewAllocator] on memory of the given source.
func NewAllocatorOn(s Source, budget int64) *Allocator {
	return &Allocator{source: s, budget: budget}
}

// shared is memory that processes are given to see, each kind apart from the
// others.
type shared struct{ keys, values, queries *Arena }

// NewSharedAllocator returns an allocator of memory that other processes can
// map: keys, values and kept queries lie in an [Arena] each, so that one can
// be given away without the others. Memory that will be written in full is
// populated at once, in huge pages where the system has them. The caller
// closes it, after all that it allocated.
func NewSharedAllocator(budget int64) (*Allocator, error) {
	a := &Allocator{budget: budget, shared: &shared{}}
	for name, to := range map[string]**Arena{"keys": &a.shared.keys, "values": &a.shared.values, "queries": &a.shared.queries} {
		var err error
		if *to, err = NewArena(name); err != nil {
			return nil, errors.Join(err, a.Close())
		}
	}
	return a, nil
}

// Shared returns the arenas of a shared allocator, nil for another.
func (a *Allocator) Shared() (keys, values, queries *Arena) {
	if a.shared == nil {
		return nil, nil, nil
	}
	return a.shared.keys, a.shared.values, a.shared.queries
}

// Close releases what a shared allocator holds; another holds nothing.
func (a *Allocator) Close() error {
	keys, values, queries := a.Shared()
	var errs []error
	for _, arena := range []*Arena{keys, values, queries} {
		if arena != nil {
			errs = append(errs, arena.Close())
		}
	}
	return errors.Join(errs...)
}

// Budget returns the most bytes that may be held at once; 0 means no limit.
func (a *Allocator) Budget() int64 { return a.budget }

// Used returns the bytes held at the moment.
func (a *Allocator) Used() int64 { return a.used.Load() }

// Usage returns the bytes of one kind, those held at the moment and the most
// that were held at once.
func (a *Allocator) Usage(k Kind) (used, peak int64) {
	return a.kinds[k].used.Load(), a.kinds[k].peak.Load()
}

// Need is memory that something is going to ask for.
type Need struct {
	What  string // for the error
	Bytes int64
}

// Check reports whether all needs could be met at the moment; the error says
// what is missing.
func (a *Allocator) Check(needs ...Need) error {
	var sum int64
	for _, n := range needs {
		if n.Bytes < 0 || n.Bytes > math.MaxInt64-sum {
			return fmt.Errorf("%w: %s of %d bytes does not fit the address space", ErrBudget, n.What, n.Bytes)
		}
		sum += n.Bytes
	}
	if used := a.used.Load(); a.budget > 0 && sum > a.budget-used {
		return a.over(sum, used, needs...)
	}
	return nil
}

// over is the error of a request beyond the budget; it lists needs when there
// are several.
func (a *Allocator) over(n, used int64, needs ...Need) error {
	var parts []string
	for _, p := range needs {
		if p.Bytes > 0 {
			parts = append(parts, fmt.Sprintf("%d for %s", mib(p.Bytes), p.What))
		}
	}
	list := ""
	if len(parts) > 1 {
		list = " (" + strings.Join(parts, ", ") + ")"
	}
	return fmt.Errorf("%w: %d MiB more needed%s, %d of %d MiB in use; raise model.cpu_memory_mib or shorten the prompt",
		ErrBudget, mib(n), list, mib(used), mib(a.budget))
}

// mib is n in MiB, rounded up.
func mib(n int64) int64 {
	m := n >> 20
	if n&(1<<20-1) != 0 {
		m++
	}
	return m
}

// Alloc returns n > 0 zeroed bytes, aligned to a page. They take physical
// memory when first written; the budget counts them from the start. The
// caller releases them.
func (a *Allocator) Alloc(n int64, k Kind) (*Region, error) { return a.alloc(n, k, true) }

// alloc is Alloc; dense is as in [Source].
func (a *Allocator) alloc(n int64, k Kind, dense bool) (*Region, error) {
	source := a.source
	switch {
	case a.shared != nil && k == Queries:
		source = a.shared.queries
	case source == nil:
		source = Anonymous
	}
	return a.allocOn(source, n, k, dense)
}

// allocContext returns the memory of a context's segment of n bytes: one
// region, or one for the keys and one for the values, half of n each.
func (a *Allocator) allocContext(n int64, dense bool) (mem, values *Region, err error) {
	if a.shared == nil {
		mem, err = a.alloc(n, KeysValues, dense)
		return mem, nil, err
	}
	if mem, err = a.allocOn(a.shared.keys, n/2, KeysValues, dense); err != nil {
		return nil, nil, err
	}
	if values, err = a.allocOn(a.shared.values, n/2, KeysValues, dense); err != nil {
		return nil, nil, errors.Join(err, mem.Release())
	}
	return mem, values, nil
}

func (a *Allocator) allocOn(source Source, n int64, k Kind, dense bool) (*Region, error) {
	if n < 1 {
		return nil, fmt.Errorf("allocate %d bytes for %s: must be positive", n, k)
	}
	size, ok := roundUp(n, int64(os.Getpagesize()))
	if !ok || int64(int(size)) != size {
		return nil, fmt.Errorf("%w: %d MiB for %s do not fit the address space", ErrBudget, mib(n), k)
	}
	if err := a.take(size, k); err != nil {
		return nil, err
	}
	m, err := source.Map(size, dense)
	if err != nil {
		a.give(size, k)
		return nil, fmt.Errorf("map %d MiB for %s: %w", mib(n), k, err)
	}
	return newRegion(m, n, func() { a.give(size, k) }), nil
}

// roundUp returns n as a multiple of unit, a power of two, unless it
// overflows.
func roundUp(n, unit int64) (int64, bool) {
	return (n + unit - 1) &^ (unit - 1), n <= math.MaxInt64-unit
}

// take accounts for n more bytes if the budget allows them.
func (a *Allocator) take(n int64, k Kind) error {
	limit := a.budget
	if limit <= 0 {
		limit = math.MaxInt64
	}
	for {
		used := a.used.Load()
		if n > limit-used {
			return a.over(n, used)
		}
		if a.used.CompareAndSwap(used, used+n) {
			break
		}
	}
	c := &a.kinds[k]
	now := c.used.Add(n)
	for p := c.peak.Load(); now > p && !c.peak.CompareAndSwap(p, now); p = c.peak.Load() {
	}
	return nil
}

func (a *Allocator) give(n int64, k Kind) {
	a.kinds[k].used.Add(-n)
	a.used.Add(-n)
}

// Region is memory that its holders share. Slices of it are valid until the
// last one releases it.
type Region struct {
	m    *Mapping
	n    int64
	refs atomic.Int32
	free func()
}

func newRegion(m *Mapping, n int64, free func()) *Region {
	r := &Region{m: m, n: n, free: free}
	r.refs.Store(1)
	return r
}

// Bytes returns the memory, nil once it is released.
func (r *Region) Bytes() []byte {
	if r.refs.Load() < 1 {
		return nil
	}
	return r.m.Data[:r.n:r.n]
}

// File returns the file that holds the memory, from the offset on, when it is
// shared, else nil. Another process may map it; it is the arena's.
func (r *Region) File() (f *os.File, offset int64) { return r.m.File, r.m.Offset }

// Retain adds a holder. The caller is one.
func (r *Region) Retain() { r.refs.Add(1) }

// Release ends the caller's hold on the memory. The last release frees it;
// one more is an error.
func (r *Region) Release() error {
	switch n := r.refs.Add(-1); {
	case n > 0:
		return nil
	case n < 0:
		r.refs.Add(1)
		return ErrReleased
	}
	r.free()
	return r.m.Unmap()
}

// Slice returns n elements of r from byte offset off, a multiple of the
// element's size. It panics when they reach beyond the region.
func Slice[T ~int8 | ~uint8 | ~int16 | ~uint16 | ~int32 | ~uint32 | ~int64 | ~uint64 | ~float32](r *Region, off, n int64) []T {
	var t T
	size := int64(unsafe.Sizeof(t))
	b := r.Bytes()
	if off < 0 || off%size != 0 || n < 0 || off > int64(len(b)) || n > (int64(len(b))-off)/size {
		panic(fmt.Sprintf("kv: %d elements of %d bytes from offset %d of a region of %d bytes", n, size, off, len(b)))
	}
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[off])), n)
}
