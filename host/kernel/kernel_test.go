package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

var dtypes = []DType{F32, BF16, F16}

// random returns n values of spread about 1 and occasional outliers.
func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
		if r.IntN(50) == 0 {
			x[i] *= 8
		}
	}
	return x
}

func store(dtype DType, data []float32, dim int) Rows {
	if dtype == F32 {
		return RowsF32(slices.Clone(data), dim)
	}
	rows := RowsU16(make([]uint16, len(data)), dim, dtype)
	for i := range rows.N {
		rows.Narrow(i, data[i*dim:(i+1)*dim])
	}
	return rows
}

// wide returns the stored values in f64, the input of every oracle.
func wide(r Rows) [][]float64 {
	out, buf := make([][]float64, r.N), make([]float32, r.Dim)
	for i := range out {
		r.Widen(i, buf)
		for _, v := range buf {
			out[i] = append(out[i], float64(v))
		}
	}
	return out
}

func dot64(q []float32, k []float64) (sum, abs float64) {
	for i, v := range q {
		sum += float64(v) * k[i]
		abs += math.Abs(float64(v) * k[i])
	}
	return sum, abs
}

func TestConversions(t *testing.T) {
	for h := range 1 << 16 {
		w := F16ToF32(uint16(h))
		if w != w {
			if got := F16ToF32(F32ToF16(w)); got == got {
				t.Fatalf("f16 NaN %#04x became %v", h, got)
			}
			continue
		}
		if got := F32ToF16(w); got != uint16(h) {
			t.Fatalf("f16 %#04x -> %v -> %#04x", h, w, got)
		}
		b := math.Float32frombits(uint32(h) << 16)
		if b == b && F32ToBF16(b) != uint16(h) {
			t.Fatalf("bf16 %#04x -> %v -> %#04x", h, b, F32ToBF16(b))
		}
	}
	for _, c := range []struct {
		in        float32
		f16, bf16 uint16
	}{
		{1 + 1.0/2048, 0x3c00, 0x3f80}, // half way: to even, down
		{1 + 3.0/2048, 0x3c02, 0x3f80}, // half way: to even, up
		{65520, 0x7c00, 0x4780},        // rounds to infinity in f16
		{float32(math.Inf(-1)), 0xfc00, 0xff80},
		{1.0 / (1 << 25), 0, 0x3300}, // half the least f16: to even, zero
		{1.5 / (1 << 24), 2, 0x33c0}, // half way between subnormals: to even
		{math.MaxFloat32, 0x7c00, 0x7f80},
	} {
		if got := F32ToF16(c.in); got != c.f16 {
			t.Errorf("F32ToF16(%v) = %#04x, want %#04x", c.in, got, c.f16)
		}
		if got := F32ToBF16(c.in); got != c.bf16 {
			t.Errorf("F32ToBF16(%v) = %#04x, want %#04x", c.in, got, c.bf16)
		}
	}
	nan := float32(math.NaN())
	if v := math.Float32frombits(uint32(F32ToBF16(nan)) << 16); v == v {
		t.Errorf("bf16 of NaN is %v", v)
	}
}

// The inner products agree with f64 within 2e-6 of the sum of |q.k|.
func TestScore(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, dtype := range dtypes {
		for _, dim := range []int{2, 6, 64, 80, 128} {
			for _, nq := range []int{1, 3, MaxQueries} {
				t.Run(fmt.Sprintf("%v/dim%d/q%d", dtype, dim, nq), func(t *testing.T) {
					rows := store(dtype, random(r, 37*dim), dim)
					exact := wide(rows)
					var qs, list, rng [][]float32
					for range nq {
						qs = append(qs, random(r, dim))
						list, rng = append(list, make([]float32, 5)), append(rng, make([]float32, 20))
					}
					ids := []uint32{36, 0, 7, 7, 20}
					ScoreList(qs, rows, ids, list, make([]float32, dim))
					ScoreRange(qs, rows, 10, 30, rng, make([]float32, dim))
					check := func(q int, id int, got float32) {
						want, abs := dot64(qs[q], exact[id])
						if math.Abs(float64(got)-want) > 2e-6*abs {
							t.Errorf("query %d, row %d: %v, want %v", q, id, got, want)
						}
					}
					for j := range nq {
						for i, id := range ids {
							check(j, int(id), list[j][i])
						}
						for i := range 20 {
							check(j, 10+i, rng[j][i])
						}
					}
				})
			}
		}
	}
}

