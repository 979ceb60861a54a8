package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Write writes one safetensors file. Tensors of wide elements come first and equal ones in the
// order of their names, as the format's own library does, so that every tensor is aligned to its
// element. Only F32, F16 and BF16 are written. Data must hold exactly the bytes that Shape and
// DType need. The same input gives the same bytes.
func Write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	sorted := slices.Clone(tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int {
		if d := b.DType.Size() - a.DType.Size(); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	var h bytes.Buffer
	h.WriteByte('{')
	if len(metadata) > 0 {
		fmt.Fprintf(&h, "%s:{", quote(metadataKey))
		for i, k := range slices.Sorted(maps.Keys(metadata)) {
			if i > 0 {
				h.WriteByte(',')
			}
			fmt.Fprintf(&h, "%s:%s", quote(k), quote(metadata[k]))
		}
		h.WriteByte('}')
	}
	seen := make(map[string]bool, len(sorted))
	var at uint64
	for _, t := range sorted {
		if !t.DType.supported() {
			return fmt.Errorf("safetensors: write tensor %q: dtype %q: %w", t.Name, t.DType, ErrDType)
		}
		if t.Name == metadataKey || seen[t.Name] {
			return fmt.Errorf("safetensors: write tensor %q: the name is taken", t.Name)
		}
		seen[t.Name] = true
		for _, d := range t.Shape {
			if d < 0 {
				return fmt.Errorf("safetensors: write tensor %q: shape %v has a negative dimension", t.Name, t.Shape)
			}
		}
		e := entry{name: t.Name, dtype: t.DType, shape: t.Shape, begin: at, end: at + uint64(len(t.Data))}
		if err := checkSize(&e, fmt.Sprintf("tensor %q", t.Name)); err != nil {
			return fmt.Errorf("safetensors: write: %w", err)
		}
		if h.Len() > 1 {
			h.WriteByte(',')
		}
		shape, err := json.Marshal(append([]int{}, t.Shape...)) // a scalar's shape is [], never null
		if err != nil {
			return fmt.Errorf("safetensors: write tensor %q: %w", t.Name, err)
		}
		fmt.Fprintf(&h, `%s:{"dtype":%s,"shape":%s,"data_offsets":[%d,%d]}`, quote(t.Name), quote(string(t.DType)), shape, e.begin, e.end)
		at = e.end
	}
	h.WriteByte('}')
	for h.Len()%8 != 0 {
		h.WriteByte(' ')
	}
	if h.Len() > maxHeader {
		return fmt.Errorf("safetensors: write: the header would have %d bytes, more than the limit of %d", h.Len(), maxHeader)
	}
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(h.Len()))
	if _, err := w.Write(n[:]); err != nil {
		return fmt.Errorf("safetensors: write: %w", err)
	}
	if _, err := w.Write(h.Bytes()); err != nil {
		return fmt.Errorf("safetensors: write: %w", err)
	}
	for _, t := range sorted {
		if _, err := w.Write(t.Data); err != nil {
			return fmt.Errorf("safetensors: write tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// quote is s as a JSON string.
func quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil { // a string always encodes
		return `""`
	}
	return strings.TrimSuffix(b.String(), "\n")
}
