package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// gemm generates what matrix products stand on: tiles of results that stay in
// registers along the whole sum, and the packing of rows that feeds them.
func (l *level) gemm() {
	for rows := 1; rows <= l.tileRows(); rows++ {
		l.tile(rows)
	}
	l.tileTop(f32)
	if l.wide() {
		l.tileTop(bf16)
		l.roundBF16()
	}
	for _, t := range []dtype{f32, bf16, f16} {
		l.pack(t)
		for _, nq := range []int{1, 2, 4} {
			l.few(t, nq)
			l.mix(t, nq)
		}
	}
	l.softmax()
}

// A tile has two vectors of columns and as many rows as leave registers for
// the operands: 12 x 32 with AVX-512, 6 x 16 with AVX2.
func (l *level) tileRows() int {
	if l.wide() {
		return 12
	}
	return 6
}

func (l *level) tileColumns() int { return 2 * l.lanes }

// tiler holds the operands of a tile. Accumulators come first in the vector
// registers, two a row, then two for b and the rest for elements of a.
type tiler struct {
	*level
	rows int
	t    dtype // f32, or bf16 for pairs of bf16 in each lane

	a           []GPVirtual // row 0, row 6
	lda         [6]GPVirtual
	b, ldb, b3  GPVirtual
	left, steps GPVirtual
}

func (t *tiler) acc(r, v int) VecPhysical { return t.v(2*r + v) }

// row returns the address of element k of row r of a.
func (t *tiler) row(r, k int) Mem {
	m := Mem{Base: t.a[r/6], Disp: 4 * k}
	switch r % 6 {
	case 0:
		return m
	case 1, 2, 4:
		m.Index, m.Scale = t.lda[1], uint8(r%6)
	default:
		m.Index, m.Scale = t.lda[r%6], 1
	}
	return m
}

// operands loads the addresses of a; lda is in bytes.
func (t *tiler) operands() {
	t.a = []GPVirtual{load("a")}
	if t.rows > 1 {
		t.lda[1] = load("lda")
	}
	for _, odd := range []int{3, 5} {
		if t.rows > odd {
			t.lda[odd] = GP64()
			LEAQ(Mem{Base: t.lda[1], Index: t.lda[1], Scale: uint8(odd - 1)}, t.lda[odd])
		}
	}
	if t.rows > 6 {
		t.a = append(t.a, GP64())
		LEAQ(Mem{Base: t.a[0], Index: t.lda[3], Scale: 2}, t.a[1])
	}
	t.b = load("b")
}

// sum accumulates a . b over k steps; b's steps are ldb bytes apart.
func (t *tiler) sum() {
	for i := range 2 * t.rows {
		t.zero(i)
	}
	t.b3 = GP64()
	LEAQ(Mem{Base: t.ldb, Index: t.ldb, Scale: 2}, t.b3)
	b0, b1 := 2*t.tileRows(), 2*t.tileRows()+1
	spare := 30 - 2*t.tileRows()
	if !t.wide() {
		spare = 14 - 2*t.tileRows()
	}
	element := 0
	step := func(k int, b Mem) {
		VMOVUPS(b, t.v(b0))
		VMOVUPS(b.Offset(4*t.lanes), t.v(b1))
		for r := range t.rows {
			e := b1 + 1 + element%spare
			element++
			VBROADCASTSS(t.row(r, k), t.v(e))
			for v := range 2 {
				if t.t == bf16 {
					vdpbf16ps(b0+v, e, 2*r+v)
				} else {
					VFMADD231PS(t.v(b0+v), t.v(e), t.acc(r, v))
				}
			}
		}
	}
	forward := func(k int) {
		for _, a := range t.a {
			ADDQ(U8(4*k), a)
		}
	}
	t.left = load("k")
	t.steps = GP64()
	MOVQ(t.left, t.steps)
	ANDQ(U8(3), t.left)
	SHRQ(U8(2), t.steps)
	JZ(LabelRef("rest"))
	Label("loop")
	for k := range 4 {
		b := Mem{Base: t.b}
		switch k {
		case 1, 2:
			b.Index, b.Scale = t.ldb, uint8(k)
		case 3:
			b.Index, b.Scale = t.b3, 1
		}
		step(k, b)
	}
	LEAQ(Mem{Base: t.b, Index: t.ldb, Scale: 4}, t.b)
	forward(4)
	DECQ(t.steps)
	JNZ(LabelRef("loop"))
	Label("rest")
	TESTQ(t.left, t.left)
	JZ(LabelRef("summed"))
	Label("single")
	step(0, Mem{Base: t.b})
	ADDQ(t.ldb, t.b)
	forward(1)
	DECQ(t.left)
	JNZ(LabelRef("single"))
	Label("summed")
}

