package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// form is how a scan multiplies stored rows with queries. Queries are packed
// for it (see [level.packQuery]): steps of as many elements as one row load
// covers, in each step all queries.
//
// A split form loads two elements in a lane of 32 bits and takes them apart
// by a shift and a mask, which is half the work of widening them one by one;
// the packed query has the even elements of a step first, then the odd ones.
// A rounded form multiplies pairs of bf16 by VDPBF16PS.
type form struct {
	name           string
	t              dtype
	split, rounded bool
}

var (
	scanF32     = form{name: "F32", t: f32}
	scanF16     = form{name: "F16", t: f16}
	scanBF16    = form{name: "BF16", t: bf16, split: true}
	scanRounded = form{name: "Rounded", t: bf16, rounded: true}
)

// step is the number of elements of a row that are multiplied at once.
func (f form) step(l *level) int {
	if f.split || f.rounded {
		return 2 * l.lanes
	}
	return l.lanes
}

// parts is the number of registers that hold a step of a widened row, and
// of a packed query.
func (f form) parts() int {
	if f.split {
		return 2
	}
	return 1
}

// scanner generates the scans of blocks of rows: one accumulator for each
// pair of row and query, as in [dotter], whose sums it shares, so that all
// forms add in one order.
type scanner struct {
	dotter
	form
	list bool
	rows int // of a block

	queries, at GPVirtual // packed queries; those of a step
	ids         GPVirtual
	asked       GPVirtual // rows of the list that the caches were asked for
	found       GPVirtual // survivors so far
	spill       Mem
}

// scanAhead is how many bytes ahead of their use the rows of a range are asked
// for, into the second-level cache, when four queries keep the multipliers
// busy. With fewer queries it costs more than it gains.
const scanAhead = 8192

func (l *level) scanner(f form, nq int, list bool) *scanner {
	s := &scanner{dotter: dotter{level: l, t: f.t, nq: nq}, form: f, list: list, rows: 4}
	if !l.wide() && nq == 4 {
		s.rows = 2
	}
	return s
}

// scan generates the scores of a range or a list of rows.
func (l *level) scan(f form, nq int, list bool) {
	kind, row, asks := "", "row i", ""
	if list {
		kind, row, asks = "List", "row ids[i]", " Rows from number ahead on are asked for ahead of their use."
	}
	begin(fmt.Sprintf("scan%d%s%s%s", nq, f.name, kind, l.name),
		"(q *float32, rows *byte, ids *uint32, ahead, n, dim int, o0, o1, o2, o3 *float32)",
		fmt.Sprintf("writes oj[i] = qj . %s for j < %d and i < n, for packed queries; dim > 0 columns.%s", row, nq, asks))
	s := l.scanner(f, nq, list)
	s.setup()
	s.blocks(s.scores)
	done()
}

// best generates the scan of a range that keeps only the scores that may
// enter a top-k.
func (l *level) best(f form, nq int) {
	begin(fmt.Sprintf("best%d%s%s", nq, f.name, l.name),
		"(q *float32, rows *byte, n, dim int, least *float32, tags *uint32, scores *float32, room int) (seen, found int)",
		fmt.Sprintf("writes tag 4*i+j and score qj . row i of the scores that are not below least[j], for j < %d and i < n, for packed queries; a NaN is not below. "+
			"It stops when fewer than 16 of the room entries of tags and scores are free, and returns how many rows it has seen. least has 4 values; dim > 0 columns.", nq))
	s := l.scanner(f, nq, false)
	s.setup()
	s.found = GP64()
	XORQ(s.found, s.found)
	if l.wide() {
		s.thresholds()
	} else {
		s.spill = AllocLocal(32)
	}
	s.blocks(s.survivors)
	CMPQ(s.i, mem("n"))
	CMOVQGT(mem("n"), s.i)
	Store(s.i, ReturnIndex(0))
	Store(s.found, ReturnIndex(1))
	done()
}

// Vector registers of AVX-512 that hold constants.
const (
	scanMask  = 29 // ones in the upper halves of the lanes
	scanTags  = 30 // the tags of a block at row 0
	scanLeast = 31 // the thresholds, four lanes each
)

