// Command ours is the Go side of bench/peers: it loads the data that
// compare.py made and answers each line of JSON on stdin, a case to run once,
// with a line of JSON on stdout.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/retrievalattention/ra/host/bench"
	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ours:", err)
		os.Exit(1)
	}
}

// options are the flags; compare.py documents them.
type options struct {
	data              string
	heads, queries, k int
}

// group is the query heads that share a KV head.
const group = 4

// A maker prepares a case over the data: a function that runs all of its
// queries once and returns the ids found, [query of all heads in turn].
type maker func(d *data, o options) (func() ([][]uint32, error), error)

// makers are the cases by the names that compare.py calls them.
var makers = map[string]maker{
	"flat-bf16": flat(kernel.BF16),
	"flat-f32":  flat(kernel.F32),
}

type request struct {
	Case    string `json:"case"`
	Threads int    `json:"threads"`
	Results bool   `json:"results"` // return the ids too
}

type answer struct {
	Seconds float64      `json:"seconds"`
	IDs     [][][]uint32 `json:"ids,omitempty"` // [head][query]
	Error   string       `json:"error,omitempty"`
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	var o options
	flags := flag.NewFlagSet("ours", flag.ContinueOnError)
	flags.StringVar(&o.data, "data", "", "folder with keys.fbin and queries.fbin")
	flags.IntVar(&o.heads, "heads", 8, "heads that the rows of both files divide among")
	flags.IntVar(&o.queries, "queries", 8, "queries of a head that are searched")
	flags.IntVar(&o.k, "k", 100, "ids a query")
	if err := flags.Parse(args); err != nil {
		return err
	}
	d, err := load(o)
	if err != nil {
		return err
	}
	out := json.NewEncoder(stdout)
	about := map[string]any{"machine": bench.ThisMachine(), "cases": slices.Sorted(maps.Keys(makers))}
	if err := out.Encode(about); err != nil {
		return err
	}
	prepared := map[string]func() ([][]uint32, error){}
	for in := json.NewDecoder(stdin); ; {
		var r request
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		a, err := d.answer(r, o, prepared)
		if err != nil {
			a = answer{Error: err.Error()}
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func (d *data) answer(r request, o options, prepared map[string]func() ([][]uint32, error)) (answer, error) {
	search := prepared[r.Case]
	if search == nil {
		prepare, ok := makers[r.Case]
		if !ok {
			return answer{}, fmt.Errorf("there is no case %q", r.Case)
		}
		var err error
		if search, err = prepare(d, o); err != nil {
			return answer{}, err
		}
		prepared[r.Case] = search
	}
	runtime.GOMAXPROCS(r.Threads)
	start := time.Now()
	ids, err := search()
	a := answer{Seconds: time.Since(start).Seconds()}
	if r.Results && err == nil {
		per := len(ids) / o.heads
		for h := range o.heads {
			a.IDs = append(a.IDs, ids[h*per:(h+1)*per])
		}
	}
	return a, err
}

// data is the keys and queries of all heads, f32.
type data struct {
	dim           int
	keys, queries [][]float32 // one a head
}

func load(o options) (*data, error) {
	d := &data{}
	for _, f := range []struct {
		name string
		to   *[][]float32
	}{{"keys.fbin", &d.keys}, {"queries.fbin", &d.queries}} {
		rows, dim, err := readFbin(filepath.Join(o.data, f.name))
		if err != nil {
			return nil, err
		}
		if o.heads < 1 || len(rows)/dim%o.heads != 0 {
			return nil, fmt.Errorf("%s: %d rows do not divide among %d heads", f.name, len(rows)/dim, o.heads)
		}
		d.dim = dim
		*f.to = slices.Collect(slices.Chunk(rows, len(rows)/o.heads))
	}
	if o.queries < group || o.queries%group != 0 || o.queries*d.dim > len(d.queries[0]) {
		return nil, fmt.Errorf("%d queries a head are not a multiple of %d within the %d of the file", o.queries, group, len(d.queries[0])/d.dim)
	}
	return d, nil
}

// readFbin reads a file of two uint32 (rows, dimension) and then f32 rows,
// little-endian.
func readFbin(file string) (rows []float32, dim int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<20)
	var head [2]uint32
	if err := binary.Read(in, binary.LittleEndian, &head); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", file, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if want := 8 + 4*int64(head[0])*int64(head[1]); info.Size() != want {
		return nil, 0, fmt.Errorf("%s has %d bytes, %d rows of %d would be %d; remove it so that it is made again", file, info.Size(), head[0], head[1], want)
	}
	rows = make([]float32, int(head[0])*int(head[1]))
	var word [4]byte
	for i := range rows {
		if _, err := io.ReadFull(in, word[:]); err != nil {
			return nil, 0, fmt.Errorf("%s: %w", file, err)
		}
		rows[i] = math.Float32frombits(binary.LittleEndian.Uint32(word[:]))
	}
	return rows, int(head[1]), nil
}

// store puts the keys of all heads into a vector store and returns a view in
// which all are indexed. Values are not touched, so they take no memory.
func (d *data) store(dtype kernel.DType) (*kv.View, error) {
	n := len(d.keys[0]) / d.dim
	kvc, err := kv.NewContext(kv.Geometry{Layers: 1, KVHeads: len(d.keys), HeadDim: d.dim, DType: dtype}, n, kv.NewAllocator(0))
	if err != nil {
		return nil, err
	}
	for h, keys := range d.keys {
		for s := range kvc.Segments(0, h, 0, n) {
			for i := range s.Keys.N {
				s.Keys.Narrow(i, keys[(s.Start+i)*d.dim:][:d.dim])
			}
		}
	}
	kvc.Commit(n)
	view := kv.NewView(kvc)
	view.Place(0, kv.Range{Lo: 0, Hi: n}, kv.Indexed)
	return view, nil
}

// flat is exact search: a call has a group of queries for every head, as a
// layer's search in a decode step.
func flat(dtype kernel.DType) maker {
	return func(d *data, o options) (func() ([][]uint32, error), error) {
		view, err := d.store(dtype)
		if err != nil {
			return nil, err
		}
		return d.searches(retrieval.NewFlat(compute.NewCPU()), view, o), nil
	}
}

// searches runs the queries of all heads through a strategy, a group of each
// head a call.
func (d *data) searches(s retrieval.Strategy, view *kv.View, o options) func() ([][]uint32, error) {
	var calls []*retrieval.Call
	for lo := 0; lo < o.queries; lo += group {
		c := &retrieval.Call{Views: []*kv.View{view}, Tokens: 1, Heads: group * len(d.keys), TopK: o.k}
		for _, q := range d.queries {
			c.Queries = append(c.Queries, q[lo*d.dim:(lo+group)*d.dim]...)
		}
		calls = append(calls, c)
	}
	var res retrieval.Result
	ids := make([][]uint32, o.queries*len(d.keys))
	return func() ([][]uint32, error) {
		for i, c := range calls {
			if err := s.Search(context.Background(), c, &res); err != nil {
				return nil, err
			}
			for j, hits := range res.Hits {
				head := j / group
				at := head*o.queries + i*group + j%group
				ids[at] = append(ids[at][:0], hits.IDs...)
			}
		}
		return ids, nil
	}
}
