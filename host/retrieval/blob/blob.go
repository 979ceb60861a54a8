// Package blob holds bytes that a strategy keeps with a view: what it knows
// of a KV head and no other index object fits.
package blob

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval/internal/cow"
	"github.com/retrievalattention/ra/host/retrieval/internal/wire"
)

// Blob is bytes that do not change, outside the Go heap. It is a
// [kv.Attachment]: to put others in its place, attach another blob under its
// key; forks of the view keep the one that they have.
type Blob struct {
	mem *kv.Region
	n   int
}

// New returns a copy of data.
func New(mem cow.Memory, data []byte) (*Blob, error) {
	b, err := take(mem, len(data))
	if err != nil {
		return nil, err
	}
	copy(b.Data(), data)
	return b, nil
}

func take(mem cow.Memory, n int) (*Blob, error) {
	r, err := mem.Alloc(int64(max(n, 1)), kv.Index)
	if err != nil {
		return nil, fmt.Errorf("memory for a blob: %w", err)
	}
	return &Blob{r, n}, nil
}

// Data returns the bytes, to be read. Borrowed until Close.
func (b *Blob) Data() []byte { return b.mem.Bytes()[:b.n:b.n] }

// Bytes returns the size.
func (b *Blob) Bytes() int64 { return int64(b.n) }

// Fork returns the same bytes; see [kv.Attachment].
func (b *Blob) Fork() kv.Attachment {
	b.mem.Retain()
	return &Blob{b.mem, b.n}
}

// Close releases the blob's hold on its memory.
func (b *Blob) Close() error { return b.mem.Release() }

// ErrFormat marks stored data that Load refuses.
var ErrFormat = wire.ErrFormat

// The stored form, see [wire]: the number of bytes, the bytes.
const (
	kind    = "BLOB"
	version = 1
)

// Save writes the blob.
func (b *Blob) Save(w io.Writer) error {
	if b.n > math.MaxInt32 {
		return fmt.Errorf("save a blob of %d bytes: at most %d", b.n, math.MaxInt32)
	}
	x := wire.NewWriter(w, kind, version)
	x.U32(uint32(b.n))
	x.Bytes(b.Data())
	return x.Close()
}

// Load reads a blob of at most limit bytes that Save wrote. Data that is
// damaged, or that is no such blob, is refused with an error wrapping
// [ErrFormat].
func Load(mem cow.Memory, limit int, r io.Reader) (*Blob, error) {
	x, err := wire.NewReader(r, kind, version)
	if err != nil {
		return nil, err
	}
	n := x.Int("size of a blob", 0, min(limit, math.MaxInt32))
	if x.Err() != nil {
		return nil, x.Err()
	}
	b, err := take(mem, n)
	if err != nil {
		return nil, err
	}
	x.Bytes(b.Data())
	if err := x.Close(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}