// tile generates one tile of a matrix product. The rows of a are read element
// by element and broadcast, those of b as vectors.
func (l *level) tile(rows int) {
	begin(fmt.Sprintf("tile%d%s", rows, l.name),
		"(a *float32, lda int, b *float32, ldb, k int, c *float32, ldc, add int)",
		fmt.Sprintf("writes c[i][j], to which it adds when add is not 0, = the sum of a[i][s] * b[s][j] over s < k, for i < %d and j < %d. lda, ldb and ldc are in bytes.", rows, l.tileColumns()))
	t := &tiler{level: l, rows: rows, t: f32}
	t.operands()
	t.ldb = load("ldb")
	t.sum()
	c, ldc := load("c"), load("ldc")
	at := func(v int) Mem { return Mem{Base: c, Disp: 4 * v * l.lanes} }
	CMPQ(mem("add"), U8(0))
	JE(LabelRef("store"))
	to := GP64()
	MOVQ(c, to)
	for r := range rows {
		for v := range 2 {
			VADDPS(Mem{Base: to, Disp: 4 * v * l.lanes}, t.acc(r, v), t.acc(r, v))
		}
		if r+1 < rows {
			ADDQ(ldc, to)
		}
	}
	Label("store")
	for r := range rows {
		for v := range 2 {
			VMOVUPS(t.acc(r, v), at(v))
		}
		if r+1 < rows {
			ADDQ(ldc, c)
		}
	}
	done()
}

// tileTop generates a tile of inner products of which only what passes its
// row's threshold leaves the registers.
func (l *level) tileTop(t dtype) {
	name, what, pairs := "tileTop"+l.name, "", ""
	if t == bf16 {
		name, what, pairs = "tileTopBF16"+l.name, " of pairs of bf16", " pairs"
	}
	rows, columns := l.tileRows(), l.tileColumns()
	begin(name, "(a *float32, lda int, b *float32, k int, least, scores *float32, hits *uint32) uint32",
		fmt.Sprintf("forms the inner products%s of %d rows of a with the %d columns of a packed b over k%s. Bit j of hits[i] says that product j of row i is not less than or equal to least[i]; where a row has such bits, scores[i*%d+j] are its products. Returns all the bits together. lda is in bytes.",
			what, rows, columns, pairs, columns))
	x := &tiler{level: l, rows: rows, t: t}
	x.operands()
	x.ldb = GP64()
	MOVQ(U32(4*columns), x.ldb)
	x.sum()
	least, scores, hits := load("least"), load("scores"), load("hits")
	any, bits := GP32(), GP32()
	XORL(any, any)
	const notLessEqual = 0x16 // or unordered, quiet
	for r := range rows {
		next := fmt.Sprintf("row%d", r+1)
		bound := l.v(2 * rows)
		VBROADCASTSS(Mem{Base: least, Disp: 4 * r}, bound)
		if l.wide() {
			VCMPPS(U8(notLessEqual), bound, x.acc(r, 0), K1)
			VCMPPS(U8(notLessEqual), bound, x.acc(r, 1), K2)
			KUNPCKWD(K1, K2, K1)
			KMOVD(K1, bits)
		} else {
			high := GP32()
			VCMPPS(U8(notLessEqual), bound, x.acc(r, 0), Y13)
			VCMPPS(U8(notLessEqual), bound, x.acc(r, 1), Y14)
			VMOVMSKPS(Y13, bits)
			VMOVMSKPS(Y14, high)
			SHLL(U8(8), high)
			ORL(high, bits)
		}
		MOVL(bits, Mem{Base: hits, Disp: 4 * r})
		ORL(bits, any)
		TESTL(bits, bits)
		JZ(LabelRef(next))
		for v := range 2 {
			VMOVUPS(x.acc(r, v), Mem{Base: scores, Disp: 4 * (r*columns + v*l.lanes)})
		}
		Label(next)
	}
	MOVL(any, result())
	done()
}

