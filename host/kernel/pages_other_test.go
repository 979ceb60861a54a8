//go:build !linux

package kernel

import "testing"

func pages(_ *testing.B, n int) []byte { return make([]byte, n) }
