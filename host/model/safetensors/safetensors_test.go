package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
)

// raw builds a file from a header text and data.
func raw(header string, data []byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	out = append(out, header...)
	return append(out, data...)
}

func one(name, dtype, shape string, begin, end int) string {
	return fmt.Sprintf(`%q:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, name, dtype, shape, begin, end)
}

func TestParseErrors(t *testing.T) {
	a := one("a", "F32", "[2]", 0, 8)
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, `the file has 0 bytes, too few for the 8-byte header length; it is truncated or not safetensors: download it again`},
		{"length only", []byte{2, 0, 0, 0, 0, 0, 0}, `the file has 7 bytes, too few for the 8-byte header length; it is truncated or not safetensors: download it again`},
		{"huge header", append(binary.LittleEndian.AppendUint64(nil, maxHeader+1), "{}"...), `the header claims 100000001 bytes, more than the limit of 100000000; the file is damaged or not safetensors: download it again`},
		{"header past end", append(binary.LittleEndian.AppendUint64(nil, 3), "{}"...), `the header claims 3 bytes, but only 2 follow; the file is truncated: download it again`},
		{"no header", raw("", nil), `header byte 0: the JSON ends too early; the file is damaged: download it again`},
		{"not an object", raw("[]", nil), `header byte 1: the header must be a JSON object, found "["`},
		{"a number", raw("12", nil), `header byte 2: the header must be a JSON object, found the number 12`},
		{"syntax", raw(`{"a" 1}`, nil), `header byte 5: invalid character '1' after object key; the file is damaged: download it again`},
		{"cut off", raw(`{"a":{"dtype":"F32"`, nil), `header byte 19: the JSON ends too early; the file is damaged: download it again`},
		{"trailing", raw(`{} x`, nil), `header byte 2: 1 bytes follow the JSON object; the file is damaged: download it again`},
		{"duplicate tensor", raw("{"+a+","+a+"}", make([]byte, 8)), `header byte 57: "a" appears twice; the file is damaged: download it again`},
		{"duplicate field", raw(`{"a":{"dtype":"F32","dtype":"F32"}}`, nil), `header byte 27: tensor "a": "dtype" appears twice`},
		{"unknown field", raw(`{"a":{"stride":1}}`, nil), `header byte 14: tensor "a": unknown field "stride"`},
		{"missing field", raw(`{"a":{"dtype":"F32","shape":[]}}`, nil), `header byte 31: tensor "a": data_offsets is missing`},
		{"entry null", raw(`{"a":null}`, nil), `header byte 9: tensor "a" must be a JSON object, found null`},
		{"dtype number", raw(`{"a":{"dtype":4}}`, nil), `header byte 15: tensor "a": dtype must be a string, found the number 4`},
		{"shape text", raw(`{"a":{"shape":["2"]}}`, nil), `header byte 18: tensor "a": shape must hold whole numbers, found the string "2"`},
		{"shape negative", raw(`{"a":{"shape":[-2]}}`, nil), `header byte 17: tensor "a": shape must hold whole numbers from 0 to 2^64-1, found -2`},
		{"shape fraction", raw(`{"a":{"shape":[1.5]}}`, nil), `header byte 18: tensor "a": shape must hold whole numbers from 0 to 2^64-1, found 1.5`},
		{"shape over int", raw(`{"a":{"shape":[9223372036854775808]}}`, nil), `header byte 35: tensor "a": shape: dimension 9223372036854775808 is too large`},
		{"three offsets", raw(`{"a":{"data_offsets":[0,1,2]}}`, nil), `header byte 28: tensor "a": data_offsets has 3 numbers, not 2`},
		{"metadata value", raw(`{"__metadata__":{"k":1}}`, nil), `header byte 22: __metadata__: the value of "k" must be a string, found the number 1`},
		{"metadata twice", raw(`{"__metadata__":{"k":"1","k":"2"}}`, nil), `header byte 32: __metadata__: "k" appears twice`},
		{"backwards", raw("{"+one("a", "F32", "[2]", 8, 0)+"}", make([]byte, 8)), `tensor "a": data_offsets [8, 0] run backwards; the file is damaged: download it again`},
		{"past end", raw("{"+a+"}", make([]byte, 7)), `tensor "a": its bytes end at 8, but the data section has 7; the file is truncated: download it again`},
		{"overlap", raw("{"+a+","+one("b", "F32", "[1]", 4, 8)+"}", make([]byte, 8)), `tensor "b" overlaps tensor "a" by 4 bytes; the file is damaged: download it again`},
		{"same bytes", raw("{"+a+","+one("b", "F32", "[2]", 0, 8)+"}", make([]byte, 8)), `tensor "b" overlaps tensor "a" by 8 bytes; the file is damaged: download it again`},
		{"hole", raw("{"+a+","+one("b", "F32", "[1]", 12, 16)+"}", make([]byte, 16)), `4 bytes before tensor "b" belong to no tensor; the file is damaged: download it again`},
		{"tail", raw("{"+a+"}", make([]byte, 9)), `the last 1 of 9 data bytes belong to no tensor; the file is damaged: download it again`},
		{"wrong size", raw("{"+one("a", "BF16", "[2]", 0, 8)+"}", make([]byte, 8)), `tensor "a": shape [2] of BF16 needs 4 bytes, but it has 8; the file is damaged: download it again`},
		{"overflow", raw("{"+one("a", "F32", "[4294967296,4294967296]", 0, 0)+"}", nil), `tensor "a": shape [4294967296 4294967296] of F32 is too large; the file is damaged: download it again`},
		{"half a byte", raw("{"+one("a", "F4", "[1]", 0, 0)+"}", nil), `tensor "a": shape [1] of F4 is not a whole number of bytes`},
		{"integer sizes are checked too", raw("{"+one("a", "I64", "[1]", 0, 4)+"}", make([]byte, 4)), `tensor "a": shape [1] of I64 needs 8 bytes, but it has 4; the file is damaged: download it again`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("m.safetensors", tt.file)
			want := "safetensors: m.safetensors: " + tt.want + " (invalid safetensors)"
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if !errors.Is(err, ErrFormat) {
				t.Errorf("error does not wrap ErrFormat")
			}
		})
	}
}

func sample() []Tensor {
	return []Tensor{
		{Name: "half", DType: F16, Shape: []int{3}, Data: []byte{0, 0x3c, 0, 0xc0, 1, 0}},
		{Name: "w", DType: F32, Shape: []int{1, 2}, Data: []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}},
		{Name: "scalar", DType: BF16, Shape: nil, Data: []byte{0x80, 0x3f}},
		{Name: "none", DType: BF16, Shape: []int{0, 7}, Data: nil},
	}
}

func TestRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	meta := map[string]string{"format": "pt", "a<b": "ü\n"}
	if err := Write(&buf, sample(), meta); err != nil {
		t.Fatal(err)
	}
	for _, shift := range []int{0, 1, 2, 3} { // unaligned data must work as well
		mem := make([]byte, shift+buf.Len())
		copy(mem[shift:], buf.Bytes())
		s, err := Parse("x", mem[shift:])
		if err != nil {
			t.Fatal(err)
		}
		if got, want := s.Names(), []string{"half", "none", "scalar", "w"}; !reflect.DeepEqual(got, want) {
			t.Errorf("names %v, want %v", got, want)
		}
		if !reflect.DeepEqual(s.Metadata(), meta) {
			t.Errorf("metadata %v", s.Metadata())
		}
		want := map[string][]float32{"half": {1, -2, 1.0 / (1 << 24)}, "w": {1, -2}, "scalar": {1}, "none": {}}
		for name, v := range want {
			tn, err := s.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			got, err := tn.Widen()
			if err != nil || !reflect.DeepEqual(got, v) {
				t.Errorf("%s: %v %v, want %v", name, got, err, v)
			}
			switch tn.DType {
			case F32:
				f, err := tn.F32()
				if err != nil || !reflect.DeepEqual(f, v) {
					t.Errorf("%s: F32 %v %v", name, f, err)
				}
				if _, err := tn.U16(); !errors.Is(err, ErrDType) {
					t.Errorf("U16 of F32: %v", err)
				}
			default:
				u, err := tn.U16()
				if err != nil || len(u) != tn.Len() {
					t.Errorf("%s: U16 %v %v", name, u, err)
				}
				for i := range u {
					if u[i] != binary.LittleEndian.Uint16(tn.Data[2*i:]) {
						t.Errorf("%s: U16[%d] = %x", name, i, u[i])
					}
				}
				if _, err := tn.F32(); !errors.Is(err, ErrDType) {
					t.Errorf("F32 of %s: %v", tn.DType, err)
				}
			}
		}
	}
}

func TestWriteAligns(t *testing.T) {
	var buf, again bytes.Buffer
	if err := Write(&buf, sample(), nil); err != nil {
		t.Fatal(err)
	}
	if err := Write(&again, sample(), nil); err != nil || !bytes.Equal(buf.Bytes(), again.Bytes()) {
		t.Errorf("writing twice differs (%v)", err)
	}
	entries, _, base, err := parseHeader(buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if w := e.dtype.Size(); (base+int(e.begin))%w != 0 {
			t.Errorf("%s at %d is not aligned to %d", e.name, base+int(e.begin), w)
		}
	}
}

func TestWriteErrors(t *testing.T) {
	tests := []struct {
		name string
		ts   []Tensor
		want string
	}{
		{"dtype", []Tensor{{Name: "a", DType: "I64"}}, `safetensors: write tensor "a": dtype "I64": unsupported dtype`},
		{"twice", []Tensor{{Name: "a", DType: F32, Shape: []int{0}}, {Name: "a", DType: F32, Shape: []int{0}}}, `safetensors: write tensor "a": the name is taken`},
		{"reserved", []Tensor{{Name: "__metadata__", DType: F32, Shape: []int{0}}}, `safetensors: write tensor "__metadata__": the name is taken`},
		{"negative", []Tensor{{Name: "a", DType: F32, Shape: []int{-1}}}, `safetensors: write tensor "a": shape [-1] has a negative dimension`},
		{"size", []Tensor{{Name: "a", DType: F32, Shape: []int{2}, Data: make([]byte, 4)}}, `safetensors: write: tensor "a": shape [2] of F32 needs 8 bytes, but it has 4; the file is damaged: download it again (invalid safetensors)`},
	}
	for _, tt := range tests {
		if err := Write(&bytes.Buffer{}, tt.ts, nil); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v\nwant %s", tt.name, err, tt.want)
		}
	}
}

func file(t *testing.T, ts ...Tensor) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, ts, map[string]string{"format": "pt"}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func scalar(name string) Tensor { return Tensor{Name: name, DType: BF16, Data: []byte{1, 2}} }

func TestOpen(t *testing.T) {
	index := func(m string) []byte { return []byte(`{"metadata":{"total_size":4},"weight_map":{` + m + `}}`) }
	ab := index(`"a":"1.safetensors","b":"2.safetensors"`)
	fileA, fileB := file(t, scalar("a")), file(t, scalar("b"))
	tests := []struct {
		name  string
		files map[string][]byte
		want  string // error, with DIR for the folder's prefix; empty for success
		is    error
	}{
		{"nothing", nil, `safetensors: FOLDER has neither model.safetensors nor model.safetensors.index.json; point to a Hugging Face model folder that has its weights: no safetensors weights`, ErrNoWeights},
		{"single", map[string][]byte{SingleName: file(t, scalar("a"), scalar("b"))}, "", nil},
		{"empty file", map[string][]byte{SingleName: {}}, `safetensors: DIRmodel.safetensors: the file has 0 bytes, too few for the 8-byte header length; it is truncated or not safetensors: download it again (invalid safetensors)`, ErrFormat},
		{"sharded", map[string][]byte{IndexName: ab, "1.safetensors": fileA, "2.safetensors": fileB}, "", nil},
		{"missing shard", map[string][]byte{IndexName: ab, "1.safetensors": fileA}, `safetensors: DIRmodel.safetensors.index.json: missing shard 2.safetensors: open DIR2.safetensors: NOTEXIST; download it`, fs.ErrNotExist},
		{"tensor in no shard", map[string][]byte{IndexName: index(`"a":"1.safetensors","c":"1.safetensors"`), "1.safetensors": fileA}, `safetensors: DIRmodel.safetensors.index.json: tensor "c" should be in DIR1.safetensors, but it is not; download the set again (invalid safetensors)`, ErrFormat},
		{"tensor in another shard", map[string][]byte{IndexName: index(`"a":"2.safetensors","b":"1.safetensors"`), "1.safetensors": fileA, "2.safetensors": fileB}, `safetensors: DIRmodel.safetensors.index.json: tensor "a" should be in DIR2.safetensors, but it is in DIR1.safetensors; download the set again (invalid safetensors)`, ErrFormat},
		{"tensor in both", map[string][]byte{IndexName: ab, "1.safetensors": fileA, "2.safetensors": fileA}, `safetensors: DIR2.safetensors: tensor "a" is also in DIR1.safetensors; the set is damaged: download it again (invalid safetensors)`, ErrFormat},
		{"traversal", map[string][]byte{IndexName: index(`"a":"../1.safetensors"`)}, `safetensors: DIRmodel.safetensors.index.json: tensor "a" names the shard "../1.safetensors", which is not a plain file name; do not trust this model (invalid safetensors)`, ErrFormat},
		{"absolute", map[string][]byte{IndexName: index(`"a":"/etc/passwd"`)}, `safetensors: DIRmodel.safetensors.index.json: tensor "a" names the shard "/etc/passwd", which is not a plain file name; do not trust this model (invalid safetensors)`, ErrFormat},
		{"backslash", map[string][]byte{IndexName: index(`"a":"..\\x"`)}, `safetensors: DIRmodel.safetensors.index.json: tensor "a" names the shard "..\\x", which is not a plain file name; do not trust this model (invalid safetensors)`, ErrFormat},
		{"empty shard name", map[string][]byte{IndexName: index(`"a":""`)}, `safetensors: DIRmodel.safetensors.index.json: tensor "a" names the shard "", which is not a plain file name; do not trust this model (invalid safetensors)`, ErrFormat},
		{"empty index", map[string][]byte{IndexName: index("")}, `safetensors: DIRmodel.safetensors.index.json: weight_map is missing or empty; download it again (invalid safetensors)`, ErrFormat},
		{"index syntax", map[string][]byte{IndexName: []byte(`{"weight_map":{`)}, `safetensors: DIRmodel.safetensors.index.json: byte 15: unexpected end of JSON input; download it again (invalid safetensors)`, ErrFormat},
	}
	for _, tt := range tests {
		for _, kind := range []string{"dir", "fs"} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				var s *Set
				var err error
				want := tt.want
				if kind == "dir" {
					dir := t.TempDir()
					for n, b := range tt.files {
						if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
							t.Fatal(err)
						}
					}
					s, err = Open(dir)
					want = strings.NewReplacer("DIR", dir+string(filepath.Separator), "FOLDER", dir, "NOTEXIST", "no such file or directory").Replace(want)
				} else {
					fsys := fstest.MapFS{}
					for n, b := range tt.files {
						fsys[n] = &fstest.MapFile{Data: b}
					}
					s, err = OpenFS(fsys)
					want = strings.NewReplacer("DIR", "", "FOLDER", "the file system", "NOTEXIST", "file does not exist").Replace(want)
				}
				if want != "" {
					if err == nil || err.Error() != want {
						t.Fatalf("got  %v\nwant %s", err, want)
					}
					if !errors.Is(err, tt.is) {
						t.Errorf("error does not wrap %v", tt.is)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := s.Names(); !reflect.DeepEqual(got, []string{"a", "b"}) {
					t.Errorf("names %v", got)
				}
				a, err := s.Tensor("a")
				if err != nil || !bytes.Equal(a.Data, []byte{1, 2}) {
					t.Errorf("a: %v %v", a, err)
				}
				for range 2 {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := s.Tensor("a"); !errors.Is(err, ErrClosed) {
					t.Errorf("after close: %v", err)
				}
			})
		}
	}
}

func TestOpenFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.safetensors")
	if err := os.WriteFile(path, file(t, scalar("a")), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Has("a") || s.Has("b") {
		t.Error("Has is wrong")
	}
	if _, err := OpenFile(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := OpenFile(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("folder: %v", err)
	}
}

func TestTensorErrors(t *testing.T) {
	s, err := Parse("m", raw("{"+one("model.layers.0.x", "I64", "[1]", 0, 8)+","+one("odd", "Q3", "[5]", 8, 9)+"}", make([]byte, 9)))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, want string
		is         error
	}{
		{"layers.0.x", `safetensors: m has no tensor "layers.0.x" (nearest of 2: "model.layers.0.x"); the weights may be of another model or incomplete: tensor not found`, ErrNotFound},
		{"model.layers.0.x", `safetensors: m: tensor "model.layers.0.x" has dtype "I64"; supported: F32, F16, BF16; convert the weights: unsupported dtype`, ErrDType},
		{"odd", `safetensors: m: tensor "odd" has dtype "Q3"; supported: F32, F16, BF16; convert the weights: unsupported dtype`, ErrDType},
	}
	for _, tt := range tests {
		_, err := s.Tensor(tt.name)
		if err == nil || err.Error() != tt.want || !errors.Is(err, tt.is) {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
}

// FuzzParse: no header may make the parser panic, and whatever it accepts must satisfy what a
// consumer relies on.
func FuzzParse(f *testing.F) {
	var buf bytes.Buffer
	if err := Write(&buf, sample(), map[string]string{"k": "v"}); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add(raw("{"+one("a", "F32", "[2]", 0, 8)+","+one("b", "I8", "[1]", 8, 9)+"}", make([]byte, 9)))
	f.Add(raw("{"+one("a", "F32", "[0,9223372036854775807,9]", 0, 0)+"}  ", nil))
	f.Add(raw(`{"__metadata__":{"a":"b"}}`, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		s, err := Parse("fuzz", data)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%v does not wrap ErrFormat", err)
			}
			return
		}
		var keep []Tensor
		for _, name := range s.Names() {
			tn, err := s.Tensor(name)
			if err != nil {
				continue
			}
			if len(tn.Data) != tn.Len()*tn.DType.Size() {
				t.Fatalf("%q: %d bytes for shape %v of %s", name, len(tn.Data), tn.Shape, tn.DType)
			}
			if _, err := tn.Widen(); err != nil {
				t.Fatal(err)
			}
			keep = append(keep, tn)
		}
		var out bytes.Buffer
		if err := Write(&out, keep, s.Metadata()); err != nil {
			t.Fatal(err)
		}
		again, err := Parse("again", out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(again.Names()) != len(keep) {
			t.Fatalf("%d tensors written, %d read", len(keep), len(again.Names()))
		}
	})
}
