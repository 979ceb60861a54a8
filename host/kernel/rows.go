package kernel

import (
	"fmt"
	"math"
	"unsafe"
)

// MaxQueries is the largest number of queries that one kernel call takes.
const MaxQueries = 8

// DType is the element type of stored rows.
type DType uint8

// Element types of keys, values and weights.
const (
	F32  DType = iota // IEEE 754 binary32
	BF16              // bfloat16: the upper half of a binary32
	F16               // IEEE 754 binary16
)

// String returns the name used in configuration files and messages.
func (d DType) String() string {
	switch d {
	case F32:
		return "f32"
	case BF16:
		return "bf16"
	case F16:
		return "f16"
	}
	return fmt.Sprintf("dtype(%d)", uint8(d))
}

// Size returns the bytes of one element.
func (d DType) Size() int {
	if d == F32 {
		return 4
	}
	return 2
}

// Rows is a row-major matrix of N rows and Dim columns. The element slice
// that matches DType is set (F32 for [F32], U16 for [BF16] and [F16]) and is
// borrowed: the owner of the memory must outlive every use.
type Rows struct {
	DType DType
	Dim   int
	N     int
	F32   []float32
	U16   []uint16
}

// RowsF32 wraps data (length a multiple of dim) as f32 rows.
func RowsF32(data []float32, dim int) Rows {
	return Rows{DType: F32, Dim: dim, N: len(data) / dim, F32: data}
}

// RowsU16 wraps data (length a multiple of dim) as bf16 or f16 rows.
func RowsU16(data []uint16, dim int, dtype DType) Rows {
	return Rows{DType: dtype, Dim: dim, N: len(data) / dim, U16: data}
}

// Slice returns rows [lo, hi) without copying.
func (r Rows) Slice(lo, hi int) Rows {
	s := Rows{DType: r.DType, Dim: r.Dim, N: hi - lo}
	if r.DType == F32 {
		s.F32 = r.F32[lo*r.Dim : hi*r.Dim]
	} else {
		s.U16 = r.U16[lo*r.Dim : hi*r.Dim]
	}
	return s
}

// Widen writes row i as f32 to dst (length Dim).
func (r Rows) Widen(i int, dst []float32) {
	lo, hi := i*r.Dim, (i+1)*r.Dim
	if active != nil && r.DType != F32 && r.Dim > 0 {
		active.widenRows(r, i, 1, dst)
		return
	}
	switch r.DType {
	case F32:
		copy(dst, r.F32[lo:hi])
	case BF16:
		row := r.U16[lo:hi]
		dst = dst[:len(row)]
		for j, b := range row {
			dst[j] = bf16ToF32(b)
		}
	default:
		row := r.U16[lo:hi]
		dst = dst[:len(row)]
		for j, b := range row {
			dst[j] = F16ToF32(b)
		}
	}
}

// Narrow stores src (length Dim) as row i, rounding to nearest even.
func (r Rows) Narrow(i int, src []float32) {
	lo, hi := i*r.Dim, (i+1)*r.Dim
	switch r.DType {
	case F32:
		copy(r.F32[lo:hi], src)
	default:
		narrow(r.DType, r.U16[lo:hi], src)
	}
}

// narrow rounds src to dst, of the same length and a 16-bit dtype.
func narrow(dtype DType, dst []uint16, src []float32) {
	src = src[:len(dst)]
	if active != nil && active.narrow[dtype] != nil {
		// The vector forms take whole registers.
		whole := len(src) &^ 15
		pieces(whole, func(at, n int) { active.narrow[dtype](&dst[at], &src[at], n) })
		dst, src = dst[whole:], src[whole:]
	}
	if dtype == BF16 {
		for j, v := range src {
			dst[j] = F32ToBF16(v)
		}
		return
	}
	for j, v := range src {
		dst[j] = F32ToF16(v)
	}
}

// F32ToBF16 rounds to nearest even; NaN stays NaN.
func F32ToBF16(v float32) uint16 {
	b := math.Float32bits(v)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40
	}
	return uint16((b + 0x7fff + (b>>16)&1) >> 16)
}

// bf16ToF32 widens a bfloat16.
func bf16ToF32(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// F32ToF16 rounds to nearest even; values beyond the range become infinities,
// NaN stays NaN.
func F32ToF16(v float32) uint16 {
	b := math.Float32bits(v)
	sign := uint16(b>>16) & 0x8000
	exp := int(b>>23) & 0xff
	man := b & 0x7fffff
	switch {
	case exp == 0xff && man != 0:
		return sign | 0x7e00
	case exp-127 > 15:
		return sign | 0x7c00
	case exp-127 >= -14: // normal; a carry out of the mantissa bumps the exponent
		h := uint32(exp-112)<<10 | man>>13
		return sign | uint16(h+roundUp(man, 13, h))
	case exp-127 >= -25: // subnormal
		man |= 0x800000
		shift := uint(126 - exp)
		h := man >> shift
		return sign | uint16(h+roundUp(man, shift, h))
	}
	return sign
}

// roundUp is 1 when dropping the low shift bits of man rounds away from zero
// under round-half-even; h is the truncated result.
func roundUp(man uint32, shift uint, h uint32) uint32 {
	rest, half := man&(1<<shift-1), uint32(1)<<(shift-1)
	if rest > half || rest == half && h&1 == 1 {
		return 1
	}
	return 0
}

// F16ToF32 widens an IEEE binary16.
func F16ToF32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp := uint32(h>>10) & 0x1f
	man := uint32(h & 0x3ff)
	switch exp {
	case 0: // zero and subnormals: man * 2^-24
		f := float32(man) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | man<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | man<<13)
}

// Elements returns little-endian bytes as elements without copying; bytes
// beyond the last whole element are left out. It reports false when the bytes
// are not aligned or the CPU is not little-endian.
func Elements[T uint16 | float32](data []byte) ([]T, bool) {
	var t T
	p, size := unsafe.Pointer(unsafe.SliceData(data)), unsafe.Sizeof(t)
	if one := uint16(1); *(*byte)(unsafe.Pointer(&one)) == 0 || uintptr(p)%size != 0 {
		return nil, false
	}
	return unsafe.Slice((*T)(p), len(data)/int(size)), true
}
