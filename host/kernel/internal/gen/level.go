package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// level is an instruction set: AVX2 with FMA and F16C, or AVX-512 F+BW+VL+DQ.
type level struct {
	name  string // suffix of the functions' names
	lanes int    // f32 in a vector register
	vnni  bool   // AVX-512 with VPDPBUSD

	masks   Mem            // AVX2: eight words of ones, then eight of zeros
	f32s    map[string]Mem // constants
	vectors map[string]Mem // constants of a whole register
}

func (l *level) wide() bool { return l.lanes == 16 }

// v returns vector register i at the level's width.
func (l *level) v(i int) VecPhysical {
	if l.wide() {
		return zmm[i]
	}
	return ymm[i]
}

var (
	zmm = [32]VecPhysical{
		Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
		Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31,
	}
	ymm = [32]VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15,
		Y16, Y17, Y18, Y19, Y20, Y21, Y22, Y23, Y24, Y25, Y26, Y27, Y28, Y29, Y30, Y31}
	xmm = [32]VecPhysical{X0, X1, X2, X3, X4, X5, X6, X7, X8, X9, X10, X11, X12, X13, X14, X15,
		X16, X17, X18, X19, X20, X21, X22, X23, X24, X25, X26, X27, X28, X29, X30, X31}
)

// dtype is the stored element type of rows.
type dtype struct {
	name string
	size int // bytes
}

var (
	f32  = dtype{"F32", 4}
	bf16 = dtype{"BF16", 2}
	f16  = dtype{"F16", 2}
)

// at returns the address of element k of the row at base.
func (t dtype) at(base, k Register) Mem { return Mem{Base: base, Index: k, Scale: uint8(t.size)} }

// load widens the level's number of elements to v; when tail is set, only
// those that the tail mask K1 of AVX-512 names.
func (l *level) load(t dtype, m Mem, v int, tail bool) {
	z := l.v(v)
	switch {
	case t == f32 && tail:
		VMOVUPS_Z(m, K1, z)
	case t == f32:
		VMOVUPS(m, z)
	case tail:
		y := zmm[v].AsY()
		VMOVDQU16_Z(m, K1, y)
		if t == bf16 {
			VPMOVZXWD(y, z)
			VPSLLD(U8(16), z, z)
		} else {
			VCVTPH2PS(y, z)
		}
	case t == bf16:
		VPMOVZXWD(m, z)
		VPSLLD(U8(16), z, z)
	default:
		VCVTPH2PS(m, z)
	}
}

// loadOne widens one element to the first lane of vector register v and
// clears the other lanes. t32 is a scratch register.
func loadOne(t dtype, m Mem, v int, t32 Register) {
	x := xmm[v]
	if t == f32 {
		VMOVSS(m, x)
		return
	}
	MOVWLZX(m, t32)
	if t == bf16 {
		SHLL(U8(16), t32)
		VMOVD(t32, x)
	} else {
		VMOVD(t32, x)
		VCVTPH2PS(x, x)
	}
}

// mem returns the stack slot of a parameter, for instructions that read it in
// place.
func mem(name string) Mem {
	b, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

func result() Mem {
	b, err := ReturnIndex(0).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

func load(name string) GPVirtual {
	r := GP64()
	Load(Param(name), r)
	return r
}

// tailMask sets K1 to the low n modulo lanes bits, n being a length in
// memory.
func tailMask(n Mem, lanes int) {
	MOVQ(n, RCX)
	ANDQ(U8(lanes-1), RCX)
	m := GP32()
	MOVL(U32(1), m)
	SHLL(CL, m)
	DECL(m)
	KMOVW(m, K1)
}

// zero clears a vector register, one of the first 16: the short form needs
// no execution and clears the upper parts as well.
func (l *level) zero(v int) { VXORPS(xmm[v], xmm[v], xmm[v]) }

func done() {
	VZEROUPPER()
	RET()
}

// bits returns an f32 as an immediate.
func bits(f float32) U32 { return U32(math.Float32bits(f)) }

func (l *level) constants() {
	if !l.wide() {
		l.masks = GLOBL("masks", RODATA|NOPTR)
		for i := range 8 {
			DATA(4*i, U32(0xffffffff))
		}
		for i := range 8 {
			DATA(32+4*i, U32(0))
		}
	}
	l.f32s, l.vectors = map[string]Mem{}, map[string]Mem{}
	for _, c := range []struct {
		name string
		bits U32
	}{
		{"log2e", bits(1.44269504088896341)}, {"ln2hi", bits(0.693359375)}, {"ln2lo", bits(-2.12194440e-4)},
		{"magic", bits(12582912)}, {"least", bits(-87.3)}, {"most", bits(89)}, {"one", bits(1)}, {"half", bits(0.5)},
		{"c6", bits(1.0 / 720)}, {"c5", bits(1.0 / 120)}, {"c4", bits(1.0 / 24)}, {"c3", bits(1.0 / 6)},
		{"sign", U32(0x80000000)}, {"inf", U32(0x7f800000)}, {"neginf", U32(0xff800000)},
		{"s3", bits(-1.9515295891e-4)}, {"s2", bits(8.3321608736e-3)}, {"s1", bits(-1.6666654611e-1)},
		{"cos3", bits(2.443315711809948e-5)}, {"cos2", bits(-1.388731625493765e-3)}, {"cos1", bits(4.166664568298827e-2)}, {"minushalf", bits(-0.5)},
		{"upper", U32(0xffff0000)}, {"three", U32(3)},
		{"ulp", U32(1)}, {"below", U32(0x7fff)}, {"quiet", U32(0x40)}, {"nan", U32(0x7fc00000)},
	} {
		l.f32s[c.name] = GLOBL(c.name, RODATA|NOPTR)
		DATA(0, c.bits)
	}
}

// lanesOf returns a constant of 16 lanes, written where it is first asked for.
func (l *level) lanesOf(name string) Mem {
	if m, ok := l.vectors[name]; ok {
		return m
	}
	value := map[string]func(i int) int{
		"evens": func(i int) int { return 2 * i },
		"odds":  func(i int) int { return 2*i + 1 },
		"tags":  func(i int) int { return i%4*4 + i/4 },
	}[name]
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 16 {
		DATA(4*i, U32(value(i)))
	}
	l.vectors[name] = m
	return m
}

// broadcast fills v with a constant.
func (l *level) broadcast(name string, v int) { VBROADCASTSS(l.f32s[name], l.v(v)) }

// begin starts a function.
func begin(name, signature, doc string) {
	TEXT(name, NOSPLIT, "func"+signature)
	Doc(name + " " + doc)
}
