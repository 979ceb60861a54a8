//go:build !linux

package kv

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// HugePages says how the system gives huge pages to [Anonymous] memory.
func HugePages() string { return "never" }

func (anonymous) Map(n int64, _ bool) (*Mapping, error) { return plain(n) }

func (shareable) Map(n int64, _ bool) (*Mapping, error) {
	file, err := os.CreateTemp("", "ra-memory-*")
	if err != nil {
		return nil, fmt.Errorf("create shareable memory: %w", err)
	}
	if err := errors.Join(os.Remove(file.Name()), file.Truncate(n)); err != nil {
		return nil, errors.Join(fmt.Errorf("size shareable memory: %w", err), file.Close())
	}
	data, err := unix.Mmap(int(file.Fd()), 0, int(n), readWrite, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Mapping{Data: data, File: file, Unmap: func() error { return errors.Join(unix.Munmap(data), file.Close()) }}, nil
}
