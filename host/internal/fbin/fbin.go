// Package fbin reads vectors from files in the form of the big-ann-benchmarks:
// two little-endian uint32, the number of vectors n and their dimension d,
// then n*d little-endian f32, vector by vector.
package fbin

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// ErrFormat marks a file that is not whole or holds what no vector may.
var ErrFormat = errors.New("not a valid fbin file")

// Matrix is n row-major vectors of dimension Dim.
type Matrix struct {
	N, Dim int
	Data   []float32
}

// Row returns vector i. It is the matrix's own memory.
func (m *Matrix) Row(i int) []float32 { return m.Data[i*m.Dim : (i+1)*m.Dim] }

// header is the size of the two counts in bytes.
const header = 8

// ReadFile reads a file. Errors name it.
func ReadFile(name string) (m *Matrix, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w: not a regular file", name, ErrFormat)
	}
	if m, err = Read(f, info.Size()); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// Read reads a file of the given size in bytes, which must be what its counts
// say. No more memory is taken than the size.
func Read(r io.Reader, size int64) (*Matrix, error) {
	if size < header {
		return nil, fmt.Errorf("%w: %d bytes, the counts alone take %d", ErrFormat, size, header)
	}
	in := bufio.NewReaderSize(r, 1<<16)
	var counts [header]byte
	if _, err := io.ReadFull(in, counts[:]); err != nil {
		return nil, short(err)
	}
	n, d := uint64(binary.LittleEndian.Uint32(counts[:])), uint64(binary.LittleEndian.Uint32(counts[4:]))
	if n == 0 || d == 0 {
		return nil, fmt.Errorf("%w: it says %d vectors of dimension %d; there must be some", ErrFormat, n, d)
	}
	if body := uint64(size - header); body%4 != 0 || body/4 != n*d { // n*d is below 2^64
		return nil, fmt.Errorf("%w: it says %d vectors of dimension %d, which is not what %d bytes after the counts hold", ErrFormat, n, d, body)
	}
	m := &Matrix{N: int(n), Dim: int(d), Data: make([]float32, n*d)}
	var chunk [1 << 12]byte
	for at := 0; at < len(m.Data); {
		b := chunk[:min(len(chunk), 4*(len(m.Data)-at))]
		if _, err := io.ReadFull(in, b); err != nil {
			return nil, short(err)
		}
		for ; len(b) > 0; b, at = b[4:], at+1 {
			x := math.Float32frombits(binary.LittleEndian.Uint32(b))
			if x-x != 0 {
				return nil, fmt.Errorf("%w: element %d of vector %d is %v", ErrFormat, at%m.Dim, at/m.Dim, x)
			}
			m.Data[at] = x
		}
	}
	return m, nil
}

// short says of a file that it ends early; other errors are passed on.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends early", ErrFormat)
	}
	return err
}

// Write writes the matrix as [Read] reads it, for tests.
func (m *Matrix) Write(w io.Writer) error {
	out := bufio.NewWriter(w)
	for _, n := range []int{m.N, m.Dim} {
		if err := binary.Write(out, binary.LittleEndian, uint32(n)); err != nil {
			return err
		}
	}
	if err := binary.Write(out, binary.LittleEndian, m.Data); err != nil {
		return err
	}
	return out.Flush()
}
