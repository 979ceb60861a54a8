package kv

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MapFile returns bytes [off, off+n) of a file, read-only; off is a multiple
// of 64. The file may be closed afterwards, but must not get shorter. Its
// pages are the system's to keep or drop, so no budget counts them. Writing
// to them ends the process.
func MapFile(f *os.File, off, n int64) (*Region, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("map a file: %w", err)
	}
	switch {
	case n < 1 || off < 0 || off%align != 0:
		return nil, fmt.Errorf("map %d bytes from offset %d of %s: the length must be positive, the offset a multiple of %d", n, off, f.Name(), align)
	case off > info.Size() || n > info.Size()-off:
		return nil, fmt.Errorf("map %d bytes from offset %d of %s: it has %d", n, off, f.Name(), info.Size())
	}
	skip := off % int64(os.Getpagesize())
	data, err := unix.Mmap(int(f.Fd()), off-skip, int(n+skip), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes from offset %d of %s: %w", n, off, f.Name(), err)
	}
	return newRegion(&Mapping{Data: data[skip:], Unmap: func() error { return unix.Munmap(data) }}, n, func() {}), nil
}
