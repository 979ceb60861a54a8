package blob

import (
	"bytes"
	"errors"
	"testing"

	"github.com/retrievalattention/ra/host/kv"
)

func TestBlob(t *testing.T) {
	mem := kv.NewAllocator(1 << 20)
	for _, data := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("0123456789"), 2000)} {
		given := bytes.Clone(data)
		b, err := New(mem, given)
		if err != nil {
			t.Fatal(err)
		}
		clear(given) // the blob has a copy
		f := b.Fork().(*Blob)
		var file bytes.Buffer
		if err := f.Save(&file); err != nil {
			t.Fatal(err)
		}
		stored := bytes.Clone(file.Bytes())
		if err := b.Close(); err != nil || !bytes.Equal(f.Data(), data) || f.Bytes() != int64(len(data)) {
			t.Errorf("%v, or a fork has other bytes", err)
		}
		back, err := Load(mem, len(data), bytes.NewReader(stored))
		if err != nil || !bytes.Equal(back.Data(), data) {
			t.Fatalf("%v, or other bytes came back", err)
		}
		if err := errors.Join(f.Close(), back.Close()); err != nil || mem.Used() != 0 {
			t.Errorf("%v, %d bytes left", err, mem.Used())
		}
		for at := 0; at < len(stored); at += 1 + at/50 {
			bad := bytes.Clone(stored)
			bad[at] ^= 1
			if _, err := Load(mem, len(data), bytes.NewReader(bad)); !errors.Is(err, ErrFormat) {
				t.Errorf("byte %d damaged: %v", at, err)
			}
			if _, err := Load(mem, len(data), bytes.NewReader(stored[:at])); !errors.Is(err, ErrFormat) {
				t.Errorf("%d bytes: %v", at, err)
			}
		}
		if _, err := Load(mem, len(data)-1, bytes.NewReader(stored)); !errors.Is(err, ErrFormat) {
			t.Errorf("over the limit: %v", err)
		}
	}
	if _, err := New(mem, make([]byte, 2<<20)); !errors.Is(err, kv.ErrBudget) || mem.Used() != 0 {
		t.Errorf("%v, %d bytes left", err, mem.Used())
	}
}
