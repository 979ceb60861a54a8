package main

import (
	"fmt"
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Codes lie in blocks of 16 keys, see codes.go of package kernel: a word is
// 64 bytes, 32 bits a key; 32 dimensions take as many words as a code has bits.
const (
	blockKeys = 16
	groupDims = 32
	wordBytes = 4 * blockKeys
)

// codes generates what codes are made and read with.
func (l *level) codes() {
	for bits := 1; bits <= 4; bits++ {
		for _, nq := range []int{1, 2, 4} {
			l.estimate(bits, nq)
		}
	}
	if l.vnni {
		return // the others are those of AVX-512
	}
	for _, c := range []struct {
		name  string
		value float32
	}{
		{"e1", math.Ln2}, {"e2", math.Ln2 * math.Ln2 / 2}, {"e3", math.Ln2 * math.Ln2 * math.Ln2 / 6},
		{"e4", math.Ln2 * math.Ln2 * math.Ln2 * math.Ln2 / 24}, {"leastpower", -126}, {"mostpower", 127},
	} {
		l.f32s[c.name] = GLOBL(c.name, RODATA|NOPTR)
		DATA(0, bits(c.value))
	}
	l.hadamard()
	l.gridSums()
	l.digits()
	l.countAtLeast()
	l.takeAtLeast()
	l.sumExp()
}

// words defines a constant of a 32-bit word a lane.
func (l *level) words(name string, word func(lane int) uint32) Mem {
	m := GLOBL(name, RODATA|NOPTR)
	for i := range l.lanes {
		DATA(4*i, U32(word(i)))
	}
	return m
}

// hadamard generates the transform in place, stage by stage: within vectors
// first, then between them.
func (l *level) hadamard() {
	begin("hadamard"+l.name, "(x, s *float32, n int)",
		"multiplies the n elements of x, a power of two from 32 on, by those of s and applies the Hadamard transform, not normalised.")
	x, s, n := load("x"), load("s"), load("n")
	k := GP64()
	for i, h := 0, 1; h < l.lanes; i, h = i+1, 2*h {
		VMOVUPS(l.words(fmt.Sprintf("second%d", h), func(lane int) uint32 { return uint32(lane/h%2) << 31 }), l.v(12+i))
	}
	XORQ(k, k)
	Label("within")
	VMOVUPS(f32.at(x, k), l.v(0))
	VMULPS(f32.at(s, k), l.v(0), l.v(0))
	for i, h := 0, 1; h < l.lanes; i, h = i+1, 2*h {
		// Each lane's partner plus the lane, negated if it is the second.
		switch {
		case h == 1:
			VPERMILPS(U8(0xb1), l.v(0), l.v(1))
		case h == 2:
			VPERMILPS(U8(0x4e), l.v(0), l.v(1))
		case h == 4 && !l.wide():
			VPERM2F128(U8(1), Y0, Y0, Y1)
		case h == 4:
			VSHUFF32X4(U8(0xb1), Z0, Z0, Z1)
		case h == 8:
			VSHUFF32X4(U8(0x4e), Z0, Z0, Z1)
		}
		if l.wide() {
			VPXORD(l.v(12+i), l.v(0), l.v(0))
		} else {
			VXORPS(l.v(12+i), l.v(0), l.v(0))
		}
		VADDPS(l.v(0), l.v(1), l.v(0))
	}
	VMOVUPS(l.v(0), f32.at(x, k))
	ADDQ(U8(l.lanes), k)
	CMPQ(k, n)
	JLT(LabelRef("within"))

	h, i, end, a, b := GP64(), GP64(), GP64(), GP64(), GP64()
	MOVQ(U32(l.lanes), h)
	LEAQ(f32.at(x, n), end)
	Label("stage")
	CMPQ(h, n)
	JGE(LabelRef("done"))
	MOVQ(x, a)
	Label("pairs")
	LEAQ(f32.at(a, h), b)
	XORQ(i, i)
	Label("pair")
	VMOVUPS(f32.at(a, i), l.v(0))
	VMOVUPS(f32.at(b, i), l.v(1))
	VADDPS(l.v(1), l.v(0), l.v(2))
	VSUBPS(l.v(1), l.v(0), l.v(3))
	VMOVUPS(l.v(2), f32.at(a, i))
	VMOVUPS(l.v(3), f32.at(b, i))
	ADDQ(U8(l.lanes), i)
	CMPQ(i, h)
	JLT(LabelRef("pair"))
	LEAQ(f32.at(b, h), a)
	CMPQ(a, end)
	JLT(LabelRef("pairs"))
	SHLQ(U8(1), h)
	JMP(LabelRef("stage"))
	Label("done")
	done()
}

// grid holds the constants of the rounding to a grid in registers from 12:
// 1/step, -half, half - 1.
type grid struct{ *level }

func (g grid) setup() {
	VBROADCASTSS(mem("inv"), g.v(12))
	VBROADCASTSS(mem("half"), g.v(14))
	g.zero(13)
	VSUBPS(g.v(14), g.v(13), g.v(13))
	g.broadcast("one", 15)
	VSUBPS(g.v(15), g.v(14), g.v(14))
}

// cell writes the grid cell of x, counted from -half, to out.
func (g grid) cell(x, out VecPhysical) {
	const floor = 9 // and no exceptions
	VMULPS(g.v(12), x, out)
	if g.wide() {
		VRNDSCALEPS(U8(floor), out, out)
	} else {
		VROUNDPS(U8(floor), out, out)
	}
	VMAXPS(g.v(13), out, out)
	VMINPS(g.v(14), out, out)
}

func (l *level) gridSums() {
	begin("gridSums"+l.name, "(x *float32, n int, inv, half float32, sums *[3]float32)",
		"writes the sums of x*x, x*g and g*g over the n elements of x (a multiple of 32), g being the centre of the grid cell of x.")
	x, n, sums := load("x"), load("n"), load("sums")
	g := grid{l}
	g.setup()
	l.broadcast("half", 11)
	parts := blockKeys / l.lanes       // registers of a sum
	const sums0, v, c, t = 2, 8, 9, 10 // across uses 0 and 1
	for a := range 3 * parts {
		l.zero(sums0 + a)
	}
	k := GP64()
	XORQ(k, k)
	Label("loop")
	for p := range parts {
		VMOVUPS(f32.at(x, k).Offset(4*l.lanes*p), l.v(v))
		g.cell(l.v(v), l.v(c))
		VADDPS(l.v(11), l.v(c), l.v(c))
		for i, f := range [][2]int{{v, v}, {v, c}, {c, c}} {
			VMULPS(l.v(f[0]), l.v(f[1]), l.v(t))
			sum := l.v(sums0 + 3*p + i)
			VADDPS(l.v(t), sum, sum)
		}
	}
	ADDQ(U8(blockKeys), k)
	CMPQ(k, n)
	JLT(LabelRef("loop"))
	for i := range 3 {
		VMOVAPS(l.v(sums0+i), l.v(0))
		if parts == 2 {
			VADDPS(l.v(sums0+3+i), l.v(0), l.v(0))
		}
		l.across(VADDPS)
		VMOVSS(X0, Mem{Base: sums, Disp: 4 * i})
	}
	done()
}

func (l *level) digits() {
	begin("digits"+l.name, "(x *float32, n int, inv, half float32, out *byte)",
		"writes the grid cells of the n elements of x (a multiple of 32), counted from 0.")
	x, n, out := load("x"), load("n"), load("out")
	g := grid{l}
	g.setup()
	VBROADCASTSS(mem("half"), l.v(11))
	k := GP64()
	XORQ(k, k)
	Label("loop")
	for p := range blockKeys / l.lanes {
		v := l.v(p)
		VMOVUPS(f32.at(x, k).Offset(4*l.lanes*p), v)
		g.cell(v, v)
		VADDPS(l.v(11), v, v)
		VCVTTPS2DQ(v, v)
	}
	to := Mem{Base: out, Index: k, Scale: 1}
	if l.wide() {
		VPMOVDB(Z0, to)
	} else {
		for p := range 2 {
			VEXTRACTI128(U8(1), ymm[p], xmm[2])
			VPACKSSDW(xmm[2], xmm[p], xmm[p])
		}
		VPACKUSWB(X1, X0, X0)
		VMOVDQU(X0, to)
	}
	ADDQ(U8(blockKeys), k)
	CMPQ(k, n)
	JLT(LabelRef("loop"))
	done()
}

// fill broadcasts a 32-bit pattern.
func (l *level) fill(pattern uint32, v int) {
	r := GP32()
	MOVL(U32(pattern), r)
	if l.wide() {
		VPBROADCASTD(r, zmm[v])
		return
	}
	VMOVD(r, xmm[v])
	VPBROADCASTD(xmm[v], ymm[v])
}

// codesAhead is how many bytes before their use words are asked for. Lines are
// asked for in the order in which they lie: blocks read side by side would
// hide from the processor's own prefetching that all are wanted.
const codesAhead = 6144

const each4 = 0x01010101 // a byte of it in each byte of a lane

// estimate generates the inner products of nq queries with the codes of
// blocks.
func (l *level) estimate(bits, nq int) {
	begin(fmt.Sprintf("estimate%dx%d%s", bits, nq, l.name),
		"(q0, q1, q2, q3 *int8, c0, c1, c2, c3 float32, blocks *byte, n, groups int, o0, o1, o2, o3 *float32)",
		fmt.Sprintf("writes (qj . digits - cj) * scale to oj for j < %d and the keys of n blocks of groups*32 dimensions, %d bits each.", nq, bits))
	e := &estimator{level: l, bits: bits, nq: nq}
	for j := range nq {
		e.q = append(e.q, load(fmt.Sprintf("q%d", j)))
	}
	e.base, e.at = load("blocks"), GP64()
	XORQ(e.at, e.at)
	e.k, e.end, e.span = GP64(), load("groups"), GP64()
	IMUL3Q(I32(wordBytes*bits), e.end, e.span)
	SHLQ(U8(5), e.end) // groupDims
	if l.vnni {
		e.dotProducts()
	} else {
		e.multiplyAdd()
	}
}

type estimator struct {
	*level
	bits, nq int

	q      []GPVirtual
	base   GPVirtual // the words at hand of the first block
	second GPVirtual // and of the second
	span   GPVirtual // bytes of a block's words
	k, end GPVirtual // dimension
	at     GPVirtual // results written
}

// plane returns the bits of a digit in words that hold nothing else: the
// third bit of 3-bit codes has words of its own.
func (e *estimator) plane() int {
	if e.bits == 3 {
		return 2
	}
	return e.bits
}

// query returns the address of query j's dimensions from k+d on.
func (e *estimator) query(j, d int) Mem {
	return Mem{Base: e.q[j], Index: e.k, Scale: 1, Disp: d}
}

// finish turns the sums in v to estimates and stores them as results of
// query j. Register scale holds the keys' scales.
func (e *estimator) finish(v, tmp VecPhysical, scale Op, j, disp int, p Register) {
	VCVTDQ2PS(v, v)
	VBROADCASTSS(mem(fmt.Sprintf("c%d", j)), tmp)
	VSUBPS(tmp, v, v)
	VMULPS(scale, v, v)
	MOVQ(mem(fmt.Sprintf("o%d", j)), p)
	VMOVUPS(v, Mem{Base: p, Index: e.at, Scale: 4, Disp: disp})
}

// dotProducts multiplies four bytes a lane at once (VPDPBUSD), four blocks
// side by side so that the sums hide the latency. Registers: sums of block b and
// query j first; then the words of each block, the high words of 3-bit codes,
// the digits of each block, a query, masks.
func (e *estimator) dotProducts() {
	const words, high, digits, query, mask, mask4 = 16, 20, 24, 28, 30, 31
	e.fill(each4*(1<<e.plane()-1), mask)
	if e.bits == 3 {
		e.fill(each4*4, mask4)
	}
	e.second = GP64()
	const side = 4 // blocks
	size, p := GP64(), GP64()
	LEAQ(Mem{Base: e.span, Disp: wordBytes}, size)
	ahead := GP64()
	inner := func(blocks int, label string) {
		MOVQ(e.base, ahead)
		block := func(b, word int) Mem {
			m := Mem{Base: e.base, Disp: word * wordBytes}
			if b%2 == 1 {
				m.Base = e.second
			}
			if b >= 2 {
				m.Index, m.Scale = size, 2
			}
			return m
		}
		for a := range blocks * e.nq {
			e.zero(a)
		}
		LEAQ(Mem{Base: e.base, Index: size, Scale: 1}, e.second)
		XORQ(e.k, e.k)
		Label(label + "_group")
		// A quarter of a scale's line with each group: right at dimension 128.
		lines := blocks*e.bits + (blocks+3)/4
		for w := range lines {
			PREFETCHT0(Mem{Base: ahead, Disp: codesAhead + wordBytes*w})
		}
		ADDQ(U32(wordBytes*lines), ahead)
		plane := e.plane()
		if e.bits == 3 {
			for b := range blocks {
				VPROLD(U8(2), block(b, 2), zmm[high+b])
			}
		}
		for d := 0; d < groupDims; d += 4 {
			step := d / 4 % (8 / plane)
			for b := range blocks {
				w, v := zmm[words+b], zmm[digits+b]
				if step == 0 {
					VMOVDQU32(block(b, d*plane/groupDims), w)
				} else {
					VPSRLD(U8(plane), w, w)
				}
				VPANDD(zmm[mask], w, v)
				if e.bits == 3 {
					const orAnd = 0xf8 // first | second & third
					VPTERNLOGD(U8(orAnd), zmm[mask4], zmm[high+b], v)
					if d+4 < groupDims {
						VPRORD(U8(1), zmm[high+b], zmm[high+b])
					}
				}
			}
			for j := range e.nq {
				VPBROADCASTD(e.query(j, d), zmm[query])
				for b := range blocks {
					VPDPBUSD(zmm[query], zmm[digits+b], zmm[b*e.nq+j])
				}
			}
		}
		ADDQ(U32(wordBytes*e.bits), e.base)
		ADDQ(U32(wordBytes*e.bits), e.second)
		ADDQ(U8(groupDims), e.k)
		CMPQ(e.k, e.end)
		JLT(LabelRef(label + "_group"))
		for b := range blocks {
			VMOVUPS(block(b, 0), zmm[words])
			for j := range e.nq {
				e.finish(zmm[b*e.nq+j], zmm[digits], zmm[words], j, b*wordBytes, p)
			}
		}
		// The next block begins after the scales of the last one.
		ADDQ(U8(wordBytes), e.base)
		for range blocks - 1 {
			ADDQ(size, e.base)
		}
		ADDQ(U8(blocks*blockKeys), e.at)
	}
	n := load("n")
	Label("many")
	CMPQ(n, U8(side))
	JLT(LabelRef("one"))
	inner(side, "many")
	SUBQ(U8(side), n)
	JMP(LabelRef("many"))
	Label("one")
	CMPQ(n, U8(0))
	JE(LabelRef("done"))
	inner(1, "one")
	DECQ(n)
	JMP(LabelRef("one"))
	Label("done")
	done()
}

func (l *level) and(a Op, b, out VecPhysical) {
	if l.wide() {
		VPANDD(a, b, out)
	} else {
		VPAND(a, b, out)
	}
}

// multiplyAdd multiplies bytes and adds neighbours to 16 bits (VPMADDUBSW),
// a vector of keys at a time. Sixteen products of digits below 16 with
// queries within 127 are at most 30480, so that the 32 dimensions of a group
// add up in 16 bits; then they widen.
func (e *estimator) multiplyAdd() {
	// Registers: digits of four dimensions each 0 to 7, sums from 8.
	const sums, sum16, product, ones, mask = 8, 12, 13, 14, 15
	var mask4 Mem
	if e.bits == 3 {
		mask4 = e.words(fmt.Sprintf("third%d", e.nq), func(int) uint32 { return each4 * 4 })
	}
	e.fill(0x00010001, ones)
	e.fill(each4*(1<<e.plane()-1), mask)
	n, p := load("n"), GP64()
	CMPQ(n, U8(0))
	JE(LabelRef("done"))
	Label("block")
	halves := blockKeys / e.lanes
	for h := range halves {
		word := func(i int) Mem { return Mem{Base: e.base, Disp: i*wordBytes + h*wordBytes/2} }
		group := fmt.Sprintf("group%d", h)
		for j := range e.nq {
			e.zero(sums + j)
		}
		XORQ(e.k, e.k)
		Label(group)
		plane := e.plane()
		per := 8 / plane
		if e.bits == 3 {
			VMOVUPS(word(2), e.v(product))
		}
		if h == 0 {
			for w := range e.bits {
				PREFETCHT0(word(w).Offset(codesAhead))
			}
		}
		for s := range 8 {
			v := e.v(s)
			if s%per == 0 {
				VMOVUPS(word(s/per), v)
			} else {
				VPSRLD(U8(plane*(s%per)), e.v(s/per*per), v)
			}
		}
		for s := range 8 {
			e.and(e.v(mask), e.v(s), e.v(s))
		}
		if e.bits == 3 {
			for s := range 8 {
				bit, t := e.v(product), e.v(sum16)
				switch {
				case s < 2:
					VPSLLD(U8(2-s), bit, t)
				case s == 2:
					VMOVAPS(bit, t)
				default:
					VPSRLD(U8(s-2), bit, t)
				}
				e.and(mask4, t, t)
				VORPS(t, e.v(s), e.v(s))
			}
		}
		for j := range e.nq {
			for s := range 8 {
				VPBROADCASTD(e.query(j, 4*s), e.v(product))
				if s == 0 {
					VPMADDUBSW(e.v(product), e.v(s), e.v(sum16))
					continue
				}
				VPMADDUBSW(e.v(product), e.v(s), e.v(product))
				VPADDW(e.v(product), e.v(sum16), e.v(sum16))
			}
			VPMADDWD(e.v(ones), e.v(sum16), e.v(sum16))
			VPADDD(e.v(sum16), e.v(sums+j), e.v(sums+j))
		}
		ADDQ(U32(wordBytes*e.bits), e.base)
		ADDQ(U8(groupDims), e.k)
		CMPQ(e.k, e.end)
		JLT(LabelRef(group))
		for j := range e.nq {
			e.finish(e.v(sums+j), e.v(0), word(0), j, h*wordBytes/2, p)
		}
		if h+1 < halves {
			SUBQ(e.span, e.base)
		}
	}
	ADDQ(U8(wordBytes), e.base)
	ADDQ(U8(blockKeys), e.at)
	DECQ(n)
	JNE(LabelRef("block"))
	Label("done")
	done()
}

func (l *level) countAtLeast() {
	begin("countAtLeast"+l.name, "(x *float32, n int, least float32) int",
		"returns how many of the n elements of x are not below least; a NaN is below.")
	x := load("x")
	VBROADCASTSS(mem("least"), l.v(3))
	l.zero(0)
	l.fill(1, 4)
	l.each(l.lanes, func(e elements) {
		e.read(x, l.v(2))
		if !l.wide() {
			VCMPPS(U8(notBelow), l.v(3), l.v(2), l.v(2))
			if e.tail {
				VANDPS(ymm[mask], l.v(2), l.v(2))
			}
			VPSUBD(l.v(2), l.v(0), l.v(0))
			return
		}
		if e.tail {
			VCMPPS(U8(notBelow), l.v(3), l.v(2), K1, K2)
		} else {
			VCMPPS(U8(notBelow), l.v(3), l.v(2), K2)
		}
		VPADDD(l.v(4), l.v(0), K2, l.v(0))
	})
	l.across(VPADDD)
	count := GP32()
	VMOVD(X0, count)
	MOVQ(count.As64(), result())
	done()
}

func (l *level) takeAtLeast() {
	begin("takeAtLeast"+l.name, "(x *float32, n int, first uint32, least float32, ids *uint32, values *float32) int",
		"writes the elements of x that are not below least to values, which may be x, and first plus their indices to ids; it returns their number.")
	x, ids, values := load("x"), load("ids"), load("values")
	count := GP64()
	XORQ(count, count)
	VBROADCASTSS(mem("least"), l.v(3))
	if l.wide() {
		l.compress(x, ids, values, count)
	} else {
		l.pick(x, ids, values, count)
	}
	MOVQ(count, result())
	done()
}

// pick stores the hits one by one: they are few, one in a hundred.
func (l *level) pick(x, ids, values, count GPVirtual) {
	bits, at, id := GP32(), GP64(), GP64()
	step := 0
	l.each(l.lanes, func(e elements) {
		step++
		hits, next := fmt.Sprintf("hits%d", step), fmt.Sprintf("next%d", step)
		e.read(x, l.v(2))
		VCMPPS(U8(notBelow), l.v(3), l.v(2), l.v(2))
		if e.tail {
			VANDPS(ymm[mask], l.v(2), l.v(2))
		}
		VMOVMSKPS(l.v(2), bits)
		TESTL(bits, bits)
		JE(LabelRef(next))
		Label(hits)
		BSFL(bits, at.As32())
		ADDQ(e.k, at)
		MOVL(f32.at(x, at), id.As32())
		MOVL(id.As32(), f32.at(values, count))
		ADDL(mem("first"), at.As32())
		MOVL(at.As32(), f32.at(ids, count))
		INCQ(count)
		MOVL(bits, id.As32())
		DECL(id.As32())
		ANDL(id.As32(), bits)
		JNE(LabelRef(hits))
		Label(next)
	})
}

// compress packs the hits of a vector. They are packed in registers: packing
// to memory is slow on some processors. What a whole store writes behind the
// hits lies where the input has been read already, within n elements.
func (l *level) compress(x, ids, values, count GPVirtual) {
	const id, value, lane, input = 4, 5, 6, 8
	n, k, hits := load("n"), GP64(), GP32()
	VBROADCASTSS(mem("first"), l.v(lane))
	VPADDD(l.words("lane", func(i int) uint32 { return uint32(i) }), l.v(lane), l.v(lane))
	XORQ(k, k)
	pack := func(i int, chosen Register) {
		LEAL(Mem{Base: k, Disp: blockKeys * i}, hits)
		VPBROADCASTD(hits, l.v(id))
		VPADDD(l.v(lane), l.v(id), l.v(id))
		VPCOMPRESSD_Z(l.v(id), chosen, l.v(id))
		VCOMPRESSPS_Z(l.v(input+i), chosen, l.v(value))
		KMOVW(chosen, hits)
		POPCNTL(hits, hits)
	}
	masks := [4]Register{K2, K3, K4, K5}
	Label("four")
	LEAQ(Mem{Base: k, Disp: 4 * blockKeys}, RCX)
	CMPQ(RCX, n)
	JGT(LabelRef("one"))
	for i, m := range masks {
		VMOVUPS(f32.at(x, k).Offset(wordBytes*i), l.v(input+i))
		VCMPPS(U8(notBelow), l.v(3), l.v(input+i), m)
	}
	KORW(K2, K3, K6)
	KORW(K4, K5, K7)
	KORTESTW(K6, K7)
	JE(LabelRef("next"))
	for i, m := range masks {
		pack(i, m)
		VMOVUPS(l.v(id), f32.at(ids, count))
		VMOVUPS(l.v(value), f32.at(values, count))
		ADDQ(hits.As64(), count)
	}
	Label("next")
	ADDQ(U8(4*blockKeys), k)
	JMP(LabelRef("four"))

	Label("one")
	MOVQ(n, RCX)
	SUBQ(k, RCX)
	JLE(LabelRef("done"))
	ones := GP32()
	MOVL(U32(blockKeys), ones)
	CMPQ(RCX, U8(blockKeys))
	CMOVLGT(ones, ECX)
	MOVL(U32(1), ones)
	SHLL(CL, ones)
	DECL(ones)
	KMOVW(ones, K1)
	VMOVUPS_Z(f32.at(x, k), K1, l.v(input))
	VCMPPS(U8(notBelow), l.v(3), l.v(input), K1, K2)
	pack(0, K2)
	MOVL(hits, ECX)
	MOVL(U32(1), ones)
	SHLL(CL, ones)
	DECL(ones)
	KMOVW(ones, K1)
	VMOVUPS(l.v(id), K1, f32.at(ids, count))
	VMOVUPS(l.v(value), K1, f32.at(values, count))
	ADDQ(hits.As64(), count)
	ADDQ(U8(blockKeys), k)
	JMP(LabelRef("one"))
	Label("done")
}

// sumExp needs no exact exponentials, for what it sums are estimates: a
// polynomial of degree 4 is within 5e-5.
func (l *level) sumExp() {
	begin("sumExp"+l.name, "(x *float32, n int, limit, scale, shift float32) float32",
		"returns the sum of exp(scale*x + shift), each within 1e-4 of its value, over those of the n elements of x that are below limit; a NaN is not.")
	const limit, scale, shift, sum, below, nearest = 4, 5, 6, 7, 0x11, 8 // less than, ordered, quiet; no exceptions
	x := load("x")
	l.broadcast("log2e", 0)
	VBROADCASTSS(mem("scale"), l.v(scale))
	VMULPS(l.v(0), l.v(scale), l.v(scale))
	VBROADCASTSS(mem("shift"), l.v(shift))
	VMULPS(l.v(0), l.v(shift), l.v(shift))
	VBROADCASTSS(mem("limit"), l.v(limit))
	coefficients := []string{"e4", "e3", "e2", "e1", "one"}
	for i, c := range coefficients {
		l.broadcast(c, 8+i)
	}
	l.broadcast("leastpower", 13)
	l.broadcast("mostpower", 14)
	l.zero(sum)
	l.each(l.lanes, func(e elements) {
		e.read(x, l.v(0))
		if e.wide() {
			if e.tail {
				VCMPPS(U8(below), l.v(limit), l.v(0), K1, K2)
			} else {
				VCMPPS(U8(below), l.v(limit), l.v(0), K2)
			}
		} else {
			VCMPPS(U8(below), l.v(limit), l.v(0), l.v(3))
			if e.tail {
				VANDPS(ymm[mask], l.v(3), l.v(3))
			}
		}
		// 2 to the power t = n + r
		VFMADD213PS(l.v(shift), l.v(scale), l.v(0))
		VMAXPS(l.v(0), l.v(13), l.v(0)) // a NaN stays
		VMINPS(l.v(0), l.v(14), l.v(0))
		if e.wide() {
			VRNDSCALEPS(U8(nearest), l.v(0), l.v(1))
		} else {
			VROUNDPS(U8(nearest), l.v(0), l.v(1))
		}
		VSUBPS(l.v(1), l.v(0), l.v(0))
		VMOVAPS(l.v(8), l.v(2))
		for i := range coefficients[1:] {
			VFMADD213PS(l.v(9+i), l.v(0), l.v(2))
		}
		if e.wide() {
			VSCALEFPS(l.v(1), l.v(2), l.v(2))
			VADDPS(l.v(2), l.v(sum), K2, l.v(sum))
			return
		}
		VCVTPS2DQ(l.v(1), l.v(1))
		VPSLLD(U8(23), l.v(1), l.v(1))
		VPADDD(l.v(1), l.v(2), l.v(2)) // to the exponent
		VANDPS(l.v(3), l.v(2), l.v(2))
		VADDPS(l.v(2), l.v(sum), l.v(sum))
	})
	VMOVAPS(l.v(sum), l.v(0))
	l.across(VADDPS)
	VMOVSS(X0, result())
	done()
}
