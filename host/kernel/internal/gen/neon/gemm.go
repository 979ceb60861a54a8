package main

import "fmt"

// A tile of a matrix product has eight rows and two vectors of columns:
// sixteen sums, as many as cover the latency of the multiply-adds on four
// pipes, and registers left for four elements of every row of a, so that a
// step of four takes 64 multiply-adds and 12 loads.
const (
	tileRows    = 8
	tileColumns = 8
)

func (a *asm) gemm() {
	for rows := 1; rows <= tileRows; rows++ {
		a.tile(rows)
	}
	a.tileTop()
	for _, t := range []dtype{f32, bf16, f16} {
		a.pack(t)
		for _, nq := range []int{1, 2, 4} {
			a.dots(t, nq, inStreams)
			a.mix(t, nq)
		}
	}
	a.softmax()
}

// tiler holds the operands of a tile. Vector registers: sums, two a row, then
// elements of a, a register a row, then b.
type tiler struct {
	*asm
	rows int

	a       []gp // rows
	b, ldb  gp   // ldb is -1 where the rows of b follow each other
	left, k gp
}

func (t *tiler) acc(r, v int) int { return 2*r + v }

// operands loads the addresses of a and b.
func (t *tiler) operands() {
	t.a = []gp{t.load("a")}
	lda := t.load("lda")
	for r := 1; r < t.rows; r++ {
		t.a = append(t.a, t.reg())
		t.op("ADD", lda, t.a[r-1], t.a[r])
	}
	t.b, t.left, t.k = t.load("b"), t.load("k"), t.reg()
}

// sum accumulates a . b over the k steps.
func (t *tiler) sum() {
	const a, b = 2 * tileRows, 3 * tileRows
	for i := range 2 * t.rows {
		t.zero(i)
	}
	steps := func(n int) {
		for r := range t.rows {
			t.ldrNext(4*n, a+r, t.a[r])
		}
		for s := range n {
			v := b + 2*s
			if t.ldb < 0 {
				t.ldpNext(v, v+1, t.b)
			} else {
				t.ldp(v, v+1, t.b, 0)
				t.op("ADD", t.ldb, t.b)
			}
			for r := range t.rows {
				t.lane("fmla", t.acc(r, 0), v, a+r, s)
				t.lane("fmla", t.acc(r, 1), v+1, a+r, s)
			}
		}
	}
	t.op("LSR", 2, t.left, t.k)
	t.op("CBZ", t.k, "rest")
	t.label("loop")
	steps(4)
	t.op("SUBS", 1, t.k, t.k)
	t.op("BNE", "loop")
	t.label("rest")
	t.op("ANDS", 3, t.left)
	t.op("BEQ", "summed")
	t.label("single")
	steps(1)
	t.op("SUBS", 1, t.left, t.left)
	t.op("BNE", "single")
	t.label("summed")
}

// tile generates one tile of a matrix product.
func (a *asm) tile(rows int) {
	a.begin(fmt.Sprintf("tile%dNEON", rows), "",
		fmt.Sprintf("writes c[i][j], to which it adds when add is not 0, = the sum of a[i][s] * b[s][j] over s < k, for i < %d and j < %d. lda, ldb and ldc are in bytes.", rows, tileColumns),
		"a *float32", "lda int", "b *float32", "ldb int", "k int", "c *float32", "ldc int", "add int")
	t := &tiler{asm: a, rows: rows}
	t.operands()
	t.ldb = a.load("ldb")
	t.sum()
	c, ldc, add := a.load("c"), a.load("ldc"), a.load("add")
	const before = 2 * tileRows
	a.op("CBZ", add, "store")
	to := a.load("c")
	for r := range rows {
		a.ldp(before+t.acc(r, 0)%8, before+t.acc(r, 1)%8, to, 0)
		if r+1 < rows {
			a.op("ADD", ldc, to)
		}
		for v := range 2 {
			a.fadd(t.acc(r, v), t.acc(r, v), before+t.acc(r, v)%8)
		}
	}
	a.label("store")
	for r := range rows {
		a.stp(t.acc(r, 0), t.acc(r, 1), c, 0)
		if r+1 < rows {
			a.op("ADD", ldc, c)
		}
	}
	a.op("RET")
}

