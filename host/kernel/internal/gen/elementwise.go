package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// AVX2 keeps the mask of the tail in this register; AVX-512 in K1.
const mask = 15

// elements is one step of a loop over f32 vectors: a full one, or the tail.
type elements struct {
	*level
	k    GPVirtual // index of the first element
	tail bool
}

// read loads the step's elements of the vector at p to register v; lanes
// beyond a tail are zero.
func (e elements) read(p Register, v VecPhysical) {
	m := f32.at(p, e.k)
	switch {
	case !e.tail:
		VMOVUPS(m, v)
	case e.wide():
		VMOVUPS_Z(m, K1, v)
	case v.Size() == 16:
		VMASKMOVPS(m, xmm[mask], v)
	default:
		VMASKMOVPS(m, ymm[mask], v)
	}
}

// write stores register v to the step's elements of the vector at p.
func (e elements) write(v VecPhysical, p Register) {
	m := f32.at(p, e.k)
	switch {
	case !e.tail:
		VMOVUPS(v, m)
	case e.wide():
		VMOVUPS(v, K1, m)
	case v.Size() == 16:
		VMASKMOVPS(v, xmm[mask], m)
	default:
		VMASKMOVPS(v, ymm[mask], m)
	}
}

// each generates a loop over n elements, lanes at once.
func (l *level) each(lanes int, step func(e elements)) {
	n, end, k := load("n"), GP64(), GP64()
	MOVQ(n, end)
	ANDQ(I8(-lanes), end)
	XORQ(k, k)
	CMPQ(k, end)
	JGE(LabelRef("tail"))
	Label("loop")
	step(elements{l, k, false})
	ADDQ(U8(lanes), k)
	CMPQ(k, end)
	JLT(LabelRef("loop"))
	Label("tail")
	SUBQ(k, n)
	JLE(LabelRef("done"))
	if l.wide() {
		tailMask(mem("n"), lanes)
	} else {
		table := GP64()
		LEAQ(l.masks.Offset(32), table)
		NEGQ(n)
		VMOVUPS(f32.at(table, n), ymm[mask])
	}
	step(elements{l, k, true})
	Label("done")
}

func (l *level) widen(t dtype) {
	begin("widen"+t.name+l.name, "(dst *float32, src *uint16, n int)",
		"writes the n elements of src as f32 to dst.")
	dst, src, n := load("dst"), load("src"), load("n")
	end, k := GP64(), GP64()
	MOVQ(n, end)
	ANDQ(I8(-l.lanes), end)
	XORQ(k, k)
	Label("loop")
	CMPQ(k, end)
	JGE(LabelRef("tail"))
	l.load(t, t.at(src, k), 0, false)
	VMOVUPS(l.v(0), f32.at(dst, k))
	ADDQ(U8(l.lanes), k)
	JMP(LabelRef("loop"))
	Label("tail")
	CMPQ(k, n)
	JGE(LabelRef("done"))
	if l.wide() {
		tailMask(mem("n"), l.lanes)
		l.load(t, t.at(src, k), 0, true)
		VMOVUPS(l.v(0), K1, f32.at(dst, k))
	} else {
		loadOne(t, t.at(src, k), 0, GP32())
		VMOVSS(X0, f32.at(dst, k))
		INCQ(k)
		JMP(LabelRef("tail"))
	}
	Label("done")
	done()
}

func (l *level) axpy() {
	begin("axpy"+l.name, "(w float32, x, y *float32, n int)",
		"adds w*x to y (n each).")
	x, y := load("x"), load("y")
	VBROADCASTSS(mem("w"), l.v(0))
	l.each(l.lanes, func(e elements) {
		e.read(x, l.v(1))
		e.read(y, l.v(2))
		VFMADD231PS(l.v(0), l.v(1), l.v(2))
		e.write(l.v(2), y)
	})
	done()
}

func (l *level) scale() {
	begin("scale"+l.name, "(c float32, x *float32, n int)",
		"multiplies the n elements of x by c.")
	x := load("x")
	VBROADCASTSS(mem("c"), l.v(0))
	l.each(l.lanes, func(e elements) {
		e.read(x, l.v(1))
		VMULPS(l.v(0), l.v(1), l.v(1))
		e.write(l.v(1), x)
	})
	done()
}

// across reduces register 0 to its first lane with op.
func (l *level) across(op func(ops ...Op)) {
	if l.wide() {
		VEXTRACTF64X4(U8(1), Z0, Y1)
		op(Y1, Y0, Y0)
	}
	VEXTRACTF128(U8(1), Y0, X1)
	op(X1, X0, X0)
	VMOVHLPS(X0, X0, X1)
	op(X1, X0, X0)
	VMOVSHDUP(X0, X1)
	op(X1, X0, X0)
}

