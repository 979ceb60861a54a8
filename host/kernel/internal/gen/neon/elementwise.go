package main

import (
	"fmt"
	"math"
	"strings"
)

// elements is one step of a loop over f32 vectors: several registers of
// four, or a single element in the first lane.
type elements struct {
	*asm
	vectors int
	single  bool
}

// next reads the step's elements of the vector at p to registers from v on,
// and moves p on; after a single one the other lanes are zero.
func (e elements) next(p gp, v int) {
	switch {
	case e.single:
		e.ldrNext(4, v, p)
	case e.vectors == 1:
		e.ldrNext(16, v, p)
	default:
		for i := 0; i < e.vectors; i += 2 {
			e.ldpNext(v+i, v+i+1, p)
		}
	}
}

// write stores registers from v on to the vector at p and moves p on. What is
// changed in place has two addresses, so that no read waits for a write.
func (e elements) write(v int, p gp) {
	switch {
	case e.single:
		e.strNext(4, v, p)
	case e.vectors == 1:
		e.strNext(16, v, p)
	default:
		for i := 0; i < e.vectors; i += 2 {
			e.stpNext(v+i, v+i+1, p)
		}
	}
}

// each generates a loop over n elements, so many registers at once.
func (a *asm) each(vectors int, step func(e elements)) { a.eachOf("", a.load("n"), vectors, step) }

// eachOf is each with a prefix of its labels, for functions with several
// loops. It counts left down.
func (a *asm) eachOf(prefix string, left gp, vectors int, step func(e elements)) {
	loop := func(label string, e elements, lanes int, next string) {
		a.op("SUBS", lanes, left, left)
		a.op("BLT", prefix+next)
		a.label(prefix + label)
		step(e)
		a.op("SUBS", lanes, left, left)
		a.op("BGE", prefix+label)
		a.label(prefix + next)
		a.op("ADD", lanes, left)
	}
	loop("blocks", elements{a, vectors, false}, 4*vectors, "after_blocks")
	loop("vectors", elements{a, 1, false}, 4, "after_vectors")
	loop("singles", elements{a, 1, true}, 1, "after_singles")
}

func (a *asm) widen(t dtype) {
	a.begin("widen"+t.name+"NEON", "", "writes the n elements of src as f32 to dst.", "dst *float32", "src *uint16", "n int")
	dst, src := a.load("dst"), a.load("src")
	a.setup(t)
	a.each(4, func(e elements) {
		if e.vectors == 1 {
			e.read(t, map[bool]int{false: 4, true: 1}[e.single], 0, src)
		} else {
			e.ldpNext(1, 3, src)
			e.halves(t, 0, 1)
			e.halves(t, 2, 3)
		}
		e.write(0, dst)
	})
	a.op("RET")
}

func (a *asm) axpy() {
	a.begin("axpyNEON", "", "adds w*x to y (n each).", "w float32", "x *float32", "y *float32", "n int")
	x, y, out := a.load("x"), a.load("y"), a.load("y")
	a.loadF32("w", 16)
	a.each(4, func(e elements) {
		e.next(x, 0)
		e.next(y, 4)
		for i := range e.vectors {
			e.fmla(4+i, i, 16)
		}
		e.write(4, out)
	})
	a.op("RET")
}

func (a *asm) scale() {
	a.begin("scaleNEON", "", "multiplies the n elements of x by c.", "c float32", "x *float32", "n int")
	x, out := a.load("x"), a.load("x")
	a.loadF32("c", 16)
	a.each(4, func(e elements) {
		e.next(x, 0)
		for i := range e.vectors {
			e.fmul(i, i, 16)
		}
		e.write(0, out)
	})
	a.op("RET")
}

func (a *asm) maxOf() {
	a.begin("maxOfNEON", "float32", "returns the largest of the n elements of x that are numbers, -Inf when there is none.", "x *float32", "n int")
	x := a.load("x")
	const best = 16
	a.broadcast(a.table(), "neginf", best)
	a.most("", x, a.load("n"), best)
	a.ret("FMOVS", best)
}

