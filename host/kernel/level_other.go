//go:build !amd64 && !arm64

package kernel

// vectorLevels returns the levels above generic: none on this architecture.
func vectorLevels() []level { return nil }
