package compute

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Scores over a context of several segments equal f64 inner products within
// 2e-6 of the sum of |q.k|, for lists that jump between segments and for
// ranges across them.
func TestScannerAcrossSegments(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, dtype := range []kernel.DType{kernel.F32, kernel.BF16, kernel.F16} {
		const layer, head, dim = 1, 1, 12
		base, err := kv.NewContext(kv.Geometry{Layers: 2, KVHeads: 2, HeadDim: dim, DType: dtype}, 700, kv.NewAllocator(0))
		if err != nil {
			t.Fatal(err)
		}
		defer base.Close()
		put := func(c *kv.Context, n int) {
			if err := c.Reserve(n); err != nil {
				t.Fatal(err)
			}
			for p := c.Len(); p < c.Len()+n; p++ {
				c.Put(layer, head, p, vector(r, dim), vector(r, dim))
			}
			c.Commit(n)
		}
		put(base, 700)
		fork := base.Fork()
		defer fork.Close()
		put(fork, 1500)
		second := fork.Fork()
		defer second.Close()
		put(second, 30)
		keys := make([][]float32, second.Len())
		for s := range second.Segments(layer, head, 0, second.Len()) {
			for i := range s.Keys.N {
				keys[s.Start+i] = make([]float32, dim)
				s.Keys.Widen(i, keys[s.Start+i])
			}
		}
		c := &cpu{}
		qs := [][]float32{vector(r, dim), vector(r, dim), vector(r, dim)}
		check := func(q, id int, got float32) {
			t.Helper()
			var want, abs float64
			for i, k := range keys[id] {
				want += float64(k) * float64(qs[q][i])
				abs += math.Abs(float64(k) * float64(qs[q][i]))
			}
			if math.Abs(float64(got)-want) > 2e-6*abs {
				t.Fatalf("%v: query %d, key %d: %v, want %v", dtype, q, id, got, want)
			}
		}
		ids := make([]uint32, 400)
		for i := range ids {
			ids[i] = uint32(r.IntN(second.Len()))
		}
		out := [][]float32{make([]float32, 2000), make([]float32, 2000), make([]float32, 2000)}
		c.Score(second, layer, head, qs, ids, out)
		for q := range qs {
			for i, id := range ids {
				check(q, int(id), out[q][i])
			}
		}
		c.ScoreRange(second, layer, head, qs, kv.Range{Lo: 500, Hi: 2225}, out)
		for q := range qs {
			for id := 500; id < 2225; id++ {
				check(q, id, out[q][id-500])
			}
		}
	}
}

func vector(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// A linear layer gives the same numbers however it is split.
func TestLinear(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, n := range []int{1, 3, 600} {
		const in, outs = 20, 130
		w := kernel.RowsF32(vector(r, in*outs), in)
		x, got := vector(r, n*in), make([]float32, n*outs)
		if err := (&cpu{}).linear(context.Background(), x, n, w, got); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			for j := range outs {
				want := kernel.Dot(x[i*in:(i+1)*in], w.F32[j*in:(j+1)*in])
				if math.Abs(float64(got[i*outs+j]-want)) > 1e-4 {
					t.Fatalf("n=%d [%d][%d]: %v, want %v", n, i, j, got[i*outs+j], want)
				}
			}
		}
	}
}

func TestParallelStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	err := (&cpu{}).parallel(ctx, 1_000_000_000, 1, func(i int, _ []float32) {
		if i == 0 {
			cancel()
			n++
		}
	})
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("%v after %d", err, n)
	}
}

func TestLoadErrors(t *testing.T) {
	c := NewCPU()
	for _, w := range []*Weights{
		{Spec: Spec{Heads: 3, KVHeads: 2}},
		{Spec: Spec{Heads: 2, KVHeads: 2, Layers: 1}},
	} {
		if _, err := c.Load(w); err == nil {
			t.Errorf("%+v is accepted", w.Spec)
		}
	}
}
