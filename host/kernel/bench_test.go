package kernel

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"unsafe"
)

// eachLevel runs a benchmark with the kernels of every level that this CPU
// runs and reports each one's speed as a multiple of the generic level's in
// the same run. amount is the work of one iteration in the given unit: it is
// reported per second where the unit is a rate, else as time per piece.
func eachLevel(b *testing.B, amount float64, unit string, f func()) {
	var generic float64
	for _, l := range levels {
		b.Run(l.name, func(b *testing.B) {
			use(b, l.name)
			f() // touch everything once
			for b.Loop() {
				f()
			}
			t := b.Elapsed().Seconds() / float64(b.N)
			switch unit {
			case "GB/s", "GFLOP/s":
				b.ReportMetric(amount/t/1e9, unit)
			default:
				b.ReportMetric(t*1e9/amount, "ns/"+unit)
			}
			if l.name == "generic" {
				generic = t
			} else if generic > 0 {
				b.ReportMetric(generic/t, "x-generic")
			}
		})
	}
}

// many is 256 MiB of bf16 keys of dimension 128, more than caches hold.
var many = sync.OnceValue(func() Rows {
	const n, dim = 1 << 20, 128
	r := rand.New(rand.NewPCG(31, 1))
	rows := RowsU16(make([]uint16, n*dim), dim, BF16)
	inHugePages(rows.U16)
	for i := range rows.U16 {
		// Sign and mantissa at random, magnitudes from 1/4 to 4.
		rows.U16[i] = uint16(r.Uint32())&0x807f | uint16(125+r.IntN(4))<<7
	}
	// The halves are equal, so that comparing them reads all.
	copy(rows.U16[len(rows.U16)/2:], rows.U16)
	return rows
})

func queriesOf(n, dim int) [][]float32 {
	r := rand.New(rand.NewPCG(32, 2))
	var qs [][]float32
	for range n {
		qs = append(qs, random(r, dim))
	}
	return qs
}

func outputs(n, size int) [][]float32 {
	var out [][]float32
	for range n {
		out = append(out, make([]float32, size))
	}
	return out
}

// BenchmarkReadCeiling is what the memory gives one thread, by simple loops
// that do nothing but read: the comparison of two equal halves of the keys,
// and the largest of them taken as f32. The ceiling is the better one.
func BenchmarkReadCeiling(b *testing.B) {
	keys := many().U16
	data := unsafe.Slice((*byte)(unsafe.Pointer(&keys[0])), 2*len(keys))
	words := unsafe.Slice((*float32)(unsafe.Pointer(&keys[0])), len(keys)/2)
	for _, c := range []struct {
		name string
		read func()
	}{
		{"equal", func() {
			if half := len(data) / 2; !bytes.Equal(data[:half], data[half:]) {
				b.Fatal("the halves differ")
			}
		}},
		{"max", func() {
			if active == nil {
				b.Skip("level generic")
			}
			pieces(len(words), func(lo, n int) { active.maxOf(&words[lo], n) })
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				c.read()
			}
			b.ReportMetric(float64(len(data))*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
		})
	}
}

// Scores of 2^20 bf16 keys of dimension 128 read from memory.
func BenchmarkScoreRange(b *testing.B) {
	keys := many()
	for _, nq := range []int{1, 4, 8} {
		qs, out, scratch := queriesOf(nq, keys.Dim), outputs(nq, 4096), make([]float32, keys.Dim)
		b.Run(fmt.Sprintf("queries%d", nq), func(b *testing.B) {
			eachLevel(b, float64(2*len(keys.U16)), "GB/s", func() {
				for lo := 0; lo < keys.N; lo += 4096 {
					ScoreRange(qs, keys, lo, lo+4096, out, scratch)
				}
			})
		})
	}
}

// The same with queries rounded to bf16, which choose candidates.
func BenchmarkRoundedRange(b *testing.B) {
	keys := many()
	for _, nq := range []int{1, 4, 8} {
		qs, out, scratch := queriesOf(nq, keys.Dim), outputs(nq, 4096), make([]float32, keys.Dim)
		b.Run(fmt.Sprintf("queries%d", nq), func(b *testing.B) {
			eachLevel(b, float64(2*len(keys.U16)), "GB/s", func() {
				for lo := 0; lo < keys.N; lo += 4096 {
					RoundedRange(qs, keys, lo, lo+4096, out, scratch)
				}
			})
		})
	}
}

// Scores of keys that stay in the second-level cache: arithmetic alone.
func BenchmarkScoreRangeCached(b *testing.B) {
	for _, dtype := range dtypes {
		for _, dim := range []int{64, 128} {
			const n = 1024
			rows := store(dtype, random(rand.New(rand.NewPCG(33, 3)), n*dim), dim)
			qs, out, scratch := queriesOf(4, dim), outputs(4, n), make([]float32, dim)
			b.Run(fmt.Sprintf("%v/dim%d", dtype, dim), func(b *testing.B) {
				eachLevel(b, n, "key", func() { ScoreRange(qs, rows, 0, n, out, scratch) })
			})
		}
	}
}

// Scores of lists of 32 random ids over 2^20 bf16 keys.
func BenchmarkScoreList(b *testing.B) {
	keys := many()
	r := rand.New(rand.NewPCG(34, 4))
	ids := make([]uint32, 1<<18)
	for i := range ids {
		ids[i] = uint32(r.IntN(keys.N))
	}
	for _, nq := range []int{1, 4} {
		qs, out, scratch := queriesOf(nq, keys.Dim), outputs(nq, 32), make([]float32, keys.Dim)
		b.Run(fmt.Sprintf("queries%d", nq), func(b *testing.B) {
			eachLevel(b, float64(len(ids)), "key", func() {
				for list := range slices.Chunk(ids, 32) {
					ScoreList(qs, keys, list, out, scratch)
				}
			})
		})
	}
}