// most generates the largest of the first lane of best, all of whose lanes
// are alike, and the numbers among the elements at x; it leaves it there. It
// uses four registers from best on, and those below 8.
func (a *asm) most(prefix string, x, left gp, best int) {
	const mask = 4
	for i := 1; i < 4; i++ {
		a.mov(best+i, best)
	}
	a.eachOf(prefix, left, 4, func(e elements) {
		if e.single {
			e.ld1rNext(0, x)
		} else {
			e.next(x, 0)
		}
		// A maximum would take up a NaN; a comparison with one is false.
		for i := range e.vectors {
			e.v3("fcmgt", "4s", mask+i, i, best+i)
		}
		for i := range e.vectors {
			e.v3("bit", "16b", best+i, i, mask+i)
		}
	})
	a.v3("fmax", "4s", best, best, best+1)
	a.v3("fmax", "4s", best+2, best+2, best+3)
	a.v3("fmax", "4s", best, best, best+2)
	a.fmaxAcross(best, best)
}

// ret writes the first lane of v as the result and returns.
func (a *asm) ret(move string, v int) {
	a.op(move, fmt.Sprintf("F%d", v), a.arg("ret"))
	a.op("RET")
}

func (a *asm) firstAtLeast() {
	a.begin("firstAtLeastNEON", "int",
		"returns the index of the first of the n elements of x that is not below least, n when there is none; a NaN is below.",
		"x *float32", "n int", "least float32")
	x, left := a.load("x"), a.load("n")
	found, at := a.reg(), a.reg()
	const least = 16
	a.loadF32("least", least)

	// Blocks of sixteen until one holds such an element, which the vectors
	// then find.
	a.label("blocks")
	a.op("CMP", 16, left)
	a.op("BLT", "vectors")
	a.anyAtLeast(x, least, found)
	a.op("CBNZ", found, "vectors")
	a.op("ADD", 64, x)
	a.op("SUB", 16, left)
	a.op("B", "blocks")

	a.label("vectors")
	a.op("CMP", 4, left)
	a.op("BLT", "singles")
	a.ldrNext(16, 0, x)
	a.v3("fcmge", "4s", 0, 0, least)
	a.v2("xtn", 0, "4h", 0, "4s") // sixteen bits a lane
	a.toX(found, 0)
	a.op("CBNZ", found, "lane")
	a.op("SUB", 4, left)
	a.op("B", "vectors")

	a.label("singles")
	a.op("CBZ", left, "done")
	a.ldrNext(4, 0, x)
	a.fcmgeFirst(0, 0, least)
	a.toW(found, 0)
	a.op("CBNZ", found, "done")
	a.op("SUB", 1, left)
	a.op("B", "singles")

	a.label("lane")
	a.op("RBIT", found, found)
	a.op("CLZ", found, found)
	a.op("SUB", fmt.Sprintf("%v>>4", found), left)
	a.label("done") // the index is what is behind
	a.op("MOVD", a.arg("n"), at)
	a.op("SUB", left, at)
	a.op("MOVD", at, a.arg("ret"))
	a.op("RET")
}

// anyAtLeast sets found to something other than 0 when one of the sixteen
// elements at x is not below those of register least. It uses 0 to 3.
func (a *asm) anyAtLeast(x gp, least int, found gp) {
	a.ldp(0, 1, x, 0)
	a.ldp(2, 3, x, 32)
	for i := range 4 {
		a.v3("fcmge", "4s", i, i, least)
	}
	a.v3("orr", "16b", 0, 0, 1)
	a.v3("orr", "16b", 2, 2, 3)
	a.v3("orr", "16b", 0, 0, 2)
	a.v3("umaxp", "4s", 0, 0, 0)
	a.toX(found, 0)
}

// A constant fills a register; factors share one, a lane each.
var (
	broadcasts = []struct {
		name  string
		value float32
	}{
		{"least", -87.3}, {"most", 89}, {"one", 1}, {"half", 0.5}, {"c4", 1.0 / 24}, {"neginf", float32(math.Inf(-1))},
		{"e2", math.Ln2 * math.Ln2 / 2}, {"leastpower", -126}, {"mostpower", 127},
	}
	factors = [12]float32{
		1.44269504088896341, 0.693359375, -2.12194440e-4, // log2 e; ln 2 in two parts
		1.0 / 6, 1.0 / 120, 1.0 / 720, 0, 0,
		math.Ln2, math.Ln2 * math.Ln2 * math.Ln2 / 6, math.Ln2 * math.Ln2 * math.Ln2 * math.Ln2 / 24, // of 2^r
	}
)