// pack generates the transposition of as many rows as a vector has lanes.
// bf16 moves as pairs, which are parted at the end: that halves the shuffles.
func (l *level) pack(t dtype) {
	block := l.lanes
	if t == bf16 {
		block *= 2
	}
	begin("pack"+t.name+l.name, "(dst *float32, rows *byte, stride, n int)",
		fmt.Sprintf("writes dst[s*%d+r] = element s of row r as f32 for r < %d and s < n; n is at least %d, stride is in bytes.", l.tileColumns(), l.lanes, block))
	dst, base, stride, left := load("dst"), load("rows"), load("stride"), load("n")
	bases := []GPVirtual{base}
	var odd [8]GPVirtual
	odd[1] = stride
	for _, i := range []int{3, 5} {
		odd[i] = GP64()
		LEAQ(Mem{Base: stride, Index: stride, Scale: uint8(i - 1)}, odd[i])
	}
	odd[7] = GP64()
	LEAQ(Mem{Base: odd[3], Index: stride, Scale: 4}, odd[7])
	if l.wide() {
		bases = append(bases, GP64())
		LEAQ(Mem{Base: base, Index: stride, Scale: 8}, bases[1])
	}
	row := func(r int) Mem {
		m := Mem{Base: bases[r/8]}
		switch r %= 8; r {
		case 0:
		case 1, 2, 4:
			m.Index, m.Scale = stride, uint8(r)
		case 6:
			m.Index, m.Scale = odd[3], 2
		default:
			m.Index, m.Scale = odd[r], 1
		}
		return m
	}
	upper := l.v(2*l.lanes - 1)
	Label("block")
	for r := range l.lanes {
		if t == bf16 {
			VMOVUPS(row(r), l.v(r))
		} else {
			l.load(t, row(r), r, false)
		}
	}
	l.transpose(func(s int, v, tmp VecPhysical) {
		at := func(s int) Mem { return Mem{Base: dst, Disp: 4 * s * l.tileColumns()} }
		if t != bf16 {
			VMOVUPS(v, at(s))
			return
		}
		VPSLLD(U8(16), v, tmp)
		VMOVUPS(tmp, at(2*s))
		if l.wide() {
			VPANDD(upper, v, v)
		} else {
			VPAND(upper, v, v)
		}
		VMOVUPS(v, at(2*s+1))
	}, func() {
		if t == bf16 {
			l.broadcast("upper", 2*l.lanes-1)
		}
	})
	for _, b := range bases {
		ADDQ(U8(block*t.size), b)
	}
	ADDQ(I32(4*block*l.tileColumns()), dst)
	SUBQ(U8(block), left)
	JZ(LabelRef("done"))
	CMPQ(left, U8(block))
	JGE(LabelRef("block"))
	// What is left is less than a block: the last one begins earlier.
	back := GP64()
	MOVQ(U32(block), back)
	SUBQ(left, back)
	MOVQ(U32(block), left)
	for range map[int]int{2: 1, 4: 2}[t.size] {
		SHLQ(U8(1), back)
	}
	for _, b := range bases {
		SUBQ(back, b)
	}
	IMUL3Q(U8(4*l.tileColumns()/t.size), back, back)
	SUBQ(back, dst)
	JMP(LabelRef("block"))
	Label("done")
	done()
}

