package kernel

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// codeDims are head dimensions in use, and others.
var codeDims = []int{1, 31, 32, 33, 64, 80, 96, 100, 128, 160, 192, 256, 500, 512}

func atGeneric(f func()) {
	before := active
	active = nil
	defer func() { active = before }()
	f()
}

// coded returns codes of the rows, which end at a guard page and have room for
// spare more.
func coded(t *testing.T, c *Coder, keys Rows, spare int) *Codes {
	codes := c.Over(guarded(t, make([]byte, c.Bytes(keys.N+spare))), 0)
	codes.Append(keys, 0, keys.N)
	return codes
}

// A rotation keeps inner products, and spreads a vector that has one
// coordinate only over all.
func TestRotation(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(41, 1))
		for _, dim := range codeDims {
			rot := NewRotation(dim, 5)
			padded := func(x []float32) []float32 { return append(slices.Clone(x), make([]float32, rot.codeDim-dim)...) }
			a, b := random(r, dim), random(r, dim)
			ra, rb := guarded(t, padded(a)), guarded(t, padded(b))
			rot.apply(ra)
			rot.apply(rb)
			var want, got, abs float64
			for i := range a {
				want += float64(a[i]) * float64(b[i])
				abs += math.Abs(float64(a[i]) * float64(b[i]))
			}
			for i := range ra {
				got += float64(ra[i]) * float64(rb[i])
			}
			if math.Abs(got-want) > 1e-5*abs+1e-5 {
				t.Errorf("dim %d: the inner product became %v, it was %v", dim, got, want)
			}
			for _, at := range []int{0, dim / 2, dim - 1} {
				spike := make([]float32, rot.codeDim)
				spike[at] = 1
				rot.apply(spike)
				for _, v := range spike {
					// A Gaussian coordinate would be as far out once in 15000.
					if math.Abs(float64(v)) > 4/math.Sqrt(float64(rot.codeDim)) {
						t.Fatalf("dim %d: of coordinate %d alone, %v came to lie on one coordinate", dim, at, v)
					}
				}
			}
			// The same at every level, to the bit.
			again := padded(a)
			atGeneric(func() { rot.apply(again) })
			if !slices.Equal(again, ra) {
				t.Errorf("dim %d: not the rotation that Go computes", dim)
			}
		}
	})
}

// Codes, scales included, are the same to the bit at every level, however they
// are appended, and from rows of every type.
func TestCodesSame(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(42, 2))
		for _, dim := range codeDims {
			for bits := 1; bits <= 4; bits++ {
				dtype := dtypes[r.IntN(3)]
				n := 1 + r.IntN(70)
				keys := guardedRows(t, r, dtype, n, dim)
				c := NewCoder(NewRotation(dim, 9), bits, keys)
				got := coded(t, c, keys, 0)
				var want *Codes
				atGeneric(func() {
					same := NewCoder(NewRotation(dim, 9), bits, keys)
					if !slices.Equal(same.Mean(), c.Mean()) {
						t.Fatalf("%v dim %d: another mean than in Go", dtype, dim)
					}
					want = coded(t, same, keys, 0)
				})
				if !slices.Equal(got.mem, want.mem) {
					t.Fatalf("%v dim %d, %d bits: not the codes that Go computes", dtype, dim, bits)
				}
				parts := c.Over(make([]byte, c.Bytes(n)), 0)
				for lo := 0; lo < n; {
					hi := min(lo+1+r.IntN(20), n)
					parts = c.Over(parts.mem, parts.Len()) // as after a restart
					parts.Append(keys, lo, hi)
					lo = hi
				}
				if parts.Len() != n || !slices.Equal(parts.mem, got.mem) {
					t.Fatalf("dim %d, %d bits: codes appended in parts differ", dim, bits)
				}
			}
		}
	})
}

// digit reads the digit of a dimension of a key as the layout is documented.
func digit(c *Codes, key, dim int) int {
	bits := c.coder.bits
	block := c.mem[key/16*c.coder.blockBytes():]
	read := func(word, p, d int) int { // dimension d of a word of p-bit digits
		w := binary.LittleEndian.Uint32(block[64*word+key%16*4:])
		return int(w>>(8*(d%4)+p*(d/4))) & (1<<p - 1)
	}
	group, d := dim/32*bits, dim%32
	if bits == 3 {
		return read(group+d/16, 2, d%16) + read(group+2, 1, d)<<2
	}
	per := 32 / bits
	return read(group+d/per, bits, d%per)
}

