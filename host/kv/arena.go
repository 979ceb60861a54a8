package kv

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Arena is a [Source] of memory in one file without a name, so that another
// process that was given [Arena.File] can map it. The file is sparse: only
// what was written takes memory. It grows and never shrinks, so that whoever
// maps it can read every byte up to the size it saw. An arena is safe for
// concurrent use.
type Arena struct {
	name   string
	rw, ro *os.File
	mu     sync.Mutex
	size   int64
	free   []extent // in order, not adjacent to one another
	mapped map[*byte]extent
}

// extent is a stretch of the file, in bytes.
type extent struct{ off, len int64 }

// NewArena returns an empty arena; the name stands in the system's list of
// mappings.
func NewArena(name string) (*Arena, error) {
	rw, ro, err := openArena(name)
	if err != nil {
		return nil, fmt.Errorf("shared memory for %s: %w", name, err)
	}
	return &Arena{name: name, rw: rw, ro: ro, mapped: map[*byte]extent{}}, nil
}

// File returns the arena's file, open for reading only. It is the arena's.
func (a *Arena) File() *os.File { return a.ro }

// minArena is the least size of an arena's file.
const minArena = 1 << 30

// Map implements [Source].
func (a *Arena) Map(n int64, _ bool) (*Mapping, error) {
	off, err := a.take(n)
	if err != nil {
		return nil, fmt.Errorf("shared memory for %s: %w", a.name, err)
	}
	e := extent{off, n}
	data, err := unix.Mmap(int(a.rw.Fd()), off, int(n), readWrite, unix.MAP_SHARED)
	if err != nil {
		a.give(e)
		return nil, fmt.Errorf("shared memory for %s: %w", a.name, err)
	}
	if !punches {
		clear(data)
	}
	adviseShared(data)
	a.mu.Lock()
	a.mapped[&data[0]] = e
	a.mu.Unlock()
	return &Mapping{Data: data, File: a.ro, Offset: off, Unmap: func() error {
		a.mu.Lock()
		delete(a.mapped, &data[0])
		a.mu.Unlock()
		err := errors.Join(unix.Munmap(data), punch(a.rw, e))
		a.give(e)
		return err
	}}, nil
}

// Offset returns where in the file p points to; ok is false when p points to
// other memory.
func (a *Arena) Offset(p unsafe.Pointer) (offset int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for first, e := range a.mapped {
		if d := int64(uintptr(p)) - int64(uintptr(unsafe.Pointer(first))); d >= 0 && d < e.len {
			return e.off + d, true
		}
	}
	return 0, false
}

// take finds n bytes of the file, first fit, and grows it when there are none.
func (a *Arena) take(n int64) (int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.free, func(e extent) bool { return e.len >= n })
	if i < 0 {
		grown := max(minArena, 2*a.size)
		for grown-a.size < n {
			grown *= 2
		}
		if err := a.rw.Truncate(grown); err != nil {
			return 0, err
		}
		a.insert(extent{a.size, grown - a.size})
		a.size = grown
		i = len(a.free) - 1 // at the end, and merged with what was free there
	}
	e := &a.free[i]
	off := e.off
	e.off, e.len = e.off+n, e.len-n
	if e.len == 0 {
		a.free = slices.Delete(a.free, i, i+1)
	}
	return off, nil
}

func (a *Arena) give(e extent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.insert(e)
}

// insert adds e to the free extents and merges it with its neighbours.
func (a *Arena) insert(e extent) {
	i, _ := slices.BinarySearchFunc(a.free, e, func(x, e extent) int { return int(x.off - e.off) })
	a.free = slices.Insert(a.free, i, e)
	for _, j := range []int{i, i - 1} {
		if j >= 0 && j+1 < len(a.free) && a.free[j].off+a.free[j].len == a.free[j+1].off {
			a.free[j].len += a.free[j+1].len
			a.free = slices.Delete(a.free, j+1, j+2)
		}
	}
}

// Close closes the file, once all mappings are gone.
func (a *Arena) Close() error { return errors.Join(a.rw.Close(), a.ro.Close()) }