func (l *level) maxOf() {
	begin("maxOf"+l.name, "(x *float32, n int) float32",
		"returns the largest of the n elements of x that are numbers, -Inf when there is none.")
	x := load("x")
	l.broadcast("neginf", 0)
	l.each(l.lanes, func(e elements) {
		switch {
		case !e.tail:
			VMOVUPS(f32.at(x, e.k), l.v(1))
		case l.wide():
			VMOVAPS(Z0, Z1)
			VMOVUPS(f32.at(x, e.k), K1, Z1)
		default:
			e.read(x, Y2)
			VBLENDVPS(ymm[mask], Y2, Y0, Y1)
		}
		// With a NaN in either place the result is the second source.
		VMAXPS(l.v(0), l.v(1), l.v(0))
	})
	l.across(VMAXPS)
	VMOVSS(X0, result())
	done()
}

const notBelow = 0x1d // greater or equal, ordered, quiet

func (l *level) firstAtLeast() {
	begin("firstAtLeast"+l.name, "(x *float32, n int, least float32) int",
		"returns the index of the first of the n elements of x that is not below least, n when there is none; a NaN is below.")
	x := load("x")
	bits := GP32()
	at := GP64()
	VBROADCASTSS(mem("least"), l.v(0))
	l.each(l.lanes, func(e elements) {
		e.read(x, l.v(1))
		if l.wide() {
			if e.tail {
				VCMPPS(U8(notBelow), l.v(0), l.v(1), K1, K2)
			} else {
				VCMPPS(U8(notBelow), l.v(0), l.v(1), K2)
			}
			KMOVW(K2, bits)
		} else {
			VCMPPS(U8(notBelow), l.v(0), l.v(1), l.v(1))
			if e.tail {
				VANDPS(ymm[mask], l.v(1), l.v(1))
			}
			VMOVMSKPS(l.v(1), bits)
		}
		TESTL(bits, bits)
		MOVQ(e.k, at)
		JNE(LabelRef("found"))
	})
	MOVQ(mem("n"), at)
	MOVQ(at, result())
	done()
	Label("found")
	BSFL(bits, bits)
	ADDQ(bits.As64(), at)
	MOVQ(at, result())
	done()
}

// exponential is the arithmetic of exp32 in exp.go on whole vectors: it
// replaces register 0 and uses 1 to 3. The constants sit in registers from 4.
type exponential struct{ *level }

func (x exponential) setup() {
	for i, name := range []string{"log2e", "magic", "ln2hi", "ln2lo", "least", "most"} {
		x.broadcast(name, 4+i)
	}
	if x.wide() {
		for i, c := range series {
			x.broadcast(c, coefficients+i)
		}
	}
}

// series are the coefficients of the polynomial, highest first. AVX-512 has
// registers for them, from coefficients on.
var series = []string{"c6", "c5", "c4", "c3", "half", "one", "one"}

const coefficients = 16

func (x exponential) step() {
	v := x.v
	log2e, magic, ln2hi, ln2lo, least, most := v(4), v(5), v(6), v(7), v(8), v(9)
	// What must become 0 is remembered; NaN is not part of it.
	const notLessEqual = 0x16 // or unordered, quiet
	if x.wide() {
		VCMPPS(U8(notLessEqual), least, v(0), K2)
	} else {
		VCMPPS(U8(notLessEqual), least, v(0), v(10))
	}
	VMINPS(v(0), most, v(0)) // the second source, a NaN too, where unordered
	VMOVAPS(magic, v(1))
	VFMADD231PS(v(0), log2e, v(1))
	VSUBPS(magic, v(1), v(1)) // n
	VFNMADD231PS(v(1), ln2hi, v(0))
	VFNMADD231PS(v(1), ln2lo, v(0)) // r
	if x.wide() {
		VMOVAPS(v(coefficients), v(2))
	} else {
		VBROADCASTSS(x.f32s["c6"], v(2))
	}
	for i, c := range series[1:] {
		if x.wide() {
			VFMADD213PS(v(coefficients+1+i), v(0), v(2))
			continue
		}
		VBROADCASTSS(x.f32s[c], v(3))
		VFMADD213PS(v(3), v(0), v(2))
	}
	if x.wide() {
		VSCALEFPS_Z(v(1), v(2), K2, v(0))
		return
	}
	// 2^n in two factors, because 2^128 is none.
	VCVTPS2DQ(v(1), v(1))
	VPSRAD(U8(1), v(1), v(3))
	VPSUBD(v(3), v(1), v(1))
	one := v(0)
	VBROADCASTSS(x.f32s["one"], one)
	for _, n := range []VecPhysical{v(1), v(3)} {
		VPSLLD(U8(23), n, n)
		VPADDD(one, n, n) // the exponent field of 1 is the bias
		VMULPS(n, v(2), v(2))
	}
	VANDPS(v(10), v(2), v(0))
}

