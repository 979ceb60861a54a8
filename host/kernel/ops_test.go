package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// The tolerances of the levels against float64:
//
//	inner products  2e-6 of sum |q.k|
//	weighted sums   2e-6 of sum |w.v|, plus one rounding of the result
//	exp             4e-7 of the value
//	element by element arithmetic: 1e-6 of the largest term
const (
	dotTolerance = 2e-6
	expTolerance = 4e-7
	mapTolerance = 1e-6
)

// dims are head dimensions in use, and tails of every width.
var dims = []int{1, 2, 3, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 33, 48, 64, 79, 80, 96, 100, 128, 129, 192, 256, 257}

// guardedRows returns n random rows that end at a guard page.
func guardedRows(t *testing.T, r *rand.Rand, dtype DType, n, dim int) Rows {
	rows := store(dtype, random(r, n*dim), dim)
	rows.F32, rows.U16 = guarded(t, rows.F32), guarded(t, rows.U16)
	return rows
}

// sentinel is what results are filled with beforehand.
const sentinel = 12345

// results returns n values behind which a guard page lies, with one element
// in front that no kernel may write.
func results(t *testing.T, n int) []float32 {
	x := make([]float32, n+1)
	for i := range x {
		x[i] = sentinel
	}
	g := guarded(t, x)
	t.Cleanup(func() {
		if g[0] != sentinel {
			t.Error("written before the results")
		}
	})
	return g[1:]
}

// Scores of every number of queries, row count, dimension and dtype agree
// with float64, with everything at the end of its memory.
func TestScoreEverySize(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(21, 1))
		for _, dtype := range dtypes {
			for _, dim := range dims {
				n := 1 + r.IntN(40)
				rows := guardedRows(t, r, dtype, n, dim)
				exact := wide(rows)
				nq := 1 + r.IntN(MaxQueries)
				lo := r.IntN(n)
				hi := lo + r.IntN(n-lo+1)
				ids := make([]uint32, r.IntN(2*n))
				for i := range ids {
					ids[i] = uint32(r.IntN(n))
				}
				if len(ids) > 0 {
					ids[0] = uint32(n - 1)
				}
				ids = guarded(t, ids)
				var qs, list, rng [][]float32
				for range nq {
					qs = append(qs, guarded(t, random(r, dim)))
					list, rng = append(list, results(t, len(ids))), append(rng, results(t, hi-lo))
				}
				scratch := make([]float32, dim)
				ScoreList(qs, rows, ids, list, scratch)
				ScoreRange(qs, rows, lo, hi, rng, scratch)
				check := func(j, id int, got float32) {
					t.Helper()
					want, abs := dot64(qs[j], exact[id])
					if !(math.Abs(float64(got)-want) <= dotTolerance*abs+1e-30) {
						t.Fatalf("%v dim %d, %d queries: query %d, row %d: %v, want %v", dtype, dim, nq, j, id, got, want)
					}
				}
				for j := range nq {
					for i, id := range ids {
						check(j, int(id), list[j][i])
					}
					for i := lo; i < hi; i++ {
						check(j, i, rng[j][i-lo])
					}
				}
			}
		}
	})
}

// Long lists and ranges go through several calls; their seams show nothing.
func TestScoreManyRows(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(22, 2))
		const dim, n = 128, 3001
		rows := store(BF16, random(r, n*dim), dim)
		exact := wide(rows)
		for _, nq := range []int{1, 4, 7} {
			ids := make([]uint32, 1999)
			for i := range ids {
				ids[i] = uint32(r.IntN(n))
			}
			var qs, list, rng [][]float32
			for range nq {
				qs = append(qs, random(r, dim))
				list, rng = append(list, make([]float32, len(ids))), append(rng, make([]float32, n))
			}
			ScoreList(qs, rows, ids, list, make([]float32, dim))
			ScoreRange(qs, rows, 0, n, rng, make([]float32, dim))
			for j, q := range qs {
				for i := range n {
					if want, abs := dot64(q, exact[i]); math.Abs(float64(rng[j][i])-want) > dotTolerance*abs {
						t.Fatalf("range, query %d, row %d: %v, want %v", j, i, rng[j][i], want)
					}
				}
				for i, id := range ids {
					if want, abs := dot64(q, exact[id]); math.Abs(float64(list[j][i])-want) > dotTolerance*abs {
						t.Fatalf("list, query %d, place %d: %v, want %v", j, i, list[j][i], want)
					}
				}
			}
		}
	})
}

