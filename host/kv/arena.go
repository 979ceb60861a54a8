package kv

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Arena is memory in a file without a name, so that another process that was
// given [Arena.File] can map it. The file is sparse: only what was written
// takes memory. It grows and never shrinks, so that whoever maps it can read
// every byte up to the size it saw. An arena is safe for concurrent use.
type Arena struct {
	name   string
	rw, ro *os.File
	mu     sync.Mutex
	size   int64
	free   []extent // in order, not adjacent to one another
}

// extent is a stretch of the file, in bytes.
type extent struct{ off, len int64 }

// Block is memory of an arena.
type Block struct {
	Data   []byte // zeroed when allocated, page-aligned
	Offset int64  // of Data in the arena's file
	arena  *Arena
}

// NewArena returns an empty arena; the name stands in the system's list of
// mappings.
func NewArena(name string) (*Arena, error) {
	rw, ro, err := openArena(name)
	if err != nil {
		return nil, fmt.Errorf("shared memory for %s: %w", name, err)
	}
	return &Arena{name: name, rw: rw, ro: ro}, nil
}

// File returns the arena's file, open for reading only. It is the arena's.
func (a *Arena) File() *os.File { return a.ro }

func (a *Arena) file() *os.File {
	if a == nil {
		return nil
	}
	return a.ro
}

// minArena is the least size of an arena's file.
const minArena = 1 << 30

// Alloc maps n bytes.
func (a *Arena) Alloc(n int64) (*Block, error) {
	page := int64(os.Getpagesize())
	n = (n + page - 1) &^ (page - 1)
	off, err := a.take(n)
	if err != nil {
		return nil, fmt.Errorf("%d MiB of shared memory for %s: %w", mib(n), a.name, err)
	}
	data, err := unix.Mmap(int(a.rw.Fd()), off, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		a.give(extent{off, n})
		return nil, fmt.Errorf("map %d MiB of shared memory for %s: %w", mib(n), a.name, err)
	}
	if !punches {
		clear(data)
	}
	return &Block{Data: data, Offset: off, arena: a}, nil
}

// Free gives the memory back. Data must not be used afterwards.
func (b *Block) Free() error {
	a, e := b.arena, extent{b.Offset, int64(len(b.Data))}
	err := errors.Join(unix.Munmap(b.Data), punch(a.rw, e))
	b.Data = nil
	a.give(e)
	return err
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

// Close closes the file, once all blocks are freed.
func (a *Arena) Close() error { return errors.Join(a.rw.Close(), a.ro.Close()) }
