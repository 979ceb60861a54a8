package kv

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// punches says that a freed block reads as zeros from then on.
const punches = true

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

// adviseShared asks for huge pages, which the system has for shared memory
// when it is set up so.
func adviseShared(b []byte) { advise(b, unix.MADV_HUGEPAGE) }