func TestMatMul(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, dtype := range dtypes {
		for _, n := range []int{1, 2, 5} {
			const dim, outs, lo, hi = 48, 150, 3, 147
			w := store(dtype, random(r, outs*dim), dim)
			a := random(r, n*dim)
			c := make([]float32, n*outs)
			MatMul(a, n, w, lo, hi, c, outs, make([]float32, GEMMScratch(dim)))
			exact := wide(w)
			for i := range n {
				for j := lo; j < hi; j++ {
					want, abs := dot64(a[i*dim:(i+1)*dim], exact[j])
					if got := float64(c[i*outs+j-lo]); math.Abs(got-want) > 2e-6*abs {
						t.Fatalf("%v n=%d [%d][%d]: %v, want %v", dtype, n, i, j, got, want)
					}
				}
			}
		}
	}
}

func TestTopK(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		n, k := r.IntN(60), r.IntN(20)
		scores := make([]float32, n)
		for i := range scores {
			scores[i] = float32(r.IntN(12)) // many ties
			if r.IntN(10) == 0 {
				scores[i] = float32(math.NaN())
			}
		}
		want := make([]int, n)
		for i := range want {
			want[i] = i
		}
		key := func(i int) float32 {
			if scores[i] != scores[i] {
				return float32(math.Inf(-1))
			}
			return scores[i]
		}
		slices.SortStableFunc(want, func(a, b int) int {
			switch {
			case key(a) > key(b):
				return -1
			case key(a) < key(b):
				return 1
			}
			return a - b
		})
		want = want[:min(k, n)]
		top := NewTopK(0)
		top.Reset(k)
		half := n / 2
		top.Push(0, scores[:half])
		var ids []uint32
		for i := half; i < n; i++ {
			ids = append(ids, uint32(i))
		}
		top.PushList(ids, scores[half:])
		got, vals := make([]uint32, k), make([]float32, k)
		m := top.Take(got, vals)
		if m != len(want) || top.Len() != 0 {
			t.Fatalf("took %d of %d, %d left", m, len(want), top.Len())
		}
		for i, id := range want {
			if got[i] != uint32(id) || vals[i] != key(id) {
				t.Fatalf("n=%d k=%d: rank %d is %d (%v), want %d (%v)", n, k, i, got[i], vals[i], id, key(id))
			}
		}
	}
}

// exact attention in f64 over the given rows.
func attend64(q []float32, keys, values [][]float64, ids []int, bias []float32, scale float64) (out []float64, lse float64) {
	m := math.Inf(-1)
	logits := make([]float64, len(ids))
	for i, id := range ids {
		s, _ := dot64(q, keys[id])
		logits[i] = s * scale
		if bias != nil {
			logits[i] += float64(bias[i])
		}
		m = max(m, logits[i])
	}
	var sum float64
	for i, id := range ids {
		w := math.Exp(logits[i] - m)
		sum += w
		if out == nil {
			out = make([]float64, len(values[id]))
		}
		for j, v := range values[id] {
			out[j] += w * v
		}
	}
	for j := range out {
		out[j] /= sum
	}
	return out, m + math.Log(sum)
}

func compare(t *testing.T, what string, p *Partial, out []float64, lse float64) {
	t.Helper()
	got := make([]float32, len(p.Acc))
	p.Output(got)
	for j, v := range out {
		if math.Abs(float64(got[j])-v) > 2e-5*(1+math.Abs(v)) {
			t.Fatalf("%s: output[%d] = %v, want %v", what, j, got[j], v)
		}
	}
	if math.Abs(float64(p.LSE())-lse) > 1e-5*(1+math.Abs(lse)) {
		t.Fatalf("%s: LSE %v, want %v", what, p.LSE(), lse)
	}
}

func partial(dim int) Partial {
	p := Partial{Acc: make([]float32, dim)}
	p.Reset()
	return p
}

func TestAttendCausal(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for _, dtype := range dtypes {
		for _, c := range []struct{ n, first, rows, lo int }{
			{1, 0, 1, 0}, {1, 99, 100, 0}, {70, 0, 70, 0}, {33, 130, 163, 0}, {40, 10, 50, 5}, {4, 1000, 90, 0},
		} {
			const dim, scale = 16, 0.25
			keys, values := store(dtype, random(r, c.rows*dim), dim), store(dtype, random(r, c.rows*dim), dim)
			q := random(r, c.n*dim)
			ps := make([]Partial, c.n)
			for i := range ps {
				ps[i] = partial(dim)
			}
			mid := (c.lo + c.rows) / 2
			scratch := make([]float32, CausalScratch(c.n, dim))
			AttendCausal(q, c.n, 1, c.first, keys, values, c.lo, mid, scale, ps, scratch)
			AttendCausal(q, c.n, 1, c.first, keys, values, mid, c.rows, scale, ps, scratch)
			k64, v64 := wide(keys), wide(values)
			for i := range ps {
				var ids []int
				for id := c.lo; id < c.rows && id <= c.first+i; id++ {
					ids = append(ids, id)
				}
				if len(ids) == 0 {
					if !ps[i].Empty() {
						t.Fatal("a query that sees nothing has weight")
					}
					continue
				}
				out, lse := attend64(q[i*dim:(i+1)*dim], k64, v64, ids, nil, scale)
				compare(t, fmt.Sprintf("%v %+v query %d", dtype, c, i), &ps[i], out, lse)
			}
		}
	}
}