// constants are the factors, then the others.
func constants() string {
	var s strings.Builder
	n := 0
	add := func(f float32) {
		fmt.Fprintf(&s, "\nDATA constants<>+%d(SB)/4, $%#08x", n, math.Float32bits(f))
		n += 4
	}
	for _, f := range factors {
		add(f)
	}
	for _, c := range broadcasts {
		add(c.value)
	}
	fmt.Fprintf(&s, "\nGLOBL constants<>(SB), RODATA|NOPTR, $%d\n", n)
	return s.String()
}

// table returns the address of the constants.
func (a *asm) table() gp {
	r := a.reg()
	a.op("MOVD", "$constants<>(SB)", r)
	return r
}

// broadcast fills v with a constant.
func (a *asm) broadcast(table gp, name string, v int) {
	for i, c := range broadcasts {
		if c.name == name {
			a.ldr(4, v, table, 4*(len(factors)+i))
			a.dup(v, v, 0)
			return
		}
	}
	panic("no constant " + name)
}

// exponential is the arithmetic of exp32 in exp.go on vectors, the polynomial
// in pairs of terms.
type exponential struct{ *asm }

// Registers of the constants; those before them are free.
const (
	expFactors = 24 + iota
	expFactors2
	expLeast
	expMost
	expOne
	expHalf
	expC4
)

func (x exponential) setup() {
	t := x.table()
	x.ldr(16, expFactors, t, 0)
	x.ldr(16, expFactors2, t, 16)
	for i, name := range []string{"least", "most", "one", "half", "c4"} {
		x.broadcast(t, name, expLeast+i)
	}
}

// step replaces registers 0 to vectors-1 (two at most) by their exponentials
// and uses those up to 11.
func (x exponential) step(vectors int) {
	type lane struct{ r, n, square, p, q, zero int } // registers of one vector
	all := func(f func(v lane)) {
		for i := range vectors {
			f(lane{i, 2 + i, 4 + i, 6 + i, 8 + i, 10 + i})
		}
	}
	// What must become 0 is remembered; NaN is not part of it.
	all(func(v lane) { x.v3("fcmge", "4s", v.zero, expLeast, v.r) })
	all(func(v lane) { x.v3("fmin", "4s", v.r, v.r, expMost) })
	all(func(v lane) { x.lane("fmul", v.n, v.r, expFactors, 0) })
	all(func(v lane) { x.v2("frintn", v.n, "4s", v.n, "4s") })
	all(func(v lane) { x.lane("fmls", v.r, v.n, expFactors, 1) })
	all(func(v lane) { x.lane("fmls", v.r, v.n, expFactors, 2) })
	all(func(v lane) { x.fmul(v.square, v.r, v.r) })
	all(func(v lane) { x.mov(v.p, expHalf) })
	all(func(v lane) { x.mov(v.q, expC4) })
	all(func(v lane) { x.lane("fmla", v.p, v.r, expFactors, 3) })
	all(func(v lane) { x.lane("fmla", v.q, v.r, expFactors2, 0) })
	all(func(v lane) { x.lane("fmla", v.q, v.square, expFactors2, 1) })
	all(func(v lane) { x.fmla(v.p, v.q, v.square) })
	all(func(v lane) { x.fadd(v.r, v.r, expOne) })
	all(func(v lane) { x.fmla(v.r, v.p, v.square) })
	// 2^n in two factors, because 2^128 is none.
	all(func(v lane) { x.v2("fcvtzs", v.n, "4s", v.n, "4s") })
	all(func(v lane) { x.sshr(v.p, v.n, 1) })
	all(func(v lane) { x.v3("sub", "4s", v.n, v.n, v.p) })
	all(func(v lane) {
		for _, power := range []int{v.n, v.p} {
			x.shl(power, power, 23)
			x.v3("add", "4s", power, power, expOne) // the exponent field of 1 is the bias
			x.fmul(v.r, v.r, power)
		}
	})
	all(func(v lane) { x.v3("bic", "16b", v.r, v.r, v.zero) })
}

func (a *asm) expSum() {
	a.begin("expSumNEON", "float32", "replaces the n elements of x by exp(x - shift) and returns their sum.",
		"x *float32", "n int", "shift float32")
	const shift = 16
	a.loadF32("shift", shift)
	a.expOf(a.load("x"), a.load("x"), a.load("n"), shift)
	a.ret("FMOVS", expSums)
}

// expSums is where expOf leaves the sum: its first lane.
const expSums = 17

