package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// roundedTolerance is that of scores of queries rounded to bf16, of sum |q.k|.
const roundedTolerance = 1.2e-2

// tied returns n rows that repeat each other, so that scores tie, and end at
// a guard page.
func tied(t *testing.T, r *rand.Rand, dtype DType, n, dim int) Rows {
	some := random(r, min(n, 7)*dim)
	var data []float32
	for range n {
		i := r.IntN(len(some) / dim)
		data = append(data, some[i*dim:(i+1)*dim]...)
	}
	rows := store(dtype, data, dim)
	rows.F32, rows.U16 = guarded(t, rows.F32), guarded(t, rows.U16)
	return rows
}

// taken empties a collector.
func taken(top *TopK) ([]uint32, []float32) {
	ids, scores := make([]uint32, top.Len()), make([]float32, top.Len())
	top.Take(ids, scores)
	return ids, scores
}

// The top-k of a range is that of its scores: the same ids and the same bits,
// for every number of queries, size, dimension and dtype, with ties, in
// several ranges, beside entries from elsewhere, and for k of 0 and beyond n.
func TestTopKRangeIsScoreRangeAndPush(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(41, 1))
		for _, dtype := range dtypes {
			for _, dim := range dims {
				n := 1 + r.IntN(1500)
				rows := guardedRows(t, r, dtype, n, dim)
				if r.IntN(2) == 0 {
					rows = tied(t, r, dtype, n, dim)
				}
				nq := 1 + r.IntN(MaxQueries)
				lo := r.IntN(n)
				hi, id := lo+r.IntN(n-lo+1), r.Uint32N(1<<20)
				mid := lo + r.IntN(hi-lo+1)
				scratch := make([]float32, dim)
				for _, rounded := range []bool{false, true} {
					score, topK := ScoreRange, TopKRange
					if rounded {
						score, topK = RoundedRange, RoundedTopKRange
					}
					var qs, out [][]float32
					var got, want []*TopK
					for range nq {
						k := []int{0, 1, 5, 100, 2000}[r.IntN(5)]
						qs, out = append(qs, guarded(t, random(r, dim))), append(out, make([]float32, hi-lo))
						got, want = append(got, NewTopK(k)), append(want, NewTopK(k))
					}
					score(qs, rows, lo, hi, out, scratch)
					for j := range nq {
						got[j].Push(1<<30, []float32{0.5, -3})
						want[j].Push(1<<30, []float32{0.5, -3})
						want[j].Push(id, out[j])
					}
					topK(qs, rows, lo, mid, id, got, scratch)
					topK(qs, rows, mid, hi, id+uint32(mid-lo), got, scratch)
					for j := range nq {
						gotIDs, gotScores := taken(got[j])
						wantIDs, wantScores := taken(want[j])
						if !slices.Equal(gotIDs, wantIDs) || !slices.Equal(gotScores, wantScores) {
							t.Fatalf("%v dim %d, rows [%d, %d), query %d of %d, k %d, rounded %v: ids %v, want %v; scores %v, want %v",
								dtype, dim, lo, hi, j, nq, got[j].k, rounded, gotIDs, wantIDs, gotScores, wantScores)
						}
					}
				}
			}
		}
	})
}