// A NaN or an infinity in a row or a query reaches the scores of that pair
// and no other.
func TestScoreNotFinite(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		nan, inf := float32(math.NaN()), float32(math.Inf(1))
		for _, dtype := range dtypes {
			for _, dim := range []int{3, 16, 37, 64} {
				data := make([]float32, 9*dim)
				for i := range data {
					data[i] = 1
				}
				data[2*dim+dim-1], data[5*dim], data[8*dim+dim/2] = nan, inf, -inf
				rows := store(dtype, data, dim)
				ones := make([]float32, dim)
				for i := range ones {
					ones[i] = 1
				}
				bad := slices.Clone(ones)
				bad[dim-1] = nan
				out := [][]float32{make([]float32, 9), make([]float32, 9), make([]float32, 9)}
				ScoreRange([][]float32{ones, bad, ones}, rows, 0, 9, out, make([]float32, dim))
				for i := range 9 {
					want := float32(dim)
					switch i {
					case 2:
						want = nan
					case 5:
						want = inf
					case 8:
						want = -inf
					}
					for j := range out {
						w := want
						if j == 1 {
							w = nan
						}
						if got := out[j][i]; got != w && (got == got || w == w) {
							t.Fatalf("%v dim %d, query %d, row %d: %v, want %v", dtype, dim, j, i, got, w)
						}
					}
				}
			}
		}
	})
}

// An id beyond the rows is a bug of the caller, and stops it.
func TestScoreListChecksIDs(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		for name, f := range map[string]func(rows Rows, ids []uint32){
			"ScoreList": func(rows Rows, ids []uint32) {
				ScoreList([][]float32{make([]float32, 8)}, rows, ids, [][]float32{make([]float32, len(ids))}, make([]float32, 8))
			},
			"AttendList": func(rows Rows, ids []uint32) {
				p := partial(8)
				AttendList(make([]float32, 8), rows, rows, ids, nil, 1, &p, make([]float32, 16))
			},
			"ScoreRange": func(rows Rows, ids []uint32) {
				ScoreRange([][]float32{make([]float32, 8)}, rows, 0, int(ids[1])+1, [][]float32{make([]float32, 100)}, make([]float32, 8))
			},
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s reads a row that does not exist", name)
					}
				}()
				f(RowsF32(make([]float32, 5*8), 8), []uint32{0, 5})
			}()
		}
	})
}

func TestMatMulEverySize(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(23, 3))
		for _, dtype := range dtypes {
			for _, dim := range append(slices.Clone(dims), 513, 600, 1100) {
				n, outs := 1+r.IntN(90), 1+r.IntN(150)
				lo := r.IntN(outs)
				hi := lo + r.IntN(outs-lo+1)
				w := guardedRows(t, r, dtype, outs, dim)
				a := guarded(t, random(r, n*dim))
				ldc := hi - lo + r.IntN(3)
				c := results(t, max((n-1)*ldc+hi-lo, 0))
				MatMul(a, n, w, lo, hi, c, ldc, guarded(t, make([]float32, GEMMScratch(dim))))
				exact := wide(w)
				for i := range n {
					for j := range min(ldc, len(c)-i*ldc) {
						got := float64(c[i*ldc+j])
						if j >= hi-lo {
							if got != sentinel {
								t.Fatalf("%v dim %d: written between the rows of the result", dtype, dim)
							}
							continue
						}
						if want, abs := dot64(a[i*dim:(i+1)*dim], exact[lo+j]); !(math.Abs(got-want) <= dotTolerance*abs+1e-30) {
							t.Fatalf("%v n=%d dim=%d [%d][%d]: %v, want %v", dtype, n, dim, i, j, got, want)
						}
					}
				}
			}
		}
	})
}

