package main

import (
	"fmt"
	"math/bits"
)

func (a *asm) codes() {
	for _, dot := range []bool{false, true} {
		for width := 1; width <= 4; width++ {
			for _, nq := range []int{1, 2, 4} {
				a.estimate(width, nq, dot)
			}
		}
	}
	a.hadamard()
	a.gridSums()
	a.gridDigits()
	a.countAtLeast()
	a.takeAtLeast()
	a.sumExp()
}

// digit says where the digits of four dimensions lie in every 32-bit lane:
// in each byte of a word from bit at on, as many as mask has, worth weight.
type digit struct{ word, at, mask, weight int }

// digits returns where those of dimensions 4s to 4s+3 of 32 are, in codes of
// so many bits.
func digits(width, s int) []digit {
	switch width {
	case 1:
		return []digit{{0, s, 1, 1}}
	case 2:
		return []digit{{s / 4, 2 * (s % 4), 3, 1}}
	case 3:
		return []digit{{s / 4, 2 * (s % 4), 3, 1}, {2, s, 1, 4}}
	default:
		return []digit{{s / 2, 4 * (s % 2), 15, 1}}
	}
}

// estimator generates the reading of codes. 16 keys lie in four vectors, a
// key in a lane, and so a word of all of them in a line of the caches; queries
// meet them four dimensions at a time.
type estimator struct {
	*asm
	width, nq int // bits of a digit, queries

	q, p, o         []gp // queries, their bytes at hand, results
	block           gp   // words, and then the scales
	n, groups, left gp
}

// Vector registers: sums of a query's four vectors first.
func (e *estimator) acc(j, v int) int { return 4*j + v }

// Registers of the masks of digits, and of the single digit that is worth 4.
const (
	digitMask = 30 + iota
	digitMask4
)

// extract writes the digits d of the words in w to v.
func (e *estimator) extract(d digit, w, v int) {
	right, mask := d.at, digitMask
	if d.weight == 4 {
		right, mask = d.at-2, digitMask4
	}
	switch {
	case right < 0:
		e.shlBytes(v, w, -right)
		w = v
	case right > 0:
		e.ushrBytes(v, w, right)
		w = v
	}
	if d.weight == 1 && d.at+bits.Len(uint(d.mask)) == 8 {
		return // nothing is left beside them
	}
	e.v3("and", "16b", v, w, mask)
}

// estimate generates the estimates of n blocks of 16 keys for nq queries.
// dot says whether there is an instruction for inner products of bytes.
func (a *asm) estimate(width, nq int, dot bool) {
	name := fmt.Sprintf("estimate%dx%dNEON", width, nq)
	if dot {
		name += "Dot"
	}
	a.begin(name, "",
		fmt.Sprintf("writes (qj . digits - cj) * scale to oj for the %d-bit codes of n blocks of groups*32 dimensions, j < %d.", width, nq),
		"q0 *int8", "q1 *int8", "q2 *int8", "q3 *int8", "c0 float32", "c1 float32", "c2 float32", "c3 float32",
		"blocks *byte", "n int", "groups int", "o0 *float32", "o1 *float32", "o2 *float32", "o3 *float32")
	e := &estimator{asm: a, width: width, nq: nq}
	for j := range nq {
		e.q = append(e.q, a.load(fmt.Sprintf("q%d", j)))
		e.o = append(e.o, a.load(fmt.Sprintf("o%d", j)))
		e.p = append(e.p, a.reg())
	}
	e.block, e.n, e.groups, e.left = a.load("blocks"), a.load("n"), a.load("groups"), a.reg()
	first := digits(width, 0)
	a.fill(digitMask, first[0].mask)
	if len(first) > 1 {
		a.fill(digitMask4, first[1].mask*first[1].weight)
	}

	a.label("block")
	a.op("CBZ", e.n, "done")
	for j := range nq {
		a.op("MOVD", e.q[j], e.p[j])
		for v := range 4 {
			a.zero(e.acc(j, v))
		}
	}
	a.op("MOVD", e.groups, e.left)
	a.label("group")
	for w := range width {
		a.prefetchLine(e.block, ahead+line*w)
	}
	if dot {
		e.dots()
	} else {
		e.products()
	}
	a.op("ADD", line*width, e.block)
	a.op("SUBS", 1, e.left, e.left)
	a.op("BNE", "group")

	const scales, centre = 20, 24
	a.ldpNext(scales, scales+1, e.block)
	a.ldpNext(scales+2, scales+3, e.block)
	for j := range nq {
		a.loadF32(fmt.Sprintf("c%d", j), centre)
		for v := range 4 {
			x := e.acc(j, v)
			a.v2("scvtf", x, "4s", x, "4s")
			a.v3("fsub", "4s", x, x, centre)
			a.fmul(x, x, scales+v)
		}
		a.stpNext(e.acc(j, 0), e.acc(j, 1), e.o[j])
		a.stpNext(e.acc(j, 2), e.acc(j, 3), e.o[j])
	}
	a.op("SUB", 1, e.n)
	a.op("B", "block")
	a.label("done")
	a.op("RET")
}

