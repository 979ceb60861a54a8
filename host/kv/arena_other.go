//go:build !linux

package kv

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// openArena makes a temporary file and removes its name.
func openArena(name string) (rw, ro *os.File, err error) {
	rw, err = os.CreateTemp("", "ra-"+name+"-*")
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(rw.Name())
	if ro, err = os.Open(rw.Name()); err != nil {
		return nil, nil, errors.Join(err, rw.Close())
	}
	return rw, ro, nil
}

// punch does nothing: the block keeps its room until it is used again.
func punch(*os.File, extent) error { return nil }

const hugePage = 1 // none

func mapArena(f *os.File, off, n int64, _ bool) (*Mapping, error) {
	data, err := unix.Mmap(int(f.Fd()), off, int(n), readWrite, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	clear(data) // it may have been used before
	return &Mapping{Data: data, Unmap: func() error { return unix.Munmap(data) }}, nil
}