// setup loads what stays in registers.
func (s *scanner) setup() {
	s.queries, s.base = load("q"), load("rows")
	if s.list {
		s.ids, s.asked = load("ids"), load("ahead")
	}
	s.stride = load("dim")
	if s.wide() {
		s.tailMask()
	}
	s.end = GP64()
	MOVQ(s.stride, s.end)
	ANDQ(I8(-s.step(s.level)), s.end)
	shift := U8(map[int]int{2: 1, 4: 2}[s.form.t.size])
	SHLQ(shift, s.stride)
	SHLQ(shift, s.end)
	s.i, s.k, s.at = GP64(), GP64(), GP64()
	for range s.rows {
		s.r = append(s.r, GP64())
	}
	XORQ(s.i, s.i)
	if s.split && s.wide() {
		s.upper(scanMask)
	}
}

// upper fills vector register v with the mask of the odd elements.
func (s *scanner) upper(v int) { s.broadcast("upper", v) }

// tailMask sets K1 to the elements of the last, partial step.
func (s *scanner) tailMask() {
	MOVQ(s.stride, RCX)
	ANDQ(U8(s.step(s.level)-1), RCX)
	m := GP32()
	MOVL(U32(1), m)
	SHLL(CL, m)
	DECL(m)
	KMOVD(m, K1)
}

// blocks generates the loop over blocks of rows; write takes their sums. The
// last block may have fewer rows than the others: the last row stands in for
// those that are missing, and write(true) leaves them out. k then holds the
// number of rows.
func (s *scanner) blocks(write func(partial bool)) {
	Label("block")
	if s.found != nil {
		MOVQ(mem("room"), s.k)
		SUBQ(s.found, s.k)
		CMPQ(s.k, U8(16))
		JLT(LabelRef("done"))
	}
	MOVQ(mem("n"), s.k)
	SUBQ(s.i, s.k)
	JLE(LabelRef("done"))
	if s.list {
		s.ask()
		s.pointList()
	} else {
		s.point()
	}
	s.inner()
	ADDQ(U8(s.rows), s.i)
	MOVQ(mem("n"), s.k)
	SUBQ(s.i, s.k)
	JLT(LabelRef("partial"))
	write(false)
	JMP(LabelRef("block"))
	Label("partial")
	ADDQ(U8(s.rows), s.k)
	write(true)
	Label("done")
}

// point sets r to the rows of a block of which k are left.
func (s *scanner) point() {
	MOVQ(s.base, s.r[0])
	for r := 1; r < s.rows; r++ {
		MOVQ(s.r[r-1], s.r[r])
		LEAQ(Mem{Base: s.r[r-1], Index: s.stride, Scale: 1}, s.at)
		CMPQ(s.k, U8(r))
		CMOVQGT(s.at, s.r[r])
	}
	LEAQ(Mem{Base: s.r[s.rows-1], Index: s.stride, Scale: 1}, s.base)
}

func (s *scanner) pointList() {
	MOVQ(mem("n"), s.k)
	DECQ(s.k)
	for r := range s.rows {
		LEAQ(Mem{Base: s.i, Disp: r}, s.at)
		CMPQ(s.at, s.k)
		CMOVQGT(s.k, s.at)
		MOVL(Mem{Base: s.ids, Index: s.at, Scale: 4}, s.r[r].As32())
		IMULQ(s.stride, s.r[r])
		ADDQ(s.base, s.r[r])
	}
}

