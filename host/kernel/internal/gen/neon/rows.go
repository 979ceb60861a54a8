package main

import "fmt"

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

// line is the bytes of a line of the caches.
const line = 64

// nought is a register of zeros where rows are bf16: interleaved with it,
// they are f32.
const nought = 31

// setup prepares what widening needs.
func (a *asm) setup(t dtype) {
	if t == bf16 {
		a.zero(nought)
	}
}

// eight reads eight elements at p as f32 to lo and hi, and moves p behind
// them.
func (a *asm) eight(t dtype, lo, hi int, p gp) {
	if t == f32 {
		a.ldpNext(lo, hi, p)
		return
	}
	a.ldrNext(16, hi, p)
	a.halves(t, lo, hi)
}

// halves widens the eight elements in hi to lo and hi.
func (a *asm) halves(t dtype, lo, hi int) {
	if t == bf16 {
		a.v3("zip1", "8h", lo, nought, hi)
		a.v3("zip2", "8h", hi, nought, hi)
	} else {
		a.v2("fcvtl", lo, "4s", hi, "4h")
		a.v2("fcvtl2", hi, "4s", hi, "8h")
	}
}

// read reads four elements at p as f32 to v, or one (the other lanes become
// zero), and moves p behind them.
func (a *asm) read(t dtype, elements, v int, p gp) {
	a.ldrNext(elements*t.size, v, p)
	switch t {
	case bf16:
		a.v3("zip1", "8h", v, nought, v)
	case f16:
		a.v2("fcvtl", v, "4s", v, "4h")
	}
}

// bytes sets r to the bytes of n elements.
func (a *asm) bytes(t dtype, n, r gp) { a.op("LSL", map[int]int{2: 1, 4: 2}[t.size], n, r) }

// ahead is how many bytes before their use codes and the rows of a range are
// asked for, the latter when the arithmetic of several queries fills the window
// in which a core looks ahead for reads.
const ahead = 4096

// access is how a kernel finds its rows.
type access int

const (
	inRange   access = iota // one after the other
	inList                  // by ids
	inStreams               // four at a time, stride bytes apart
)

// streams is how many rows in streams are read at once.
const streams = 4

// dots generates the inner products of nq queries with n rows. A block of
// rows meets all queries in registers: one accumulator for each pair, filled
// lane by lane along the dimension and summed across lanes at the end, so
// that a stored row is read and widened once for all queries. Sixteen
// accumulators cover the latency of the multiply-adds on four pipes.
func (a *asm) dots(t dtype, nq int, by access) {
	blocks := []int{8, 4, 1} // rows that meet all queries at once
	if nq == 4 {
		blocks = blocks[1:]
	}
	name, what := fmt.Sprintf("dots%d%s", nq, t.name), fmt.Sprintf("oj[i] = qj . row i for j < %d", nq)
	params := []string{"q0 *float32", "q1 *float32", "q2 *float32", "q3 *float32", "rows *byte"}
	switch by {
	case inRange:
		params = append(params, "ids *uint32")
	case inList:
		params = append(params, "ids *uint32")
		name, what = name+"List", fmt.Sprintf("oj[i] = qj . row ids[i] for j < %d", nq)
	case inStreams:
		params = append(params, "stride int", "step int")
		blocks = []int{streams}
		name = fmt.Sprintf("few%d%s", nq, t.name)
		what = fmt.Sprintf("oj[%d*i+r] = qj . the row at i*step+r*stride (bytes) for j < %d, r < %[1]d", streams, nq)
	}
	a.begin(name+"NEON", "", "writes "+what+" and i < n; dim > 0 columns.",
		append(params, "n int", "dim int", "o0 *float32", "o1 *float32", "o2 *float32", "o3 *float32")...)
	d := &dotter{asm: a, t: t, nq: nq, by: by}
	for j := range nq {
		d.q = append(d.q, a.load(fmt.Sprintf("q%d", j)))
		d.o = append(d.o, a.load(fmt.Sprintf("o%d", j)))
		d.p = append(d.p, a.reg())
	}
	d.base, d.left, d.dim = a.load("rows"), a.load("n"), a.load("dim")
	d.steps, d.k = a.reg(), a.reg()
	a.op("LSR", 3, d.dim, d.steps)
	if by == inStreams {
		d.stride, d.step = a.load("stride"), a.load("step")
	} else {
		d.stride = a.reg()
		a.bytes(t, d.dim, d.stride)
	}
	if by == inList {
		d.ids = a.load("ids")
	}
	if d.prefetches() {
		d.next = a.reg()
	}
	for range blocks[0] {
		d.r = append(d.r, a.reg())
	}
	a.setup(t)
	for i, rows := range blocks {
		next := "done"
		if i+1 < len(blocks) {
			next = fmt.Sprintf("rows%d", blocks[i+1])
		}
		here := fmt.Sprintf("rows%d", rows)
		counts := rows
		if by == inStreams {
			counts = 1
		}
		a.label(here)
		a.op("CMP", counts, d.left)
		a.op("BLT", next)
		d.point(rows)
		d.inner(rows, here)
		d.store(rows)
		a.op("SUB", counts, d.left)
		a.op("B", here)
	}
	a.label("done")
	a.op("RET")
}

