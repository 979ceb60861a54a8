//go:build !wasip1

package main

import (
	"testing"

	ra "github.com/retrievalattention/ra/sdk/go"
	"github.com/retrievalattention/ra/sdk/go/ratest"
)

// Every token's state follows from its position while a sequence grows.
func TestHorizon(t *testing.T) {
	h := &horizon{sink: 3, window: 5, horizon: 10}
	p := &ratest.Placement{States: make([]ra.State, 1)}
	for range 12 {
		if err := ratest.Place(h, p); err != nil {
			t.Fatal(err)
		}
		n := len(p.States)
		for i, got := range p.States {
			want := ra.Dropped
			switch {
			case i < h.sink || i >= n-h.window:
				want = ra.Static
			case i >= n-h.window-h.horizon:
				want = ra.Indexed
			}
			if got != want {
				t.Fatalf("%d tokens: token %d has state %d, want %d", n, i, got, want)
			}
		}
		p.States = append(p.States, make([]ra.State, 4)...)
	}
}
