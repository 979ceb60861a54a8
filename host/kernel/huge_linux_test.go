package kernel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// inHugePages asks for huge pages under x, which was not written yet, as the
// store does for its keys: with small ones a scan waits for addresses.
func inHugePages(x []uint16) {
	const page = 2 << 20
	lo := -int(uintptr(unsafe.Pointer(&x[0]))) & (page - 1)
	data := unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 2*len(x))
	// Advice may be refused; then the pages are small.
	_ = unix.Madvise(data[lo:lo+(len(data)-lo)&^(page-1)], unix.MADV_HUGEPAGE)
}
