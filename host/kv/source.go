package kv

import (
	"os"

	"golang.org/x/sys/unix"
)

// Source is where an [Allocator] gets its memory from: [Anonymous],
// [Shareable], or memory that a GPU backend has pinned.
type Source interface {
	// Map returns n > 0 zeroed bytes, n a multiple of the page size, aligned to a
	// page. dense says that all of them will be written, so that huge pages
	// waste nothing.
	Map(n int64, dense bool) (*Mapping, error)
}

// Mapping is memory of a [Source].
type Mapping struct {
	Data []byte
	// File holds Data from offset 0 on, for other processes to map; nil when
	// the memory is private. Unmap closes it.
	File  *os.File
	Unmap func() error // called once
}

// Sources of every system.
var (
	// Anonymous memory is private. On Linux what is dense and large is
	// aligned for huge pages and asks for them: scans then read it faster.
	Anonymous Source = anonymous{}
	// Shareable memory can be mapped by another process through its file: a
	// memfd on Linux, sealed so that its size cannot change and (from Linux
	// 5.1) nobody else can map it to write; elsewhere a temporary file
	// without a name. Linux has no huge pages for it unless
	// /sys/kernel/mm/transparent_hugepage/shmem_enabled is set to advise
	// (the default is never), so prefer Anonymous where nothing is shared.
	Shareable Source = shareable{}
)

type (
	anonymous struct{}
	shareable struct{}
)

const readWrite = unix.PROT_READ | unix.PROT_WRITE

// plain maps n bytes wherever the system likes.
func plain(n int64) (*Mapping, error) {
	data, err := unix.Mmap(-1, 0, int(n), readWrite, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	return &Mapping{Data: data, Unmap: func() error { return unix.Munmap(data) }}, nil
}
