package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"sort"
	"strconv"
)

const (
	// maxHeader is the header limit of the format's own library; a larger one is refused.
	maxHeader   = 100_000_000
	metadataKey = "__metadata__"
)

// entry is one tensor as the header describes it; begin and end are relative to the data section.
type entry struct {
	name       string
	dtype      DType
	shape      []int
	begin, end uint64
}

// formatErrorf makes an error about a damaged file. The file's name is put in front by the caller.
func formatErrorf(format string, args ...any) error {
	return fmt.Errorf(format+" (%w)", append(args, ErrFormat)...)
}

// parseHeader checks everything that the header of a file claims about the file, and returns the
// tensors in the order of their bytes, the metadata, and the offset of the data section.
func parseHeader(data []byte) (entries []entry, metadata map[string]string, base int, err error) {
	if len(data) < 8 {
		return nil, nil, 0, formatErrorf("the file has %d bytes, too few for the 8-byte header length; it is truncated or not safetensors: download it again", len(data))
	}
	n := binary.LittleEndian.Uint64(data)
	if n > maxHeader {
		return nil, nil, 0, formatErrorf("the header claims %d bytes, more than the limit of %d; the file is damaged or not safetensors: download it again", n, maxHeader)
	}
	if n > uint64(len(data)-8) {
		return nil, nil, 0, formatErrorf("the header claims %d bytes, but only %d follow; the file is truncated: download it again", n, len(data)-8)
	}
	base = 8 + int(n)
	entries, metadata, err = parseHeaderJSON(data[8:base])
	if err != nil {
		return nil, nil, 0, err
	}
	if err := checkLayout(entries, uint64(len(data)-base)); err != nil {
		return nil, nil, 0, err
	}
	return entries, metadata, base, nil
}

// headerParser walks the JSON token by token: unlike unmarshalling into a map, this sees
// duplicate keys and knows positions.
type headerParser struct {
	dec *json.Decoder
}

func (p *headerParser) errorf(format string, args ...any) error {
	return formatErrorf("header byte %d: "+format, append([]any{p.dec.InputOffset()}, args...)...)
}

