package kv

import (
	"os"

	"golang.org/x/sys/unix"
)

// Source is where an [Allocator] gets its memory from: [Anonymous], an
// [Arena], or memory that a GPU backend has pinned.
type Source interface {
	// Map returns n > 0 zeroed bytes, n a multiple of the page size, aligned to a
	// page. dense says that all of them will be written, so that huge pages
	// waste nothing.
	Map(n int64, dense bool) (*Mapping, error)
}

// Mapping is memory of a [Source].
type Mapping struct {
	Data []byte
	// File holds Data from Offset on, for other processes to map; nil when
	// the memory is private. It is the source's.
	File   *os.File
	Offset int64
	Unmap  func() error // called once
}

// Anonymous memory is private. On Linux what is dense and large is aligned
// for huge pages and asks for them: scans then read it faster.
var Anonymous Source = anonymous{}

type anonymous struct{}

const readWrite = unix.PROT_READ | unix.PROT_WRITE

// plain maps n bytes wherever the system likes.
func plain(n int64) (*Mapping, error) {
	data, err := unix.Mmap(-1, 0, int(n), readWrite, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	return &Mapping{Data: data, Unmap: func() error { return unix.Munmap(data) }}, nil
}