func TestAttendEverySize(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(24, 4))
		for _, dtype := range dtypes {
			for _, dim := range dims {
				n := 1 + r.IntN(150)
				keys, values := guardedRows(t, r, dtype, n, dim), guardedRows(t, r, dtype, n, dim)
				k64, v64 := wide(keys), wide(values)
				scale := float32(1 / math.Sqrt(float64(dim)))
				ids, all := make([]uint32, 1+r.IntN(n)), []int(nil)
				bias := guarded(t, random(r, len(ids)))
				for i, id := range r.Perm(n)[:len(ids)] {
					ids[i] = uint32(id)
					all = append(all, id)
				}
				q := guarded(t, random(r, dim))
				for _, b := range [][]float32{nil, bias} {
					p := Partial{Acc: guarded(t, make([]float32, dim))}
					p.Reset()
					half := len(ids) / 2
					part := func(lo, hi int) []float32 {
						if b == nil {
							return nil
						}
						return b[lo:hi]
					}
					scratch := guarded(t, make([]float32, 2*dim))
					AttendList(q, keys, values, ids[:half], part(0, half), scale, &p, scratch)
					AttendList(q, keys, values, ids[half:], part(half, len(ids)), scale, &p, scratch)
					out, lse := attend64(q, k64, v64, all, b, float64(scale))
					compare(t, fmt.Sprintf("%v dim %d list of %d, bias %v", dtype, dim, len(ids), b != nil), &p, out, lse)
				}
				nq, from := 1+r.IntN(40), r.IntN(n)
				qs, ps := guarded(t, random(r, nq*dim)), make([]Partial, nq)
				for i := range ps {
					ps[i] = Partial{Acc: guarded(t, make([]float32, dim))}
					ps[i].Reset()
				}
				AttendCausal(qs, nq, 1, from, keys, values, 0, n, scale, ps, guarded(t, make([]float32, CausalScratch(nq, dim))))
				for i := range ps {
					seen := make([]int, min(from+i+1, n))
					for id := range seen {
						seen[id] = id
					}
					out, lse := attend64(qs[i*dim:(i+1)*dim], k64, v64, seen, nil, float64(scale))
					compare(t, fmt.Sprintf("%v dim %d causal, query %d of %d", dtype, dim, i, nq), &ps[i], out, lse)
				}
			}
		}
	})
}

// Logits of -Inf weigh nothing, alone or among others; a NaN spoils the sum.
func TestAttendListNotFinite(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		const dim, n = 12, 40
		r := rand.New(rand.NewPCG(25, 5))
		rows := store(F32, random(r, n*dim), dim)
		q, inf, nan := random(r, dim), float32(math.Inf(-1)), float32(math.NaN())
		ids, none := make([]uint32, n), make([]float32, n)
		for i := range ids {
			ids[i], none[i] = uint32(i), inf
		}
		p, scratch := partial(dim), make([]float32, 2*dim)
		AttendList(q, rows, rows, nil, nil, 1, &p, scratch)
		AttendList(q, rows, rows, ids, none, 1, &p, scratch)
		if !p.Empty() || !math.IsInf(float64(p.LSE()), -1) {
			t.Fatalf("weight without a finite logit: %+v", p)
		}
		none[7] = 0.5
		AttendList(q, rows, rows, ids, none, 1, &p, scratch)
		out, lse := attend64(q, wide(rows), wide(rows), []int{7}, none[7:], 1)
		compare(t, "one finite logit", &p, out, lse)
		none[7] = nan
		p.Reset()
		AttendList(q, rows, rows, ids, none, 1, &p, scratch)
		if p.Sum == p.Sum {
			t.Errorf("a NaN logit leaves the sum %v", p.Sum)
		}
	})
}

func TestExpEveryLevel(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		var x []float32
		for v := -90.0; v <= 89; v += 0.0037 {
			x = append(x, float32(v))
		}
		x = append(x, -87.3, float32(math.Nextafter32(-87.3, 0)), 88.72, 0, float32(math.Copysign(0, -1)))
		y := guarded(t, x)
		sum := ExpInPlace(y, 0)
		for i, v := range x {
			got, want := float64(y[i]), math.Exp(float64(v))
			if !(v > -87.3) {
				want = 0
			}
			if !(math.Abs(got-want) <= expTolerance*want) && !(math.IsInf(got, 1) && want > math.MaxFloat32) {
				t.Fatalf("exp(%v) = %v, want %v", v, got, want)
			}
		}
		if !math.IsInf(float64(sum), 1) {
			t.Errorf("the sum of exp up to 89 is %v", sum)
		}
		for n := range 40 {
			y, want := guarded(t, x[20000:20000+n]), 0.0
			sum := ExpInPlace(y, 2)
			for i := range y {
				w := math.Exp(float64(x[20000+i] - 2))
				want += w
				if math.Abs(float64(y[i])-w) > expTolerance*w {
					t.Fatalf("%d elements: exp[%d] = %v, want %v", n, i, y[i], w)
				}
			}
			if math.Abs(float64(sum)-want) > 2*expTolerance*want {
				t.Fatalf("the sum of %d elements is %v, want %v", n, sum, want)
			}
		}
		odd := []float32{float32(math.NaN()), float32(math.Inf(-1)), float32(math.Inf(1)), 100, -1e30, 0, 0, 0, 1}
		for lo := range odd {
			for i, v := range odd {
				y := slices.Clone(odd[lo:])
				ExpInPlace(y, 0)
				if i < lo {
					continue
				}
				want := float32(math.Exp(float64(v)))
				if got := y[i-lo]; got != want && !(got != got && want != want) && math.Abs(float64(got-want)) > expTolerance*float64(want) {
					t.Errorf("exp(%v) = %v", v, got)
				}
			}
		}
	})
}

