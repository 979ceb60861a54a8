package graph

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/kv"
)

// A graph comes back as it was, with what was inserted in a fork.
func TestSaveLoad(t *testing.T) {
	s := small(t)
	g := s.build(t, []kv.Range{{Lo: 10, Hi: 1000}, {Lo: 1200, Hi: 2900}}, BuildParams{})
	defer g.Close()
	f := g.Fork().(*Graph)
	defer f.Close()
	if err := f.Insert(context.Background(), s.ix, s.head, kv.Range{Lo: 2910, Hi: 3000}, InsertParams{}); err != nil {
		t.Fatal(err)
	}
	data := saved(t, f)
	if len(data) > 2990*32*4+600 {
		t.Errorf("%d bytes for %d nodes", len(data), f.Len())
	}
	rest := strings.NewReader("what follows")
	back, err := Load(s.mem, 3000, &after{bytes.NewReader(data), rest})
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if rest.Len() != len("what follows") {
		t.Error("Load read beyond the graph")
	}
	if !bytes.Equal(saved(t, back), data) || back.Reachable() != f.Len() || !slices.Equal(back.Nodes(), f.Nodes()) {
		t.Error("another graph came back")
	}
	// What was loaded can be forked and inserted into.
	more := s.head.Context.Fork()
	defer more.Close()
	if err := s.Fill(more, 3000, 3050); err != nil {
		t.Fatal(err)
	}
	head := s.head
	head.Context = more
	ff := back.Fork().(*Graph)
	defer ff.Close()
	if err := ff.Insert(context.Background(), s.ix, head, kv.Range{Lo: 3000, Hi: 3050}, InsertParams{}); err != nil || ff.Reachable() != f.Len()+50 {
		t.Errorf("%v, %d reached", err, ff.Reachable())
	}
	if _, err := Load(s.mem, 2999, bytes.NewReader(data)); !errors.Is(err, ErrFormat) {
		t.Errorf("a graph of more tokens than there are: %v", err)
	}
}

// after reads one reader to its end and then another.
type after struct {
	first, then interface{ Read([]byte) (int, error) }
}

func (a *after) Read(b []byte) (int, error) {
	if n, err := a.first.Read(b); n > 0 || err == nil {
		return n, nil
	}
	return a.then.Read(b)
}

func TestLoadRefuses(t *testing.T) {
	s := small(t)
	g := s.build(t, all(200), BuildParams{Degree: 8})
	defer g.Close()
	data := saved(t, g)
	used := s.mem.Used()
	sealed := func(change func(b []byte)) []byte {
		b := slices.Clone(data[:len(data)-4])
		change(b)
		return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	}
	put := func(at int, v uint32) []byte {
		return sealed(func(b []byte) { binary.LittleEndian.PutUint32(b[at:], v) })
	}
	rows := len(data) - 4 - 200*8*4
	for _, c := range []struct {
		data []byte
		text string
	}{
		{nil, "it ends too early"},
		{data[:50], "it ends too early"},
		{data[:len(data)-1], "it ends too early"},
		{put(0, 1), "does not begin as an index object does"},
		{put(4, 0x5453494c), `an object of kind "LIST", want "GRPH"`},
		{put(8, 2), "GRPH of version 2, this program reads version 1"},
		{put(12, 0), "degree is 0"},
		{put(12, 257), "degree is 257"},
		{put(16, 1<<20), "number of ranges is 1048576"},
		{put(24, 4000), "end of a range is 4000, must be 0 to 3000"},
		{put(28, 1<<30), "number of entries is 1073741824"},
		{put(32, 200), "entry 200 is no node"},
		{put(rows, 200), "node 0 has the link 200"},
		{put(rows, none), "node 0 has the link"}, // one follows its end
		{put(rows, 1<<31), "node 0 has the link 2147483648"},
	} {
		x, err := Load(s.mem, 3000, bytes.NewReader(c.data))
		if x != nil || !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v, want %q", err, c.text)
		}
	}
	for at := 0; at < len(data); at += 1 + at/1000 { // any damaged byte
		b := slices.Clone(data)
		b[at] ^= 1 << (at % 8)
		if x, err := Load(s.mem, 3000, bytes.NewReader(b)); x != nil || err == nil {
			t.Fatalf("byte %d damaged: accepted", at)
		}
	}
	if s.mem.Used() != used {
		t.Errorf("%d bytes kept", s.mem.Used()-used)
	}
}

// No data makes Load panic, take memory beyond its budget, or return a graph
// that a search could leave.
func FuzzLoad(f *testing.F) {
	s := small(f)
	for _, nodes := range [][]kv.Range{nil, all(1), {{Lo: 3, Hi: 9}, {Lo: 20, Hi: 40}}} {
		g := s.build(f, nodes, BuildParams{Degree: 4, Entries: 2})
		f.Add(saved(f, g))
		g.Close()
	}
	x := NewSearcher(s.ix)
	ids, scores := make([]uint32, 10), make([]float32, 10)
	f.Fuzz(func(t *testing.T, data []byte) {
		// The checksum would hide everything else.
		if len(data) >= 4 {
			data = binary.LittleEndian.AppendUint32(data[:len(data)-4:len(data)-4],
				crc32.Checksum(data[:len(data)-4], crc32.MakeTable(crc32.Castagnoli)))
		}
		mem := kv.NewAllocator(1 << 20)
		g, err := Load(mem, 3000, bytes.NewReader(data))
		if err != nil {
			if mem.Used() != 0 {
				t.Errorf("%d bytes kept", mem.Used())
			}
			return
		}
		x.Open(g, s.head)
		n := x.Search(s.Query(0, 0), SearchParams{Beam: 10}, nil, ids, scores)
		for _, id := range ids[:n] {
			if !g.Has(id) || id >= 3000 {
				t.Errorf("found %d", id)
			}
		}
		if n > g.Len() || math.IsNaN(float64(scores[0])) {
			t.Errorf("%d of %d found", n, g.Len())
		}
		if err := g.Close(); err != nil || mem.Used() != 0 {
			t.Error(err, mem.Used())
		}
	})
}
