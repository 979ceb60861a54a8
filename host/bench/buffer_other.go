//go:build !linux

package bench

// newBuffer maps n zeroed bytes.
func newBuffer(n int) ([]byte, error) { return mapBytes(n) }