// Estimates are what the documented layout says, from digits read one by
// one; the integer part exactly, so the whole to the bit. Every level, bit
// width, number of queries and any range.
func TestEstimate(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(43, 3))
		for _, dim := range codeDims {
			for bits := 1; bits <= 4; bits++ {
				n := r.IntN(150)
				keys := store(BF16, random(r, n*dim), dim)
				c := NewCoder(NewRotation(dim, 2), bits, keys)
				codes := coded(t, c, keys, 0)
				if r.IntN(2) == 0 { // digits and queries at their extremes too
					for i := range codes.mem {
						codes.mem[i] |= byte(r.IntN(2) * 255)
					}
					for i := range n {
						size := c.blockBytes()
						binary.LittleEndian.PutUint32(codes.mem[(i/16+1)*size-64+i%16*4:], math.Float32bits(r.Float32()))
					}
				}
				nq := 1 + r.IntN(MaxQueries)
				lo := r.IntN(n + 1)
				hi := lo + r.IntN(n-lo+1)
				var qs, out [][]float32
				for range nq {
					q := random(r, dim)
					qs, out = append(qs, guarded(t, q)), append(out, results(t, hi-lo))
				}
				var s CodeQueries
				s.Set(c, qs)
				for j := range nq {
					s.list[j].ints = guarded(t, s.list[j].ints)
					if j == 0 {
						for i := range s.list[j].ints {
							s.list[j].ints[i] = 127
						}
					}
				}
				codes.Estimate(&s, lo, hi, out)
				bounds := outputs(nq, hi-lo)
				codes.Bound(&s, lo, hi, bounds)
				for j := range nq {
					p := &s.list[j]
					for i := lo; i < hi; i++ {
						sum := 0
						for d, q := range p.ints {
							sum += int(q) * digit(codes, i, d)
						}
						want := (float32(sum) - p.centre) * codes.scale(i)
						if got := out[j][i-lo]; got != want {
							t.Fatalf("dim %d, %d bits, %d queries: query %d, key %d: %v, want %v", dim, bits, nq, j, i, got, want)
						}
						want = (float32(sum) - (p.centre - p.margin)) * codes.scale(i)
						if got := bounds[j][i-lo]; got != want {
							t.Fatalf("dim %d, %d bits, %d queries: query %d, key %d: bound %v, want %v", dim, bits, nq, j, i, got, want)
						}
					}
				}
			}
		}
	})
}

// How far estimates lie from inner products, relative to |q| |k - mean|: the
// root mean square over Gaussian keys, some with heavy tails, and the bias.
// Bounds lie two deviations higher: one inner product in 44 is above its own.
// For unit vectors the error is sqrt((1/cos^2 - 1) / dim), cos being that of
// the angle between key and code; cos^2 is about 1 - D for the distortion D of the
// quantiser (Max 1960: .363, .119, .0374, .0115).
func TestEstimateError(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		const n, queries = 2000, 8
		for _, dim := range []int{64, 80, 96, 128, 256} {
			r := rand.New(rand.NewPCG(44, uint64(dim)))
			keys := store(BF16, random(r, n*dim), dim)
			exact := wide(keys)
			var qs [][]float32
			for range queries {
				qs = append(qs, random(r, dim))
			}
			out, bounds := outputs(queries, n), outputs(queries, n)
			for bits, most := range map[int]float64{1: 0.80, 2: 0.38, 3: 0.21, 4: 0.12} {
				c := NewCoder(NewRotation(dim, 3), bits, keys)
				codes := coded(t, c, keys, 0)
				var s CodeQueries
				s.Set(c, qs)
				codes.Estimate(&s, 0, n, out)
				codes.Bound(&s, 0, n, bounds)
				var squares, slope, norm, above float64
				for j, q := range qs {
					qq, _ := dot64(q, widened64(q))
					scale, offset := s.Unit(j)
					for i, k := range exact {
						var want, kk float64
						for d, v := range k {
							x := v - float64(c.mean[d])
							want += x * float64(q[d])
							kk += x * x
						}
						got := float64(scale*out[j][i]+offset) - (dotOf(q, c.mean))
						e := (got - want) / math.Sqrt(qq*kk) * math.Sqrt(float64(dim))
						squares += e * e
						if want > float64(scale*bounds[j][i]+offset)-dotOf(q, c.mean) {
							above += 1.0 / n / queries
						}
						slope += got * want
						norm += want * want
					}
				}
				rms := math.Sqrt(squares / n / queries)
				if rms > most || rms < most/2 {
					t.Errorf("dim %d, %d bits: estimates err by %.3f / sqrt(dim), expected at most %.3f and more than half", dim, bits, rms, most)
				}
				if above < 0.01 || above > 0.04 {
					t.Errorf("dim %d, %d bits: %.3f of the inner products lie above their bounds", dim, bits, above)
				}
				if b := slope / norm; math.Abs(b-1) > 0.02 {
					t.Errorf("dim %d, %d bits: estimates are %.3f of the inner products on average", dim, bits, b)
				}
			}
		}
	})
}

