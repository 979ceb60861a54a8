package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// peak generates loops of independent multiply-adds on registers alone, what
// benchmarks measure products against: as many accumulators as a tile has.
func (l *level) peak() {
	n := 2 * l.tileRows()
	begin("FMA"+l.name, "(steps int)", "runs steps times as many independent multiply-adds of f32 as a tile has vectors of sums.")
	for i := range n + 2 {
		l.zero(i)
	}
	left := load("steps")
	Label("loop")
	for i := range n {
		VFMADD231PS(l.v(n), l.v(n+1), l.v(i))
	}
	DECQ(left)
	JNZ(LabelRef("loop"))
	done()
}