// transpose treats the first lanes registers as rows and calls store for each
// column, with a register to spare. The last register is free once ready is
// called, before the first store.
func (l *level) transpose(store func(s int, v, tmp VecPhysical), ready func()) {
	n := l.lanes
	for r := 0; r < n; r += 2 {
		VUNPCKLPS(l.v(r+1), l.v(r), l.v(n+r))
		VUNPCKHPS(l.v(r+1), l.v(r), l.v(n+r+1))
	}
	for r := 0; r < n; r += 4 {
		for i := range 2 {
			VUNPCKLPD(l.v(n+r+2+i), l.v(n+r+i), l.v(r+2*i))
			VUNPCKHPD(l.v(n+r+2+i), l.v(n+r+i), l.v(r+2*i+1))
		}
	}
	// Register 4g+c holds column 4i+c of rows 4g to 4g+3 in its part i.
	ready()
	for c := range 4 {
		if !l.wide() {
			for i, parts := range []U8{0x20, 0x31} {
				VPERM2F128(parts, l.v(4+c), l.v(c), l.v(n+i))
				store(4*i+c, l.v(n+i), l.v(n+2))
			}
			continue
		}
		VSHUFF32X4(U8(0x44), l.v(4+c), l.v(c), l.v(n))
		VSHUFF32X4(U8(0x44), l.v(12+c), l.v(8+c), l.v(n+1))
		VSHUFF32X4(U8(0xee), l.v(4+c), l.v(c), l.v(n+2))
		VSHUFF32X4(U8(0xee), l.v(12+c), l.v(8+c), l.v(n+3))
		for i := range 4 {
			part := []U8{0x88, 0xdd}[i%2]
			from := n + i/2*2
			VSHUFF32X4(part, l.v(from+1), l.v(from), l.v(n+4+i))
			store(4*i+c, l.v(n+4+i), l.v(n+8+i))
		}
	}
}

// few generates the inner products of nq vectors with n rows that come from
// memory: as dots does, but the rows of a block need not be neighbours. The
// hardware reads several streams ahead of their use, if they lie apart.
func (l *level) few(t dtype, nq int) {
	begin(fmt.Sprintf("few%d%s%s", nq, t.name, l.name),
		"(q0, q1, q2, q3 *float32, rows *byte, stride, step, n, dim int, o0, o1, o2, o3 *float32)",
		fmt.Sprintf("writes oj[%d*i+r] = qj . the row at i*step+r*stride for j < %d, r < %d and i < n; dim > 0 columns, stride and step are in bytes.", streams, nq, streams))
	d := &dotter{level: l, t: t, nq: nq}
	for j := range nq {
		d.q = append(d.q, load(fmt.Sprintf("q%d", j)))
	}
	if l.wide() {
		tailMask(mem("dim"), l.lanes)
	}
	rows := streams
	if !l.wide() && nq == 4 {
		rows = 2 // as many as there are registers for
	}
	d.base, d.stride = load("rows"), load("stride")
	d.i, d.k = GP64(), GP64()
	var row []GPVirtual
	for range streams {
		row = append(row, GP64())
	}
	t32 := GP32()
	inner := func(rows int, label string) {
		for a := range rows * nq {
			d.zero(a)
		}
		multiply := func(at int, load func(t dtype, m Mem, v int)) {
			for r := range rows {
				load(t, t.at(d.r[r], d.k).Offset(at*t.size), d.row(r))
			}
			for j := range nq {
				load(f32, f32.at(d.q[j], d.k).Offset(4*at), d.query())
				for r := range rows {
					VFMADD231PS(d.v(d.row(r)), d.v(d.query()), d.v(d.acc(r, j)))
				}
			}
		}
		whole := func(t dtype, m Mem, v int) { d.load(t, m, v, false) }
		// A line of each row at a time, then vectors, then the tail.
		line := 64 / t.size
		left := GP64()
		XORQ(d.k, d.k)
		MOVQ(mem("dim"), left)
		SUBQ(U8(line), left)
		JLT(LabelRef(label + "_vectors"))
		Label(label + "_lines")
		for r := range rows {
			PREFETCHT1(t.at(d.r[r], d.k).Offset(farAhead))
		}
		for at := 0; at < line; at += l.lanes {
			multiply(at, whole)
		}
		ADDQ(U8(line), d.k)
		SUBQ(U8(line), left)
		JGE(LabelRef(label + "_lines"))
		Label(label + "_vectors")
		ADDQ(U8(line-l.lanes), left)
		if line > l.lanes {
			JLT(LabelRef(label + "_tail"))
			Label(label + "_vector")
			multiply(0, whole)
			ADDQ(U8(l.lanes), d.k)
			SUBQ(U8(l.lanes), left)
			JGE(LabelRef(label + "_vector"))
		}
		Label(label + "_tail")
		CMPQ(d.k, mem("dim"))
		JGE(LabelRef(label + "_sum"))
		if l.wide() {
			multiply(0, func(t dtype, m Mem, v int) { d.load(t, m, v, true) })
		} else {
			multiply(0, func(t dtype, m Mem, v int) { loadOne(t, m, v, t32) })
			INCQ(d.k)
			JMP(LabelRef(label + "_tail"))
		}
		Label(label + "_sum")
	}
	left := load("n")
	XORQ(d.i, d.i)
	Label("block")
	DECQ(left)
	JLT(LabelRef("done"))
	MOVQ(d.base, row[0])
	for r := 1; r < streams; r++ {
		LEAQ(Mem{Base: row[r-1], Index: d.stride, Scale: 1}, row[r])
	}
	ADDQ(mem("step"), d.base)
	for r := 0; r < streams; r += rows {
		d.r = row[r : r+rows]
		inner(rows, fmt.Sprintf("rows%d", r))
		d.store(rows)
		ADDQ(U8(rows), d.i)
	}
	JMP(LabelRef("block"))
	Label("done")
	done()
}

