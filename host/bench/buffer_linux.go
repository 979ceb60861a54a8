package bench

import "golang.org/x/sys/unix"

// newBuffer maps n zeroed bytes, in huge pages where the system gives them:
// page walks are not what a ceiling should show.
func newBuffer(n int) ([]byte, error) {
	b, err := mapBytes(n)
	if err == nil {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // advice
	}
	return b, err
}
