package process

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

// share is one inherited file and its mapping.
type share struct {
	file *os.File
	mu   sync.Mutex
	data []byte
}

// bytes returns n bytes at offset. A mapping that became too short is
// replaced and left in place, since it may be in use: the host doubles its
// file, so that all mappings together take twice its address space.
func (s *share) bytes(offset, n uint64) ([]byte, error) {
	if s == nil {
		return nil, fmt.Errorf("not granted")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if end := offset + n; end > uint64(len(s.data)) || end < offset {
		info, err := s.file.Stat()
		if err != nil {
			return nil, err
		}
		if end < offset || end > uint64(info.Size()) {
			return nil, fmt.Errorf("[%d, %d) lies beyond the %d bytes that are shared", offset, end, info.Size())
		}
		if s.data, err = mapped(s.file, info.Size()); err != nil {
			return nil, fmt.Errorf("map the shared memory: %w", err)
		}
	}
	return s.data[offset : offset+n], nil
}

// mapped maps a whole file, at an address that huge pages can begin at.
func mapped(f *os.File, n int64) ([]byte, error) {
	const huge = 2 << 20
	whole, err := unix.Mmap(-1, 0, int(n)+huge, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	base := unsafe.Pointer(unsafe.SliceData(whole))
	at := int64(-uintptr(base) & (huge - 1))
	if _, err := unix.MmapPtr(int(f.Fd()), 0, unsafe.Add(base, at), uintptr(n), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_FIXED); err != nil {
		return nil, errors.Join(err, unix.Munmap(whole))
	}
	return whole[at : at+n : at+n], nil
}

// DType is the element type of rows.
type DType int32

// Element types.
const (
	F32  = DType(contract.DType_DTYPE_F32)
	BF16 = DType(contract.DType_DTYPE_BF16)
	F16  = DType(contract.DType_DTYPE_F16)
)

// Rows is a matrix of N rows and Dim columns in the host's memory, rows one
// after the other. One of F32 and U16 is set, as DType says. It may be read,
// as long as the call lasts; writing to it ends the process.
type Rows struct {
	DType DType
	Dim   int
	N     int
	F32   []float32
	U16   []uint16
}

// Slice returns rows [lo, hi).
func (r Rows) Slice(lo, hi int) Rows {
	s := Rows{DType: r.DType, Dim: r.Dim, N: hi - lo}
	if r.DType == F32 {
		s.F32 = r.F32[lo*r.Dim : hi*r.Dim]
	} else {
		s.U16 = r.U16[lo*r.Dim : hi*r.Dim]
	}
	return s
}

// Row writes row i as f32 to out, of length Dim.
func (r Rows) Row(i int, out []float32) {
	switch r.DType {
	case F32:
		copy(out, r.F32[i*r.Dim:(i+1)*r.Dim])
	case BF16:
		for j, x := range r.U16[i*r.Dim : (i+1)*r.Dim] {
			out[j] = math.Float32frombits(uint32(x) << 16)
		}
	case F16:
		for j, x := range r.U16[i*r.Dim : (i+1)*r.Dim] {
			out[j] = half(x)
		}
	}
}

// half widens a binary16.
func half(x uint16) float32 {
	sign, exp, frac := uint32(x>>15)<<31, uint32(x>>10)&31, uint32(x)&1023
	switch exp {
	case 0: // zero and subnormal numbers: frac * 2^-24
		return math.Float32frombits(math.Float32bits(float32(frac)*0x1p-24) | sign)
	case 31: // infinity and NaN
		return math.Float32frombits(sign | 255<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}

// Sequence is one layer of one view of a token sequence.
type Sequence struct {
	View   uint64 // the view's number
	Parent uint64 // of the view that it was forked from, 0 for none
	Tokens int    // positions, static ones included
	// Indexed are the positions that a search may return.
	Indexed          []Range
	KVHeads, HeadDim int
	DType            DType

	segments     []segment
	keys, values *share
}

type segment struct {
	start, rows             int
	keys, values, headBytes uint64
}

// Keys yields the keys of one KV head, in stretches: the position of the
// first row, and the rows. It panics when the keys were not granted: list the
// feature "keys".
func (s *Sequence) Keys(head int) func(yield func(int, Rows) bool) {
	return s.all(head, s.keys, func(g segment) uint64 { return g.keys })
}

// Values is Keys for the values; the feature is "values".
func (s *Sequence) Values(head int) func(yield func(int, Rows) bool) {
	return s.all(head, s.values, func(g segment) uint64 { return g.values })
}

// IndexedKeys yields the keys of the indexed positions of one KV head.
func (s *Sequence) IndexedKeys(head int) func(yield func(int, Rows) bool) {
	return func(yield func(int, Rows) bool) {
		for start, rows := range s.Keys(head) {
			for _, r := range s.Indexed {
				lo, hi := max(r.Lo, start), min(r.Hi, start+rows.N)
				if lo < hi && !yield(lo, rows.Slice(lo-start, hi-start)) {
					return
				}
			}
		}
	}
}

func (s *Sequence) all(head int, from *share, offset func(segment) uint64) func(yield func(int, Rows) bool) {
	return func(yield func(int, Rows) bool) {
		for _, g := range s.segments {
			rows, err := view(from, offset(g)+uint64(head)*g.headBytes, g.rows, s.HeadDim, s.DType)
			if err != nil {
				panic(fmt.Sprintf("keys or values of view %d: %v", s.View, err))
			}
			if !yield(g.start, rows) {
				return
			}
		}
	}
}

// view makes rows of what lies in a share.
func view(from *share, offset uint64, n, dim int, dtype DType) (Rows, error) {
	r := Rows{DType: dtype, Dim: dim, N: n}
	size := 2
	if dtype == F32 {
		size = 4
	}
	data, err := from.bytes(offset, uint64(n)*uint64(dim)*uint64(size))
	if err != nil || len(data) == 0 {
		return r, err
	}
	if dtype == F32 {
		r.F32 = unsafe.Slice((*float32)(unsafe.Pointer(&data[0])), n*dim)
	} else {
		r.U16 = unsafe.Slice((*uint16)(unsafe.Pointer(&data[0])), n*dim)
	}
	return r, nil
}
