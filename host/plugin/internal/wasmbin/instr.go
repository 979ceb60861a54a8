package wasmbin

// Opcodes that callers look at.
const (
	OpLoop       = 0x03
	OpMemoryGrow = 0x40
	PrefixMisc   = 0xfc
	PrefixSIMD   = 0xfd
)

// Sub-opcodes behind PrefixMisc that callers look at.
const (
	MiscMemoryInit = 8
	MiscMemoryCopy = 10
	MiscMemoryFill = 11
	MiscTableInit  = 12
	MiscTableCopy  = 14
	MiscTableGrow  = 15
	MiscTableFill  = 17
)

// Instr reads one instruction with its immediates. sub is the second opcode
// of a prefixed instruction. Opcodes outside core 2.0 are an error.
func (r *Reader) Instr() (op byte, sub uint32) {
	at := *r
	op = r.Byte()
	switch {
	case op <= 0x01, op == 0x05, op == 0x0b, op == 0x0f, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4, op == 0xd1:
	case op >= 0x02 && op <= 0x04:
		r.Signed(33) // block type
	case op == 0x0c, op == 0x0d, op == 0x10, op >= 0x20 && op <= 0x26, op == 0xd2:
		r.U32()
	case op == 0x0e: // br_table
		for range r.Count() {
			r.U32()
		}
		r.U32()
	case op == 0x11: // call_indirect
		r.U32()
		r.U32()
	case op == 0x1c: // select with types
		r.Bytes(r.Count())
	case op >= 0x28 && op <= 0x3e:
		r.memarg()
	case op == 0x3f, op == OpMemoryGrow, op == 0xd0:
		r.Byte()
	case op == 0x41:
		r.Signed(32)
	case op == 0x42:
		r.Signed(64)
	case op == 0x43:
		r.Bytes(4)
	case op == 0x44:
		r.Bytes(8)
	case op == PrefixMisc:
		sub = r.U32()
		if !r.misc(sub) {
			at.Fail("unknown opcode 0xfc %d", sub)
		}
	case op == PrefixSIMD:
		sub = r.U32()
		if !r.simd(sub) {
			at.Fail("unknown opcode 0xfd %d", sub)
		}
	default:
		at.Fail("unknown opcode %#02x", op)
	}
	if r.err == nil {
		r.err = at.err
	}
	return op, sub
}

func (r *Reader) memarg() {
	r.U32()
	r.U32()
}

func (r *Reader) misc(sub uint32) bool {
	switch sub {
	case 0, 1, 2, 3, 4, 5, 6, 7: // saturating truncation
	case 9, MiscMemoryFill, 13, MiscTableGrow, 16, MiscTableFill:
		r.U32()
	case MiscMemoryInit, MiscMemoryCopy, MiscTableInit, MiscTableCopy:
		r.U32()
		r.U32()
	default:
		return false
	}
	return true
}

// simdHoles are the numbers below 256 that core 2.0 leaves unused.
var simdHoles = map[uint32]bool{
	0x9a: true, 0xa2: true, 0xa5: true, 0xa6: true, 0xaf: true, 0xb0: true, 0xb2: true, 0xb3: true, 0xb4: true, 0xbb: true,
	0xc2: true, 0xc5: true, 0xc6: true, 0xcf: true, 0xd0: true, 0xd2: true, 0xd3: true, 0xd4: true, 0xe2: true, 0xee: true,
}

func (r *Reader) simd(sub uint32) bool {
	switch {
	case sub > 0xff || simdHoles[sub]:
		return false
	case sub <= 11, sub == 92, sub == 93: // loads and stores
		r.memarg()
	case sub == 12, sub == 13: // v128.const, i8x16.shuffle
		r.Bytes(16)
	case sub >= 21 && sub <= 34: // lanes
		r.Byte()
	case sub >= 84 && sub <= 91: // loads and stores of a lane
		r.memarg()
		r.Byte()
	}
	return true
}
