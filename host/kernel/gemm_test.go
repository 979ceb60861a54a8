package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Products of many rows and outputs go through several blocks of every kind;
// with vectors a result is the same number however the outputs are split.
func TestMatMulBlocks(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(61, 1))
		for _, dtype := range dtypes {
			for _, c := range []struct{ n, dim, outs int }{{61, 70, 601}, {130, 1037, 40}, {49, 512, 33}, {7, 1037, 150}, {3, 2, 40001}} {
				w, a := guardedRows(t, r, dtype, c.outs, c.dim), guarded(t, random(r, c.n*c.dim))
				got, split := results(t, c.n*c.outs), results(t, c.n*c.outs)
				scratch := guarded(t, make([]float32, GEMMScratch(c.dim)))
				MatMul(a, c.n, w, 0, c.outs, got, c.outs, scratch)
				exact := wide(w)
				for i := range c.n {
					for j := range c.outs {
						want, abs := dot64(a[i*c.dim:(i+1)*c.dim], exact[j])
						if math.Abs(float64(got[i*c.outs+j])-want) > dotTolerance*abs {
							t.Fatalf("%v %+v [%d][%d]: %v, want %v", dtype, c, i, j, got[i*c.outs+j], want)
						}
					}
				}
				for lo := 0; lo < c.outs; {
					hi := min(lo+1+r.IntN(200), c.outs)
					MatMul(a, c.n, w, lo, hi, split[lo:], c.outs, scratch)
					lo = hi
				}
				if active != nil && !slices.Equal(got, split) {
					t.Fatalf("%v %+v: the products depend on how the outputs are split", dtype, c)
				}
			}
		}
	})
}

// A NaN or an infinity reaches the products of its row and no others.
func TestMatMulNotFinite(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		const n, dim, outs = 53, 40, 37
		a, data := make([]float32, n*dim), make([]float32, outs*dim)
		for i := range a {
			a[i] = 1
		}
		for i := range data {
			data[i] = 1
		}
		a[20*dim+39] = float32(math.NaN())
		data[5*dim], data[36*dim+7] = float32(math.Inf(1)), float32(math.NaN())
		for _, dtype := range dtypes {
			c := make([]float32, n*outs)
			MatMul(a, n, store(dtype, data, dim), 0, outs, c, outs, make([]float32, GEMMScratch(dim)))
			for i := range n {
				for j := range outs {
					want := float32(dim)
					switch {
					case i == 20 || j == 36:
						want = float32(math.NaN())
					case j == 5:
						want = float32(math.Inf(1))
					}
					if got := c[i*outs+j]; got != want && (got == got || want == want) {
						t.Fatalf("%v [%d][%d]: %v, want %v", dtype, i, j, got, want)
					}
				}
			}
		}
	})
}

// Queries of a group come token by token; every number of them over ranges
// that begin and end anywhere agrees with float64, in one call and in parts.
func TestAttendCausalGroups(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(62, 2))
		for _, dtype := range dtypes {
			for _, c := range []struct{ dim, group, tokens, first, rows, lo int }{
				{64, 2, 150, 300, 450, 0},  // two blocks of queries, two of keys
				{32, 3, 30, 0, 30, 0},      // a triangle
				{48, 7, 20, 10, 600, 3},    // rows that no query sees, a range that begins late
				{100, 4, 1, 500, 300, 0},   // a decode step
				{128, 8, 1, 300, 299, 130}, // and a group of eight
				{80, 5, 3, 70, 73, 0},
				{16, 1, 5, 0, 400, 2},  // the first queries see nothing
				{32, 3, 20, -7, 40, 0}, // they stand before the rows
				{64, 2, 3, -2, 40, 0},
			} {
				n := c.group * c.tokens
				keys, values := guardedRows(t, r, dtype, c.rows, c.dim), guardedRows(t, r, dtype, c.rows, c.dim)
				k64, v64 := wide(keys), wide(values)
				scale := float32(1 / math.Sqrt(float64(c.dim)))
				q, ps := guarded(t, random(r, n*c.dim)), make([]Partial, n)
				for i := range ps {
					ps[i] = Partial{Acc: guarded(t, make([]float32, c.dim))}
					ps[i].Reset()
				}
				scratch := guarded(t, make([]float32, CausalScratch(n, c.dim)))
				mid := c.lo + r.IntN(c.rows-c.lo)
				AttendCausal(q, n, c.group, c.first, keys, values, c.lo, mid, scale, ps, scratch)
				AttendCausal(q, n, c.group, c.first, keys, values, mid, c.rows, scale, ps, scratch)
				for i := range ps {
					var seen []int
					for id := c.lo; id < min(c.first+i/c.group+1, c.rows); id++ {
						seen = append(seen, id)
					}
					if len(seen) == 0 {
						if !ps[i].Empty() {
							t.Fatalf("%+v: query %d sees nothing and has weight", c, i)
						}
						continue
					}
					out, lse := attend64(q[i*c.dim:(i+1)*c.dim], k64, v64, seen, nil, float64(scale))
					compare(t, fmt.Sprintf("%v %+v query %d", dtype, c, i), &ps[i], out, lse)
				}
			}
		}
	})
}