func (l *level) expSum() {
	begin("expSum"+l.name, "(x *float32, n int, shift float32) float32",
		"replaces the n elements of x by exp(x - shift) and returns their sum.")
	x := load("x")
	exp := exponential{l}
	exp.setup()
	VBROADCASTSS(mem("shift"), l.v(11))
	l.zero(12)
	l.each(l.lanes, func(e elements) {
		e.read(x, l.v(0))
		VSUBPS(l.v(11), l.v(0), l.v(0))
		exp.step()
		e.write(l.v(0), x)
		switch {
		case !e.tail:
			VADDPS(l.v(0), l.v(12), l.v(12))
		case l.wide():
			VADDPS(l.v(0), l.v(12), K1, l.v(12))
		default:
			VANDPS(ymm[mask], l.v(0), l.v(0))
			VADDPS(l.v(0), l.v(12), l.v(12))
		}
	})
	VMOVAPS(l.v(12), l.v(0))
	l.across(VADDPS)
	VMOVSS(X0, result())
	done()
}

func (l *level) siluGate() {
	begin("siluGate"+l.name, "(gate, up *float32, n int)",
		"writes gate / (1 + exp(-gate)) * up to gate (n each).")
	gate, up := load("gate"), load("up")
	exp := exponential{l}
	exp.setup()
	l.broadcast("sign", 11)
	l.broadcast("one", 12)
	l.each(l.lanes, func(e elements) {
		e.read(gate, l.v(13))
		VXORPS(l.v(11), l.v(13), l.v(0))
		exp.step()
		VADDPS(l.v(12), l.v(0), l.v(0))
		VDIVPS(l.v(0), l.v(13), l.v(0))
		e.read(up, l.v(13))
		VMULPS(l.v(13), l.v(0), l.v(0))
		e.write(l.v(0), gate)
	})
	done()
}

func (l *level) sumSquares() {
	begin("sumSquares"+l.name, "(x *float32, n int) float64",
		"returns the sum of the squares of the n elements of x, formed in f64.")
	x := load("x")
	l.zero(0)
	l.each(l.lanes/2, func(e elements) {
		half := xmm[1]
		if l.wide() {
			half = ymm[1]
		}
		e.read(x, half)
		VCVTPS2PD(half, l.v(1))
		VFMADD231PD(l.v(1), l.v(1), l.v(0))
	})
	if l.wide() {
		VEXTRACTF64X4(U8(1), Z0, Y1)
		VADDPD(Y1, Y0, Y0)
	}
	VEXTRACTF128(U8(1), Y0, X1)
	VADDPD(X1, X0, X0)
	VHADDPD(X0, X0, X0)
	VMOVSD(X0, result())
	done()
}

func (l *level) normMul() {
	begin("normMul"+l.name, "(x, weight *float32, inv float32, out *float32, n int)",
		"writes x * inv * weight to out (n each).")
	x, weight, out := load("x"), load("weight"), load("out")
	VBROADCASTSS(mem("inv"), l.v(0))
	l.each(l.lanes, func(e elements) {
		e.read(x, l.v(1))
		e.read(weight, l.v(2))
		VMULPS(l.v(0), l.v(1), l.v(1))
		VMULPS(l.v(2), l.v(1), l.v(1))
		e.write(l.v(1), out)
	})
	done()
}

func (l *level) rope() {
	begin("rope"+l.name, "(a, b, cos, sin *float32, n int)",
		"rotates the n pairs (a, b) by the angles whose cosines and sines are given.")
	a, b, cos, sin := load("a"), load("b"), load("cos"), load("sin")
	l.each(l.lanes, func(e elements) {
		for i, p := range []Register{a, b, cos, sin} {
			e.read(p, l.v(i))
		}
		VMULPS(l.v(3), l.v(1), l.v(4)) // b sin
		VFMSUB231PS(l.v(2), l.v(0), l.v(4))
		VMULPS(l.v(3), l.v(0), l.v(5)) // a sin
		VFMADD231PS(l.v(2), l.v(1), l.v(5))
		e.write(l.v(4), a)
		e.write(l.v(5), b)
	})
	done()
}
