package process

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	ra "github.com/retrievalattention/ra/sdk/go"
	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

// Every binary16 widens to the number that it stands for.
func TestHalf(t *testing.T) {
	for x := range 1 << 16 {
		sign, exp, frac := x>>15, x>>10&31, x&1023
		want := math.Ldexp(1+float64(frac)/1024, exp-15)
		switch exp {
		case 0:
			want = math.Ldexp(float64(frac), -24)
		case 31:
			want = math.Inf(1)
			if frac != 0 {
				want = math.NaN()
			}
		}
		if sign == 1 {
			want = -want
		}
		got := float64(half(uint16(x)))
		if got != want && !(math.IsNaN(got) && math.IsNaN(want)) || math.Signbit(got) != (sign == 1) {
			t.Fatalf("%#x is %v, want %v", x, got, want)
		}
	}
}

// Rows are read in place from a file, which may grow; what lies beyond it is
// refused.
func TestShare(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "share"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var text []byte
	for _, x := range []float32{1, 2, 3, 4, 5, 6} {
		text = binary.LittleEndian.AppendUint32(text, math.Float32bits(x))
	}
	text = append(text, make([]byte, 4096)...)
	if _, err := f.Write(text); err != nil {
		t.Fatal(err)
	}
	s := &share{file: f}
	rows, err := view(s, 4, 2, 2, F32)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, 2)
	if rows.Row(1, out); out[0] != 4 || out[1] != 5 || rows.Slice(1, 2).F32[0] != 4 {
		t.Errorf("row %v", out)
	}
	if _, err := view(s, 4096, 20, 2, BF16); err == nil || !strings.Contains(err.Error(), "lies beyond the 4120 bytes that are shared") {
		t.Error(err)
	}
	if _, err := view(s, math.MaxUint64-7, 2, 2, BF16); err == nil {
		t.Error("an offset that overflows is accepted")
	}
	if _, err := f.WriteAt([]byte{0xc0, 0x3f}, 8192); err != nil { // 1.5 in bf16
		t.Fatal(err)
	}
	more, err := view(s, 8192, 1, 1, BF16)
	if err != nil {
		t.Fatal(err)
	}
	if more.Row(0, out); out[0] != 1.5 || rows.F32[0] != 2 {
		t.Errorf("%v; before %v", out[0], rows.F32[0])
	}
	if _, err := view(nil, 0, 1, 1, F32); err == nil || !strings.Contains(err.Error(), "not granted") {
		t.Error(err)
	}
}

func TestDescription(t *testing.T) {
	d := Description{Name: "x", Version: "1", Features: []string{"keys"}, Parameters: []ra.Parameter{{Name: "k", Type: "int", Default: 3}}}
	text, err := d.json(true)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Name, Kind string
		Features   []string
		Parameters []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil || got.Name != "x" || got.Kind != "search" || strings.Join(got.Features, " ") != "keys export" || got.Parameters[0].Name != "k" {
		t.Errorf("%v: %s", err, text)
	}
}

// The contract's document speaks of every call, message and field.
func TestDocument(t *testing.T) {
	data, err := os.ReadFile("v1/README.md")
	if err != nil {
		t.Fatal(err)
	}
	want := func(name string) {
		t.Helper()
		if !strings.Contains(string(data), "`"+name+"`") {
			t.Errorf("README.md does not speak of `%s`", name)
		}
	}
	file := contract.File_process_proto
	for i := range file.Services().Get(0).Methods().Len() {
		want(string(file.Services().Get(0).Methods().Get(i).Name()))
	}
	for i := range file.Messages().Len() {
		m := file.Messages().Get(i)
		for j := range m.Fields().Len() {
			want(string(m.Fields().Get(j).Name()))
		}
	}
	for i := range file.Enums().Len() {
		values := file.Enums().Get(i).Values()
		for j := range values.Len() {
			if v := values.Get(j); v.Number() != protoreflect.EnumNumber(0) {
				want(string(v.Name()))
			}
		}
	}
	for _, s := range []string{contract.CookieKey, contract.LifelineEnv, contract.FeatureKeys, contract.FeatureValues, contract.FeatureQueries, contract.FeatureExport} {
		want(s)
	}
}