// token returns the next token, a syntax error being translated into one with a position.
func (p *headerParser) token() (json.Token, error) {
	t, err := p.dec.Token()
	if err == nil {
		return t, nil
	}
	var syn *json.SyntaxError
	switch {
	case errors.As(err, &syn):
		return nil, formatErrorf("header byte %d: %v; the file is damaged: download it again", syn.Offset, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, p.errorf("the JSON ends too early; the file is damaged: download it again")
	}
	return nil, p.errorf("%v", err)
}

func (p *headerParser) delim(want json.Delim, what string) error {
	t, err := p.token()
	if err != nil {
		return err
	}
	if t != want {
		return p.errorf("%s must be a JSON %s, found %s", what, map[json.Delim]string{'{': "object", '[': "array"}[want], tokenName(t))
	}
	return nil
}

func tokenName(t json.Token) string {
	switch t := t.(type) {
	case json.Delim:
		return strconv.Quote(t.String())
	case string:
		return "the string " + strconv.Quote(clip(t))
	case json.Number:
		return "the number " + clip(t.String())
	case nil:
		return "null"
	}
	return fmt.Sprint(t)
}

// clip bounds what a hostile file can put into an error text.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

func parseHeaderJSON(js []byte) ([]entry, map[string]string, error) {
	p := &headerParser{json.NewDecoder(bytes.NewReader(js))}
	p.dec.UseNumber()
	if err := p.delim('{', "the header"); err != nil {
		return nil, nil, err
	}
	var entries []entry
	var metadata map[string]string
	seen := make(map[string]bool)
	for p.dec.More() {
		t, err := p.token()
		if err != nil {
			return nil, nil, err
		}
		name := t.(string) // the decoder lets nothing else be a key
		if seen[name] {
			return nil, nil, p.errorf("%q appears twice; the file is damaged: download it again", clip(name))
		}
		seen[name] = true
		if name == metadataKey {
			if metadata, err = p.metadata(); err != nil {
				return nil, nil, err
			}
			continue
		}
		e, err := p.entry(name)
		if err != nil {
			return nil, nil, err
		}
		entries = append(entries, e)
	}
	if _, err := p.token(); err != nil { // the closing brace
		return nil, nil, err
	}
	if rest := bytes.TrimLeft(js[p.dec.InputOffset():], " \t\r\n"); len(rest) != 0 {
		return nil, nil, p.errorf("%d bytes follow the JSON object; the file is damaged: download it again", len(rest))
	}
	return entries, metadata, nil
}

func (p *headerParser) metadata() (map[string]string, error) {
	if err := p.delim('{', metadataKey); err != nil {
		return nil, err
	}
	m := make(map[string]string)
	for p.dec.More() {
		k, err := p.token()
		if err != nil {
			return nil, err
		}
		v, err := p.token()
		if err != nil {
			return nil, err
		}
		s, ok := v.(string)
		if !ok {
			return nil, p.errorf("%s: the value of %q must be a string, found %s", metadataKey, clip(k.(string)), tokenName(v))
		}
		if _, dup := m[k.(string)]; dup {
			return nil, p.errorf("%s: %q appears twice", metadataKey, clip(k.(string)))
		}
		m[k.(string)] = s
	}
	_, err := p.token()
	return m, err
}

func (p *headerParser) entry(name string) (entry, error) {
	e := entry{name: name}
	label := fmt.Sprintf("tensor %q", clip(name))
	if err := p.delim('{', label); err != nil {
		return e, err
	}
	seen := make(map[string]bool, 3)
	for p.dec.More() {
		t, err := p.token()
		if err != nil {
			return e, err
		}
		key := t.(string)
		if seen[key] {
			return e, p.errorf("%s: %q appears twice", label, clip(key))
		}
		seen[key] = true
		switch key {
		case "dtype":
			v, err := p.token()
			if err != nil {
				return e, err
			}
			s, ok := v.(string)
			if !ok {
				return e, p.errorf("%s: dtype must be a string, found %s", label, tokenName(v))
			}
			e.dtype = DType(s)
		case "shape":
			dims, err := p.uints(label + ": shape")
			if err != nil {
				return e, err
			}
			e.shape = make([]int, len(dims))
			for i, d := range dims {
				if d > math.MaxInt {
					return e, p.errorf("%s: shape: dimension %d is too large", label, d)
				}
				e.shape[i] = int(d)
			}
		case "data_offsets":
			offs, err := p.uints(label + ": data_offsets")
			if err != nil {
				return e, err
			}
			if len(offs) != 2 {
				return e, p.errorf("%s: data_offsets has %d numbers, not 2", label, len(offs))
			}
			e.begin, e.end = offs[0], offs[1]
		default:
			return e, p.errorf("%s: unknown field %q", label, clip(key))
		}
	}
	if _, err := p.token(); err != nil {
		return e, err
	}
	for _, key := range []string{"dtype", "shape", "data_offsets"} {
		if !seen[key] {
			return e, p.errorf("%s: %s is missing", label, key)
		}
	}
	return e, nil
}

func (p *headerParser) uints(what string) ([]uint64, error) {
	if err := p.delim('[', what); err != nil {
		return nil, err
	}
	out := []uint64{}
	for p.dec.More() {
		t, err := p.token()
		if err != nil {
			return nil, err
		}
		num, ok := t.(json.Number)
		if !ok {
			return nil, p.errorf("%s must hold whole numbers, found %s", what, tokenName(t))
		}
		u, err := strconv.ParseUint(num.String(), 10, 64)
		if err != nil {
			return nil, p.errorf("%s must hold whole numbers from 0 to 2^64-1, found %s", what, clip(num.String()))
		}
		out = append(out, u)
	}
	_, err := p.token()
	return out, err
}

// checkLayout sorts entries by their bytes and checks that they cover the data section of the
// given size, without gap or overlap, each with the size that its shape and dtype need.
func checkLayout(entries []entry, size uint64) error {
	sort.SliceStable(entries, func(i, j int) bool {
		a, b := &entries[i], &entries[j]
		if a.begin != b.begin {
			return a.begin < b.begin
		}
		return a.end < b.end
	})
	var at uint64
	last := ""
	for i := range entries {
		e := &entries[i]
		label := fmt.Sprintf("tensor %q", clip(e.name))
		if e.begin > e.end {
			return formatErrorf("%s: data_offsets [%d, %d] run backwards; the file is damaged: download it again", label, e.begin, e.end)
		}
		if e.end > size {
			return formatErrorf("%s: its bytes end at %d, but the data section has %d; the file is truncated: download it again", label, e.end, size)
		}
		switch {
		case e.begin < at:
			return formatErrorf("%s overlaps %s by %d bytes; the file is damaged: download it again", label, last, at-e.begin)
		case e.begin > at:
			return formatErrorf("%d bytes before %s belong to no tensor; the file is damaged: download it again", e.begin-at, label)
		}
		if err := checkSize(e, label); err != nil {
			return err
		}
		at, last = e.end, label
	}
	if at != size {
		return formatErrorf("the last %d of %d data bytes belong to no tensor; the file is damaged: download it again", size-at, size)
	}
	return nil
}

// checkSize compares a tensor's byte count with its shape and dtype. A dtype that is not known
// cannot be checked; the tensor is refused by name when somebody asks for it.
func checkSize(e *entry, label string) error {
	width, known := dtypeBits[e.dtype]
	if !known {
		return nil
	}
	total := width
	for _, d := range e.shape {
		hi, lo := bits.Mul64(total, uint64(d))
		if hi != 0 || lo > math.MaxInt64 {
			// A zero dimension further on would make the product small, but no writer makes
			// such a shape; upstream refuses the overflow as well.
			return formatErrorf("%s: shape %v of %s is too large; the file is damaged: download it again", label, e.shape, e.dtype)
		}
		total = lo
	}
	if total%8 != 0 {
		return formatErrorf("%s: shape %v of %s is not a whole number of bytes", label, e.shape, e.dtype)
	}
	if total/8 != e.end-e.begin {
		return formatErrorf("%s: shape %v of %s needs %d bytes, but it has %d; the file is damaged: download it again", label, e.shape, e.dtype, total/8, e.end-e.begin)
	}
	return nil
}
