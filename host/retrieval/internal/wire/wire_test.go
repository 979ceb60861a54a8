package wire

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	u, f := make([]uint32, 5000), make([]float32, 5000)
	for i := range u {
		u[i], f[i] = uint32(i*7), float32(i)/3
	}
	var b bytes.Buffer
	w := NewWriter(&b, "TEST", 3)
	w.U32(42)
	w.U32s(u)
	w.F32s(f)
	w.Bytes([]byte("abc"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(bytes.NewReader(b.Bytes()), "TEST", 3)
	if err != nil {
		t.Fatal(err)
	}
	gotF, text := make([]float32, 5000), make([]byte, 3)
	if n := r.Int("answer", 0, 50); n != 42 {
		t.Error(n)
	}
	gotU := r.List(5000)
	r.F32s(gotF)
	r.Bytes(text)
	if err := r.Close(); err != nil || !slices.Equal(gotU, u) || !slices.Equal(gotF, f) || string(text) != "abc" {
		t.Errorf("%v, or other data", err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		write func(w *Writer)
		read  func(r *Reader)
		text  string
	}{
		{func(w *Writer) { w.U32(9) }, func(r *Reader) { r.Int("x", 1, 8) }, "x is 9, must be 1 to 8"},
		{func(w *Writer) { w.F32s([]float32{float32(math.NaN())}) }, func(r *Reader) { r.F32s(make([]float32, 1)) }, "a number is NaN"},
		{func(w *Writer) { w.F32s([]float32{float32(math.Inf(-1))}) }, func(r *Reader) { r.F32s(make([]float32, 1)) }, "a number is -Inf"},
		{func(w *Writer) {}, func(r *Reader) { r.List(math.MaxInt) }, "it ends too early"}, // and takes no such memory
		{func(w *Writer) { w.U32(1) }, func(r *Reader) {}, "the checksum is wrong"},
		{func(w *Writer) {}, func(r *Reader) { r.Fail("first"); r.Fail("second") }, "first"},
	} {
		var b bytes.Buffer
		w := NewWriter(&b, "TEST", 1)
		c.write(w)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := NewReader(&b, "TEST", 1)
		if err != nil {
			t.Fatal(err)
		}
		c.read(r)
		first := r.Err()
		err = r.Close()
		if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.text) || first != nil && err != first {
			t.Errorf("%v, want %q", err, c.text)
		}
		if r.U32() != 0 || r.Int("y", 5, 6) != 5 {
			t.Error("numbers after an error")
		}
	}
}

// full fails after a few bytes.
type full struct{ n int }

var errFull = errors.New("disk full")

func (f *full) Write(b []byte) (int, error) {
	if f.n -= len(b); f.n < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestWriteError(t *testing.T) {
	w := NewWriter(&full{5000}, "TEST", 1)
	w.U32s(make([]uint32, 10_000))
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Error(err)
	}
}