// dots accumulates a group of 32 dimensions, 16 of the queries at a time.
func (e *estimator) dots() {
	const words, values, query = 16, 20, 24
	for half := range 2 {
		for j := range e.nq {
			e.ldrNext(16, query+j, e.p[j])
		}
		loaded := -1
		for part := range digits(e.width, 0) {
			for s := range 4 {
				d := digits(e.width, 4*half+s)[part]
				if d.word != loaded {
					e.ldp(words, words+1, e.block, line*d.word)
					e.ldp(words+2, words+3, e.block, line*d.word+32)
					loaded = d.word
				}
				for v := range 4 {
					e.extract(d, words+v, values+v)
				}
				for j := range e.nq {
					for v := range 4 {
						e.sdot(e.acc(j, v), values+v, query+j, s)
					}
				}
			}
		}
	}
}

// products accumulates a group of 32 dimensions by products of bytes. Of a
// query and a key there are eight in every 16-bit lane, at most 8*15*127, and
// a sum of two lanes is below 2^15 still.
func (e *estimator) products() {
	const values, word, low, high, query = 16, 24, 25, 26, 27
	for v := range 4 {
		for s := range 8 {
			for i, d := range digits(e.width, s) {
				e.ldr(16, word, e.block, line*d.word+16*v)
				if i == 0 {
					e.extract(d, word, values+s)
				} else {
					e.extract(d, word, word)
					e.v3("orr", "16b", values+s, values+s, word)
				}
			}
		}
		for j := range e.nq {
			for s := range 8 {
				name := "smlal"
				if s == 0 {
					name = "smull"
				}
				e.ld1rNext(query, e.p[j])
				e.longs(name, low, values+s, query)
				e.longs2(name, high, values+s, query)
			}
			if v < 3 {
				e.op("SUB", 32, e.p[j])
			}
			e.v3("addp", "8h", low, low, high)
			e.v2("sadalp", e.acc(j, v), "4s", low, "8h")
		}
	}
}

