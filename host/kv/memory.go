package kv

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrBudget marks a request for more memory than the allocator may hand out.
var ErrBudget = errors.New("memory budget exceeded")

// Allocator hands out zeroed memory outside the Go heap and accounts for it.
// The zero value has no budget. It is safe for concurrent use.
type Allocator struct {
	budget       int64
	used         atomic.Int64
	keys, values *Arena // nil: anonymous memory
}

// NewAllocator returns an allocator that refuses to hold more than budget
// bytes at once; 0 means no limit.
func NewAllocator(budget int64) *Allocator { return &Allocator{budget: budget} }

// NewSharedAllocator returns an allocator like that of [NewAllocator] whose
// memory other processes can map: keys and values lie in an arena each, so
// that one can be shared without the other. The caller must close it.
func NewSharedAllocator(budget int64) (*Allocator, error) {
	keys, err := NewArena("keys")
	if err != nil {
		return nil, err
	}
	values, err := NewArena("values")
	if err != nil {
		return nil, errors.Join(err, keys.Close())
	}
	return &Allocator{budget: budget, keys: keys, values: values}, nil
}

// Keys and Values return the files with the keys and the values, open for
// reading only, or nil when the memory is not shared.
func (a *Allocator) Keys() *os.File { return a.keys.file() }

// Values: see [Allocator.Keys].
func (a *Allocator) Values() *os.File { return a.values.file() }

// Close releases what a shared allocator holds, once all contexts are closed.
func (a *Allocator) Close() error {
	if a.keys == nil {
		return nil
	}
	return errors.Join(a.keys.Close(), a.values.Close())
}

// Used returns the bytes reserved at the moment.
func (a *Allocator) Used() int64 { return a.used.Load() }

// region is memory for keys and as much for values, shared by the contexts
// that hold references to it.
type region struct {
	keys, values []byte
	data         []byte    // the anonymous mapping with both, or
	blocks       [2]*Block // one of each arena
	refs         atomic.Int32
	owner        *Allocator
}

// alloc maps n zeroed bytes, half of them for keys and half for values, both
// aligned to 64 bytes when n/2 is a multiple of that. Pages take physical
// memory when first written; the budget counts them from the start.
func (a *Allocator) alloc(n int64) (*region, error) {
	if used := a.used.Add(n); a.budget > 0 && used > a.budget {
		a.used.Add(-n)
		return nil, a.over(n, used-n)
	}
	r := &region{owner: a}
	r.refs.Store(1)
	if err := r.open(n / 2); err != nil {
		a.used.Add(-n)
		return nil, err
	}
	return r, nil
}

// open maps half bytes each.
func (r *region) open(half int64) (err error) {
	if r.owner.keys == nil {
		r.data, err = unix.Mmap(-1, 0, int(2*half), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return fmt.Errorf("map %d MiB for keys and values: %w", mib(2*half), err)
		}
		r.keys, r.values = r.data[:half], r.data[half:]
		return nil
	}
	if r.blocks[0], err = r.owner.keys.Alloc(half); err != nil {
		return err
	}
	if r.blocks[1], err = r.owner.values.Alloc(half); err != nil {
		return errors.Join(err, r.blocks[0].Free())
	}
	r.keys, r.values = r.blocks[0].Data[:half], r.blocks[1].Data[:half]
	return nil
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
	r.owner.used.Add(-int64(len(r.keys) + len(r.values)))
	if r.data != nil {
		return unix.Munmap(r.data)
	}
	return errors.Join(r.blocks[0].Free(), r.blocks[1].Free())
}

// f32 and u16 view n elements from byte offset off, a multiple of 64.
func f32(mem []byte, off, n int64) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(&mem[off])), n)
}

func u16(mem []byte, off, n int64) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(&mem[off])), n)
}