// ask asks the caches for the rows of the list up to ahead rows beyond this
// block that were not asked for yet; the caller asked for the first ones.
func (s *scanner) ask() {
	p, end := GP64(), GP64()
	MOVQ(s.i, s.k)
	ADDQ(U8(s.rows), s.k)
	ADDQ(mem("ahead"), s.k)
	CMPQ(s.k, mem("n"))
	CMOVQGT(mem("n"), s.k)
	JMP(LabelRef("asked"))
	Label("ask")
	MOVL(Mem{Base: s.ids, Index: s.asked, Scale: 4}, p.As32())
	IMULQ(s.stride, p)
	ADDQ(s.base, p)
	LEAQ(Mem{Base: p, Index: s.stride, Scale: 1}, end)
	ANDQ(I8(-64), p)
	Label("line")
	PREFETCHT0(Mem{Base: p})
	PREFETCHT0(Mem{Base: p, Disp: 64}) // rows of an odd number of lines are rare
	SUBQ(I8(-128), p)
	CMPQ(p, end)
	JLT(LabelRef("line"))
	INCQ(s.asked)
	Label("asked")
	CMPQ(s.asked, s.k)
	JLT(LabelRef("ask"))
}

// query returns the address of part p of query j in a step.
func (s *scanner) query(j, p int) Mem {
	return Mem{Base: s.at, Disp: (j*s.parts() + p) * 4 * s.lanes}
}

// fetch loads a step of the row at r and widens it to registers v, v+1 ...
func (s *scanner) fetch(r GPVirtual, v int, tail bool) {
	m := Mem{Base: r, Index: s.k, Scale: 1}
	if !s.split && !s.rounded {
		s.load(s.form.t, m, v, tail)
		return
	}
	raw := v + s.parts() - 1
	if tail {
		VMOVDQU16_Z(m, K1, s.v(raw))
	} else {
		VMOVUPS(m, s.v(raw))
	}
	switch {
	case s.rounded:
	case s.wide():
		VPSLLD(U8(16), s.v(raw), s.v(v))
		VPANDD(s.v(scanMask), s.v(raw), s.v(raw))
	default:
		VPSLLD(U8(16), s.v(raw), s.v(v))
		VPAND(Y15, s.v(raw), s.v(raw))
	}
}

// multiply accumulates one step, with 4 queries the rows in registers and the
// queries passing, else the other way round.
func (s *scanner) multiply(tail bool) {
	held, passing := 8, 12
	if s.wide() {
		held, passing = 16, 24
	}
	add := func(row, query, r, j int) {
		if s.rounded {
			vdpbf16ps(row, query, s.acc(r, j))
		} else {
			VFMADD231PS(s.v(row), s.v(query), s.v(s.acc(r, j)))
		}
	}
	parts := s.parts()
	if s.nq == 4 {
		for r := range s.rows {
			s.fetch(s.r[r], held+r*parts, tail)
		}
		for j := range s.nq {
			for p := range parts {
				VMOVUPS(s.query(j, p), s.v(passing))
				for r := range s.rows {
					add(held+r*parts+p, passing, r, j)
				}
			}
		}
		return
	}
	for j := range s.nq {
		for p := range parts {
			VMOVUPS(s.query(j, p), s.v(held+j*parts+p))
		}
	}
	for r := range s.rows {
		s.fetch(s.r[r], passing, tail)
		for p := range parts {
			for j := range s.nq {
				add(passing+p, held+j*parts+p, r, j)
			}
		}
	}
}

// inner accumulates a block along the dimension.
func (s *scanner) inner() {
	for a := range s.rows * s.nq {
		s.zero(a)
	}
	if s.split && !s.wide() {
		s.upper(15)
	}
	MOVQ(s.queries, s.at)
	XORQ(s.k, s.k)
	CMPQ(s.k, s.end)
	JGE(LabelRef("tail"))
	Label("loop")
	if !s.list && s.nq == 4 {
		for at := 0; at < s.rows*s.step(s.level)*s.form.t.size; at += 64 {
			PREFETCHT1(Mem{Base: s.r[0], Index: s.k, Scale: uint8(s.rows), Disp: scanAhead + at})
		}
	}
	s.multiply(false)
	ADDQ(I32(s.nq*s.parts()*4*s.lanes), s.at)
	ADDQ(U8(s.step(s.level)*s.form.t.size), s.k)
	CMPQ(s.k, s.end)
	JLT(LabelRef("loop"))
	Label("tail")
	CMPQ(s.k, s.stride)
	JGE(LabelRef("sum"))
	if s.wide() {
		s.multiply(true)
	} else {
		// There is no masked load of 16-bit elements: one at a time.
		t32 := GP32()
		for r := range s.rows {
			loadOne(s.form.t, Mem{Base: s.r[r], Index: s.k, Scale: 1}, 8+r, t32)
		}
		for j := range s.nq {
			VMOVSS(Mem{Base: s.at, Disp: 4 * j}, X12)
			for r := range s.rows {
				VFMADD231PS(s.v(8+r), Y12, s.v(s.acc(r, j)))
			}
		}
		ADDQ(U8(4*s.nq), s.at)
		ADDQ(U8(s.form.t.size), s.k)
		JMP(LabelRef("tail"))
	}
	Label("sum")
}

