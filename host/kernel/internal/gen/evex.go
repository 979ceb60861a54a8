package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
)

// vdpbf16ps emits VDPBF16PS zmm[acc] += zmm[a] . zmm[b], pairs of bf16 to an
// f32 in each lane, as bytes: avo does not know the instruction.
func vdpbf16ps(a, b, acc int) {
	// EVEX.512.F3.0F38.W0 52 /r with registers alone; the prefix holds the
	// upper bits of their numbers inverted.
	bit := func(r, n int) uint32 { return uint32(^r>>n) & 1 }
	p0 := bit(acc, 3)<<7 | bit(b, 4)<<6 | bit(b, 3)<<5 | bit(acc, 4)<<4 | 0b010
	p1 := uint32(^a&15)<<3 | 1<<2 | 0b10
	p2 := uint32(0b10)<<5 | bit(a, 4)<<3
	modrm := uint32(0b11)<<6 | uint32(acc&7)<<3 | uint32(b&7)
	emit := func(op string, x Op) { Instruction(&ir.Instruction{Opcode: op, Operands: []Op{x}}) }
	emit("LONG", U32(0x62|p0<<8|p1<<16|p2<<24))
	emit("WORD", U16(0x52|modrm<<8))
}