// tileTop generates a tile of inner products of which only what passes its
// row's threshold leaves the registers.
func (a *asm) tileTop() {
	a.begin("tileTopNEON", "uint32",
		fmt.Sprintf("forms the inner products of %d rows of a with the %d columns of a packed b over k. Bit j of hits[i] says that product j of row i is not less than or equal to least[i]; where a row has such bits, scores[i*%[2]d+j] are its products. Returns all the bits together. lda is in bytes.", tileRows, tileColumns),
		"a *float32", "lda int", "b *float32", "k int", "least *float32", "scores *float32", "hits *uint32")
	t := &tiler{asm: a, rows: tileRows, ldb: -1}
	t.operands()
	t.sum()
	least, scores, hits := a.load("least"), a.load("scores"), a.load("hits")
	any, bits, one, places := a.reg(), a.reg(), a.reg(), a.reg()
	a.op("MOVD", 0, any)
	// Byte i of the comparison leaves its bit i, and the product adds the
	// bytes up in the last.
	a.op("MOVD", "$0x8040201008040201", places)
	a.op("MOVD", "$0x0101010101010101", one)
	const bound, mask = 16, 18
	for r := range tileRows {
		next := fmt.Sprintf("row%d", r+1)
		a.ld1rNext(bound, least)
		for v := range 2 {
			a.v3("fcmge", "4s", mask+v, bound, t.acc(r, v))
		}
		a.v3("uzp1", "8h", mask, mask, mask+1)
		a.v2("xtn", mask, "8b", mask, "8h")
		a.toX(bits, mask)
		a.op("BIC", bits, places, bits)
		a.op("MUL", one, bits)
		a.op("LSR", 56, bits)
		a.op("MOVW.P", bits, fmt.Sprintf("4(%v)", hits))
		a.op("ORR", bits, any)
		a.op("CBZ", bits, next)
		a.stp(t.acc(r, 0), t.acc(r, 1), scores, 4*tileColumns*r)
		a.label(next)
	}
	a.op("MOVW", any, a.arg("ret"))
	a.op("RET")
}

// pack generates the transposition of four rows.
func (a *asm) pack(t dtype) {
	a.begin("pack"+t.name+"NEON", "",
		fmt.Sprintf("writes dst[s*%d+r] = element s of row r as f32 for r < 4 and s < n; stride is in bytes.", tileColumns),
		"dst *float32", "rows *byte", "stride int", "n int")
	dst, stride, left := a.load("dst"), a.load("stride"), a.load("n")
	rows := []gp{a.load("rows")}
	for r := 1; r < 4; r++ {
		rows = append(rows, a.reg())
		a.op("ADD", stride, rows[r-1], rows[r])
	}
	a.setup(t)
	const pairs, columns = 4, 8
	a.label("block")
	a.op("CMP", 4, left)
	a.op("BLT", "rest")
	for r, p := range rows {
		a.read(t, 4, r, p)
	}
	for r := range 2 {
		a.v3("zip1", "4s", pairs+2*r, r, r+2)
		a.v3("zip2", "4s", pairs+2*r+1, r, r+2)
	}
	for s := range 2 {
		a.v3("zip1", "4s", columns+2*s, pairs+s, pairs+2+s)
		a.v3("zip2", "4s", columns+2*s+1, pairs+s, pairs+2+s)
	}
	for s := range 4 {
		a.str(16, columns+s, dst, 4*tileColumns*s)
	}
	a.op("ADD", 16*tileColumns, dst)
	a.op("SUB", 4, left)
	a.op("B", "block")
	a.label("rest")
	a.op("CBZ", left, "done")
	for r, p := range rows {
		a.read(t, 1, r, p)
		a.str(4, r, dst, 4*r)
	}
	a.op("ADD", 4*tileColumns, dst)
	a.op("SUB", 1, left)
	a.op("B", "rest")
	a.label("done")
	a.op("RET")
}