// streams is how many rows apart are read together.
const streams = 4

// farAhead is how many bytes ahead a stream is asked for: half a page, where
// the hardware begins anew with every page.
const farAhead = 2048

// roundBF16 generates the instruction that rounds to bf16, to the nearest,
// with ties to even. Unlike narrow it loses the least numbers: it is for
// candidates.
func (l *level) roundBF16() {
	begin("roundBF16"+l.name, "(dst *uint16, src *float32, n int)",
		"writes the n elements of src as bf16 to dst; what is below the least normal number becomes 0.")
	dst, src := load("dst"), load("src")
	l.each(l.lanes, func(e elements) {
		e.read(src, l.v(0))
		vcvtneps2bf16(0, 1)
		if e.tail {
			VMOVDQU16(ymm[1], K1, bf16.at(dst, e.k))
		} else {
			VMOVUPS(ymm[1], bf16.at(dst, e.k))
		}
	})
	done()
}

// mix generates the weighted sums of n stored rows for several queries: a row
// is read and widened once for all of them.
func (l *level) mix(t dtype, nq int) {
	begin(fmt.Sprintf("mix%d%s%s", nq, t.name, l.name),
		"(w0, w1, w2, w3 *float32, rows *byte, stride, step, n, dim int, acc0, acc1, acc2, acc3 *float32)",
		fmt.Sprintf("adds the sum of wj[%d*i+r] * the row at i*step+r*stride over i < n and r < %d to accj for j < %d; dim > 0 columns, stride and step are in bytes.", streams, streams, nq))
	if l.wide() {
		tailMask(mem("dim"), l.lanes)
	}
	var w []GPVirtual
	for j := range nq {
		w = append(w, load(fmt.Sprintf("w%d", j)))
	}
	stride := load("stride")
	base, c, i, row := GP64(), GP64(), GP64(), GP64()
	t32 := GP32()
	XORQ(c, c)
	const (
		whole = iota
		masked
		single
	)
	most := min(8/nq, 4)
	if l.wide() {
		most = min(16/nq, 8)
	}
	block := func(label string, vectors, columns, part int) {
		sum := func(j, v int) int { return j*vectors + v }
		value := func(v int) int { return nq*most + v%4 }
		weight := func(j int) int { return nq*most + 4 + j }
		Label(label)
		left := GP64()
		MOVQ(mem("dim"), left)
		SUBQ(c, left)
		CMPQ(left, U8(columns))
		JLT(LabelRef(label + "_next"))
		read := func(t dtype, m Mem, v int) {
			if part == single {
				loadOne(t, m, v, t32)
			} else {
				l.load(t, m, v, part == masked)
			}
		}
		at := GP64()
		for j := range nq {
			MOVQ(mem(fmt.Sprintf("acc%d", j)), at)
			for v := range vectors {
				read(f32, f32.at(at, c).Offset(4*v*l.lanes), sum(j, v))
			}
		}
		XORQ(i, i)
		MOVQ(mem("rows"), base)
		MOVQ(mem("n"), left)
		Label(label + "_rows")
		DECQ(left)
		JLT(LabelRef(label + "_store"))
		MOVQ(base, row)
		for r := range streams {
			if part == whole {
				for line := 0; line < columns*t.size; line += 64 {
					PREFETCHT1(t.at(row, c).Offset(farAhead + line))
				}
			}
			for j := range nq {
				VBROADCASTSS(f32.at(w[j], i).Offset(4*r), l.v(weight(j)))
			}
			for v := range vectors {
				read(t, t.at(row, c).Offset(v*l.lanes*t.size), value(v))
				for j := range nq {
					VFMADD231PS(l.v(value(v)), l.v(weight(j)), l.v(sum(j, v)))
				}
			}
			ADDQ(stride, row)
		}
		ADDQ(mem("step"), base)
		ADDQ(U8(streams), i)
		JMP(LabelRef(label + "_rows"))
		Label(label + "_store")
		for j := range nq {
			MOVQ(mem(fmt.Sprintf("acc%d", j)), at)
			for v := range vectors {
				m := f32.at(at, c).Offset(4 * v * l.lanes)
				switch part {
				case whole:
					VMOVUPS(l.v(sum(j, v)), m)
				case masked:
					VMOVUPS(l.v(sum(j, v)), K1, m)
				default:
					VMOVSS(xmm[sum(j, v)], m)
				}
			}
		}
		if part == masked {
			MOVQ(mem("dim"), c)
		} else {
			ADDQ(U8(columns), c)
			JMP(LabelRef(label))
		}
		Label(label + "_next")
	}
	for v := most; v > 0; v /= 2 {
		block(fmt.Sprintf("columns%d", v*l.lanes), v, v*l.lanes, whole)
	}
	if l.wide() {
		block("tail", 1, 1, masked)
	} else {
		block("tail", 1, 1, single)
	}
	done()
}

