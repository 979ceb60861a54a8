package synth

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
)

func TestSet(t *testing.T) {
	p := Params{Keys: 4000, Decode: 200, Dim: 32, Group: 2, Hard: true, Seed: 5, Prefill: 1000}
	s, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	again, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.K) != 4200*32 || len(s.V) != len(s.K) || len(s.Queries) != 1000*2*32 || len(s.Test) != 200*2*32 {
		t.Fatalf("sizes %d %d %d %d", len(s.K), len(s.V), len(s.Queries), len(s.Test))
	}
	if !slices.Equal(s.K, again.K) || !slices.Equal(s.V, again.V) || !slices.Equal(s.Queries, again.Queries) || !slices.Equal(s.Test, again.Test) {
		t.Error("the same seed gives another set")
	}
	p.Seed++
	if other, _ := New(p); slices.Equal(s.K, other.K) || slices.Equal(s.Test, other.Test) {
		t.Error("another seed gives the same set")
	}
	for i := 0; i < len(s.Queries); i += 32 {
		if slices.Max(s.Queries[i:i+32]) == 0 && slices.Min(s.Queries[i:i+32]) == 0 {
			t.Fatalf("prefill query %d was not made", i/32)
		}
	}
	if q := s.Query(3, 1); &q[0] != &s.Test[(3*2+1)*32] {
		t.Error("Query gives another vector")
	}
	// Queries are out of the keys' distribution: their mean is further from
	// the keys' than keys are, relative to the keys' spread by dimension.
	var mean, spread [32]float64
	for i, x := range s.K {
		mean[i%32] += float64(x) / 4200
	}
	for i, x := range s.K {
		spread[i%32] += (float64(x) - mean[i%32]) * (float64(x) - mean[i%32]) / 4200
	}
	far := func(rows []float32) float64 {
		var sum float64
		for i, x := range rows {
			d := float64(x) - mean[i%32]
			sum += d * d / spread[i%32]
		}
		return math.Sqrt(sum / float64(len(rows)/32))
	}
	if k, q := far(s.K), far(s.Test); q < 1.4*k {
		t.Errorf("queries are %.1f from the keys' mean, keys %.1f", q, k)
	}
	c, err := kv.NewContext(kv.Geometry{Layers: 1, KVHeads: 1, HeadDim: 32, DType: kernel.F32}, 0, kv.NewAllocator(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, at := range []int{0, 3000} {
		if err := s.Fill(c, at, at+1200); err != nil {
			t.Fatal(err)
		}
	}
	row := make([]float32, 32)
	for seg := range c.Segments(0, 0, 1300, 1301) {
		seg.Keys.Widen(0, row)
		if !slices.Equal(row, s.K[3100*32:3101*32]) {
			t.Error("another key was stored")
		}
		seg.Values.Widen(0, row)
		if !slices.Equal(row, s.V[3100*32:3101*32]) {
			t.Error("another value was stored")
		}
	}
}

func TestParams(t *testing.T) {
	for _, p := range []Params{{}, {Keys: 5, Dim: 1, Group: 1}, {Keys: 5, Dim: 4}, {Keys: 5, Dim: 4, Group: 1, Prefill: 6}, {Keys: 5, Dim: 4, Group: 1, Decode: -1}} {
		if _, err := New(p); err == nil || !strings.Contains(err.Error(), "synthetic set") {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
