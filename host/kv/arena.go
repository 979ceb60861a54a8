package kv

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"
)

// Arena is a [Source] of memory in one file without a name, so that another
// process that was given [Arena.File] can map it. The file is sparse: only
// what is dense or was written takes memory. It grows and never shrinks, so that whoever
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
func (a *Arena) Map(n int64, dense bool) (*Mapping, error) {
	align := int64(os.Getpagesize())
	if dense && n >= hugePage {
		align = max(align, hugePage)
	}
	e, err := a.take(n, align)
	if err != nil {
		return nil, fmt.Errorf("shared memory for %s: %w", a.name, err)
	}
	m, err := mapArena(a.rw, e.off, n, dense)
	if err != nil {
		a.give(e)
		return nil, fmt.Errorf("shared memory for %s: %w", a.name, err)
	}
	first, unmap := &m.Data[0], m.Unmap
	a.mu.Lock()
	a.mapped[first] = e
	a.mu.Unlock()
	m.File, m.Offset = a.ro, e.off
	m.Unmap = func() error {
		a.mu.Lock()
		delete(a.mapped, first)
		a.mu.Unlock()
		err := errors.Join(unmap(), punch(a.rw, e))
		a.give(e)
		return err
	}
	return m, nil
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

// take finds n bytes of the file at a multiple of align, first fit, and grows
// it when there are none.
func (a *Arena) take(n, align int64) (extent, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		for i, e := range a.free {
			off := (e.off + align - 1) &^ (align - 1)
			if e.off+e.len-off < n {
				continue
			}
			a.free = slices.Delete(a.free, i, i+1)
			for _, rest := range []extent{{e.off, off - e.off}, {off + n, e.off + e.len - off - n}} {
				if rest.len > 0 {
					a.insert(rest)
				}
			}
			return extent{off, n}, nil
		}
		grown := max(minArena, 2*a.size)
		for grown-a.size < n+align {
			grown *= 2
		}
		if err := a.rw.Truncate(grown); err != nil {
			return extent{}, err
		}
		a.insert(extent{a.size, grown - a.size})
		a.size = grown
	}
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
