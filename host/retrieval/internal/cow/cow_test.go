package cow

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/retrievalattention/ra/host/kv"
)

// Forks under random reads, writes, growth and closing are what plain copies
// of an array would be, and all memory goes back.
func TestForksAgainstCopies(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		mem := kv.NewAllocator(0)
		const stride = 3
		n := r.IntN(2000)
		first, err := New[uint32](mem, stride, n)
		if err != nil {
			t.Fatal(err)
		}
		for i := range first.Base() {
			first.Base()[i] = r.Uint32()
		}
		tables := []*Table[uint32]{first}
		copies := [][]uint32{slices.Clone(first.Base())}
		for range 3000 {
			i := r.IntN(len(tables))
			x := tables[i]
			switch op := r.IntN(100); {
			case op == 0 && len(tables) < 8:
				tables = append(tables, x.Fork())
				copies = append(copies, slices.Clone(copies[i]))
			case op == 1 && len(tables) > 1:
				if err := x.Close(); err != nil {
					t.Fatal(err)
				}
				tables, copies = slices.Delete(tables, i, i+1), slices.Delete(copies, i, i+1)
			case op < 20:
				n := r.IntN(4)
				if err := x.Grow(n); err != nil {
					t.Fatal(err)
				}
				copies[i] = append(copies[i], make([]uint32, n*stride)...)
			case x.Len() > 0:
				at := r.IntN(x.Len())
				row, err := x.Write(at)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(row, copies[i][at*stride:(at+1)*stride]) {
					t.Fatalf("row %d to be written is %v, want %v", at, row, copies[i][at*stride:(at+1)*stride])
				}
				row[r.IntN(stride)] = r.Uint32()
				copy(copies[i][at*stride:], row)
			}
		}
		for i, x := range tables {
			if x.Len()*stride != len(copies[i]) || x.Stride() != stride {
				t.Fatalf("%d rows, want %d", x.Len(), len(copies[i])/stride)
			}
			for at := range x.Len() {
				if got, want := x.Row(at), copies[i][at*stride:(at+1)*stride]; !slices.Equal(got, want) {
					t.Fatalf("table %d, row %d: %v, want %v", i, at, got, want)
				}
			}
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if mem.Used() != 0 {
			t.Fatalf("%d bytes left", mem.Used())
		}
	}
}

// A fork of a large table costs next to nothing, and a change of a row little.
func TestForkCopiesLittle(t *testing.T) {
	mem := kv.NewAllocator(0)
	x, err := New[float32](mem, 32, 100_000)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	whole := mem.Used()
	f := x.Fork()
	defer f.Close()
	if mem.Used() != whole {
		t.Errorf("a fork took %d bytes", mem.Used()-whole)
	}
	row, err := f.Write(77_777)
	if err != nil {
		t.Fatal(err)
	}
	row[5] = 1
	if more := mem.Used() - whole; more > 128<<10 {
		t.Errorf("a changed row took %d bytes", more)
	}
	if x.Row(77_777)[5] != 0 || f.Row(77_777)[5] != 1 {
		t.Error("the change is seen by the other table, or lost")
	}
	if f.Bytes() <= whole {
		t.Errorf("%d bytes for a table with a changed row", f.Bytes())
	}
}

// Forks may be taken by several goroutines while others read; run with -race.
func TestConcurrentForks(t *testing.T) {
	mem := kv.NewAllocator(0)
	x, err := New[uint32](mem, 4, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Grow(10); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				f := x.Fork()
				row, err := f.Write(1005)
				if err != nil {
					t.Error(err)
					return
				}
				row[0] = uint32(i + 1)
				if x.Row(1005)[0] != 0 || f.Row(1005)[0] != uint32(i+1) {
					t.Error("forks see each other")
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := x.Close(); err != nil || mem.Used() != 0 {
		t.Error(err, mem.Used())
	}
}

func TestNoMemory(t *testing.T) {
	mem := kv.NewAllocator(64 << 10)
	x, err := New[uint32](mem, 8, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	f := x.Fork()
	defer f.Close()
	for i := range 10_000 {
		if err := f.Grow(1); err != nil {
			if !errors.Is(err, kv.ErrBudget) || f.Len() != 1000+i {
				t.Errorf("%v, %d rows after %d", err, f.Len(), i)
			}
			return
		}
	}
	t.Error("the budget was not kept")
}
