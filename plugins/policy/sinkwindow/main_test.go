//go:build !wasip1

package main

import (
	"math/rand/v2"
	"strings"
	"testing"

	ra "github.com/retrievalattention/ra/sdk/go"
	"github.com/retrievalattention/ra/sdk/go/ratest"
)

// The states equal the definition while a sequence grows, in every layer.
func TestSinkWindow(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	s := &sinkwindow{}
	if err := s.Configure(ra.ParseParams("sink=4\nwindow=9\nlayers=1-2=0/5, 3=7/1\n")); err != nil {
		t.Fatal(err)
	}
	for layer, z := range []sizes{{4, 9}, {0, 5}, {0, 5}, {7, 1}, {4, 9}} {
		p := &ratest.Placement{Layer: layer, States: make([]ra.State, 1)}
		for range 20 {
			if err := ratest.Place(s, p); err != nil {
				t.Fatal(err)
			}
			for i, got := range p.States {
				want := ra.Indexed
				if i < z.sink || i >= len(p.States)-z.window {
					want = ra.Static
				}
				if got != want {
					t.Fatalf("layer %d, %d tokens: token %d has state %d, want %d", layer, len(p.States), i, got, want)
				}
			}
			p.States = append(p.States, make([]ra.State, rng.IntN(10))...)
		}
	}
}

func TestConfigureRefuses(t *testing.T) {
	for _, layers := range []string{"1", "1=2", "2-1=3/4", "x=1/2", "1=1/0", "1=-1/2", "1-2-3=4/5", "1=1/2/3", "1=1/99999999999"} {
		err := new(sinkwindow).Configure(ra.ParseParams("sink=1\nwindow=1\nlayers=" + layers + "\n"))
		if err == nil || !strings.Contains(err.Error(), `layers: "`+layers+`" is not FIRST-LAST=SINK/WINDOW, as in 0-1=128/4096`) {
			t.Errorf("%q: %v", layers, err)
		}
	}
}
