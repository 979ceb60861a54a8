//go:build !linux

package kernel

func inHugePages([]uint16) {}