type dotter struct {
	*asm
	t  dtype
	nq int
	by access

	q, o, p, r   []gp // queries, their results, the queries' and the rows' elements at hand
	base, ids    gp   // rows left (of a list: row 0); ids left
	left, dim    gp   // rows or, in streams, blocks of them; columns
	stride, step gp   // bytes from row to row, from block to block of streams
	steps, k     gp   // of eight elements, and those left
	next         gp   // address of what is asked for
}

func (d *dotter) prefetches() bool { return d.by == inRange && d.nq > 1 }

// point sets r to the block's rows and p to the queries.
func (d *dotter) point(rows int) {
	for r := range rows {
		switch {
		case d.by == inList:
			d.op("MOVWU.P", fmt.Sprintf("4(%v)", d.ids), d.r[r])
			d.op("MADD", d.stride, d.base, d.r[r], d.r[r])
		case r == 0:
			d.op("MOVD", d.base, d.r[r])
		default:
			d.op("ADD", d.stride, d.r[r-1], d.r[r])
		}
	}
	switch d.by {
	case inRange:
		d.op("ADD", d.stride, d.r[rows-1], d.base)
	case inStreams:
		d.op("ADD", d.step, d.base)
	}
	if d.prefetches() {
		d.op("ADD", ahead, d.r[0], d.next)
	}
	for j, q := range d.q {
		d.op("MOVD", q, d.p[j])
	}
}

// Vector registers: sixteen accumulators, then eight elements of every query
// (two registers each), then rows.
func (d *dotter) acc(r, j int) int { return r*d.nq + j }
func (d *dotter) query(j int) int  { return 16 + 2*j }
func (d *dotter) row(r int) int    { return 16 + 2*d.nq + 2*r }

// inner accumulates a block along the dimension.
func (d *dotter) inner(rows int, label string) {
	for i := range rows * d.nq {
		d.zero(i)
	}
	d.op("CBZ", d.steps, label+"_tail")
	d.op("MOVD", d.steps, d.k)
	d.label(label + "_loop")
	if lines := rows * 8 * d.t.size / line; d.prefetches() && lines > 0 {
		// As many as the rows of the block have, one after the other.
		for i := range lines {
			d.prefetchLine(d.next, i*line)
		}
		d.op("ADD", lines*line, d.next)
	}
	for j := range d.nq {
		d.ldpNext(d.query(j), d.query(j)+1, d.p[j])
	}
	together := min(rows, 4)
	if d.nq == 4 {
		together = min(rows, 2)
	}
	for first := 0; first < rows; first += together {
		for r := range together {
			d.eight(d.t, d.row(r), d.row(r)+1, d.r[first+r])
		}
		for half := range 2 {
			for r := range together {
				for j := range d.nq {
					d.fmla(d.acc(first+r, j), d.row(r)+half, d.query(j)+half)
				}
			}
		}
	}
	d.op("SUBS", 1, d.k, d.k)
	d.op("BNE", label+"_loop")

	rest := func(elements int) {
		for j := range d.nq {
			d.read(f32, elements, d.query(j), d.p[j])
		}
		for r := range rows {
			d.read(d.t, elements, d.row(0), d.r[r])
			for j := range d.nq {
				d.fmla(d.acc(r, j), d.row(0), d.query(j))
			}
		}
	}
	d.label(label + "_tail")
	d.op("TBZ", 2, d.dim, label+"_ones")
	rest(4)
	d.label(label + "_ones")
	d.op("ANDS", 3, d.dim, d.k)
	d.op("BEQ", label+"_sum")
	d.label(label + "_one")
	rest(1)
	d.op("SUBS", 1, d.k, d.k)
	d.op("BNE", label+"_one")
	d.label(label + "_sum")
}

