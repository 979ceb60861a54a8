package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/retrievalattention/ra/host/kernel"
)

// Tensor is one tensor of a set. Data is the set's memory: it is read-only (writing to it may
// fault), it may be unaligned, and it is gone once the set is closed.
type Tensor struct {
	Name  string
	DType DType
	Shape []int  // empty for a scalar; a dimension may be 0
	Data  []byte // row-major, little-endian, Len()*DType.Size() bytes
}

// Len is the number of elements: the product of Shape, 1 for a scalar.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// U16 gives the elements of an F16 or BF16 tensor as raw bits. The slice is a view of Data where
// Data is aligned and the machine is little-endian, else a copy; treat it as read-only and do not
// use it after the set is closed. Any other dtype is an error that wraps ErrDType.
func (t Tensor) U16() ([]uint16, error) {
	if t.DType != F16 && t.DType != BF16 {
		return nil, fmt.Errorf("safetensors: tensor %q is %s and cannot be read as 16-bit elements: %w", t.Name, t.DType, ErrDType)
	}
	n := len(t.Data) / 2
	if n == 0 {
		return nil, nil
	}
	if view, ok := kernel.Elements[uint16](t.Data); ok {
		return view, nil
	}
	out := make([]uint16, n)
	for i := range out {
		out[i] = binary.LittleEndian.Uint16(t.Data[2*i:])
	}
	return out, nil
}

// F32 gives the elements of an F32 tensor. The slice is a view of Data where Data is aligned and
// the machine is little-endian, else a copy; treat it as read-only and do not use it after the set
// is closed. Any other dtype is an error that wraps ErrDType: see Widen.
func (t Tensor) F32() ([]float32, error) {
	if t.DType != F32 {
		return nil, fmt.Errorf("safetensors: tensor %q is %s, not F32: %w", t.Name, t.DType, ErrDType)
	}
	n := len(t.Data) / 4
	if n == 0 {
		return nil, nil
	}
	if view, ok := kernel.Elements[float32](t.Data); ok {
		return view, nil
	}
	out := make([]float32, n)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
	}
	return out, nil
}

// Widen gives the elements of an F32, F16 or BF16 tensor as float32, exactly, in memory of its
// own. Any other dtype is an error that wraps ErrDType.
func (t Tensor) Widen() ([]float32, error) {
	out := make([]float32, t.Len())
	switch t.DType {
	case F32:
		for i := range out {
			out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
		}
	case BF16:
		for i := range out {
			out[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(t.Data[2*i:])) << 16)
		}
	case F16:
		for i := range out {
			out[i] = kernel.F16ToF32(binary.LittleEndian.Uint16(t.Data[2*i:]))
		}
	default:
		return nil, fmt.Errorf("safetensors: tensor %q is %s and cannot be widened to float32: %w", t.Name, t.DType, ErrDType)
	}
	return out, nil
}
