package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// narrow generates the rounding of f32 to a 16-bit type, as F32ToBF16 and
// F32ToF16 in rows.go define it.
func (l *level) narrow(t dtype) {
	begin("narrow"+t.name+l.name, "(dst *uint16, src *float32, n int)",
		fmt.Sprintf("rounds the n elements of src to nearest even; n is a multiple of %d.", l.lanes))
	dst, src, n := load("dst"), load("src"), load("n")
	const unordered = 3
	const x, sum, nan, isNaN = 0, 1, 2, 3 // registers; constants follow
	constants := []string{"ulp", "below", "quiet"}
	if t == f16 {
		constants = []string{"sign", "nan"}
	}
	for i, c := range constants {
		l.broadcast(c, 4+i)
	}
	Label("loop")
	SUBQ(U8(l.lanes), n)
	JLT(LabelRef("done"))
	VMOVUPS(Mem{Base: src}, l.v(x))
	if t == bf16 {
		VPSRLD(U8(16), l.v(x), l.v(nan))
		l.and(l.v(4), l.v(nan), l.v(sum)) // of a tie the odd one goes up
		VPADDD(l.v(5), l.v(sum), l.v(sum))
		VPADDD(l.v(x), l.v(sum), l.v(sum))
		VPSRLD(U8(16), l.v(sum), l.v(sum))
		l.or(6, nan, nan)
	} else {
		VMOVAPS(l.v(x), l.v(sum))
		l.and(l.v(4), l.v(x), l.v(nan))
		l.or(5, nan, nan)
	}
	if l.wide() {
		VCMPPS(U8(unordered), l.v(x), l.v(x), K2)
		VMOVAPS(l.v(nan), K2, l.v(sum))
	} else {
		VCMPPS(U8(unordered), l.v(x), l.v(x), l.v(isNaN))
		VBLENDVPS(l.v(isNaN), l.v(nan), l.v(sum), l.v(sum))
	}
	out := Mem{Base: dst}
	switch {
	case t == f16:
		VCVTPS2PH(U8(0), l.v(sum), out)
	case l.wide():
		VPMOVDW(l.v(sum), out)
	default:
		VEXTRACTI128(U8(1), ymm[sum], xmm[x])
		VPACKUSDW(xmm[x], xmm[sum], xmm[x])
		VMOVDQU(xmm[x], out)
	}
	ADDQ(U8(4*l.lanes), src)
	ADDQ(U8(2*l.lanes), dst)
	JMP(LabelRef("loop"))
	Label("done")
	done()
}

func (l *level) or(a, b, to int) {
	if l.wide() {
		VPORD(l.v(a), l.v(b), l.v(to))
	} else {
		VPOR(l.v(a), l.v(b), l.v(to))
	}
}
