package wasmbin

import (
	"errors"
	"fmt"
)

// ErrFormat marks bytes that are not a WebAssembly module as this package
// reads it.
var ErrFormat = errors.New("malformed wasm module")

// Reader walks bytes of a module. Its first error sticks: every later read
// returns zero, so callers check once.
type Reader struct {
	data []byte
	base int // offset of data[0] in the module, for messages
	pos  int
	err  error
}

// NewReader reads data, which lies at offset base of the module.
func NewReader(data []byte, base int) *Reader { return &Reader{data: data, base: base} }

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// Pos returns the position in data.
func (r *Reader) Pos() int { return r.pos }

// Offset returns the position in the module.
func (r *Reader) Offset() int { return r.base + r.pos }

// More reports whether bytes are left and no error occurred.
func (r *Reader) More() bool { return r.err == nil && r.pos < len(r.data) }

// Fail records an error at the current offset.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: offset %#x: %s", ErrFormat, r.Offset(), fmt.Sprintf(format, args...))
	}
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if r.err != nil {
		return 0
	}
	if r.pos >= len(r.data) {
		r.Fail("unexpected end")
		return 0
	}
	b := r.data[r.pos]
	r.pos++
	return b
}

// Bytes reads n bytes without copying.
func (r *Reader) Bytes(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.data)-r.pos {
		r.Fail("%d bytes wanted, %d left", n, len(r.data)-r.pos)
		return nil
	}
	b := r.data[r.pos : r.pos+n]
	r.pos += n
	return b
}

// U32 reads an unsigned LEB128 of at most 32 bits.
func (r *Reader) U32() uint32 {
	var v uint32
	for i := range 5 {
		b := r.Byte()
		if i == 4 && b > 0x0f {
			r.Fail("integer too large")
			return 0
		}
		v |= uint32(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			return v
		}
	}
	r.Fail("integer too long")
	return 0
}

// Signed skips a signed LEB128 of at most the given bits and returns whether
// it is negative.
func (r *Reader) Signed(bits int) (negative bool) {
	for range (bits + 6) / 7 {
		b := r.Byte()
		if b&0x80 == 0 {
			return b&0x40 != 0
		}
	}
	r.Fail("integer too long")
	return false
}

// Name reads a length-prefixed string.
func (r *Reader) Name() string { return string(r.Bytes(int(r.U32()))) }

// Count reads the length of a vector whose elements take at least one byte
// each, so that a hostile count cannot make a caller allocate more than the
// module's own size.
func (r *Reader) Count() int {
	n := int(r.U32())
	if n > len(r.data)-r.pos {
		r.Fail("vector of %d elements in %d bytes", n, len(r.data)-r.pos)
		return 0
	}
	return n
}

// AppendU32 appends v as unsigned LEB128.
func AppendU32(dst []byte, v uint32) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

// AppendI64 appends v as signed LEB128.
func AppendI64(dst []byte, v int64) []byte {
	for {
		b := byte(v & 0x7f)
		v >>= 7
		if v == 0 && b&0x40 == 0 || v == -1 && b&0x40 != 0 {
			return append(dst, b)
		}
		dst = append(dst, b|0x80)
	}
}

// AppendName appends a length-prefixed string.
func AppendName(dst []byte, s string) []byte {
	return append(AppendU32(dst, uint32(len(s))), s...)
}

// Rest reads what is left.
func (r *Reader) Rest() []byte { return r.Bytes(len(r.data) - r.pos) }
