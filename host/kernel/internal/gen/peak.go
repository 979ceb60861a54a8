package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// peak generates what benchmarks measure kernels against: loops that do
// nothing but multiply, or nothing but read.
func (l *level) peak() {
	l.read()
	// Independent multiply-adds on registers alone: as many accumulators as a
	// tile has.
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

// read generates the reading of memory as four streams that lie apart, each
// asked for half a page ahead, as the products of few rows read theirs.
func (l *level) read() {
	begin("Read"+l.name, "(p *byte, n int)", "reads n bytes, a multiple of 1024, as four streams.")
	var streams []GPVirtual
	streams = append(streams, load("p"))
	left := load("n")
	SHRQ(U8(2), left)
	for i := 1; i < 4; i++ {
		r := GP64()
		LEAQ(Mem{Base: streams[i-1], Index: left, Scale: 1}, r)
		streams = append(streams, r)
	}
	for i := range 8 {
		l.zero(i)
	}
	at := GP64()
	XORQ(at, at)
	Label("loop")
	for line := range 2 {
		for i, s := range streams {
			m := Mem{Base: s, Index: at, Scale: 1, Disp: 64 * line}
			PREFETCHT0(m.Offset(farAhead))
			for part := range 16 / l.lanes {
				VORPS(m.Offset(4*l.lanes*part), l.v(i+4*part), l.v(i+4*part))
			}
		}
	}
	ADDQ(U8(128), at)
	CMPQ(at, left)
	JLT(LabelRef("loop"))
	done()
}
