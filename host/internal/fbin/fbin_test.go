package fbin

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func file(n, d uint32, data ...float32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, n)
	b = binary.LittleEndian.AppendUint32(b, d)
	for _, x := range data {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// What was written is read again.
func TestRoundTrip(t *testing.T) {
	want := &Matrix{N: 700, Dim: 3}
	for i := range want.N * want.Dim {
		want.Data = append(want.Data, float32(i)-1000.5)
	}
	name := filepath.Join(t.TempDir(), "keys.fbin")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(want.Write(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	m, err := ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if m.N != want.N || m.Dim != want.Dim || !slices.Equal(m.Data, want.Data) {
		t.Errorf("%d x %d", m.N, m.Dim)
	}
	if got := m.Row(2); !slices.Equal(got, []float32{-994.5, -993.5, -992.5}) {
		t.Errorf("row 2 is %v", got)
	}
	if _, err := ReadFile(filepath.Dir(name)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := ReadFile(name + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// Damaged files are refused, with what is wrong.
func TestDamaged(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		data []byte
		size int64 // 0: that of data
		want string
	}{
		{nil, 0, "0 bytes, the counts alone take 8"},
		{file(1, 2, 3)[:7], 0, "7 bytes, the counts alone take 8"},
		{file(0, 2), 0, "0 vectors of dimension 2; there must be some"},
		{file(2, 0), 0, "2 vectors of dimension 0; there must be some"},
		{file(2, 2, 1, 2, 3), 0, "2 vectors of dimension 2, which is not what 12 bytes after the counts hold"},
		{file(1, 2, 1, 2, 3), 0, "1 vectors of dimension 2, which is not what 12 bytes"},
		{file(1, 2, 1, 2)[:15], 0, "not what 7 bytes"},
		{file(math.MaxUint32, math.MaxUint32, 1), 0, "4294967295 vectors of dimension 4294967295"},
		{file(1<<31, 1<<31), 0, "not what 0 bytes"}, // 4 n d is 2^64
		{file(2, 2, 1, 2, 3, inf), 0, "element 1 of vector 1 is +Inf"},
		{file(1, 1, float32(math.NaN())), 0, "element 0 of vector 0 is NaN"},
		{file(1, 2, 1), 16, "it ends early"},
		{file(1, 2, 1)[:4], 16, "it ends early"},
	} {
		size := c.size
		if size == 0 {
			size = int64(len(c.data))
		}
		if _, err := Read(bytes.NewReader(c.data), size); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.data, err, c.want)
		}
	}
	if _, err := Read(failing{}, 16); !errors.Is(err, errDisk) || errors.Is(err, ErrFormat) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

var errDisk = errors.New("disk")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errDisk }

// Whatever is read is either refused as damaged or written back as it was.
func FuzzRead(f *testing.F) {
	f.Add(file(1, 2, 3, 4))
	f.Add(file(2, 1, 3, 4))
	f.Add(file(0, 0))
	f.Add(file(1<<31, 1<<31))
	f.Add(file(1, 1, float32(math.NaN())))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		var out bytes.Buffer
		if err := m.Write(&out); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%d x %d: % x became % x", m.N, m.Dim, data, out.Bytes())
		}
		if err := m.Write(broken{}); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("a write that fails: %v", err)
		}
	})
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