// NaN scores rank with those of -Inf, below every number, and by id.
func TestTopKRangeNotFinite(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		nan, inf := float32(math.NaN()), float32(math.Inf(1))
		for _, dtype := range dtypes {
			for _, dim := range []int{1, 5, 32, 70} {
				const n = 45
				data := make([]float32, n*dim)
				for i := range n {
					for e := range dim {
						data[i*dim+e] = 0.125 * float32(i%5)
					}
				}
				data[3*dim], data[17*dim+dim-1], data[30*dim+dim/2], data[44*dim] = nan, inf, -inf, nan
				ones := make([]float32, dim)
				for i := range ones {
					ones[i] = 1
				}
				nans := slices.Clone(ones)
				nans[0] = nan
				rows, scratch := store(dtype, data, dim), make([]float32, dim)
				for _, topK := range []func([][]float32, Rows, int, int, uint32, []*TopK, []float32){TopKRange, RoundedTopKRange} {
					tops := []*TopK{NewTopK(n), NewTopK(n), NewTopK(2), NewTopK(7)}
					topK([][]float32{ones, nans, ones, nans}, rows, 0, n, 0, tops, scratch)
					ids, scores := taken(tops[0])
					if ids[0] != 17 || scores[0] != inf || !slices.Equal(ids[n-3:], []uint32{3, 30, 44}) || scores[n-3] != -inf || scores[n-1] != -inf {
						t.Fatalf("%v dim %d: %v, %v", dtype, dim, ids, scores)
					}
					if ids, _ := taken(tops[1]); !slices.IsSorted(ids) || len(ids) != n {
						t.Fatalf("%v dim %d: a query that is no number finds %v", dtype, dim, ids)
					}
					if ids, _ := taken(tops[2]); !slices.Equal(ids, []uint32{17, 4}) {
						t.Fatalf("%v dim %d: the best two are %v", dtype, dim, ids)
					}
					if ids, _ := taken(tops[3]); !slices.Equal(ids, []uint32{0, 1, 2, 3, 4, 5, 6}) {
						t.Fatalf("%v dim %d: a query that is no number finds %v", dtype, dim, ids)
					}
				}
			}
		}
	})
}

