package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// weighted generates the weighted sum of n rows, by blocks of columns whose
// sums stay in registers over all rows.
func (l *level) weighted(t dtype, list bool) {
	kind, rowName := "", "row i"
	if list {
		kind, rowName = "List", "row ids[i]"
	}
	begin(fmt.Sprintf("weighted%s%s%s", t.name, kind, l.name),
		"(w *float32, rows *byte, ids *uint32, n, dim int, acc *float32)",
		"adds the sum of w[i] * "+rowName+" over i < n to acc (dim > 0 columns).")
	if l.wide() {
		tailMask(mem("dim"), l.lanes)
	}
	w, acc, base := load("w"), load("acc"), load("rows")
	var ids GPVirtual
	if list {
		ids = load("ids")
	}
	n, dim := load("n"), load("dim")
	stride := GP64()
	MOVQ(dim, stride)
	SHLQ(U8(map[int]int{2: 1, 4: 2}[t.size]), stride)
	c, i, row, left := GP64(), GP64(), GP64(), GP64()
	t32 := GP32()
	XORQ(c, c)

	const weight, value = 8, 9 // registers after up to eight sums
	// block handles vectors columns blocks at once; part is what is loaded
	// of each: all lanes, the masked tail, or a single column.
	const (
		whole = iota
		masked
		single
	)
	block := func(label string, vectors, columns int, part int) {
		Label(label)
		MOVQ(dim, left)
		SUBQ(c, left)
		CMPQ(left, U8(columns))
		JLT(LabelRef(label + "_next"))
		at := func(b Register, t dtype, v int) Mem { return t.at(b, c).Offset(v * l.lanes * t.size) }
		read := func(t dtype, m Mem, v int) {
			switch part {
			case single:
				loadOne(t, m, v, t32)
			default:
				l.load(t, m, v, part == masked)
			}
		}
		for v := range vectors {
			read(f32, at(acc, f32, v), v)
		}
		XORQ(i, i)
		if !list {
			MOVQ(base, row)
		}
		Label(label + "_rows")
		CMPQ(i, n)
		JGE(LabelRef(label + "_store"))
		if list {
			MOVL(Mem{Base: ids, Index: i, Scale: 4}, row.As32())
			IMULQ(stride, row)
			ADDQ(base, row)
		}
		VBROADCASTSS(f32.at(w, i), l.v(weight))
		for v := range vectors {
			if t == f32 && part == whole {
				VFMADD231PS(at(row, t, v), l.v(weight), l.v(v))
				continue
			}
			x := value + v%4
			read(t, at(row, t, v), x)
			VFMADD231PS(l.v(x), l.v(weight), l.v(v))
		}
		if !list {
			ADDQ(stride, row)
		}
		INCQ(i)
		JMP(LabelRef(label + "_rows"))
		Label(label + "_store")
		for v := range vectors {
			m := at(acc, f32, v)
			switch part {
			case whole:
				VMOVUPS(l.v(v), m)
			case masked:
				VMOVUPS(l.v(v), K1, m)
			default:
				VMOVSS(xmm[v], m)
			}
		}
		if part == masked {
			MOVQ(dim, c) // the mask covered all that was left
		} else {
			ADDQ(U8(columns), c)
			JMP(LabelRef(label))
		}
		Label(label + "_next")
	}
	for _, vectors := range []int{8, 4, 2, 1} {
		block(fmt.Sprintf("columns%d", vectors*l.lanes), vectors, vectors*l.lanes, whole)
	}
	if l.wide() {
		block("tail", 1, 1, masked)
	} else {
		block("tail", 1, 1, single)
	}
	done()
}
