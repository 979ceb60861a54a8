package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
)

// vdpbf16ps emits VDPBF16PS, pairs of bf16 multiplied and added to an f32 in
// each lane: zmm[acc] += zmm[a] . zmm[b].
func vdpbf16ps(a, b, acc int) { evex(0x52, a, b, acc) }

// vcvtneps2bf16 emits VCVTNEPS2BF16, which rounds the f32 of zmm[from] to bf16
// in ymm[to].
func vcvtneps2bf16(from, to int) { evex(0x72, 0, from, to) }

// evex emits an instruction of AVX512_BF16 on registers as bytes, because avo
// does not know them: EVEX.512.F3.0F38.W0, in which the upper bits of the
// registers' numbers are inverted. a is 0 where there are two operands.
func evex(opcode uint16, a, b, to int) {
	bit := func(r, n int) uint32 { return uint32(^r>>n) & 1 }
	p0 := bit(to, 3)<<7 | bit(b, 4)<<6 | bit(b, 3)<<5 | bit(to, 4)<<4 | 0b010
	p1 := uint32(^a&15)<<3 | 1<<2 | 0b10
	p2 := uint32(0b10)<<5 | bit(a, 4)<<3
	modrm := uint16(0b11<<6 | to&7<<3 | b&7)
	emit := func(op string, x Op) { Instruction(&ir.Instruction{Opcode: op, Operands: []Op{x}}) }
	emit("LONG", U32(0x62|p0<<8|p1<<16|p2<<24))
	emit("WORD", U16(opcode|modrm<<8))
}