// store sums the accumulators across lanes, neighbours first in every form,
// so that a score does not depend on what else is asked for, and writes the
// block's results.
func (d *dotter) store(rows int) {
	for j := range d.nq {
		if rows == 1 {
			d.sum(d.acc(0, j))
			d.strNext(4, d.acc(0, j), d.o[j])
			continue
		}
		for r := 0; r < rows; r += 4 {
			v, w := d.acc(r, j), d.acc(r+2, j)
			d.v3("faddp", "4s", v, v, d.acc(r+1, j))
			d.v3("faddp", "4s", w, w, d.acc(r+3, j))
			d.v3("faddp", "4s", v, v, w)
			d.strNext(16, v, d.o[j])
		}
	}
}

// weighted generates the weighted sum of n rows, by blocks of columns whose
// sums stay in registers over all rows.
func (a *asm) weighted(t dtype, list bool) {
	kind, rowName := "", "row i"
	if list {
		kind, rowName = "List", "row ids[i]"
	}
	a.begin(fmt.Sprintf("weighted%s%sNEON", t.name, kind), "",
		"adds the sum of w[i] * "+rowName+" over i < n to acc (dim > 0 columns).",
		"w *float32", "rows *byte", "ids *uint32", "n int", "dim int", "acc *float32")
	w, base := a.load("w"), a.load("rows")
	var ids, id gp
	if list {
		ids, id = a.load("ids"), a.reg()
	}
	n, left, acc := a.load("n"), a.load("dim"), a.load("acc")
	stride, row, weights, i, out := a.reg(), a.reg(), a.reg(), a.reg(), a.reg()
	a.bytes(t, left, stride)
	a.setup(t)
	a.op("CBZ", n, "done")

	// Registers after the sums, of which there are sixteen at most.
	const weight, value = 16, 18
	block := func(columns int, next string) {
		here := fmt.Sprintf("columns%d", columns)
		sums := (columns + 3) / 4
		a.label(here)
		a.op("CMP", columns, left)
		a.op("BLT", next)
		if columns < 8 {
			a.ldr(4*columns, 0, acc, 0)
		}
		for v := 0; v+1 < sums; v += 2 {
			a.ldp(v, v+1, acc, 16*v)
		}
		a.op("MOVD", w, weights)
		a.op("MOVD", n, i)
		if list {
			a.op("MOVD", ids, id)
		} else {
			a.op("MOVD", base, row)
		}
		a.label(here + "_row")
		a.ldrNext(4, weight, weights)
		at := row
		if list {
			a.op("MOVWU.P", fmt.Sprintf("4(%v)", id), row)
			a.op("MADD", stride, base, row, row)
		} else {
			// The loads move their address; the row's stays.
			at = out
			a.op("MOVD", row, at)
			a.op("ADD", stride, row)
		}
		if columns < 8 {
			a.read(t, columns, value, at)
			a.lane("fmla", 0, value, weight, 0)
		}
		for v := 0; v+1 < sums; v += 2 {
			x := value + v%8
			a.eight(t, x, x+1, at)
			a.lane("fmla", v, x, weight, 0)
			a.lane("fmla", v+1, x+1, weight, 0)
		}
		a.op("SUBS", 1, i, i)
		a.op("BNE", here+"_row")
		if columns < 8 {
			a.strNext(4*columns, 0, acc)
		}
		for v := 0; v+1 < sums; v += 2 {
			a.stpNext(v, v+1, acc)
		}
		a.op("ADD", columns*t.size, base)
		a.op("SUB", columns, left)
		a.op("B", here)
	}
	blocks := []int{64, 32, 16, 8, 4, 1}
	for i, columns := range blocks {
		next := "done"
		if i+1 < len(blocks) {
			next = fmt.Sprintf("columns%d", blocks[i+1])
		}
		block(columns, next)
	}
	a.label("done")
	a.op("RET")
}

// prefetch generates the hint that starts the reads of a whole list at once.
func (a *asm) prefetch() {
	a.begin("prefetchRowsNEON", "", "asks the caches for every line of rows ids[0] to ids[n-1], bytes > 0 each.",
		"rows *byte", "ids *uint32", "n int", "bytes int")
	base, ids, n, bytes := a.load("rows"), a.load("ids"), a.load("n"), a.load("bytes")
	p, end := a.reg(), a.reg()
	a.label("row")
	a.op("CBZ", n, "done")
	a.op("MOVWU.P", fmt.Sprintf("4(%v)", ids), p)
	a.op("MADD", bytes, base, p, p)
	a.op("ADD", bytes, p, end)
	a.op("AND", -line, p)
	a.label("line")
	a.prefetchLine(p, 0)
	a.op("ADD", line, p)
	a.op("CMP", end, p)
	a.op("BLO", "line")
	a.op("SUB", 1, n)
	a.op("B", "row")
	a.label("done")
	a.op("RET")
}
