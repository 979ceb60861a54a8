package plugin

import (
	"fmt"
	"sync/atomic"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// memory is one instance's linear memory: address space reserved up to the
// limit at once and committed as the guest grows, so that growing neither
// copies nor moves, and none of it is on the Go heap.
type memory struct {
	reserved  []byte
	committed uint64
	total     *atomic.Int64 // of the plugin's instances
	err       error         // why nothing is reserved
	denied    uint64        // the largest size that was refused
}

// allocator makes the memories of one plugin. Allocate keeps the last one,
// for the caller of the instantiation that it belongs to.
type allocator struct {
	limit uint64
	total *atomic.Int64
	last  *memory
}

// Allocate reserves the plugin's limit, whatever the module's own maximum.
func (a *allocator) Allocate(_, _ uint64) experimental.LinearMemory {
	m := &memory{total: a.total}
	m.reserved, m.err = unix.Mmap(-1, 0, int(a.limit), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	a.last = m
	return m
}

// Reallocate commits size bytes, or returns nil beyond the limit.
func (m *memory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.reserved)) {
		m.denied = max(m.denied, size)
		return nil
	}
	if size > m.committed {
		if err := unix.Mprotect(m.reserved[m.committed:size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			m.err = fmt.Errorf("commit %d MiB of guest memory: %w", size>>20, err)
			return nil
		}
		m.total.Add(int64(size - m.committed))
		m.committed = size
	}
	return m.reserved[:size:size]
}

// Free unmaps the memory. No view of it may be in use.
func (m *memory) Free() {
	if m.reserved == nil {
		return
	}
	m.total.Add(-int64(m.committed))
	// Unmapping what Mmap returned cannot fail.
	_ = unix.Munmap(m.reserved)
	m.reserved, m.committed = nil, 0
}
