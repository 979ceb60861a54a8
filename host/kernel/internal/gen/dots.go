package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// dots generates the inner products of nq queries with n rows. A block of
// rows meets all queries in registers: one accumulator for each pair, filled
// lane by lane along the dimension and summed across lanes at the end, so
// that a stored row is read and widened once for all queries.
//
// AVX-512 has registers for 4 rows x 4 queries; AVX2 for 2 x 4 and 4 x 2.
func (l *level) dots(t dtype, nq int) {
	begin(fmt.Sprintf("dots%d%s%s", nq, t.name, l.name),
		"(q0, q1, q2, q3 *float32, rows *byte, ids *uint32, n, dim int, o0, o1, o2, o3 *float32)",
		fmt.Sprintf("writes oj[i] = qj . row i for j < %d and i < n; ids is not used; dim > 0 columns.", nq))
	d := &dotter{level: l, t: t, nq: nq}
	for j := range nq {
		d.q = append(d.q, load(fmt.Sprintf("q%d", j)))
	}
	if l.wide() {
		tailMask(mem("dim"), l.lanes)
	}
	rows := 4
	if !l.wide() && nq == 4 {
		rows = 2
	}
	d.base = load("rows")
	d.stride = load("dim")
	d.end = GP64()
	MOVQ(d.stride, d.end)
	ANDQ(I8(-l.lanes), d.end)
	SHLQ(U8(map[int]int{2: 1, 4: 2}[t.size]), d.stride)
	d.i, d.k = GP64(), GP64()
	for range rows {
		d.r = append(d.r, GP64())
	}
	XORQ(d.i, d.i)

	Label("block")
	MOVQ(mem("n"), d.k)
	SUBQ(d.i, d.k)
	CMPQ(d.k, U8(rows))
	JLT(LabelRef("rest"))
	d.point(rows)
	d.inner(rows, "block")
	d.store(rows)
	ADDQ(U8(rows), d.i)
	JMP(LabelRef("block"))

	Label("rest")
	CMPQ(d.i, mem("n"))
	JGE(LabelRef("done"))
	d.point(1)
	d.inner(1, "rest")
	d.store(1)
	INCQ(d.i)
	JMP(LabelRef("rest"))

	Label("done")
	done()
}

// ahead is how many bytes before their use the rows of a range are asked for
// on AVX2, where the arithmetic of several queries leaves the processor too
// few reads under way. With AVX-512, or one query, it gains nothing.
const ahead = 4096

type dotter struct {
	*level
	t  dtype
	nq int

	q, r        []GPVirtual // queries, rows of the block
	base        GPVirtual   // rows left
	stride, end GPVirtual   // bytes of a row; elements before the tail
	i, k        GPVirtual   // row, element
}

// point sets r to the block's rows.
func (d *dotter) point(rows int) {
	MOVQ(d.base, d.r[0])
	for r := 1; r < rows; r++ {
		LEAQ(Mem{Base: d.r[r-1], Index: d.stride, Scale: 1}, d.r[r])
	}
	LEAQ(Mem{Base: d.r[rows-1], Index: d.stride, Scale: 1}, d.base)
}

// Vector registers: accumulators of row r and query j first, then a row
// each, then the query at hand. Those from free on hold nothing.
func (d *dotter) acc(r, j int) int { return r*d.nq + j }

func (d *dotter) row(r int) int {
	if d.wide() {
		return 16 + r
	}
	return 8 + r
}

func (d *dotter) query() int {
	if d.wide() {
		return 20
	}
	return 12
}

// inner accumulates a block along the dimension.
func (d *dotter) inner(rows int, label string) {
	for a := range rows * d.nq {
		d.zero(a)
	}
	multiply := func(load func(t dtype, m Mem, v int)) {
		for r := range rows {
			load(d.t, d.t.at(d.r[r], d.k), d.row(r))
		}
		for j := range d.nq {
			load(f32, f32.at(d.q[j], d.k), d.query())
			for r := range rows {
				VFMADD231PS(d.v(d.row(r)), d.v(d.query()), d.v(d.acc(r, j)))
			}
		}
	}
	XORQ(d.k, d.k)
	CMPQ(d.k, d.end)
	JGE(LabelRef(label + "_tail"))
	Label(label + "_loop")
	if !d.wide() && d.nq > 1 && rows > 1 {
		for r := range rows {
			PREFETCHT0(d.t.at(d.r[r], d.k).Offset(ahead))
		}
	}
	multiply(func(t dtype, m Mem, v int) { d.load(t, m, v, false) })
	ADDQ(U8(d.lanes), d.k)
	CMPQ(d.k, d.end)
	JLT(LabelRef(label + "_loop"))
	Label(label + "_tail")
	CMPQ(d.k, mem("dim"))
	JGE(LabelRef(label + "_sum"))
	if d.wide() {
		multiply(func(t dtype, m Mem, v int) { d.load(t, m, v, true) })
	} else {
		// There is no masked load of 16-bit elements: one at a time.
		t32 := GP32()
		multiply(func(t dtype, m Mem, v int) { loadOne(t, m, v, t32) })
		INCQ(d.k)
		JMP(LabelRef(label + "_tail"))
	}
	Label(label + "_sum")
}

// out returns the address of result i of query j.
func (d *dotter) out(j int) Mem {
	MOVQ(mem(fmt.Sprintf("o%d", j)), d.k)
	return Mem{Base: d.k, Index: d.i, Scale: 4}
}