func TestAttendList(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	const dim, n, scale = 24, 50, 0.3
	for _, dtype := range dtypes {
		keys, values := store(dtype, random(r, n*dim), dim), store(dtype, random(r, n*dim), dim)
		q := random(r, dim)
		ids, bias := []uint32{3, 49, 0, 17}, []float32{0, -2, 1.5, 30}
		for _, b := range [][]float32{nil, bias} {
			p := partial(dim)
			AttendList(q, keys, values, ids, b, scale, &p, make([]float32, 2*dim))
			out, lse := attend64(q, wide(keys), wide(values), []int{3, 49, 0, 17}, b, scale)
			compare(t, fmt.Sprintf("%v bias %v", dtype, b != nil), &p, out, lse)
		}
	}
}

// Merging by log-sum-exp is exact for any split of the tokens: empty parts,
// any order, logits up to +-1e4.
func TestMergeAnySplit(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	const dim = 8
	for trial := range 500 {
		n := r.IntN(40)
		spread := []float64{1, 30, 1e4}[trial%3]
		logits, values := make([]float32, n), make([][]float32, n)
		keys64, values64, ids := make([][]float64, n), make([][]float64, n), make([]int, n)
		for i := range n {
			logits[i] = float32((2*r.Float64() - 1) * spread)
			values[i] = random(r, dim)
			keys64[i], ids[i] = []float64{float64(logits[i])}, i
			for _, v := range values[i] {
				values64[i] = append(values64[i], float64(v))
			}
		}
		parts := make([]Partial, 1+r.IntN(6))
		for i := range parts {
			parts[i] = partial(dim)
		}
		for i := range n {
			parts[r.IntN(len(parts))].Add(logits[i], values[i])
		}
		r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		total := partial(dim)
		for i := range parts {
			total.Merge(&parts[i])
		}
		if n == 0 {
			got := random(r, dim)
			if total.Output(got); !total.Empty() || !math.IsInf(float64(total.LSE()), -1) || slices.Max(got) != 0 {
				t.Fatalf("merge of empty parts: %+v", total)
			}
			continue
		}
		out, lse := attend64([]float32{1}, keys64, values64, ids, nil, 1)
		compare(t, fmt.Sprintf("trial %d", trial), &total, out, lse)
	}
}

func TestExp(t *testing.T) {
	for x := -90.0; x <= 89; x += 0.0037 {
		got, want := float64(exp32(float32(x))), math.Exp(float64(float32(x)))
		if x < -87.3 {
			want = 0
		}
		if math.Abs(got-want) > 4e-7*want+1e-45 && !(math.IsInf(got, 1) && want > math.MaxFloat32) {
			t.Fatalf("exp(%v) = %v, want %v", x, got, want)
		}
	}
	if got := exp32(float32(math.Inf(-1))); got != 0 {
		t.Errorf("exp(-Inf) = %v", got)
	}
	if got := exp32(float32(math.NaN())); got == got {
		t.Errorf("exp(NaN) = %v", got)
	}
}

func TestDense(t *testing.T) {
	x := []float32{3, 4}
	RMSNorm(x, []float32{1, 2}, 0, x)
	rms := math.Sqrt(12.5)
	if math.Abs(float64(x[0])-3/rms) > 1e-6 || math.Abs(float64(x[1])-8/rms) > 1e-6 {
		t.Errorf("RMSNorm: %v", x)
	}
	cos, sin := make([]float32, 2), make([]float32, 2)
	RoPETable(3, []float32{1, 0.1}, cos, sin)
	v := []float32{1, 0, 0, 1}
	RoPE(v, cos, sin)
	want := []float64{math.Cos(3), -math.Sin(0.3), math.Sin(3), math.Cos(0.3)}
	for i := range v {
		if math.Abs(float64(v[i])-want[i]) > 1e-6 {
			t.Errorf("RoPE: %v, want %v", v, want)
		}
	}
	g := []float32{-2, 0, 50}
	SiLUGate(g, []float32{3, 3, 3})
	for i, z := range []float64{-2, 0, 50} {
		if w := 3 * z / (1 + math.Exp(-z)); math.Abs(float64(g[i])-w) > 1e-5 {
			t.Errorf("SiLUGate(%v): %v, want %v", z, g[i], w)
		}
	}
}
