package compute

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
)

// grown returns a context of several segments and its keys as f32.
func grown(t *testing.T, r *rand.Rand, dim int, dtype kernel.DType) (Head, [][]float32) {
	t.Helper()
	c, err := kv.NewContext(kv.Geometry{Layers: 2, KVHeads: 2, HeadDim: dim, DType: dtype}, 700, kv.NewAllocator(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for _, n := range []int{700, 1500, 30} {
		if err := c.Reserve(n); err != nil {
			t.Fatal(err)
		}
		for p := c.Len(); p < c.Len()+n; p++ {
			c.Put(1, 1, p, vector(r, dim), vector(r, dim))
		}
		c.Commit(n)
		fork := c.Fork()
		t.Cleanup(func() { fork.Close() })
		c = fork
	}
	keys := make([][]float32, c.Len())
	for s := range c.Segments(1, 1, 0, c.Len()) {
		for i := range s.Keys.N {
			keys[s.Start+i] = make([]float32, dim)
			s.Keys.Widen(i, keys[s.Start+i])
		}
	}
	return Head{Context: c, Layer: 1, KVHead: 1}, keys
}

// KNN returns scores within 2e-6 of the sum of |q.k| of f64 inner products, in
// order, and no key that it leaves out has a better one by more than that.
func TestKNN(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 1))
	const dim = 20
	c := &cpu{}
	for _, dtype := range []kernel.DType{kernel.F32, kernel.BF16} {
		head, keys := grown(t, r, dim, dtype)
		for _, x := range []struct {
			queries, k int
			ranges     []kv.Range
		}{
			{1, 5, []kv.Range{{Lo: 0, Hi: 2230}}},
			{400, 100, []kv.Range{{Lo: 3, Hi: 699}, {Lo: 701, Hi: 2200}}},
			{9, 40, []kv.Range{{Lo: 650, Hi: 660}, {Lo: 690, Hi: 710}}}, // fewer keys than asked for
			{3, 4, nil},
			{0, 4, []kv.Range{{Lo: 0, Hi: 9}}},
		} {
			q := kernel.RowsF32(vector(r, x.queries*dim), dim)
			ids, scores := make([]uint32, x.queries*x.k), make([]float32, x.queries*x.k)
			var told atomic.Int64
			n, err := c.KNN(context.Background(), head, q, x.ranges, x.k, ids, scores, func(n int) { told.Add(int64(n)) })
			if err != nil {
				t.Fatal(err)
			}
			alone := make([]uint32, len(ids))
			if _, err := c.KNN(context.Background(), head, q, x.ranges, x.k, alone, nil, nil); err != nil || !slices.Equal(alone, ids) {
				t.Errorf("without scores: %v, or other ids", err)
			}
			var all []uint32
			for _, rg := range x.ranges {
				for p := rg.Lo; p < rg.Hi; p++ {
					all = append(all, uint32(p))
				}
			}
			if n != min(x.k, len(all)) || told.Load() != int64(x.queries) {
				t.Errorf("%d of %d found, progress %d", n, len(all), told.Load())
			}
			for i := range x.queries {
				exact, tolerance := make(map[uint32]float64), 0.0
				for _, id := range all {
					var sum, abs float64
					for j, x := range keys[id] {
						p := float64(x) * float64(q.F32[i*dim+j])
						sum, abs = sum+p, abs+math.Abs(p)
					}
					exact[id], tolerance = sum, max(tolerance, 2e-6*abs)
				}
				for j := range n {
					at := i*x.k + j
					want, ok := exact[ids[at]]
					if !ok || math.Abs(float64(scores[at])-want) > tolerance || j > 0 && scores[at] > scores[at-1] {
						t.Fatalf("query %d, place %d: key %d of score %v, want %v", i, j, ids[at], scores[at], want)
					}
					delete(exact, ids[at])
				}
				for id, score := range exact {
					if n == x.k && score > float64(scores[i*x.k+n-1])+tolerance {
						t.Fatalf("query %d: key %d of score %v was left out, the worst kept has %v", i, id, score, scores[i*x.k+n-1])
					}
				}
			}
		}
	}
	head, _ := grown(t, r, dim, kernel.F32)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.KNN(ctx, head, kernel.RowsF32(vector(r, dim), dim), nil, 1, make([]uint32, 1), nil, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Project and Norms equal f64 arithmetic within 2e-6 of the sum of products'
// magnitudes, across segments; a reader reads what is stored and follows a
// context that grows.
func TestProjectNormsReader(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 1))
	const dim, cols = 20, 7
	c := &cpu{}
	for _, dtype := range []kernel.DType{kernel.F32, kernel.BF16, kernel.F16} {
		head, keys := grown(t, r, dim, dtype)
		m := kernel.RowsF32(vector(r, cols*dim), dim)
		rg := kv.Range{Lo: 630, Hi: 2229}
		out, norms := make([]float32, rg.Len()*cols), make([]float32, rg.Len())
		if err := c.Project(context.Background(), head, rg, m, out); err != nil {
			t.Fatal(err)
		}
		if err := c.Norms(context.Background(), head, rg, norms); err != nil {
			t.Fatal(err)
		}
		for i := range norms {
			key := keys[rg.Lo+i]
			var ss float64
			for _, x := range key {
				ss += float64(x) * float64(x)
			}
			if math.Abs(float64(norms[i])-math.Sqrt(ss)) > 2e-6*math.Sqrt(ss) {
				t.Fatalf("%v: norm of key %d is %v, want %v", dtype, rg.Lo+i, norms[i], math.Sqrt(ss))
			}
			for j := range cols {
				var want, abs float64
				for k, x := range key {
					p := float64(x) * float64(m.F32[j*dim+k])
					want, abs = want+p, abs+math.Abs(p)
				}
				if got := float64(out[i*cols+j]); math.Abs(got-want) > 2e-6*abs {
					t.Fatalf("%v: key %d, column %d: %v, want %v", dtype, rg.Lo+i, j, got, want)
				}
			}
		}
		reader := c.Reader(head)
		queries := [][]float32{vector(r, dim), vector(r, dim)}
		read := func(n int) {
			t.Helper()
			ids := make([]uint32, 300)
			for i := range ids {
				ids[i] = uint32(r.IntN(n))
			}
			got := [][]float32{make([]float32, 300), make([]float32, 300)}
			want := [][]float32{make([]float32, 300), make([]float32, 300)}
			reader.Score(queries, ids, got)
			c.Score(head.Context, 1, 1, queries, ids, want)
			if !slices.Equal(got[0], want[0]) || !slices.Equal(got[1], want[1]) {
				t.Errorf("%v: a reader's scores differ", dtype)
			}
		}
		read(2230)
		row := make([]float32, dim)
		if reader.Key(705, row); !slices.Equal(row, keys[705]) {
			t.Errorf("%v: key 705 is %v, want %v", dtype, row, keys[705])
		}
		if err := head.Context.Reserve(2000); err != nil {
			t.Fatal(err)
		}
		key, value := vector(r, dim), vector(r, dim)
		for p := 2230; p < 4230; p++ {
			head.Context.Put(1, 1, p, key, value)
		}
		head.Context.Commit(2000)
		reader.Reset(head)
		read(4230)
		reader.Value(4000, row)
		for j := range row {
			if math.Abs(float64(row[j]-value[j])) > .01*math.Abs(float64(value[j])) {
				t.Fatalf("%v: value 4000 is %v, want %v", dtype, row, value)
			}
		}
		ids := []uint32{3, 650, 2229, 700, 4000}
		if n := testing.AllocsPerRun(10, func() {
			reader.Reset(head)
			reader.Score(queries, ids, [][]float32{norms, out})
		}); n > 1 && !raced() {
			t.Errorf("%v allocations a call", n)
		}
	}
}

// raced reports whether the race detector is on, which allocates.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
