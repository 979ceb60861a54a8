package golden

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/model/safetensors"
)

func f32(name string, shape []int, v ...float32) safetensors.Tensor {
	t := safetensors.Tensor{Name: name, DType: safetensors.F32, Shape: shape}
	for _, x := range v {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(x))
	}
	return t
}

func load(t *testing.T, ts ...safetensors.Tensor) (*File, error) {
	t.Helper()
	var b bytes.Buffer
	if err := safetensors.Write(&b, ts, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "g.safetensors")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

func TestLoad(t *testing.T) {
	tokens, positions := f32("tokens", []int{3}, 5, 0, 7), f32("positions", []int{2}, 0, 2)
	freq, logits := f32("inv_freq", []int{1}, 1), f32("logits", []int{2, 2}, 1, 2, 3, 4)
	f, err := load(t, tokens, positions, freq, logits, f32("greedy", []int{1}, 9))
	if err != nil {
		t.Fatal(err)
	}
	if f.Tokens[2] != 7 || f.Positions[1] != 2 || f.InvFreq[0] != 1 || f.Logits[1][0] != 3 || len(f.Logits) != 2 || f.Greedy[0] != 9 {
		t.Errorf("%+v", f)
	}
	for _, tt := range []struct {
		want string
		ts   []safetensors.Tensor
	}{
		{`has no tensor "logits"`, []safetensors.Tensor{tokens, positions, freq}},
		{`position 3 of 3 tokens`, []safetensors.Tensor{tokens, f32("positions", []int{1}, 3), freq, logits}},
		{`tokens[0] is 0.5, not a whole number from 0 to 2^24`, []safetensors.Tensor{f32("tokens", []int{1}, 0.5), positions, freq, logits}},
		{`4 logits for 3 positions`, []safetensors.Tensor{tokens, f32("positions", []int{3}, 0, 1, 2), freq, logits}},
	} {
		if _, err := load(t, tt.ts...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}