// store sums the accumulators across lanes and writes the block's results.
// Every form adds in one order, so that a score does not depend on what else
// is asked for: halves of 256 bits, halves of 128, then neighbours twice.
func (d *dotter) store(rows int) {
	switch {
	case rows == 1:
		for j := range d.nq {
			y := d.fold(j, 13)
			x := xmm[j]
			VEXTRACTF128(U8(1), y, X13)
			VADDPS(X13, x, x)
			VHADDPS(x, x, x)
			VHADDPS(x, x, x)
			VMOVSS(x, d.out(j))
		}
	case rows == 4 && d.nq == 4:
		d.sum4x4()
		VMOVUPS(xmm[0], d.out(0))
		for j := 1; j < 4; j++ {
			VEXTRACTF32X4(U8(j), zmm[0], d.out(j))
		}
	case rows == 4:
		for j := range d.nq {
			d.sum4(j)
			VMOVUPS(X13, d.out(j))
		}
	default: // 2 rows x 4 queries
		d.write2x4(d.out)
	}
}

// sum4 sums the accumulators of query j with 4 rows into X13.
func (d *dotter) sum4(j int) {
	for r := range 4 {
		d.fold(d.acc(r, j), 13)
	}
	a, b := d.acc(0, j), d.acc(2, j)
	halves(a, d.acc(1, j))
	halves(b, d.acc(3, j))
	VHADDPS(ymm[b], ymm[a], ymm[a])
	VHADDPS(ymm[a], ymm[a], ymm[a]) // rows 0 2 0 2, 1 3 1 3
	VEXTRACTF128(U8(1), ymm[a], X13)
	VUNPCKLPS(X13, xmm[a], X13)
}

// sum2x4 sums the accumulators of 4 queries with 2 rows into Y0: row 0 of
// all queries, row 1 of all queries.
func (d *dotter) sum2x4() {
	for j := range d.nq {
		halves(d.acc(0, j), d.acc(1, j))
	}
	VHADDPS(ymm[d.acc(0, 1)], Y0, Y0)
	c := ymm[d.acc(0, 2)]
	VHADDPS(ymm[d.acc(0, 3)], c, c)
	VHADDPS(c, Y0, Y0)
}

// write2x4 sums and writes the results of 2 rows x 4 queries.
func (d *dotter) write2x4(out func(j int) Mem) {
	d.sum2x4()
	VEXTRACTF128(U8(1), Y0, X13)
	VUNPCKLPS(X13, X0, X14)
	VUNPCKHPS(X13, X0, X15)
	VMOVLPS(X14, out(0))
	VMOVHPS(X14, out(1))
	VMOVLPS(X15, out(2))
	VMOVHPS(X15, out(3))
}

// halves adds the 128-bit halves of two registers: those of a to the low
// half of a, those of b to its high half.
func halves(a, b int) {
	VPERM2F128(U8(0x20), ymm[b], ymm[a], Y14)
	VPERM2F128(U8(0x31), ymm[b], ymm[a], Y15)
	VADDPS(Y15, Y14, ymm[a])
}

// fold adds the halves of accumulator a into its low 256 bits.
func (d *dotter) fold(a, tmp int) VecPhysical {
	if d.wide() {
		VEXTRACTF64X4(U8(1), zmm[a], ymm[tmp])
		VADDPS(ymm[tmp], ymm[a], ymm[a])
	}
	return ymm[a]
}

// sum4x4 sums the accumulators of 4 queries with 4 rows into Z0, query 0 of
// all rows first. It transposes and adds: 128-bit lanes first, so that one
// register holds a row's lane for each query, then within the lanes.
func (d *dotter) sum4x4() {
	lanes := func(a, b int, lo, hi U8) {
		VSHUFF64X2(lo, zmm[b], zmm[a], Z21)
		VSHUFF64X2(hi, zmm[b], zmm[a], Z22)
		VADDPS(Z21, Z22, zmm[a])
	}
	for r := range 4 {
		lanes(d.acc(r, 0), d.acc(r, 1), 0x44, 0xee)
		lanes(d.acc(r, 2), d.acc(r, 3), 0x44, 0xee)
		lanes(d.acc(r, 0), d.acc(r, 2), 0x88, 0xdd)
	}
	for _, r := range [][2]int{{0, 1}, {2, 3}, {0, 2}} {
		neighbours(zmm[d.acc(r[0], 0)], zmm[d.acc(r[1], 0)], Z21, Z22)
	}
}

// neighbours adds neighbouring f32 of a and b: those of a to the low half of
// each 128-bit lane of a, those of b to the high half.
func neighbours(a, b, x, y VecPhysical) {
	VSHUFPS(U8(0x88), b, a, x)
	VSHUFPS(U8(0xdd), b, a, y)
	VADDPS(x, y, a)
}

// prefetch generates the hint that starts the reads of a whole list at once.
func prefetch() {
	begin("prefetchRows", "(rows *byte, ids *uint32, n, bytes int)",
		"asks the caches for every line of rows ids[0] to ids[n-1], bytes > 0 each.")
	base, ids, n, bytes := load("rows"), load("ids"), load("n"), load("bytes")
	i, p, end := GP64(), GP64(), GP64()
	XORQ(i, i)
	Label("row")
	CMPQ(i, n)
	JGE(LabelRef("done"))
	MOVL(Mem{Base: ids, Index: i, Scale: 4}, p.As32())
	IMULQ(bytes, p)
	ADDQ(base, p)
	LEAQ(Mem{Base: p, Index: bytes, Scale: 1}, end)
	ANDQ(I8(-64), p)
	Label("line")
	PREFETCHT0(Mem{Base: p})
	ADDQ(U8(64), p)
	CMPQ(p, end)
	JLT(LabelRef("line"))
	INCQ(i)
	JMP(LabelRef("row"))
	Label("done")
	RET()
}