// scores writes the scores of a block; i is after its rows.
func (s *scanner) scores(partial bool) {
	out := func(j int) Mem {
		p := GP64()
		MOVQ(mem(fmt.Sprintf("o%d", j)), p)
		return Mem{Base: p, Index: s.i, Scale: 4, Disp: -4 * s.rows}
	}
	if s.rows == 2 && !partial {
		s.write2x4(out)
		return
	}
	if s.rows == 2 {
		s.sum2x4()
		for j := range 4 {
			VEXTRACTPS(U8(j), X0, out(j))
		}
		return
	}
	if partial && s.wide() {
		KMOVW(s.present(), K2)
	} else if partial {
		table := GP64()
		LEAQ(s.masks.Offset(32), table)
		NEGQ(s.k)
		VMOVUPS(f32.at(table, s.k), X12)
	}
	if s.nq == 4 {
		s.sum4x4()
	}
	for j := range s.nq {
		x := VecPhysical(X13)
		if s.nq == 4 {
			x = xmm[1]
			VEXTRACTF32X4(U8(j), Z0, x) // to memory it would not mask its faults
		} else {
			s.sum4(j)
		}
		switch {
		case !partial:
			VMOVUPS(x, out(j))
		case s.wide():
			VMOVUPS(x, K2, out(j))
		default:
			VMASKMOVPS(x, X12, out(j))
		}
	}
}

// present returns a mask of the first k of 4 rows.
func (s *scanner) present() GPVirtual {
	MOVQ(s.k, RCX)
	m := GP32()
	MOVL(U32(1), m)
	SHLL(CL, m)
	DECL(m)
	return m
}

// thresholds spreads the thresholds over the lanes of a block's scores.
func (s *scanner) thresholds() {
	least := load("least")
	VMOVUPS(s.lanesOf("tags"), Z0)
	VMOVDQU32(Z0, zmm[scanTags])
	VPANDD_BCST(s.f32s["three"], Z0, Z0)
	VBROADCASTF32X4(Mem{Base: least}, Z1)
	VPERMPS(Z1, Z0, zmm[scanLeast])
}

