package kv

import (
	"errors"
	"fmt"
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
	m, err := aligned(n, -1, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		advise(m.Data, unix.MADV_HUGEPAGE)
	}
	return m, err
}

// advise passes advice on. A kernel without huge pages refuses it; the memory
// is as good.
func advise(b []byte, advice int) { _ = unix.Madvise(b, advice) }

// aligned maps n bytes from an address that huge pages can begin at. It
// reserves a huge page more of address space than it uses.
func aligned(n int64, fd, flags int) (*Mapping, error) {
	if n > 1<<62 {
		return nil, unix.ENOMEM
	}
	whole, err := unix.Mmap(-1, 0, int(n)+hugePage, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	base := unsafe.Pointer(unsafe.SliceData(whole))
	at := int64(-uintptr(base) & (hugePage - 1))
	if _, err := unix.MmapPtr(fd, 0, unsafe.Add(base, at), uintptr(n), readWrite, flags|unix.MAP_FIXED); err != nil {
		return nil, errors.Join(err, unix.Munmap(whole))
	}
	return &Mapping{Data: whole[at : at+n : at+n], Unmap: func() error { return unix.Munmap(whole) }}, nil
}

func (shareable) Map(n int64, dense bool) (*Mapping, error) {
	fd, err := unix.MemfdCreate("ra", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create shareable memory: %w", err)
	}
	file := os.NewFile(uintptr(fd), "ra shareable memory")
	if err := unix.Ftruncate(fd, n); err != nil {
		return nil, errors.Join(fmt.Errorf("size shareable memory: %w", err), file.Close())
	}
	m, err := aligned(n, fd, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	unmap := m.Unmap
	m.File, m.Unmap = file, func() error { return errors.Join(unmap(), file.Close()) }
	if dense {
		advise(m.Data, unix.MADV_HUGEPAGE)
	}
	// Our own mapping may still be written; the seal on writing is newer than
	// the others.
	const size = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, size|unix.F_SEAL_FUTURE_WRITE)
	if errors.Is(err, unix.EINVAL) {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("seal shareable memory: %w", err), m.Unmap())
	}
	return m, nil
}