// RMSNorm, RoPE, SiLUGate, AddTo, rescaling and widening of every length
// agree with float64.
func TestElementwiseEverySize(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(26, 6))
		near := func(what string, n, i int, got float32, want, size float64) {
			t.Helper()
			if !(math.Abs(float64(got)-want) <= mapTolerance*(math.Abs(size)+1e-30)) {
				t.Fatalf("%s, length %d: [%d] = %v, want %v", what, n, i, got, want)
			}
		}
		for n := range 70 {
			x, y := guarded(t, random(r, n)), guarded(t, random(r, n))
			x0, y0 := slices.Clone(x), slices.Clone(y)
			axpy(-1.5, x, y)
			for i := range y {
				near("axpy", n, i, y[i], float64(y0[i])-1.5*float64(x0[i]), math.Abs(float64(y0[i]))+math.Abs(1.5*float64(x0[i])))
			}
			rescale(0.3, y)
			copy(y, y0)
			rescale(0.3, y)
			for i := range y {
				near("rescale", n, i, y[i], float64(float32(0.3))*float64(y0[i]), float64(y0[i]))
			}
			out := results(t, n)
			RMSNorm(x, y0, 1e-5, out)
			var ss float64
			for _, v := range x {
				ss += float64(v) * float64(v)
			}
			for i := range out {
				want := float64(x[i]) * float64(y0[i]) / math.Sqrt(ss/float64(n)+float64(float32(1e-5)))
				near("RMSNorm", n, i, out[i], want, want)
			}
			gate := guarded(t, x0)
			for i := range gate {
				gate[i] *= 10 // up to the range where exp over- and underflows
			}
			g0 := slices.Clone(gate)
			SiLUGate(gate, y)
			for i, g := range g0 {
				want := float64(g) / (1 + math.Exp(-float64(g))) * float64(y[i])
				near("SiLUGate", n, i, gate[i], want, math.Abs(want)+1e-30)
			}
			pairs, cos, sin := guarded(t, random(r, 2*n)), make([]float32, n), make([]float32, n)
			for i := range n {
				s, c := math.Sincos(r.Float64() * 7)
				cos[i], sin[i] = float32(c), float32(s)
			}
			cos, sin = guarded(t, cos), guarded(t, sin)
			p0 := slices.Clone(pairs)
			RoPE(pairs, cos, sin)
			for i := range n {
				a, b, c, s := float64(p0[i]), float64(p0[n+i]), float64(cos[i]), float64(sin[i])
				near("RoPE", n, i, pairs[i], a*c-b*s, math.Abs(a)+math.Abs(b))
				near("RoPE", n, n+i, pairs[n+i], b*c+a*s, math.Abs(a)+math.Abs(b))
			}
		}
		g := []float32{float32(math.Inf(1)), -200, 200, 0}
		SiLUGate(g, []float32{2, 2, 2, 2})
		if !math.IsInf(float64(g[0]), 1) || g[1] != 0 || g[2] != 400 || g[3] != 0 {
			t.Errorf("SiLUGate at the ends: %v", g)
		}
	})
}

// Widening is exact for every bf16 and f16 value, NaN included.
func TestWidenEveryValue(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		all := make([]uint16, 1<<16)
		for i := range all {
			all[i] = uint16(i)
		}
		for _, dtype := range []DType{BF16, F16} {
			dst := make([]float32, len(all))
			RowsU16(all, len(all), dtype).Widen(0, dst)
			for i, got := range dst {
				want := F16ToF32(uint16(i))
				if dtype == BF16 {
					want = math.Float32frombits(uint32(i) << 16)
				}
				if math.Float32bits(got) != math.Float32bits(want) && !(got != got && want != want) {
					t.Fatalf("%v %#04x became %v, want %v", dtype, i, got, want)
				}
			}
			for n := 1; n < 40; n++ {
				dst := results(t, n)
				RowsU16(guarded(t, all[0x3c00:0x3c00+n]), n, dtype).Widen(0, dst)
				for i, got := range dst {
					var want [1]float32
					if RowsU16(all, 1, dtype).Widen(0x3c00+i, want[:]); got != want[0] {
						t.Fatalf("%v of %d: [%d] = %v, want %v", dtype, n, i, got, want[0])
					}
				}
			}
		}
	})
}