// What a query does not see has no influence on it, whatever it holds; a NaN
// that it sees spoils its sum, and keys of -Inf weigh nothing.
func TestAttendCausalNotFinite(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		const dim, n, bad = 32, 60, 37
		r := rand.New(rand.NewPCG(63, 3))
		nan, inf := float32(math.NaN()), float32(math.Inf(1))
		for _, poison := range []float32{nan, inf} {
			k, v, q := random(r, n*dim), random(r, n*dim), random(r, n*dim)
			for i := bad * dim; i < (bad+1)*dim; i++ {
				k[i], v[i] = poison, poison
			}
			keys, values, ps := RowsF32(k, dim), RowsF32(v, dim), make([]Partial, n)
			for i := range ps {
				ps[i] = partial(dim)
			}
			AttendCausal(q, n, 1, 0, keys, values, 0, n, 0.2, ps, make([]float32, CausalScratch(n, dim)))
			for i := range bad {
				seen := make([]int, i+1)
				for id := range seen {
					seen[id] = id
				}
				out, lse := attend64(q[i*dim:(i+1)*dim], wide(keys), wide(values), seen, nil, float64(float32(0.2)))
				compare(t, fmt.Sprintf("query %d before a token of %v", i, poison), &ps[i], out, lse)
			}
			for i := bad; i < n; i++ {
				if got := ps[i].Sum; got == got {
					t.Fatalf("query %d sees a key of %v and has the sum %v", i, poison, got)
				}
			}
		}
		// All logits -Inf: no weight; one finite among them: all of it.
		for _, nq := range []int{3, 40} {
			k, ones := make([]float32, n*dim), make([]float32, nq*dim)
			for i := range k {
				k[i] = -inf
			}
			for i := range ones {
				ones[i] = 1
			}
			v := random(r, n*dim)
			keys, values, ps := RowsF32(k, dim), RowsF32(v, dim), make([]Partial, nq)
			for i := range ps {
				ps[i] = partial(dim)
			}
			scratch := make([]float32, CausalScratch(nq, dim))
			AttendCausal(ones, nq, 1, n, keys, values, 0, n, 1, ps, scratch)
			for i := range ps {
				if !ps[i].Empty() {
					t.Fatalf("%d queries: weight without a finite logit: %+v", nq, ps[i])
				}
			}
			clear(k[11*dim : 12*dim])
			AttendCausal(ones, nq, 1, n, keys, values, 0, n, 1, ps, scratch)
			for i := range ps {
				if ps[i].Sum != 1 || ps[i].Max != 0 || !slices.Equal(ps[i].Acc, v[11*dim:12*dim]) {
					t.Fatalf("%d queries: one finite logit leaves %+v", nq, ps[i])
				}
			}
		}
	})
}

// Rounding to bf16 by vectors equals [F32ToBF16] but for subnormal numbers.
func TestNarrow(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		if active == nil || active.tiles.narrow == nil {
			t.Skip("this level does not round")
		}
		r := rand.New(rand.NewPCG(64, 4))
		for n := range 70 {
			src, dst := make([]float32, n), guarded(t, make([]uint16, n))
			for i := range src {
				src[i] = math.Float32frombits(r.Uint32())
				if r.IntN(4) == 0 { // half way between two
					src[i] = math.Float32frombits(r.Uint32()&0xffff0000 | 0x8000)
				}
			}
			src = guarded(t, src)
			if n > 0 {
				active.tiles.narrow(&dst[0], &src[0], n)
			}
			for i, v := range src {
				if math.Float32bits(v)&0x7f800000 == 0 {
					continue
				}
				want := F32ToBF16(v)
				if v != v {
					if got := bf16ToF32(dst[i]); got == got {
						t.Fatalf("NaN became %v", got)
					}
				} else if dst[i] != want {
					t.Fatalf("%v became %#04x, want %#04x", v, dst[i], want)
				}
			}
		}
	})
}