func widened64(x []float32) (w []float64) {
	for _, v := range x {
		w = append(w, float64(v))
	}
	return w
}

func dotOf(a, b []float32) float64 {
	s, _ := dot64(a, widened64(b))
	return s
}

// A key with an element that is not finite, or too long for f32, has no
// estimate, nor has a lane that no key fills; none of them is ever a
// candidate, and they spoil neither the mean nor their neighbours. A key
// that is the mean has the estimate q.mean.
func TestCodesNotFinite(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		const dim, n = 64, 37
		r := rand.New(rand.NewPCG(45, 5))
		data := random(r, n*dim)
		nan, inf := float32(math.NaN()), float32(math.Inf(1))
		data[3*dim], data[7*dim+63], data[16*dim+5], data[20*dim] = nan, inf, -inf, 1e20
		without := map[int]bool{3: true, 7: true, 16: true, 20: true}
		for bits := 1; bits <= 4; bits++ {
			sample := RowsF32(slices.Clone(data[:25*dim]), dim)
			c := NewCoder(NewRotation(dim, 1), bits, sample)
			copy(data[30*dim:], c.Mean())
			keys := RowsF32(data, dim)
			codes := coded(t, c, keys, 0)
			q := random(r, dim)
			var s CodeQueries
			s.Set(c, [][]float32{q, make([]float32, dim), append(slices.Clone(q[1:]), nan)})
			out := outputs(3, n)
			codes.Estimate(&s, 0, n, out)
			for i := range n {
				if got := out[0][i]; (got != got) != without[i] {
					t.Errorf("%d bits: the estimate of key %d is %v", bits, i, got)
				}
				if out[1][i] != 0 && !without[i] {
					t.Errorf("%d bits: a query of zeros has the estimate %v", bits, out[1][i])
				}
			}
			if out[0][30] != 0 {
				t.Errorf("%d bits: the mean has the estimate %v", bits, out[0][30])
			}
			if scale, offset := s.Unit(2); scale == scale || offset == offset {
				t.Errorf("%d bits: a query with a NaN has logits %v * e + %v", bits, scale, offset)
			}
			least := []float32{-inf, -inf, -inf}
			lists := lists(3, 64)
			if next := codes.Scan(&s, 0, n, 0, least, lists, nil, 1); next != n || len(lists[0].IDs) != n-len(without) {
				t.Errorf("%d bits: scanned to %d, %d candidates of %d", bits, next, len(lists[0].IDs), n-len(without))
			}
			for _, id := range lists[0].IDs {
				if without[int(id)] {
					t.Errorf("%d bits: key %d is a candidate", bits, id)
				}
			}
		}
	})
}

// lists returns n empty lists of candidates with room for so many.
func lists(n, room int) []Candidates {
	l := make([]Candidates, n)
	for i := range l {
		l[i].reset(room)
	}
	return l
}

