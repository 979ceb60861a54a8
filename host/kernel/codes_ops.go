package kernel

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// codeOps are the forms of what codes are made and read with. The results of
// all levels are the same to the bit, but for sumExp: the forms add in one
// order and never fuse a product with a sum.
type codeOps struct {
	// hadamard multiplies x (n a power of two, at least 32) by s and applies
	// the Hadamard transform, not normalised, neighbours first.
	hadamard func(x, s *float32, n int)
	// gridSums writes the sums of x*x, x*g and g*g over the n elements of x, a
	// multiple of 32, to sums: g is the centre of the grid cell of x, which is
	// floor(x*inv) clamped to [-half, half-1], plus 1/2. Element i adds to lane
	// i%16; lanes are added by halves.
	gridSums func(x *float32, n int, inv, half float32, sums *[3]float32)
	// digits writes the grid cells, counted from 0.
	digits func(x *float32, n int, inv, half float32, out *byte)
	// estimate writes (qj . digits - cj) * scale to oj for the keys of n whole
	// blocks of groups*32 dimensions; by bits-1 and by queries (1, 2, 4).
	// q . digits is exact.
	estimate [4][3]estimateFunc
	// countAtLeast returns how many of the n elements of x are not below
	// least; NaN is below.
	countAtLeast func(x *float32, n int, least float32) int
	// takeAtLeast writes those elements to values and first plus their indices
	// to ids, in order, and returns their number. Both have room for n; values
	// may be x, and what lies behind the results is undefined.
	takeAtLeast func(x *float32, n int, first uint32, least float32, ids *uint32, values *float32) int
	// sumExp returns the sum of exp(scale*x + shift), each within 1e-4 of its
	// value (and about 1e-38 where that is less), over the elements of x that
	// are below limit; NaN is not.
	sumExp func(x *float32, n int, limit, scale, shift float32) float32
}

type estimateFunc = func(q0, q1, q2, q3 *int8, c0, c1, c2, c3 float32, blocks *byte, n, groups int, o0, o1, o2, o3 *float32)

// coding returns the forms in use.
func coding() *codeOps {
	if active != nil && active.codes != nil {
		return active.codes
	}
	return &portableCodes
}

// portableCodes are the forms in Go.
var portableCodes = codeOps{
	hadamard: portableHadamard,
	gridSums: portableGridSums,
	digits:   portableDigits,
	estimate: [4][3]estimateFunc{
		{portableEstimate(1, 1), portableEstimate(1, 2), portableEstimate(1, 4)},
		{portableEstimate(2, 1), portableEstimate(2, 2), portableEstimate(2, 4)},
		{portableEstimate(3, 1), portableEstimate(3, 2), portableEstimate(3, 4)},
		{portableEstimate(4, 1), portableEstimate(4, 2), portableEstimate(4, 4)},
	},
	countAtLeast: portableCountAtLeast,
	takeAtLeast:  portableTakeAtLeast,
	sumExp:       portableSumExp,
}

func portableHadamard(x, s *float32, n int) {
	v := unsafe.Slice(x, n)
	for i, sign := range unsafe.Slice(s, n) {
		v[i] *= sign
	}
	for h := 1; h < n; h *= 2 {
		for i := 0; i < n; i += 2 * h {
			a, b := v[i:i+h], v[i+h:i+2*h]
			for j, u := range a {
				w := b[j]
				a[j], b[j] = u+w, u-w
			}
		}
	}
}

// cell returns the grid cell of x, counted from -half.
func cell(x, inv, half float32) float32 {
	c := float32(math.Floor(float64(x * inv)))
	return min(max(c, -half), half-1)
}

func portableGridSums(x *float32, n int, inv, half float32, sums *[3]float32) {
	var lanes [3][16]float32
	for i, v := range unsafe.Slice(x, n) {
		g := cell(v, inv, half) + 0.5
		lanes[0][i%16] += float32(v * v)
		lanes[1][i%16] += float32(v * g)
		lanes[2][i%16] += float32(g * g)
	}
	for i := range lanes {
		l := &lanes[i]
		for h := 8; h > 0; h /= 2 {
			for j := range h {
				l[j] += l[j+h]
			}
		}
		sums[i] = l[0]
	}
}

func portableDigits(x *float32, n int, inv, half float32, out *byte) {
	digits := unsafe.Slice(out, n)
	for i, v := range unsafe.Slice(x, n) {
		digits[i] = byte(cell(v, inv, half) + half)
	}
}

func portableEstimate(bits, nq int) estimateFunc {
	return func(q0, q1, q2, q3 *int8, c0, c1, c2, c3 float32, blocks *byte, n, groups int, o0, o1, o2, o3 *float32) {
		size := wordBytes * (bits*groups + 1)
		mem := unsafe.Slice(blocks, n*size)
		qs, centres, outs := [4]*int8{q0, q1, q2, q3}, [4]float32{c0, c1, c2, c3}, [4]*float32{o0, o1, o2, o3}
		for j := range nq {
			ints := unsafe.Slice(qs[j], groups*groupDims)
			out := unsafe.Slice(outs[j], n*blockKeys)
			for i := range out {
				block := mem[i/blockKeys*size:][:size]
				words := block[i%blockKeys*4:]
				var sum int32
				for g := 0; g < len(ints); g += groupDims {
					sum += dotGroup(ints[g:g+groupDims], words[g/groupDims*bits*wordBytes:], bits)
				}
				scale := math.Float32frombits(binary.LittleEndian.Uint32(words[size-wordBytes:]))
				out[i] = (float32(sum) - centres[j]) * scale
			}
		}
	}
}

// dotGroup returns the inner product of the digits of 32 dimensions with q.
// words begins at the key's lane of the group's first word.
func dotGroup(q []int8, words []byte, bits int) (sum int32) {
	if bits == 3 {
		return dotGroup(q, words, 2) + 4*dotGroup(q, words[2*wordBytes:], 1)
	}
	for t := 0; len(q) > 0; t++ {
		w := binary.LittleEndian.Uint32(words[t*wordBytes:])
		for shift := 0; shift < 8; shift += bits {
			m := w >> shift
			mask := uint32(1)<<bits - 1
			sum += int32(q[0])*int32(m&mask) + int32(q[1])*int32(m>>8&mask) +
				int32(q[2])*int32(m>>16&mask) + int32(q[3])*int32(m>>24&mask)
			q = q[4:]
		}
	}
	return sum
}

func portableCountAtLeast(x *float32, n int, least float32) (count int) {
	for _, v := range unsafe.Slice(x, n) {
		if v >= least {
			count++
		}
	}
	return count
}

func portableTakeAtLeast(x *float32, n int, first uint32, least float32, ids *uint32, values *float32) (count int) {
	id, value := unsafe.Slice(ids, n), unsafe.Slice(values, n)
	for i, v := range unsafe.Slice(x, n) {
		if v >= least {
			id[count], value[count] = first+uint32(i), v
			count++
		}
	}
	return count
}

func portableSumExp(x *float32, n int, limit, scale, shift float32) (sum float32) {
	for _, v := range unsafe.Slice(x, n) {
		if v < limit {
			sum += exp32(v*scale + shift)
		}
	}
	return sum
}
