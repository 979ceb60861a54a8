package kv

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrBudget marks a request for more memory than the allocator may hand out.
var ErrBudget = errors.New("memory budget exceeded")

// Allocator hands out zeroed memory outside the Go heap and accounts for it.
// The zero value has no budget. It is safe for concurrent use.
type Allocator struct {
	budget int64
	used   atomic.Int64
}

// NewAllocator returns an allocator that refuses to hold more than budget
// bytes at once; 0 means no limit.
func NewAllocator(budget int64) *Allocator { return &Allocator{budget: budget} }

// Used returns the bytes reserved at the moment.
func (a *Allocator) Used() int64 { return a.used.Load() }

// region is one mapping shared by the contexts that hold references to it.
type region struct {
	data  []byte
	refs  atomic.Int32
	owner *Allocator
}

// alloc maps n zeroed bytes, page-aligned. Pages take physical memory when
// first written; the budget counts them from the start.
func (a *Allocator) alloc(n int64) (*region, error) {
	if used := a.used.Add(n); a.budget > 0 && used > a.budget {
		a.used.Add(-n)
		return nil, a.over(n, used-n)
	}
	data, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		a.used.Add(-n)
		return nil, fmt.Errorf("map %d MiB for keys and values: %w", mib(n), err)
	}
	r := &region{data: data, owner: a}
	r.refs.Store(1)
	return r, nil
}

func (a *Allocator) over(n, used int64) error {
	return fmt.Errorf("%w: %d MiB more needed, %d of %d MiB in use; raise model.cpu_memory_mib or shorten the prompt",
		ErrBudget, mib(n), mib(used), mib(a.budget))
}

func mib(n int64) int64 { return (n + 1<<20 - 1) >> 20 }

func (r *region) retain() { r.refs.Add(1) }

func (r *region) release() error {
	if r.refs.Add(-1) > 0 {
		return nil
	}
	r.owner.used.Add(-int64(len(r.data)))
	return unix.Munmap(r.data)
}

// f32 and u16 view n elements from byte offset off, a multiple of 64.
func (r *region) f32(off, n int64) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(&r.data[off])), n)
}

func (r *region) u16(off, n int64) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(&r.data[off])), n)
}
