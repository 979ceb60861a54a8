package kv

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openArena makes a memfd. Who has the second file cannot write: it is opened
// for reading, and the mode keeps it from being opened again for more by
// anyone but root.
func openArena(name string) (rw, ro *os.File, err error) {
	fd, err := unix.MemfdCreate("ra-"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, nil, fmt.Errorf("memfd_create: %w", err)
	}
	rw = os.NewFile(uintptr(fd), "ra-"+name)
	fail := func(err error) (*os.File, *os.File, error) {
		rw.Close()
		return nil, nil, err
	}
	// Nobody may shrink the file: that would kill every process that maps it.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
		return fail(fmt.Errorf("seal: %w", err))
	}
	if err := unix.Fchmod(fd, 0o400); err != nil {
		return fail(err)
	}
	ro, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return fail(err)
	}
	return rw, ro, nil
}

// punch gives the memory of e back to the system.
func punch(f *os.File, e extent) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.off, e.len)
}

// mapArena maps n bytes of an arena. Linux gives shared memory no huge pages by
// itself unless it is set up to, but makes some of pages that are there when
// told to (from Linux 6.1 on); scans of keys then take a third less time. So
// memory that will be written in full is made of huge pages at once.
func mapArena(f *os.File, off, n int64, dense bool) (*Mapping, error) {
	if n < hugePage || !dense {
		data, err := unix.Mmap(int(f.Fd()), off, int(n), readWrite, unix.MAP_SHARED)
		if err != nil {
			return nil, err
		}
		return &Mapping{Data: data, Unmap: func() error { return unix.Munmap(data) }}, nil
	}
	m, err := aligned(n, int(f.Fd()), off, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	whole := m.Data[:n&^(hugePage-1)]
	for i := 0; i < len(whole); i += hugePage {
		whole[i] = 0
	}
	advise(whole, unix.MADV_COLLAPSE)
	return m, nil
}
