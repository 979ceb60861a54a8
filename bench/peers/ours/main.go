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

// group is the query heads that share a KV head.
const group = 4

// A maker prepares a case over the data: a function that runs the queries of
// a request once and returns the ids found, [head][query][].
type maker func(d *data) (func(r *request) ([][][]uint32, error), error)

// makers are the cases by the names that compare.py calls them.
var makers = map[string]maker{
	"codes":     codes,
	"flat-bf16": flat(kernel.BF16),
	"flat-f32":  flat(kernel.F32),

	"knn-bf16":    knn(kernel.BF16, kernel.KNN),
	"knn-f32":     knn(kernel.F32, kernel.KNN),
	"knn-rounded": knn(kernel.BF16, kernel.KNNRounded),
}

// request asks for the first queries of the first heads.
type request struct {
	Case    string `json:"case"`
	Threads int    `json:"threads"`
	Heads   int    `json:"heads"`
	Queries int    `json:"queries"` // of each head
	K       int    `json:"k"`       // ids a query
	Results bool   `json:"results"` // return the ids too
}

type answer struct {
	Seconds float64      `json:"seconds"`
	IDs     [][][]uint32 `json:"ids,omitempty"` // [head][query]
	Error   string       `json:"error,omitempty"`
}

func run(args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("ours", flag.ContinueOnError)
	folder := flags.String("data", "", "folder with keys.fbin and queries.fbin")
	heads := flags.Int("heads", 8, "heads that the rows of both files divide among")
	if err := flags.Parse(args); err != nil {
		return err
	}
	d, err := load(*folder, *heads)
	if err != nil {
		return err
	}
	out := json.NewEncoder(stdout)
	about := map[string]any{"machine": bench.ThisMachine(), "cases": slices.Sorted(maps.Keys(makers))}
	if err := out.Encode(about); err != nil {
		return err
	}
	prepared := map[string]func(*request) ([][][]uint32, error){}
	for in := json.NewDecoder(stdin); ; {
		var r request
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		a, err := d.answer(&r, prepared)
		if err != nil {
			a = answer{Error: err.Error()}
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func (d *data) answer(r *request, prepared map[string]func(*request) ([][][]uint32, error)) (answer, error) {
	if most := len(d.queries[0]) / d.dim; r.Threads < 1 || r.Heads < 1 || r.Heads > len(d.keys) || r.Queries < group || r.Queries%group != 0 || r.Queries > most || r.K < 1 {
		return answer{}, fmt.Errorf("%+v asks for what is not there: %d heads, %d queries each, a multiple of %d", *r, len(d.keys), most, group)
	}
	search := prepared[r.Case]
	if search == nil {
		prepare, ok := makers[r.Case]
		if !ok {
			return answer{}, fmt.Errorf("there is no case %q", r.Case)
		}
		var err error
		if search, err = prepare(d); err != nil {
			return answer{}, err
		}
		prepared[r.Case] = search
	}
	runtime.GOMAXPROCS(r.Threads)
	start := time.Now()
	ids, err := search(r)
	a := answer{Seconds: time.Since(start).Seconds()}
	if r.Results {
		a.IDs = ids
	}
	return a, err
}

// data is the keys and queries of all heads, f32.
type data struct {
	dim           int
	keys, queries [][]float32 // one a head
}

func load(folder string, heads int) (*data, error) {
	d := &data{}
	for _, f := range []struct {
		name string
		to   *[][]float32
	}{{"keys.fbin", &d.keys}, {"queries.fbin", &d.queries}} {
		rows, dim, err := readFbin(filepath.Join(folder, f.name))
		if err != nil {
			return nil, err
		}
		if heads < 1 || len(rows)/dim%heads != 0 {
			return nil, fmt.Errorf("%s: %d rows do not divide among %d heads", f.name, len(rows)/dim, heads)
		}
		d.dim = dim
		*f.to = slices.Collect(slices.Chunk(rows, len(rows)/heads))
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
	return func(d *data) (func(r *request) ([][][]uint32, error), error) {
		view, err := d.store(dtype)
		if err != nil {
			return nil, err
		}
		return d.searches(retrieval.NewFlat(compute.NewCPU()), view), nil
	}
}

// searches runs queries through a strategy, a group of each head a call.
func (d *data) searches(s retrieval.Strategy, view *kv.View) func(r *request) ([][][]uint32, error) {
	return func(r *request) ([][][]uint32, error) {
		if r.Heads != len(d.keys) {
			return nil, fmt.Errorf("a search is of all %d heads, not of %d", len(d.keys), r.Heads)
		}
		call := &retrieval.Call{Views: []*kv.View{view}, Tokens: 1, Heads: group * r.Heads, TopK: r.K}
		var res retrieval.Result
		ids := make([][][]uint32, r.Heads)
		for lo := 0; lo < r.Queries; lo += group {
			call.Queries = call.Queries[:0]
			for _, q := range d.queries {
				call.Queries = append(call.Queries, q[lo*d.dim:(lo+group)*d.dim]...)
			}
			if err := s.Search(context.Background(), call, &res); err != nil {
				return nil, err
			}
			for j, hits := range res.Hits {
				ids[j/group] = append(ids[j/group], slices.Clone(hits.IDs))
			}
		}
		return ids, nil
	}
}
