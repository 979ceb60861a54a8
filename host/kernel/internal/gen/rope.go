package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// ropeTable generates sines and cosines of f32 angles: reduced to [-pi/4,
// pi/4] in f64 and evaluated there by polynomials in f32 (those of the Cephes
// library), on half a register at a time.
func (l *level) ropeTable() {
	begin("ropeTable"+l.name, "(pos float32, invFreq, cos, sin *float32, n int)",
		"writes the cosines and sines of pos*invFreq, n each.")
	half := xmm
	if l.wide() {
		half = ymm
	}
	f64 := func(name string, x float64) Mem {
		m := GLOBL(name, RODATA|NOPTR)
		DATA(0, U64(math.Float64bits(x)))
		return m
	}
	const (
		angle, turns, quadrant = 0, 1, 2
		z, sine, cosine, t     = 3, 4, 5, 6
		pos, perTurn, magic    = 7, 8, 9
		high, low, sign        = 10, 11, 12
	)
	invFreq, cos, sin := load("invFreq"), load("cos"), load("sin")
	VBROADCASTSS(mem("pos"), half[pos])
	VBROADCASTSD(f64("quarters", 2/math.Pi), l.v(perTurn))
	VBROADCASTSD(f64("magic64", 3<<51), l.v(magic)) // adding it rounds to an integer, in the low bits
	VBROADCASTSD(f64("quarterHigh", math.Pi/2), l.v(high))
	VBROADCASTSD(f64("quarterLow", 6.123233995736766e-17), l.v(low))
	VBROADCASTSS(l.f32s["sign"], half[sign])
	poly := func(v int, c ...string) { // v = the polynomial in z
		VBROADCASTSS(l.f32s[c[0]], half[v])
		for _, name := range c[1:] {
			VBROADCASTSS(l.f32s[name], half[t])
			VFMADD213PS(half[t], half[z], half[v])
		}
	}
	l.each(l.lanes/2, func(e elements) {
		x := half[angle]
		e.read(invFreq, x)
		VMULPS(half[pos], x, x)
		VCVTPS2PD(x, l.v(angle))
		VMOVAPD(l.v(magic), l.v(turns))
		VFMADD231PD(l.v(perTurn), l.v(angle), l.v(turns))
		if l.wide() {
			VPMOVQD(zmm[turns], ymm[quadrant])
		} else {
			VEXTRACTF128(U8(1), ymm[turns], xmm[quadrant])
			VSHUFPS(U8(0x88), xmm[quadrant], xmm[turns], xmm[quadrant])
		}
		VSUBPD(l.v(magic), l.v(turns), l.v(turns))
		VFNMADD231PD(l.v(high), l.v(turns), l.v(angle))
		VFNMADD231PD(l.v(low), l.v(turns), l.v(angle))
		if l.wide() {
			VCVTPD2PS(zmm[angle], x)
		} else {
			VCVTPD2PSY(ymm[angle], x)
		}
		VMULPS(x, x, half[z])
		poly(sine, "s3", "s2", "s1")
		VMULPS(half[z], x, half[t])
		VFMADD213PS(x, half[t], half[sine])
		poly(cosine, "cos3", "cos2", "cos1", "minushalf", "one")
		// Odd quarters swap the two; the sine is negative in the second half
		// of a turn, the cosine a quarter earlier.
		VPSLLD(U8(31), half[quadrant], half[t])
		VBLENDVPS(half[t], half[cosine], half[sine], half[z])
		VBLENDVPS(half[t], half[sine], half[cosine], half[cosine])
		VPSLLD(U8(30), half[quadrant], half[sine])
		VPXOR(half[sine], half[t], half[t])
		for _, v := range []int{sine, t} {
			VPAND(half[sign], half[v], half[v])
		}
		VPXOR(half[sine], half[z], half[z])
		VPXOR(half[t], half[cosine], half[cosine])
		e.write(half[z], sin)
		e.write(half[cosine], cos)
	})
	done()
}