func TestCodesPanic(t *testing.T) {
	rows := RowsF32(make([]float32, 64*4), 64)
	rot := NewRotation(64, 1)
	c := NewCoder(rot, 2, rows)
	codes := c.Over(make([]byte, c.Bytes(4)), 0)
	codes.Append(rows, 0, 4)
	var s, other CodeQueries
	s.Set(c, [][]float32{make([]float32, 64)})
	other.Set(NewCoder(rot, 2, rows), [][]float32{make([]float32, 64)})
	out := outputs(1, 32)
	for name, f := range map[string]func(){
		"dimension 0":              func() { NewRotation(0, 1) },
		"dimension 513":            func() { NewRotation(MaxCodeDim+1, 1) },
		"0 bits":                   func() { NewCoder(rot, 0, rows) },
		"5 bits":                   func() { NewCoder(rot, 5, rows) },
		"rows of another length":   func() { NewCoder(rot, 2, RowsF32(make([]float32, 32), 32)) },
		"a mean that is none":      func() { NewCoderAround(rot, 2, append(make([]float32, 63), float32(math.NaN()))) },
		"too little memory":        func() { c.Over(make([]byte, c.Bytes(16)-1), 16) },
		"too many keys":            func() { codes.Append(RowsF32(make([]float32, 64*13), 64), 0, 13) },
		"rows beyond the keys":     func() { codes.Append(rows, 3, 5) },
		"keys beyond those coded":  func() { codes.Estimate(&s, 0, 5, out) },
		"queries of another coder": func() { codes.Estimate(&other, 0, 4, out) },
		"no query":                 func() { s.Set(c, nil) },
		"a query too short":        func() { new(CodeQueries).Set(c, [][]float32{make([]float32, 63)}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

// A scan finds what the estimates say, whatever the range, and however often
// it stops for want of room; what it leaves out adds up to the rest.
func TestScan(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(46, 6))
		for trial := range 60 {
			dim, bits := codeDims[r.IntN(10)], 1+r.IntN(4)
			n := r.IntN(3000)
			keys := store(BF16, random(r, n*dim), dim)
			c := NewCoder(NewRotation(dim, 7), bits, keys)
			codes := coded(t, c, keys, r.IntN(40))
			nq := 1 + r.IntN(MaxQueries)
			var qs [][]float32
			for range nq {
				qs = append(qs, random(r, dim))
			}
			lo := r.IntN(n + 1)
			hi := lo + r.IntN(n-lo+1)
			checkScan(t, codes, qs, lo, hi, []float64{0, 0.01, 0.3, 1}[trial%4], 16+r.IntN(200))
		}
	})
}

// checkScan compares a scan, with lists of so much room that are emptied when
// they are full, with the estimates.
func checkScan(t *testing.T, codes *Codes, qs [][]float32, lo, hi int, share float64, room int) {
	t.Helper()
	var s CodeQueries
	s.Set(codes.coder, qs)
	nq := len(qs)
	all, estimates := outputs(nq, hi-lo), outputs(nq, hi-lo)
	codes.Bound(&s, lo, hi, all)
	codes.Estimate(&s, lo, hi, estimates)
	const first, scale = 1000, 0.2
	least, rest := make([]float32, nq), make([]Partial, nq)
	for j := range nq {
		rest[j].Reset()
		least[j] = kthLargest(all[j], int(share*float64(hi-lo)), 0)
	}
	got, into := make([]Candidates, nq), lists(nq, room)
	for next := lo; ; {
		for j := range into {
			into[j].IDs, into[j].Bounds = guarded(t, into[j].IDs[:cap(into[j].IDs)])[:0], guarded(t, into[j].Bounds[:cap(into[j].Bounds)])[:0]
		}
		from := next
		next = codes.Scan(&s, from, hi, first, least, into, rest, scale)
		for j := range into {
			got[j].IDs = append(got[j].IDs, into[j].IDs...)
			got[j].Bounds = append(got[j].Bounds, into[j].Bounds...)
			into[j].IDs, into[j].Bounds = into[j].IDs[:0], into[j].Bounds[:0]
		}
		if next == hi {
			break
		}
		if next <= from || next%blockKeys != 0 {
			t.Fatalf("a scan of [%d, %d) stopped at %d", from, hi, next)
		}
	}
	for j := range nq {
		var want Candidates
		var mass float64
		a, b := s.Unit(j)
		for i, e := range all[j] {
			if e >= least[j] {
				want.IDs, want.Bounds = append(want.IDs, uint32(first+lo+i)), append(want.Bounds, e)
			} else if e == e {
				mass += math.Exp(scale * (float64(a)*float64(estimates[j][i]) + float64(b)))
			}
		}
		if !slices.Equal(got[j].IDs, want.IDs) || !slices.Equal(got[j].Bounds, want.Bounds) {
			t.Fatalf("keys [%d, %d), query %d: %d candidates, want %d", lo, hi, j, len(got[j].IDs), len(want.IDs))
		}
		if lse := float64(rest[j].LSE()); math.Abs(lse-math.Log(mass)) > 1e-4*(1+math.Abs(math.Log(mass))) && (mass > 0 || !math.IsInf(lse, -1)) {
			t.Fatalf("keys [%d, %d), query %d: the rest is %v, want %v", lo, hi, j, lse, math.Log(mass))
		}
	}
}

// The forms that look through estimates: any length and threshold, ties,
// NaN and infinities, and results over the input.
func TestAtLeast(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(47, 7))
		nan, inf := float32(math.NaN()), float32(math.Inf(1))
		for n := 1; n < 300; n++ {
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(r.IntN(20) - 10)
				if v := r.IntN(30); v < 3 {
					x[i] = []float32{nan, inf, -inf}[v]
				}
			}
			least := []float32{-inf, -3, 0, 8, inf, nan}[r.IntN(6)]
			var ids []uint32
			var values []float32
			var sum float64
			for i, v := range x {
				if v >= least {
					ids, values = append(ids, uint32(7+i)), append(values, v)
				}
				if v < least {
					sum += math.Exp(float64(v)*0.5 - 1)
				}
			}
			o := coding()
			g := guarded(t, x)
			if got := o.countAtLeast(&g[0], n, least); got != len(ids) {
				t.Fatalf("%d of %d are at least %v, counted %d", len(ids), n, least, got)
			}
			if got := float64(o.sumExp(&g[0], n, least, 0.5, -1)); !(math.Abs(got-sum) <= 1e-4*sum+1e-30) && !(math.IsInf(sum, 1) && got > 1e30) {
				t.Fatalf("n=%d below %v: sum of exp %v, want %v", n, least, got, sum)
			}
			outIDs, out := guarded(t, make([]uint32, n)), guarded(t, make([]float32, n))
			if r.IntN(2) == 0 {
				out = g
			}
			m := o.takeAtLeast(&g[0], n, 7, least, &outIDs[0], &out[0])
			if !slices.Equal(outIDs[:m], ids) || !slices.Equal(out[:m], values) {
				t.Fatalf("n=%d at least %v: %v %v, want %v %v", n, least, outIDs[:m], out[:m], ids, values)
			}
		}
	})
}

