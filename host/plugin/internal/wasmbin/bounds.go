package wasmbin

// A runtime allocates for as many entries as a module says it has before it
// reads them, so a module of a few bytes could ask for all of the host's
// memory. The functions here walk what a module declares and refuse counts
// that its bytes cannot hold, or that are beyond these bounds: those of the
// WebAssembly JavaScript API, which every toolchain keeps.
const (
	maxEntries  = 1_000_000 // types, functions, imports, exports, globals, names
	maxSegments = 100_000   // element and data segments, tables, memories
	maxParams   = 1_000     // and results
	maxLocals   = 50_000
)

// atMost reads the length of a vector of at most limit elements.
func (r *Reader) atMost(limit int, what string) int {
	n := r.Count()
	if n > limit {
		r.Fail("%d %s, at most %d are allowed", n, what, limit)
		return 0
	}
	return n
}

// vector skips a vector of bytes.
func (r *Reader) vector() { r.Bytes(int(r.U32())) }

// types walks a type section and returns the number of types.
func (r *Reader) types() int {
	n := r.atMost(maxEntries, "types")
	for range n {
		r.Byte()
		r.Bytes(r.atMost(maxParams, "parameters"))
		r.Bytes(r.atMost(maxParams, "results"))
	}
	return n
}

// elements walks an element section.
func (r *Reader) elements() {
	for range r.atMost(maxSegments, "element segments") {
		flags := r.U32()
		if flags > 7 {
			r.Fail("element segment with flags %#x", flags)
		}
		passive, explicit, exprs := flags&1 != 0, flags&2 != 0, flags&4 != 0
		if !passive {
			if explicit {
				r.U32() // table
			}
			r.constant()
		}
		if passive || explicit {
			r.Byte() // kind or type of the elements
		}
		for range r.Count() {
			if exprs {
				r.constant()
			} else {
				r.U32()
			}
		}
		if r.err != nil {
			return
		}
	}
}

// bodies walks a code section as far as the locals of each function.
func (r *Reader) bodies() {
	for range r.atMost(maxEntries, "function bodies") {
		size := int(r.U32())
		at := r.Offset()
		b := NewReader(r.Bytes(size), at)
		if r.err != nil {
			return
		}
		locals := 0
		for range b.Count() {
			if locals += int(b.U32()); locals > maxLocals {
				b.Fail("%d locals, at most %d are allowed", locals, maxLocals)
			}
			b.Byte()
			if b.err != nil {
				break
			}
		}
		if r.err = b.err; r.err != nil {
			return
		}
	}
}

// segments walks a data section.
func (r *Reader) segments() {
	for range r.atMost(maxSegments, "data segments") {
		switch flags := r.U32(); flags {
		case 0:
			r.constant()
		case 1:
		case 2:
			r.U32() // memory
			r.constant()
		default:
			r.Fail("data segment with flags %#x", flags)
		}
		r.vector()
		if r.err != nil {
			return
		}
	}
}

// names walks a custom section of that name.
func (r *Reader) names() {
	for r.More() {
		id, size := r.Byte(), int(r.U32())
		at := r.Offset()
		s := NewReader(r.Bytes(size), at)
		if r.err != nil {
			return
		}
		switch id {
		case 0:
			s.vector()
		case 1:
			s.nameMap()
		case 2:
			for range s.atMost(maxEntries, "functions with named locals") {
				s.U32()
				s.nameMap()
			}
		}
		r.err = s.err
	}
}

func (r *Reader) nameMap() {
	for range r.atMost(maxEntries, "names") {
		r.U32()
		r.vector()
	}
}

// constant walks a constant expression.
func (r *Reader) constant() {
	for r.err == nil {
		switch op := r.Byte(); op {
		case 0x0b: // end
			return
		case 0x23, 0xd2: // global.get, ref.func
			r.U32()
		case 0x41: // i32.const
			r.Signed(32)
		case 0x42: // i64.const
			r.Signed(64)
		case 0x43: // f32.const
			r.Bytes(4)
		case 0x44: // f64.const
			r.Bytes(8)
		case 0xd0: // ref.null
			r.Byte()
		case 0xfd: // v128.const
			if sub := r.U32(); sub != 12 {
				r.Fail("instruction 0xfd %d in a constant expression", sub)
			}
			r.Bytes(16)
		default:
			r.Fail("instruction %#x in a constant expression", op)
		}
	}
}