// expOf generates exp(x - shift) in place and the sum; x and out are the same
// address.
func (a *asm) expOf(x, out, left gp, shift int) {
	const rest = expSums + 2
	exp := exponential{a}
	exp.setup()
	for v := expSums; v <= rest; v++ {
		a.zero(v)
	}
	a.eachOf("", left, 2, func(e elements) {
		e.next(x, 0)
		for i := range e.vectors {
			e.v3("fsub", "4s", i, i, shift)
		}
		exp.step(e.vectors)
		e.write(0, out)
		e.addTo(expSums, rest, 0)
	})
	a.total(expSums, rest)
}

// addTo adds the step's elements, in registers from v on, to sums: vectors to
// those from sums on, single ones to the first lane of rest, because their
// other lanes are no elements.
func (e elements) addTo(sums, rest, v int) {
	for i := range e.vectors {
		if e.single {
			e.faddFirst(rest, rest, v+i)
		} else {
			e.fadd(sums+i, sums+i, v+i)
		}
	}
}

// total leaves the sum of two registers and of the first lane of rest in the
// first lane of sums.
func (a *asm) total(sums, rest int) {
	a.fadd(sums, sums, sums+1)
	a.sum(sums)
	a.faddFirst(sums, sums, rest)
}

func (a *asm) siluGate() {
	a.begin("siluGateNEON", "", "writes gate / (1 + exp(-gate)) * up to gate (n each).", "gate *float32", "up *float32", "n int")
	gate, up, out := a.load("gate"), a.load("up"), a.load("gate")
	exp := exponential{a}
	exp.setup()
	a.each(2, func(e elements) {
		const g, u = 16, 18
		e.next(gate, g)
		e.next(up, u)
		for i := range e.vectors {
			e.v2("fneg", i, "4s", g+i, "4s")
		}
		exp.step(e.vectors)
		for i := range e.vectors {
			e.fadd(i, i, expOne)
			e.v3("fdiv", "4s", i, g+i, i)
			e.fmul(i, i, u+i)
		}
		e.write(0, out)
	})
	a.op("RET")
}

func (a *asm) sumSquares() {
	a.begin("sumSquaresNEON", "float64", "returns the sum of the squares of the n elements of x, formed in f64.", "x *float32", "n int")
	x := a.load("x")
	const sums, wide = 16, 8
	for i := range 4 {
		a.zero(sums + i)
	}
	a.each(2, func(e elements) {
		e.next(x, 0)
		for i := range e.vectors {
			e.v2("fcvtl", wide+2*i, "2d", i, "2s")
			e.v2("fcvtl2", wide+2*i+1, "2d", i, "4s")
		}
		for i := range 2 * e.vectors {
			e.v3("fmla", "2d", sums+i, wide+i, wide+i)
		}
	})
	a.v3("fadd", "2d", sums, sums, sums+1)
	a.v3("fadd", "2d", sums+2, sums+2, sums+3)
	a.v3("fadd", "2d", sums, sums, sums+2)
	a.faddPairF64(sums, sums)
	a.ret("FMOVD", sums)
}

func (a *asm) normMul() {
	a.begin("normMulNEON", "", "writes x * inv * weight to out (n each).",
		"x *float32", "weight *float32", "inv float32", "out *float32", "n int")
	x, weight, out := a.load("x"), a.load("weight"), a.load("out")
	a.loadF32("inv", 16)
	a.each(4, func(e elements) {
		e.next(x, 0)
		e.next(weight, 4)
		for i := range e.vectors {
			e.fmul(i, i, 16)
			e.fmul(i, i, 4+i)
		}
		e.write(0, out)
	})
	a.op("RET")
}

func (a *asm) rope() {
	a.begin("ropeNEON", "", "rotates the n pairs (a, b) by the angles whose cosines and sines are given.",
		"a *float32", "b *float32", "cos *float32", "sin *float32", "n int")
	in, out := a.loadAll("a", "b", "cos", "sin"), a.loadAll("a", "b")
	a.each(2, func(e elements) {
		const u, v, c, s, x, y = 0, 2, 4, 6, 16, 18
		for i, to := range []int{u, v, c, s} {
			e.next(in[i], to)
		}
		for i := range e.vectors {
			e.fmul(x+i, u+i, c+i)
			e.fmul(y+i, v+i, c+i)
		}
		for i := range e.vectors {
			e.fmls(x+i, v+i, s+i)
			e.fmla(y+i, u+i, s+i)
		}
		e.write(x, out[0])
		e.write(y, out[1])
	})
	a.op("RET")
}
