package kv

import (
	"errors"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is the size of the large pages of x86-64, and of arm64 with 4 KiB
// pages.
const hugePage = 2 << 20

const hugePagesFile = "/sys/kernel/mm/transparent_hugepage/enabled"

// HugePages says how the system gives huge pages to [Anonymous] memory:
// "always", "madvise" (to what asks, as dense memory does) or "never".
func HugePages() string {
	text, err := os.ReadFile(hugePagesFile)
	if err != nil {
		return "never"
	}
	_, mode, _ := strings.Cut(string(text), "[")
	mode, _, _ = strings.Cut(mode, "]")
	return mode
}

func (anonymous) Map(n int64, dense bool) (*Mapping, error) {
	switch {
	case n < hugePage:
		return plain(n)
	case !dense:
		m, err := plain(n)
		if err == nil {
			// Where huge pages are always on, one byte would take 2 MiB.
			advise(m.Data, unix.MADV_NOHUGEPAGE)
		}
		return m, err
	}
	m, err := aligned(n, -1, 0, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		advise(m.Data, unix.MADV_HUGEPAGE)
	}
	return m, err
}

// advise passes advice on. A kernel without huge pages refuses it; the memory
// is as good.
func advise(b []byte, advice int) { _ = unix.Madvise(b, advice) }

// aligned maps n bytes of a file from off on, or anonymous ones, at an address
// that huge pages can begin at. It reserves a huge page more of address space
// than it uses.
func aligned(n int64, fd int, off int64, flags int) (*Mapping, error) {
	if n > 1<<62 {
		return nil, unix.ENOMEM
	}
	whole, err := unix.Mmap(-1, 0, int(n)+hugePage, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	base := unsafe.Pointer(unsafe.SliceData(whole))
	at := int64(-uintptr(base) & (hugePage - 1))
	if _, err := unix.MmapPtr(fd, off, unsafe.Add(base, at), uintptr(n), readWrite, flags|unix.MAP_FIXED); err != nil {
		return nil, errors.Join(err, unix.Munmap(whole))
	}
	return &Mapping{Data: whole[at : at+n : at+n], Unmap: func() error { return unix.Munmap(whole) }}, nil
}