// mix generates the weighted sums of stored rows, which lie in streams, for
// several queries: a row is read and widened once for all of them.
func (a *asm) mix(t dtype, nq int) {
	a.begin(fmt.Sprintf("mix%d%sNEON", nq, t.name), "",
		fmt.Sprintf("adds the sum of wj[%d*i+r] * the row at i*step+r*stride (bytes) over i < n and r < %[1]d to accj (dim > 0 columns) for j < %d.", streams, nq),
		"w0 *float32", "w1 *float32", "w2 *float32", "w3 *float32", "rows *byte", "stride int", "step int", "n int", "dim int",
		"acc0 *float32", "acc1 *float32", "acc2 *float32", "acc3 *float32")
	var w, acc []gp
	for j := range nq {
		w = append(w, a.reg())
		acc = append(acc, a.load(fmt.Sprintf("acc%d", j)))
	}
	base, n, left := a.load("rows"), a.load("n"), a.load("dim")
	stride, step := a.load("stride"), a.load("step")
	block, row, at, i := a.reg(), a.reg(), a.reg(), a.reg()
	a.setup(t)
	a.op("CBZ", n, "done")

	// Sixteen sums at most, then the weights of each query, then values.
	const weights, value = 16, 20
	blocks := []int{4, 1}
	for columns := 8; columns <= 64/nq; columns *= 2 {
		blocks = append([]int{columns}, blocks...)
	}
	for b, columns := range blocks {
		next := "done"
		if b+1 < len(blocks) {
			next = fmt.Sprintf("columns%d", blocks[b+1])
		}
		here := fmt.Sprintf("columns%d", columns)
		vectors := (columns + 3) / 4
		sum := func(j, v int) int { return j*vectors + v }
		a.label(here)
		a.op("CMP", columns, left)
		a.op("BLT", next)
		for j := range nq {
			a.op("MOVD", a.arg(fmt.Sprintf("w%d", j)), w[j])
			if columns < 8 {
				a.ldr(4*columns, sum(j, 0), acc[j], 0)
			}
			for v := 0; v+1 < vectors; v += 2 {
				a.ldp(sum(j, v), sum(j, v+1), acc[j], 16*v)
			}
		}
		a.op("MOVD", base, block)
		a.op("MOVD", n, i)
		a.label(here + "_rows")
		for j := range nq {
			a.ldrNext(4*streams, weights+j, w[j])
		}
		a.op("MOVD", block, row)
		for r := range streams {
			a.op("MOVD", row, at)
			if r+1 < streams {
				a.op("ADD", stride, row)
			}
			for v := 0; v < vectors; v += 2 {
				x, width := value+v%8, min(2, vectors-v)
				if columns < 8 {
					a.read(t, columns, x, at)
				} else {
					a.eight(t, x, x+1, at)
				}
				for j := range nq {
					for h := range width {
						a.lane("fmla", sum(j, v+h), x+h, weights+j, r)
					}
				}
			}
		}
		a.op("ADD", step, block)
		a.op("SUBS", 1, i, i)
		a.op("BNE", here+"_rows")
		for j := range nq {
			if columns < 8 {
				a.strNext(4*columns, sum(j, 0), acc[j])
			}
			for v := 0; v+1 < vectors; v += 2 {
				a.stpNext(sum(j, v), sum(j, v+1), acc[j])
			}
		}
		a.op("ADD", columns*t.size, base)
		a.op("SUB", columns, left)
		a.op("B", here)
	}
	a.label("done")
	a.op("RET")
}

// softmax generates one row's step of an online softmax.
func (a *asm) softmax() {
	a.begin("softmaxNEON", "(most float32, sum float32)",
		"finds the largest of least and the numbers among the n > 0 elements of x, replaces these by exp(x - most) and returns their sum. When most is -Inf, x stays as it is.",
		"x *float32", "n int", "least float32")
	x, left := a.load("x"), a.load("n")
	const best = 16
	a.loadF32("least", best)
	a.most("most_", x, left, best)
	a.op("FMOVS", fmt.Sprintf("F%d", best), a.arg("most"))
	const none = 21
	a.broadcast(a.table(), "neginf", none)
	a.fcmgeFirst(none, none, best)
	found := a.reg()
	a.toW(found, none)
	a.op("CBZ", found, "weights")
	a.op("MOVW", "ZR", a.arg("sum"))
	a.op("RET")
	a.label("weights")
	a.dup(best, best, 0)
	a.op("MOVD", a.arg("x"), x)
	a.op("MOVD", a.arg("n"), left)
	a.expOf(x, a.load("x"), left, best)
	a.op("FMOVS", fmt.Sprintf("F%d", expSums), a.arg("sum"))
	a.op("RET")
}