// Every level keeps exactly what pushing one by one keeps.
func TestTopKEveryLevel(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(27, 7))
		for trial := range 300 {
			n, k := r.IntN(400), r.IntN(30)
			scores := make([]float32, n)
			for i := range scores {
				switch scores[i] = float32(r.NormFloat64()); r.IntN(8) {
				case 0:
					scores[i] = float32(math.NaN())
				case 1:
					scores[i] = float32(math.Inf(2*r.IntN(2) - 1))
				case 2, 3:
					scores[i] = float32(r.IntN(4))
				}
				if trial%5 == 0 { // nothing but -Inf and NaN
					scores[i] = []float32{float32(math.Inf(-1)), float32(math.NaN())}[r.IntN(2)]
				}
			}
			scores = guarded(t, scores)
			ids := make([]uint32, n)
			for i, id := range r.Perm(n) {
				ids[i] = uint32(id)
			}
			a, b := NewTopK(k), NewTopK(k)
			a.Push(1000, scores)
			a.PushList(ids, scores)
			for i, s := range scores {
				b.push(scored{s, 1000 + uint32(i)})
			}
			for i, s := range scores {
				b.push(scored{s, ids[i]})
			}
			if !slices.Equal(a.heap, b.heap) {
				t.Fatalf("trial %d: %d of %d kept differ from one by one", trial, len(a.heap), k)
			}
		}
	})
}

// Kernels run for every token of every head: none may allocate.
func TestKernelsDoNotAllocate(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		const dim, n = 64, 200
		r := rand.New(rand.NewPCG(28, 8))
		rows := store(BF16, random(r, n*dim), dim)
		qs := [][]float32{random(r, dim), random(r, dim)}
		out := [][]float32{make([]float32, n), make([]float32, n)}
		ids, x := []uint32{4, 190, 3, 3, 77, 12, 13, 14, 15, 16, 17}, random(r, 2*dim)
		ps := []Partial{partial(dim), partial(dim)}
		product := make([]float32, 2*n)
		scratch := make([]float32, max(CausalScratch(2, dim), GEMMScratch(dim)))
		top, tops := NewTopK(20), []*TopK{NewTopK(20), NewTopK(20)}
		top.Push(0, out[0])
		for name, f := range map[string]func(){
			"ScoreList":    func() { ScoreList(qs, rows, ids, out, scratch) },
			"ScoreRange":   func() { ScoreRange(qs, rows, 0, n, out, scratch) },
			"TopKRange":    func() { TopKRange(qs, rows, 0, n, 0, tops, scratch) },
			"Rounded":      func() { RoundedList(qs, rows, ids, out, scratch) },
			"RoPETable":    func() { RoPETable(7, x[:dim], qs[0], qs[1]) },
			"MatMul":       func() { MatMul(x, 2, rows, 0, n, product, n, scratch) },
			"AttendList":   func() { AttendList(qs[0], rows, rows, ids, nil, 1, &ps[0], scratch[:2*dim]) },
			"AttendCausal": func() { AttendCausal(x, 2, 1, n, rows, rows, 0, n, 1, ps, scratch) },
			"TopK":         func() { top.Push(1000, out[0]) },
			"Elementwise": func() {
				RMSNorm(x, x, 1, x)
				SiLUGate(x, x)
				AddTo(x, x)
				ExpInPlace(x, 3)
				RoPE(x, qs[0], qs[1])
			},
		} {
			if got := testing.AllocsPerRun(10, f); got != 0 {
				t.Errorf("%s allocates %v times", name, got)
			}
		}
	})
}

// Within a level a score is the same number however it is asked for: in a
// list or a range, alone or beside other rows and queries.
func TestScoresAreTheSameHoweverAsked(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(29, 9))
		for _, dtype := range dtypes {
			for _, dim := range dims {
				const n = 11
				rows := store(dtype, random(r, n*dim), dim)
				var qs [][]float32
				for range MaxQueries {
					qs = append(qs, random(r, dim))
				}
				scratch := make([]float32, dim)
				want := outputs(MaxQueries, n)
				for j := range qs {
					for i := range n {
						ScoreRange(qs[j:j+1], rows, i, i+1, [][]float32{want[j][i:]}, scratch)
					}
				}
				ids := make([]uint32, n)
				for i := range ids {
					ids[i] = uint32(i)
				}
				for nq := 1; nq <= MaxQueries; nq++ {
					list, rng := outputs(nq, n), outputs(nq, n)
					ScoreList(qs[:nq], rows, ids, list, scratch)
					ScoreRange(qs[:nq], rows, 0, n, rng, scratch)
					for j := range nq {
						if !slices.Equal(list[j], want[j]) || !slices.Equal(rng[j], want[j]) {
							t.Fatalf("%v dim %d, %d queries: scores differ from those of one row and one query", dtype, dim, nq)
						}
					}
				}
			}
		}
	})
}
