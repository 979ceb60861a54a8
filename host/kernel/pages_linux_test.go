package kernel

import (
	"testing"

	"golang.org/x/sys/unix"
)

// pages returns n bytes in huge pages where there are any, as the vector
// store has them. They are never given back.
func pages(b *testing.B, n int) []byte {
	m, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		b.Fatal(err)
	}
	// Without huge pages it is only slower.
	_ = unix.Madvise(m, unix.MADV_HUGEPAGE)
	return m
}