// hadamard generates the transform: strides below 32 on 32 elements at a time
// in registers, the others in passes over all.
func (a *asm) hadamard() {
	a.begin("hadamardNEON", "", "multiplies x by s (n each, a power of two from 32 on) and applies the Hadamard transform, neighbours first.",
		"x *float32", "s *float32", "n int")
	x, s, n := a.load("x"), a.load("s"), a.load("n")
	out, left := a.load("x"), a.load("n")
	a.label("short")
	for v := 0; v < 8; v += 2 {
		a.ldpNext(v, v+1, x)
		a.ldpNext(8+v, 8+v+1, s)
	}
	for v := range 8 {
		a.fmul(v, v, 8+v)
	}
	for v := 0; v < 8; v += 2 {
		for _, lanes := range []string{"4s", "2d"} {
			// Firsts of the pairs in 16, seconds in 17.
			if lanes == "4s" {
				a.v3("uzp1", lanes, 16, v, v+1)
				a.v3("uzp2", lanes, 17, v, v+1)
			} else {
				a.v3("zip1", lanes, 16, v, v+1)
				a.v3("zip2", lanes, 17, v, v+1)
			}
			a.fadd(18, 16, 17)
			a.v3("fsub", "4s", 19, 16, 17)
			a.v3("zip1", lanes, v, 18, 19)
			a.v3("zip2", lanes, v+1, 18, 19)
		}
	}
	from, to := 0, 8
	for _, h := range []int{1, 2, 4} {
		for v := range 8 {
			if v&h == 0 {
				a.fadd(to+v, from+v, from+v+h)
				a.v3("fsub", "4s", to+v+h, from+v, from+v+h)
			}
		}
		from, to = to, from
	}
	for v := from; v < from+8; v += 2 {
		a.stpNext(v, v+1, out)
	}
	a.op("SUBS", 32, left, left)
	a.op("BNE", "short")

	// The halves of stretches of 2h elements meet.
	h, p, q, end := a.reg(), a.reg(), a.reg(), a.reg()
	bytes := a.reg()
	a.op("MOVD", 32, h)
	a.label("pass")
	a.op("CMP", n, h)
	a.op("BGE", "done")
	a.op("MOVD", a.arg("x"), p)
	a.op("ADD", fmt.Sprintf("%v<<2", n), p, end)
	a.op("LSL", 2, h, bytes)
	a.label("stretch")
	a.op("ADD", bytes, p, q)
	a.op("MOVD", h, left)
	a.label("pairs")
	a.ldp(0, 1, p, 0)
	a.ldp(2, 3, q, 0)
	a.fadd(4, 0, 2)
	a.fadd(5, 1, 3)
	a.v3("fsub", "4s", 6, 0, 2)
	a.v3("fsub", "4s", 7, 1, 3)
	a.stpNext(4, 5, p)
	a.stpNext(6, 7, q)
	a.op("SUBS", 8, left, left)
	a.op("BNE", "pairs")
	a.op("MOVD", q, p)
	a.op("CMP", end, p)
	a.op("BLO", "stretch")
	a.op("LSL", 1, h, h)
	a.op("B", "pass")
	a.label("done")
	a.op("RET")
}

// cells writes the grid cells, counted from -half, of registers x on to
// those from g on.
func (a *asm) cells(x, g int) {
	for i := range 4 {
		a.fmul(g+i, x+i, gridInv)
	}
	for i := range 4 {
		a.v2("frintm", g+i, "4s", g+i, "4s")
	}
	for i := range 4 {
		a.v3("fmax", "4s", g+i, g+i, gridLeast)
		a.v3("fmin", "4s", g+i, g+i, gridMost)
	}
}

// Registers of the grid's constants.
const (
	gridInv = 28 + iota
	gridLeast
	gridMost
	gridHalf // 1/2, or half of the cells
)

// grid loads the constants; gridHalf holds half the cells.
func (a *asm) grid() {
	a.loadF32("inv", gridInv)
	a.loadF32("half", gridHalf)
	a.v2("fneg", gridLeast, "4s", gridHalf, "4s")
	a.broadcast(a.table(), "one", gridMost)
	a.v3("fsub", "4s", gridMost, gridHalf, gridMost)
}

func (a *asm) gridSums() {
	a.begin("gridSumsNEON", "", "writes the sums of x*x, x*g and g*g over the n elements of x to sums, g being the centres of their grid cells.",
		"x *float32", "n int", "inv float32", "half float32", "sums *[3]float32")
	x, left, sums := a.load("x"), a.load("n"), a.load("sums")
	a.grid()
	a.broadcast(a.table(), "half", gridHalf)
	const g, product, acc = 4, 8, 12
	for i := range 12 {
		a.zero(acc + i)
	}
	a.label("loop")
	a.ldpNext(0, 1, x)
	a.ldpNext(2, 3, x)
	a.cells(0, g)
	for i := range 4 {
		a.fadd(g+i, g+i, gridHalf)
	}
	for k, pair := range [][2]int{{0, 0}, {0, g}, {g, g}} {
		for i := range 4 {
			a.fmul(product+i, pair[0]+i, pair[1]+i)
		}
		for i := range 4 {
			a.fadd(acc+4*k+i, acc+4*k+i, product+i)
		}
	}
	a.op("SUBS", 16, left, left)
	a.op("BNE", "loop")
	for k := range 3 {
		v := acc + 4*k
		a.fadd(v, v, v+2)
		a.fadd(v+1, v+1, v+3)
		a.fadd(v, v, v+1)
		a.swap(v+1, v)
		a.fadd(v, v, v+1)
		a.faddPair(v, v)
		a.strNext(4, v, sums)
	}
	a.op("RET")
}

