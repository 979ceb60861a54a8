package fuel

import "github.com/retrievalattention/ra/host/plugin/internal/wasmbin"

// The opcodes and types that the rewriter writes.
const (
	opUnreachable = 0x00
	opIf          = 0x04
	opElse        = 0x05
	opEnd         = 0x0b
	opCall        = 0x10
	opLocalGet    = 0x20
	opGlobalGet   = 0x23
	opGlobalSet   = 0x24
	opI32Const    = 0x41
	opI64Const    = 0x42
	opI32GtU      = 0x4b
	opI64LtS      = 0x53
	opI64Add      = 0x7c
	opI64Sub      = 0x7d
	opI64Shl      = 0x86
	opI64ShrU     = 0x88
	opExtendU     = 0xad // i64.extend_i32_u
	void          = 0x40
	i32           = 0x7f
	i64           = 0x7e
)

// The helpers, appended behind the module's functions: each takes the length
// of a bulk operation, charges for it and returns it.
const (
	chargeBytes = iota
	chargeElements
	chargePages
	helpers
)

// code rewrites the function bodies.
func (w *writer) code(r *wasmbin.Reader) error {
	w.prefix = w.spend(nil, []byte{opI64Const, 1})
	count := r.Count()
	var body []byte // of one function
	out := wasmbin.AppendU32(make([]byte, 0, len(w.out)), uint32(count+helpers))
	for range count {
		size := int(r.U32())
		at := r.Offset()
		f := r.Bytes(size)
		if r.Err() != nil {
			return r.Err()
		}
		var err error
		if body, err = w.function(body[:0], f, at); err != nil {
			return err
		}
		out = append(wasmbin.AppendU32(out, uint32(len(body))), body...)
	}
	for h := range helpers {
		body = append(w.helper(append(body[:0], 0), h), opEnd)
		out = append(wasmbin.AppendU32(out, uint32(len(body))), body...)
	}
	w.emit(wasmbin.Code, out)
	return nil
}

// function appends the body f, which lies at offset at, with its charges.
func (w *writer) function(dst, f []byte, at int) ([]byte, error) {
	r := wasmbin.NewReader(f, at)
	for range r.Count() {
		r.U32()
		r.Byte()
	}
	dst = append(append(dst, f[:r.Pos()]...), w.prefix...)
	copied := r.Pos() // f[:copied] is in dst
	for r.More() {
		start := r.Pos()
		op, sub := r.Instr()
		if op == wasmbin.OpLoop {
			dst = append(append(dst, f[copied:r.Pos()]...), w.prefix...)
			copied = r.Pos()
		}
		if h, bulk := bulkHelper(op, sub); bulk {
			dst = append(append(dst, f[copied:start]...), opCall)
			dst = wasmbin.AppendU32(dst, uint32(w.m.Funcs+h))
			copied = start
		}
	}
	return append(dst, f[copied:]...), r.Err()
}

// bulkHelper returns the helper that charges for a bulk operation. All of
// them have their length on top of the stack.
func bulkHelper(op byte, sub uint32) (helper int, bulk bool) {
	switch {
	case op == wasmbin.OpMemoryGrow:
		return chargePages, true
	case op != wasmbin.PrefixMisc:
		return 0, false
	}
	switch sub {
	case wasmbin.MiscMemoryInit, wasmbin.MiscMemoryCopy, wasmbin.MiscMemoryFill:
		return chargeBytes, true
	case wasmbin.MiscTableInit, wasmbin.MiscTableCopy, wasmbin.MiscTableGrow, wasmbin.MiscTableFill:
		return chargeElements, true
	}
	return 0, false
}

// spend appends code that takes amount (code leaving an i64) from the
// counter and traps when that makes it negative.
func (w *writer) spend(dst, amount []byte) []byte {
	counter := uint32(w.m.Globals)
	dst = wasmbin.AppendU32(append(dst, opGlobalGet), counter)
	dst = append(append(dst, amount...), opI64Sub)
	dst = wasmbin.AppendU32(append(dst, opGlobalSet), counter)
	dst = wasmbin.AppendU32(append(dst, opGlobalGet), counter)
	return append(dst, opI64Const, 0, opI64LtS, opIf, void, opUnreachable, opEnd)
}

func (w *writer) helper(dst []byte, h int) []byte {
	length := []byte{opLocalGet, 0, opExtendU, opI64Const}
	begin := []byte{opI64Const, bulkCost, opI64Add}
	switch h {
	case chargeBytes:
		dst = w.spend(dst, append(append(length, bytesShift, opI64ShrU), begin...))
	case chargeElements:
		dst = w.spend(dst, append(append(length, elementsShift, opI64ShrU), begin...))
	case chargePages:
		// More than the address space holds is refused by the runtime, so
		// only the attempt costs.
		dst = append(dst, opLocalGet, 0, opI32Const)
		dst = wasmbin.AppendI64(dst, 1<<16)
		dst = append(dst, opI32GtU, opIf, void)
		dst = append(w.spend(dst, []byte{opI64Const, bulkCost}), opElse)
		dst = append(w.spend(dst, append(append(length, pagesShift, opI64Shl), begin...)), opEnd)
	}
	return append(dst, opLocalGet, 0)
}
