package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// peak generates loops of independent multiply-adds on registers alone, what
// benchmarks measure products against: as many accumulators as a tile has.
func (l *level) peak() {
	l.peakOf("FMA"+l.name, "f32", func(acc int) {
		VFMADD231PS(l.v(2*l.tileRows()), l.v(2*l.tileRows()+1), l.v(acc))
	})
	if l.wide() {
		l.peakOf("BF16"+l.name, "bf16 pairs", func(acc int) { vdpbf16ps(24, 25, acc) })
	}
}

func (l *level) peakOf(name, what string, multiply func(acc int)) {
	n := 2 * l.tileRows()
	begin(name, "(steps int)", "runs steps times as many independent multiply-adds of "+what+" as a tile has vectors of sums.")
	for i := range n + 2 {
		l.zero(i)
	}
	left := load("steps")
	Label("loop")
	for i := range n {
		multiply(i)
	}
	DECQ(left)
	JNZ(LabelRef("loop"))
	done()
}