// Scores of rounded queries agree with float64 within their tolerance, and
// with the f32 scores of the rounded queries far closer: in lists and ranges,
// everything at the end of its memory.
func TestRounded(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(42, 2))
		for _, dtype := range dtypes {
			for _, dim := range dims {
				n := 1 + r.IntN(60)
				rows := guardedRows(t, r, dtype, n, dim)
				exact := wide(rows)
				nq := 1 + r.IntN(MaxQueries)
				lo := r.IntN(n)
				hi := lo + r.IntN(n-lo+1)
				ids := make([]uint32, r.IntN(2*n))
				for i := range ids {
					ids[i] = uint32(r.IntN(n))
				}
				ids = guarded(t, ids)
				var qs, list, rng [][]float32
				for range nq {
					qs = append(qs, guarded(t, random(r, dim)))
					list, rng = append(list, results(t, len(ids))), append(rng, results(t, hi-lo))
				}
				scratch := make([]float32, dim)
				RoundedList(qs, rows, ids, list, scratch)
				RoundedRange(qs, rows, lo, hi, rng, scratch)
				check := func(j, id int, got float32) {
					t.Helper()
					near := slices.Clone(qs[j])
					for e, v := range near {
						near[e] = math.Float32frombits(uint32(F32ToBF16(v)) << 16)
					}
					for _, c := range []struct {
						q         []float32
						tolerance float64
					}{{qs[j], roundedTolerance}, {near, dotTolerance}} {
						want, abs := dot64(c.q, exact[id])
						if !(math.Abs(float64(got)-want) <= c.tolerance*abs+1e-30) {
							t.Fatalf("%v dim %d, %d queries: query %d, row %d: %v, want %v within %v", dtype, dim, nq, j, id, got, want, c.tolerance*abs)
						}
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

// Narrowing gives the bits of the scalar forms for values of every kind and
// every length.
func TestNarrowEveryValue(t *testing.T) {
	r := rand.New(rand.NewPCG(43, 3))
	var x []float32
	for h := range 1 << 16 { // around every value of the upper half, ties included
		for _, low := range []uint32{0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, r.Uint32N(1 << 16)} {
			x = append(x, math.Float32frombits(uint32(h)<<16|low))
		}
	}
	for h := range 1 << 16 { // every f16, and half way to the next one
		b := math.Float32bits(F16ToF32(uint16(h)))
		x = append(x, math.Float32frombits(b), math.Float32frombits(b+0x1000), math.Float32frombits(b+0xfff), math.Float32frombits(b+0x1001))
	}
	for range 1 << 16 { // where f16 is subnormal
		x = append(x, float32(math.Ldexp(r.Float64()-0.5, -14-r.IntN(12))))
	}
	atEveryLevel(t, func(t *testing.T) {
		for dtype, scalar := range map[DType]func(float32) uint16{BF16: F32ToBF16, F16: F32ToF16} {
			check := func(x []float32, rows Rows) {
				t.Helper()
				rows.Narrow(0, x)
				for i, v := range x {
					if got, want := rows.U16[i], scalar(v); got != want {
						t.Fatalf("%v of %v (%#08x) among %d is %#04x, want %#04x", dtype, v, math.Float32bits(v), len(x), got, want)
					}
				}
			}
			check(x, RowsU16(make([]uint16, len(x)), len(x), dtype))
			for n := 1; n < 70; n++ {
				lo := r.IntN(len(x) - n)
				check(guarded(t, x[lo:lo+n]), RowsU16(guarded(t, make([]uint16, n)), n, dtype))
			}
		}
	})
}

// The tables of rotations agree with float64, for the frequencies of common
// bases, at positions up to a million and far beyond, in every quadrant and
// at every length.
func TestRoPETableEveryLevel(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(44, 4))
		check := func(pos int, freq []float32) {
			t.Helper()
			cos, sin := results(t, len(freq)), results(t, len(freq))
			RoPETable(pos, freq, cos, sin)
			for i, f := range freq {
				s, c := math.Sincos(float64(float32(pos) * f))
				if math.Abs(float64(cos[i])-c) > 2e-7 || math.Abs(float64(sin[i])-s) > 2e-7 {
					t.Fatalf("position %d, frequency %v of %d: (%v, %v), want (%v, %v)", pos, f, len(freq), cos[i], sin[i], c, s)
				}
			}
		}
		for _, base := range []float64{1e4, 5e5, 1e9} {
			freq := make([]float32, 64)
			for i := range freq {
				freq[i] = float32(math.Pow(base, -float64(i)/64))
			}
			freq = guarded(t, freq)
			for pos := range 300 {
				check(pos, freq)
			}
			for range 3000 {
				check(r.IntN(1_000_001), freq)
			}
			check(1<<30, freq)
		}
		for n := range 40 {
			freq := make([]float32, n)
			for i := range freq {
				freq[i] = float32(r.Float64())
			}
			check(r.IntN(1000), guarded(t, freq))
		}
	})
}

// The top-100 of 131,072 keys found with rounded queries and scored again:
// how many more candidates than 100 give the exact ids.
func TestRoundedCandidates(t *testing.T) {
	if testing.Short() {
		t.Skip("131,072 keys")
	}
	keys := many().Slice(0, 1<<17)
	qs, scratch := queriesOf(4, keys.Dim), make([]float32, keys.Dim)
	var exact, near []*TopK
	for range qs {
		exact, near = append(exact, NewTopK(100)), append(near, NewTopK(120))
	}
	TopKRange(qs, keys, 0, keys.N, 0, exact, scratch)
	RoundedTopKRange(qs, keys, 0, keys.N, 0, near, scratch)
	for j := range qs {
		ids, _ := taken(exact[j])
		candidates, _ := taken(near[j])
		for _, id := range ids {
			if !slices.Contains(candidates, id) {
				t.Errorf("query %d: row %d of the best 100 is not among 120 candidates", j, id)
			}
		}
	}
}

func ExampleTopKRange() {
	rows := RowsF32([]float32{1, 0, 0, 1, 1, 1}, 2)
	top := NewTopK(2)
	TopKRange([][]float32{{1, 2}}, rows, 0, rows.N, 0, []*TopK{top}, make([]float32, 2))
	ids, scores := make([]uint32, 2), make([]float32, 2)
	top.Take(ids, scores)
	fmt.Println(ids, scores)
	// Output: [2 1] [3 2]
}