func TestKthLargest(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(48, 8))
		for range 300 {
			n := r.IntN(200)
			x := make([]float32, n)
			numbers := 0
			for i := range x {
				x[i] = float32(r.NormFloat64() * math.Pow(10, float64(r.IntN(20)-10)))
				switch r.IntN(10) {
				case 0:
					x[i] = float32(math.NaN())
					continue
				case 1:
					x[i] = float32(r.IntN(3) - 1)
				}
				numbers++
			}
			k, slack := r.IntN(n+2), r.IntN(3)
			v := kthLargest(x, k, slack)
			more, ties := 0, 0
			for _, e := range x {
				if e > v {
					more++
				} else if e == v {
					ties++
				}
			}
			switch {
			case k == 0:
				if !math.IsInf(float64(v), 1) {
					t.Fatalf("k=0: %v", v)
				}
			case numbers < k:
				if !math.IsInf(float64(v), -1) {
					t.Fatalf("k=%d of %d: %v", k, numbers, v)
				}
			case more+ties < k || more+ties > k+slack && more >= k:
				t.Fatalf("k=%d slack %d: %d above %v, %d equal", k, slack, more, v, ties)
			}
		}
	})
}

func FuzzScan(f *testing.F) {
	f.Add(uint64(1), uint8(64), uint8(1), uint16(100), uint16(3), uint16(90), uint8(4), uint8(10), uint8(20))
	f.Add(uint64(2), uint8(96), uint8(2), uint16(1500), uint16(1023), uint16(1030), uint8(8), uint8(255), uint8(0))
	f.Fuzz(func(t *testing.T, seed uint64, dim, bits uint8, n, from, to uint16, queries, share, room uint8) {
		r := rand.New(rand.NewPCG(seed, 9))
		d, count := 1+int(dim), int(n)%2500
		keys := store(F16, random(r, count*d), d)
		c := NewCoder(NewRotation(d, seed), 1+int(bits)%4, keys)
		codes := c.Over(make([]byte, c.Bytes(count)), 0)
		codes.Append(keys, 0, count)
		lo, hi := int(from)%(count+1), int(to)%(count+1)
		if lo > hi {
			lo, hi = hi, lo
		}
		var qs [][]float32
		for range 1 + int(queries)%MaxQueries {
			qs = append(qs, random(r, d))
		}
		before := active
		defer func() { active = before }()
		var want [][]float32
		for _, l := range levels {
			active = l.ops
			checkScan(t, codes, qs, lo, hi, float64(share)/255, 16+int(room))
			var s CodeQueries
			s.Set(c, qs)
			got := outputs(len(qs), count)
			codes.Estimate(&s, 0, count, got)
			if want == nil {
				want = got
			}
			for j := range got {
				if !slices.Equal(got[j], want[j]) {
					t.Fatalf("level %s: other estimates than in Go", l.name)
				}
			}
		}
	})
}