// Top-100 of 131,072 bf16 keys of dimension 128, exact and by rounded queries,
// of 8 heads in turn.
func BenchmarkTopK(b *testing.B) {
	keys := many()
	const heads, n = 8, 1 << 17
	for _, c := range []struct {
		name string
		topK func([][]float32, Rows, int, int, uint32, []*TopK, []float32)
	}{{"exact", TopKRange}, {"rounded", RoundedTopKRange}} {
		for _, nq := range []int{1, 4, 8} {
			qs, scratch := queriesOf(nq, keys.Dim), make([]float32, keys.Dim)
			tops := make([]*TopK, nq)
			for i := range tops {
				tops[i] = NewTopK(100)
			}
			b.Run(fmt.Sprintf("%s/queries%d", c.name, nq), func(b *testing.B) {
				eachLevel(b, float64(heads*nq), "query", func() {
					for h := range heads {
						for _, t := range tops {
							t.Reset(100)
						}
						c.topK(qs, keys, h*n, (h+1)*n, 0, tops, scratch)
					}
				})
			})
		}
	}
}

// Linear layers with bf16 weights: of the reference model, and one of
// 2048 x 2048 for a decode step (1 token), a small batch, and a prefill.
func BenchmarkMatMul(b *testing.B) {
	for _, c := range []struct{ n, dim, outs int }{{256, 192, 512}, {1, 2048, 2048}, {4, 2048, 2048}, {256, 2048, 256}} {
		r := rand.New(rand.NewPCG(35, 5))
		w, a := store(BF16, random(r, c.outs*c.dim), c.dim), random(r, c.n*c.dim)
		out, scratch := make([]float32, c.n*c.outs), make([]float32, GEMMScratch(c.dim))
		b.Run(fmt.Sprintf("%dx%dx%d", c.n, c.dim, c.outs), func(b *testing.B) {
			eachLevel(b, float64(2*c.n*c.outs*c.dim), "GFLOP/s", func() {
				for lo := 0; lo < c.outs; lo += 64 { // as a backend splits it
					MatMul(a, c.n, w, lo, lo+64, out[lo:], c.outs, scratch)
				}
			})
		})
	}
}

// Attention of 64 prefill queries and of a decode group of 2 over 4096 bf16
// tokens.
func BenchmarkAttendCausal(b *testing.B) {
	for _, dim := range []int{64, 128} {
		const n = 4096
		r := rand.New(rand.NewPCG(36, 6))
		keys, values := store(BF16, random(r, n*dim), dim), store(BF16, random(r, n*dim), dim)
		for _, nq := range []int{64, 2} {
			q, ps := random(r, nq*dim), make([]Partial, nq)
			for i := range ps {
				ps[i] = partial(dim)
			}
			scratch := make([]float32, CausalScratch(nq, dim))
			b.Run(fmt.Sprintf("dim%d/queries%d", dim, nq), func(b *testing.B) {
				eachLevel(b, float64(4*nq*n*dim), "GFLOP/s", func() {
					AttendCausal(q, nq, 1, n, keys, values, 0, n, 0.125, ps, scratch)
				})
			})
		}
	}
}

// Attention of one query to 100 retrieved tokens out of 2^19.
func BenchmarkAttendList(b *testing.B) {
	keys := many().Slice(0, 1<<19)
	values := many().Slice(1<<19, 1<<20)
	r := rand.New(rand.NewPCG(37, 7))
	ids := make([]uint32, 100<<10)
	for i := range ids {
		ids[i] = uint32(r.IntN(keys.N))
	}
	q, p, scratch := random(r, keys.Dim), partial(keys.Dim), make([]float32, 2*keys.Dim)
	eachLevel(b, float64(len(ids)), "token", func() {
		for list := range slices.Chunk(ids, 100) {
			AttendList(q, keys, values, list, nil, 0.01, &p, scratch)
		}
	})
}

// Arithmetic element by element.
func BenchmarkElementwise(b *testing.B) {
	const n = 4096
	r := rand.New(rand.NewPCG(38, 8))
	x, y, z := random(r, n), random(r, n), make([]float32, n)
	b.Run("exp", func(b *testing.B) {
		eachLevel(b, n, "element", func() { copy(z, x); ExpInPlace(z, 3) })
	})
	b.Run("silu", func(b *testing.B) {
		eachLevel(b, n, "element", func() { copy(z, x); SiLUGate(z, y) })
	})
	b.Run("rmsnorm", func(b *testing.B) {
		eachLevel(b, n, "element", func() { RMSNorm(x, y, 1e-5, z) })
	})
	for _, dtype := range []DType{BF16, F16} {
		rows := store(dtype, x, n)
		b.Run("narrow/"+dtype.String(), func(b *testing.B) {
			eachLevel(b, n, "element", func() { rows.Narrow(0, x) })
		})
	}
	b.Run("ropetable", func(b *testing.B) {
		freq := make([]float32, 64)
		for i := range freq {
			freq[i] = float32(math.Pow(5e5, -float64(i)/64))
		}
		eachLevel(b, 64, "pair", func() { RoPETable(100_000, freq, y[:64], z[:64]) })
	})
	b.Run("rope", func(b *testing.B) {
		eachLevel(b, n/2, "pair", func() { RoPE(z, x[:n/2], y[:n/2]) })
	})
}