func (a *asm) gridDigits() {
	a.begin("digitsNEON", "", "writes the grid cells of the n elements of x, counted from 0, to out.",
		"x *float32", "n int", "inv float32", "half float32", "out *byte")
	x, left, out := a.load("x"), a.load("n"), a.load("out")
	a.grid()
	const g = 4
	a.label("loop")
	a.ldpNext(0, 1, x)
	a.ldpNext(2, 3, x)
	a.cells(0, g)
	for i := range 4 {
		a.fadd(g+i, g+i, gridHalf)
		a.v2("fcvtzs", g+i, "4s", g+i, "4s")
	}
	a.v3("uzp1", "8h", g, g, g+1)
	a.v3("uzp1", "8h", g+2, g+2, g+3)
	a.v3("uzp1", "16b", g, g, g+2)
	a.strNext(16, g, out)
	a.op("SUBS", 16, left, left)
	a.op("BNE", "loop")
	a.op("RET")
}

func (a *asm) countAtLeast() {
	a.begin("countAtLeastNEON", "int", "returns how many of the n elements of x are not below least; a NaN is below.",
		"x *float32", "n int", "least float32")
	x := a.load("x")
	const least, counts = 16, 20
	a.loadF32("least", least)
	for v := range 4 {
		a.zero(counts + v)
	}
	a.each(4, func(e elements) {
		e.next(x, 0)
		for i := range e.vectors {
			if e.single {
				e.fcmgeFirst(i, i, least)
			} else {
				e.v3("fcmge", "4s", i, i, least)
			}
		}
		for i := range e.vectors {
			e.v3("sub", "4s", counts+i, counts+i, i)
		}
	})
	a.v3("add", "4s", counts, counts, counts+1)
	a.v3("add", "4s", counts+2, counts+2, counts+3)
	a.v3("add", "4s", counts, counts, counts+2)
	a.addAcross(counts, counts)
	count := a.reg()
	a.toW(count, counts)
	a.op("MOVD", count, a.arg("ret"))
	a.op("RET")
}