// survivors appends a block's scores that are not below their threshold; i is
// after its rows.
func (s *scanner) survivors(partial bool) {
	const notBelow = 0x15 // not less or unordered, quiet
	valid, bits := GP32(), GP32()
	if partial && s.rows == 4 {
		MOVL(s.present(), valid)
		IMUL3L(U32(0x1111), valid, valid)
	} else if partial {
		MOVL(U32(0xf), valid) // one of two rows
	}
	none := "none"
	if partial {
		none = "none_partial"
	}
	// Score r of query j is in lane 4*j+r, with 2 rows in lane 4*r+j.
	switch {
	case s.rows == 2:
		s.sum2x4()
	case s.nq == 4:
		s.sum4x4()
	default:
		s.sum4(0)
		VMOVAPS(X13, X0)
	}
	if s.nq == 2 {
		s.sum4(1)
		VINSERTF128(U8(1), X13, Y0, Y0)
	}
	if s.wide() {
		VCMPPS(U8(notBelow), zmm[scanLeast], Z0, K2)
		KMOVW(K2, bits)
	} else {
		least := load("least")
		if s.rows == 2 {
			VBROADCASTF128(Mem{Base: least}, Y1)
		} else {
			VBROADCASTSS(Mem{Base: least}, X1)
			VBROADCASTSS(Mem{Base: least, Disp: 4}, X2)
			VINSERTF128(U8(1), X2, Y1, Y1)
		}
		VCMPPS(U8(notBelow), Y1, Y0, Y1)
		VMOVMSKPS(Y1, bits)
	}
	if s.nq < 4 {
		ANDL(U32(1<<(4*s.nq)-1), bits)
	}
	if partial {
		ANDL(valid, bits)
	}
	TESTL(bits, bits)
	JZ(LabelRef(none))
	row := GP64()
	LEAQ(Mem{Base: s.i, Disp: -s.rows}, row)
	if s.wide() {
		KMOVW(bits, K2)
		SHLQ(U8(2), row)
		VPBROADCASTD(row.As32(), Z1)
		VPADDD(zmm[scanTags], Z1, Z1)
		VPCOMPRESSD_Z(Z1, K2, Z1)
		VMOVDQU32(Z1, f32.at(load("tags"), s.found))
		VCOMPRESSPS_Z(Z0, K2, Z0)
		VMOVUPS(Z0, f32.at(load("scores"), s.found))
		POPCNTL(bits, bits)
		ADDQ(bits.As64(), s.found)
		Label(none)
		return
	}
	lane, v := GP64(), GP32()
	tags, scores := load("tags"), load("scores")
	VMOVUPS(Y0, s.spill)
	Label(none + "_not")
	BSFL(bits, lane.As32())
	MOVL(s.spill.Idx(lane, 4), v)
	MOVL(v, f32.at(scores, s.found))
	if s.rows == 2 {
		LEAQ(Mem{Base: lane, Index: row, Scale: 4}, s.k)
	} else {
		MOVQ(lane, s.k)
		ANDQ(U8(3), s.k)
		ADDQ(row, s.k)
		SHRQ(U8(2), lane)
		LEAQ(Mem{Base: lane, Index: s.k, Scale: 4}, s.k)
	}
	MOVL(s.k.As32(), f32.at(tags, s.found))
	INCQ(s.found)
	LEAL(Mem{Base: bits, Disp: -1}, v)
	ANDL(v, bits)
	JNZ(LabelRef(none + "_not"))
	Label(none)
}

// packQuery generates the copy of whole steps of a query to its places among
// the packed queries.
func (l *level) packQuery(split bool) {
	name, what, parts := "pack", "as it is", 1
	if split {
		name, what, parts = "packSplit", "even elements first", 2
	}
	begin(name+l.name, "(q *float32, steps int, dst *float32, stride int)",
		fmt.Sprintf("writes each step of %d elements of q, %s, to dst and advances dst by stride bytes; steps > 0.", parts*l.lanes, what))
	q, steps, dst, stride := load("q"), load("steps"), load("dst"), load("stride")
	if split && l.wide() {
		VMOVUPS(l.lanesOf("evens"), Z2)
		VMOVUPS(l.lanesOf("odds"), Z3)
	}
	Label("loop")
	for p := range parts {
		VMOVUPS(Mem{Base: q, Disp: 4 * l.lanes * p}, l.v(p))
	}
	switch {
	case split && l.wide():
		VMOVAPS(Z0, Z4)
		VPERMT2PS(Z1, Z2, Z0)
		VPERMT2PS(Z1, Z3, Z4)
		VMOVAPS(Z4, Z1)
	case split:
		VSHUFPS(U8(0x88), Y1, Y0, Y2)
		VSHUFPS(U8(0xdd), Y1, Y0, Y3)
		VPERMPD(U8(0xd8), Y2, Y0)
		VPERMPD(U8(0xd8), Y3, Y1)
	}
	for p := range parts {
		VMOVUPS(l.v(p), Mem{Base: dst, Disp: 4 * l.lanes * p})
	}
	ADDQ(U32(4*l.lanes*parts), q)
	ADDQ(stride, dst)
	DECQ(steps)
	JNZ(LabelRef("loop"))
	done()
}
