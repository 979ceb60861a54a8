//go:build !unix

package kernel

import (
	"slices"
	"testing"
)

// guarded returns a copy of data; there are no guard pages here.
func guarded[E any](t *testing.T, data []E) []E {
	t.Helper()
	return slices.Clone(data)
}
