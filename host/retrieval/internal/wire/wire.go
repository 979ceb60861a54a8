// Package wire writes and reads the stored form of index objects: a header
// that names the kind of object and the version of its form, the object's
// numbers, and a checksum. All is little-endian.
//
//	"RAIX"  kind [4]byte  version u32  body  CRC-32C of all before it u32
//
// Errors stick, so that callers check once, at Close.
package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// ErrFormat marks stored data that is not what it should be: another kind or
// version of object, damaged or cut off.
var ErrFormat = errors.New("invalid index data")

const magic = "RAIX"

var table = crc32.MakeTable(crc32.Castagnoli)

// Writer writes one object.
type Writer struct {
	w   *bufio.Writer
	crc uint32
	err error
	buf [4096]byte
}

// NewWriter starts an object; kind has four letters.
func NewWriter(w io.Writer, kind string, version uint32) *Writer {
	x := &Writer{w: bufio.NewWriter(w)}
	x.Bytes([]byte(magic + kind))
	x.U32(version)
	return x
}

// Bytes writes bytes, without their count.
func (w *Writer) Bytes(b []byte) {
	if w.err == nil {
		w.crc = crc32.Update(w.crc, table, b)
		_, w.err = w.w.Write(b)
	}
}

// U32 writes one number.
func (w *Writer) U32(v uint32) { w.Bytes(binary.LittleEndian.AppendUint32(w.buf[:0], v)) }

// U32s writes numbers, without their count.
func (w *Writer) U32s(v []uint32) {
	for len(v) > 0 {
		b := w.buf[:0]
		n := min(len(v), len(w.buf)/4)
		for _, x := range v[:n] {
			b = binary.LittleEndian.AppendUint32(b, x)
		}
		w.Bytes(b)
		v = v[n:]
	}
}

// F32s writes numbers, without their count.
func (w *Writer) F32s(v []float32) {
	for len(v) > 0 {
		b := w.buf[:0]
		n := min(len(v), len(w.buf)/4)
		for _, x := range v[:n] {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
		w.Bytes(b)
		v = v[n:]
	}
}

// Close ends the object. It does not close the writer below.
func (w *Writer) Close() error {
	w.U32(w.crc)
	if w.err == nil {
		w.err = w.w.Flush()
	}
	return w.err
}

// Reader reads one object, and not a byte beyond it.
type Reader struct {
	r   io.Reader
	crc uint32
	err error
	buf [4096]byte
}

// NewReader starts reading and refuses another kind or version.
func NewReader(r io.Reader, kind string, version uint32) (*Reader, error) {
	x := &Reader{r: r}
	var head [8]byte
	x.Bytes(head[:])
	v := x.U32()
	switch {
	case x.err != nil:
		return nil, x.err
	case string(head[:4]) != magic:
		return nil, fmt.Errorf("%w: it does not begin as an index object does", ErrFormat)
	case string(head[4:]) != kind:
		return nil, fmt.Errorf("%w: an object of kind %q, want %q", ErrFormat, head[4:], kind)
	case v != version:
		return nil, fmt.Errorf("%w: %s of version %d, this program reads version %d", ErrFormat, kind, v, version)
	}
	return x, nil
}

// Bytes fills b; with zeros after an error.
func (r *Reader) Bytes(b []byte) {
	if r.err != nil {
		clear(b)
		return
	}
	if _, err := io.ReadFull(r.r, b); err != nil {
		clear(b)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: it ends too early", ErrFormat)
		}
		r.err = err
		return
	}
	r.crc = crc32.Update(r.crc, table, b)
}

// U32 reads one number; 0 after an error.
func (r *Reader) U32() uint32 {
	b := r.buf[:4]
	r.Bytes(b)
	return binary.LittleEndian.Uint32(b)
}

// Int reads a number that must lie in [lo, hi]; lo after an error.
func (r *Reader) Int(what string, lo, hi int) int {
	v := int64(r.U32())
	if r.err == nil && (v < int64(lo) || v > int64(hi)) {
		r.Fail("%s is %d, must be %d to %d", what, v, lo, hi)
	}
	if r.err != nil {
		return lo
	}
	return int(v)
}

// U32s fills dst.
func (r *Reader) U32s(dst []uint32) {
	for len(dst) > 0 && r.err == nil {
		n := min(len(dst), len(r.buf)/4)
		r.Bytes(r.buf[:4*n])
		for i := range n {
			dst[i] = binary.LittleEndian.Uint32(r.buf[4*i:])
		}
		dst = dst[n:]
	}
}

// List reads n numbers. It takes memory as they come, so that a damaged count
// costs nothing.
func (r *Reader) List(n int) []uint32 {
	var v []uint32
	for len(v) < n && r.err == nil {
		m := min(n-len(v), 1024)
		v = append(v, make([]uint32, m)...)
		r.U32s(v[len(v)-m:])
	}
	return v
}

// F32s fills dst and refuses numbers that are not finite.
func (r *Reader) F32s(dst []float32) {
	for len(dst) > 0 && r.err == nil {
		n := min(len(dst), len(r.buf)/4)
		r.Bytes(r.buf[:4*n])
		for i := range n {
			v := math.Float32frombits(binary.LittleEndian.Uint32(r.buf[4*i:]))
			if v-v != 0 {
				r.Fail("a number is %v", v)
			}
			dst[i] = v
		}
		dst = dst[n:]
	}
}

// Fail records what is wrong with the data, unless something was before.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
}

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// Close checks the checksum and returns the first error of all.
func (r *Reader) Close() error {
	want := r.crc
	if got := r.U32(); r.err == nil && got != want {
		r.err = fmt.Errorf("%w: the checksum is wrong", ErrFormat)
	}
	return r.err
}
