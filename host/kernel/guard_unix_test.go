//go:build unix

package kernel

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// guarded returns a copy of data that ends where a page without access
// begins: to read or write past it is a fault.
func guarded[E any](t *testing.T, data []E) []E {
	t.Helper()
	var e E
	size := int(unsafe.Sizeof(e))
	page := unix.Getpagesize()
	room := (len(data)*size + page - 1) / page * page
	m, err := unix.Mmap(-1, 0, room+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(m); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mprotect(m[room:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	g := unsafe.Slice((*E)(unsafe.Pointer(&m[room-len(data)*size])), len(data))
	copy(g, data)
	return g
}