// softmax generates one row's step of an online softmax.
func (l *level) softmax() {
	begin("softmax"+l.name, "(x *float32, n int, least float32) (most, sum float32)",
		"finds the largest of least and the numbers among the n > 0 elements of x, replaces these by exp(x - most) and returns their sum. When most is -Inf, x stays as it is.")
	x := load("x")
	VBROADCASTSS(mem("least"), l.v(0))
	n, end, k := load("n"), GP64(), GP64()
	MOVQ(n, end)
	ANDQ(I8(-l.lanes), end)
	SUBQ(end, n)
	if l.wide() {
		tailMask(mem("n"), l.lanes)
	} else {
		table := GP64()
		LEAQ(l.masks.Offset(32), table)
		NEGQ(n)
		VMOVUPS(f32.at(table, n), ymm[mask])
		NEGQ(n)
	}
	each := func(label string, step func(e elements)) {
		XORQ(k, k)
		TESTQ(end, end)
		JZ(LabelRef(label + "_tail"))
		Label(label)
		step(elements{l, k, false})
		ADDQ(U8(l.lanes), k)
		CMPQ(k, end)
		JLT(LabelRef(label))
		Label(label + "_tail")
		TESTQ(n, n)
		JZ(LabelRef(label + "_done"))
		step(elements{l, k, true})
		Label(label + "_done")
	}
	each("largest", func(e elements) {
		m := f32.at(x, k)
		switch {
		case !e.tail:
			VMOVUPS(m, l.v(1))
		case l.wide():
			VMOVAPS(Z0, Z1)
			VMOVUPS(m, K1, Z1)
		default:
			e.read(x, Y2)
			VBLENDVPS(ymm[mask], Y2, Y0, Y1)
		}
		// With a NaN in either place the result is the second source.
		VMAXPS(l.v(0), l.v(1), l.v(0))
	})
	l.across(VMAXPS)
	VBROADCASTSS(X0, l.v(11))
	l.zero(12)
	VMOVSS(l.f32s["neginf"], X1)
	VUCOMISS(X1, X0)
	JE(LabelRef("done"))
	exp := exponential{l}
	exp.setup()
	each("weights", func(e elements) {
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
	Label("done")
	VMOVAPS(l.v(12), l.v(0))
	VMOVSS(xmm[11], result())
	l.across(VADDPS)
	sum, err := ReturnIndex(1).Resolve()
	if err != nil {
		panic(err)
	}
	VMOVSS(X0, sum.Addr)
	done()
}