func (a *asm) takeAtLeast() {
	a.begin("takeAtLeastNEON", "int",
		"writes those of the n elements of x that are not below least to values and first plus their index to ids, in order, and returns their number; a NaN is below. values may be x.",
		"x *float32", "n int", "first uint32", "least float32", "ids *uint32", "values *float32")
	x, left, ids, values := a.load("x"), a.load("n"), a.load("ids"), a.load("values")
	id, found, lane, value, count := a.reg(), a.reg(), a.reg(), a.reg(), a.reg()
	a.op("MOVWU", a.arg("first"), id)
	const least = 16
	a.loadF32("least", least)
	a.op("MOVD", values, count)

	take := func(address string, id gp) {
		a.op("MOVWU", address, value)
		a.op("MOVW.P", value, fmt.Sprintf("4(%v)", values))
		a.op("MOVW.P", id, fmt.Sprintf("4(%v)", ids))
	}
	// Few reach the threshold: sixteen at a time that do not, then four, and
	// of these one by one.
	a.label("blocks")
	a.op("CMP", 16, left)
	a.op("BLT", "vectors")
	a.anyAtLeast(x, least, found)
	a.op("CBNZ", found, "vectors")
	a.op("ADD", 64, x)
	a.op("ADD", 16, id)
	a.op("SUB", 16, left)
	a.op("B", "blocks")

	a.label("vectors")
	a.op("CMP", 4, left)
	a.op("BLT", "singles")
	a.ldr(16, 0, x, 0)
	a.v3("fcmge", "4s", 0, 0, least)
	a.v2("xtn", 0, "4h", 0, "4s") // sixteen bits a lane
	a.toX(found, 0)
	for i := range 4 {
		next := fmt.Sprintf("lane%d", i+1)
		a.op("TBZ", 16*i, found, next)
		a.op("ADD", i, id, lane)
		take(fmt.Sprintf("%d(%v)", 4*i, x), lane)
		a.label(next)
	}
	a.op("ADD", 16, x)
	a.op("ADD", 4, id)
	a.op("SUB", 4, left)
	a.op("TST", 12, left)
	a.op("BNE", "vectors")
	a.op("B", "blocks")

	a.label("singles")
	a.op("CBZ", left, "done")
	a.ldr(4, 0, x, 0)
	a.fcmgeFirst(0, 0, least)
	a.toW(found, 0)
	a.op("CBZ", found, "next")
	take(fmt.Sprintf("(%v)", x), id)
	a.label("next")
	a.op("ADD", 4, x)
	a.op("ADD", 1, id)
	a.op("SUB", 1, left)
	a.op("B", "singles")

	a.label("done")
	a.op("SUB", count, values, count)
	a.op("LSR", 2, count)
	a.op("MOVD", count, a.arg("ret"))
	a.op("RET")
}

// sumExp needs no exact exponentials, for what it sums are estimates: a
// polynomial of degree 4 is within 5e-5.
func (a *asm) sumExp() {
	a.begin("sumExpNEON", "float32",
		"returns the sum of exp(scale*x + shift), each within 1e-4 of its value, over those of the n elements of x that are below limit; a NaN is not.",
		"x *float32", "n int", "limit float32", "scale float32", "shift float32")
	x, table := a.load("x"), a.table()
	const (
		limit, scale, shift = 16, 17, 18
		least, most         = 19, 20
		one, second, others = 21, 22, 23 // coefficients; a lane each of the others
		sums, rest          = 24, 26
	)
	a.ldr(16, others, table, 0)
	for i, name := range []string{"limit", "scale", "shift"} {
		a.loadF32(name, limit+i)
	}
	a.lane("fmul", scale, scale, others, 0) // by log2 e
	a.lane("fmul", shift, shift, others, 0)
	for i, name := range []string{"leastpower", "mostpower", "one", "e2"} {
		a.broadcast(table, name, least+i)
	}
	a.ldr(16, others, table, 32)
	for v := sums; v <= rest; v++ {
		a.zero(v)
	}
	a.each(2, func(e elements) {
		// 2 to the power t = n + r
		const t, below, n, square, p, q = 0, 2, 4, 6, 8, 10
		const read = 12
		e.next(x, read)
		for i := range e.vectors {
			e.v3("fcmgt", "4s", below+i, limit, read+i)
			e.mov(t+i, shift)
			e.fmla(t+i, read+i, scale)
			e.v3("fmax", "4s", t+i, t+i, least) // a NaN stays
			e.v3("fmin", "4s", t+i, t+i, most)
			e.v2("frintn", n+i, "4s", t+i, "4s")
			e.v3("fsub", "4s", t+i, t+i, n+i)
			e.fmul(square+i, t+i, t+i)
			e.mov(p+i, one)
			e.mov(q+i, second)
			e.lane("fmla", p+i, t+i, others, 0)
			e.lane("fmla", q+i, t+i, others, 1)
			e.lane("fmla", q+i, square+i, others, 2)
			e.fmla(p+i, q+i, square+i)
			e.v2("fcvtzs", n+i, "4s", n+i, "4s")
			e.shl(n+i, n+i, 23)
			e.v3("add", "4s", p+i, p+i, n+i) // to the exponent
			e.v3("and", "16b", p+i, p+i, below+i)
		}
		e.addTo(sums, rest, p)
	})
	a.total(sums, rest)
	a.ret("FMOVS", sums)
}
