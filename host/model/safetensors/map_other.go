//go:build !linux && !darwin

package safetensors

import (
	"io"
	"os"
)

// mapFile reads the file: there is no mapping on this system.
func mapFile(f *os.File, size int) ([]byte, func() error, error) {
	data := make([]byte, size)
	_, err := io.ReadFull(f, data)
	return data, nil, err
}
