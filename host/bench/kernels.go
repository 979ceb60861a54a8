package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
)

// KernelOptions say which kernels are measured, on what, and how long.
type KernelOptions struct {
	DTypes  []kernel.DType // of keys, values and weights
	Dims    []int          // head dimensions
	Queries []int          // queries a call, each from 1 to [kernel.MaxQueries]
	Threads []int          // threads side by side, each on rows of its own
	Only    string         // measure kernels whose name contains it
	Repeats int            // slices of time a figure is the median of
	Slice   time.Duration  // least time of a slice
	// WorkingSet is the bytes of keys (and as many of values) that calls
	// rotate over: more than caches hold.
	WorkingSet int64
	Seed       uint64
	// Progress, when not nil, is told of units of work done; [KernelOptions.Units]
	// are the whole.
	Progress func(units int)
}

// ErrOptions marks options that ask for what cannot be measured.
var ErrOptions = errors.New("options that cannot be measured")

// optionError is an ErrOptions that says only what is wrong.
type optionError struct{ text string }

func badOption(format string, args ...any) error { return &optionError{fmt.Sprintf(format, args...)} }

func (e *optionError) Error() string { return e.text }

// Is makes it an ErrOptions.
func (e *optionError) Is(target error) bool { return target == ErrOptions }

// KernelReport is the result of [Kernels].
type KernelReport struct {
	Machine  Machine        `json:"machine"`
	Seed     uint64         `json:"seed"`
	Ceilings []Ceiling      `json:"ceilings"`
	Kernels  []KernelResult `json:"kernels"`
}

// KernelResult is one kernel on one shape.
type KernelResult struct {
	Name    string `json:"name"`
	Level   string `json:"level"`
	DType   string `json:"dtype"`   // of the stored operand
	Dim     int    `json:"dim"`     // elements of a row
	N       int    `json:"n"`       // rows of a head or matrix; elements of a vector
	Queries int    `json:"queries"` // or rows on the other side of a product; 0 where there are none
	Threads int    `json:"threads"`
	// Cache says where the stored operand is read from: "memory" (calls
	// rotate over the working set) or "cache".
	Cache string `json:"cache"`
	// Arithmetic is what products are formed in: "f32", or what candidates
	// are chosen in where the CPU has instructions for it ("bf16", "int8").
	Arithmetic string `json:"arithmetic"`
	Unit       string `json:"unit"`        // what NSPerUnit counts: "key", "token", "row" or "element"
	NSUnit     Sample `json:"ns_per_unit"` // wall-clock time, all threads together
	GBps       Sample `json:"gb_per_s"`    // bytes of the stored operand read
	GFLOPs     Sample `json:"gflop_per_s"` // two a multiply-add
	Share      Sample `json:"share"`       // of the ceiling that binds
	Bound      string `json:"bound"`       // that ceiling's name; "" where there is none
	memory     float64
	slowness   []float64
}

// kernelCase is a kernel on a shape. Work is what one call does.
type kernelCase struct {
	name         string
	dim, n       int
	queries      int
	cache, unit  string
	arithmetic   string // "" for f32
	units        float64
	bytes, flops float64
	// worker returns a function that makes one call and moves on; each
	// thread has its own.
	worker func(c *cursor) func()
}

// family makes the cases of one kernel or a few.
type family struct {
	group groupKind
	cases func(s *store, o *KernelOptions) []kernelCase
}

// groupKind says what a family is measured on. Cases on the same memory take
// turns.
type groupKind int

const (
	onRows     groupKind = iota // keys and values, per dtype and dimension
	onMatrices                  // weights, per dtype
	onVectors                   // activations in cache
)

// families are the kernels that are measured. To add one, add a line here
// and a function that returns its cases.
var families = []family{
	{onRows, scoreRange},
	{onRows, scoreList},
	{onRows, topK},
	{onRows, rounded},
	{onRows, codes},
	{onRows, exactKNN},
	{onRows, attendList},
	{onRows, attendDecode},
	{onRows, attendPrefill},
	{onMatrices, matMul},
	{onVectors, elementwise("exp", func(x, y, z []float32) { copy(z, x); kernel.ExpInPlace(z, 3) })},
	{onVectors, elementwise("silu-gate", func(x, y, z []float32) { copy(z, x); kernel.SiLUGate(z, y) })},
	{onVectors, elementwise("rms-norm", func(x, y, z []float32) { kernel.RMSNorm(x, y, 1e-5, z) })},
	{onVectors, elementwise("rope", func(x, y, z []float32) { kernel.RoPE(z, x[:len(x)/2], y[:len(y)/2]) })},
}

// KernelNames lists what can be measured.
func KernelNames() []string {
	var names []string
	o := &KernelOptions{Queries: []int{1}}
	for _, f := range families {
		for _, c := range f.cases(&store{heads: 1, n: 1, dim: 2}, o) {
			names = append(names, c.name)
		}
	}
	return slices.Compact(names)
}

// matrixDim is the width of the weights that linear layers are measured on.
const matrixDim = 4096

// group is cases that share memory, and the threads that they run on.
type group struct {
	store *store // nil for vectors
	dtype kernel.DType
	cases []kernelCase
}

// groups returns what o asks for.
func (o *KernelOptions) groups() []group {
	most := slices.Max(o.Threads)
	var gs []group
	add := func(kind groupKind, s *store, dtype kernel.DType) {
		g := group{store: s, dtype: dtype}
		for _, f := range families {
			if f.group == kind {
				g.cases = append(g.cases, f.cases(s, o)...)
			}
		}
		g.cases = slices.DeleteFunc(g.cases, func(c kernelCase) bool { return !strings.Contains(c.name, o.Only) })
		if len(g.cases) > 0 {
			gs = append(gs, g)
		}
	}
	for _, dtype := range o.DTypes {
		for _, dim := range o.Dims {
			add(onRows, shapeOf(dtype, dim, headRows, most, o.WorkingSet), dtype)
		}
	}
	for _, dtype := range o.DTypes {
		add(onMatrices, shapeOf(dtype, matrixDim, matrixDim, most, o.WorkingSet), dtype)
	}
	add(onVectors, nil, kernel.F32)
	return gs
}

// Units is the work of a measurement, as [KernelOptions.Progress] counts it.
func (o *KernelOptions) Units() int { return len(o.groups()) * o.Repeats }

func (o *KernelOptions) check() error {
	switch {
	case len(o.DTypes) == 0 || len(o.Dims) == 0 || len(o.Queries) == 0 || len(o.Threads) == 0:
		return badOption("dtypes, dimensions, queries and threads need at least one value each")
	case slices.Min(o.Dims) < 2 || slices.ContainsFunc(o.Dims, func(d int) bool { return d%2 != 0 }):
		return badOption("head dimensions must be positive and even, not %v", o.Dims)
	case slices.Min(o.Queries) < 1 || slices.Max(o.Queries) > kernel.MaxQueries:
		return badOption("a call takes 1 to %d queries, not %v", kernel.MaxQueries, o.Queries)
	case slices.Min(o.Threads) < 1:
		return badOption("threads must be at least 1, not %v", o.Threads)
	case o.Repeats < 1:
		return badOption("repeats must be at least 1, not %d", o.Repeats)
	case len(o.groups()) == 0:
		return badOption("no kernel's name contains %q; there are %s", o.Only, strings.Join(KernelNames(), ", "))
	}
	// Keys and values, and the buffer that the memory is measured on.
	need := 3 * o.WorkingSet
	if have := AvailableMemory(); have > 0 && need > have {
		return fmt.Errorf("%w: a working set of %d MiB needs %d MiB, %d MiB are available; choose a smaller one",
			ErrMemory, o.WorkingSet>>20, need>>20, have>>20)
	}
	return nil
}

// ErrMemory marks a measurement that needs more memory than there is.
var ErrMemory = errors.New("not enough memory")

// Kernels measures the kernels at the level in use.
func Kernels(ctx context.Context, o KernelOptions) (rep *KernelReport, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	probe, err := newReader(o.WorkingSet)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, probe.close()) }()
	peak := newMultiplier(slices.Max(o.Threads))
	rep = &KernelReport{Machine: ThisMachine(), Seed: o.Seed}
	read, flop := make([][]float64, len(o.Threads)), make([][]float64, len(o.Threads))
	for _, g := range o.groups() {
		results, r, f, err := g.measure(ctx, &o, probe, peak)
		if err != nil {
			return nil, err
		}
		rep.Kernels = append(rep.Kernels, results...)
		for i := range o.Threads {
			read[i], flop[i] = append(read[i], r[i]...), append(flop[i], f[i]...)
		}
	}
	for i, t := range o.Threads {
		rep.Ceilings = append(rep.Ceilings,
			Ceiling{memoryRead, "GB/s", t, kernel.Level(), summarize(read[i]).Scale(1e-9)},
			Ceiling{f32Arithmetic, "GFLOP/s", t, kernel.Level(), summarize(flop[i]).Scale(1e-9)})
	}
	rep.Bind()
	return rep, nil
}

// measure lets the ceilings and all cases of the group take turns, on each
// number of threads, and returns the cases' results and the ceilings'
// measurements.
func (g *group) measure(ctx context.Context, o *KernelOptions, probe *reader, peak *multiplier) (results []KernelResult, read, flop [][]float64, err error) {
	if g.store != nil {
		if err := g.store.open(o.Seed); err != nil {
			return nil, nil, nil, err
		}
		defer func() { err = errors.Join(err, g.store.close()) }()
	}
	read, flop = make([][]float64, len(o.Threads)), make([][]float64, len(o.Threads))
	workers := make([][]func(), len(g.cases)*len(o.Threads))
	for i, t := range o.Threads {
		cursors := make([]cursor, t)
		for w := range cursors {
			if g.store != nil && g.store.heads >= t {
				cursors[w].first = w * g.store.heads / t
				cursors[w].heads = (w+1)*g.store.heads/t - cursors[w].first
			}
		}
		for j, c := range g.cases {
			for w := range t {
				f := c.worker(&cursors[w])
				f() // touch everything once
				workers[i*len(g.cases)+j] = append(workers[i*len(g.cases)+j], f)
			}
			results = append(results, KernelResult{
				Name: c.name, Level: kernel.Level(), DType: g.dtype.String(), Dim: c.dim, N: c.n, Queries: c.queries,
				Threads: t, Cache: c.cache, Unit: c.unit, Arithmetic: cmp.Or(c.arithmetic, "f32"),
			})
		}
	}
	for range o.Repeats {
		for i, t := range o.Threads {
			read[i] = append(read[i], probe.measure(t, o.Slice))
			flop[i] = append(flop[i], peak.measure(t, o.Slice))
			for j := range g.cases {
				if err := ctx.Err(); err != nil {
					return nil, nil, nil, err
				}
				r := &results[i*len(g.cases)+j]
				r.slowness = append(r.slowness, 1/rate(o.Slice, workers[i*len(g.cases)+j]))
			}
		}
		if o.Progress != nil {
			o.Progress(1)
		}
	}
	for i := range results {
		r, c := &results[i], g.cases[i%len(g.cases)]
		s := summarize(r.slowness) // seconds a call
		r.NSUnit = s.Scale(1e9 / c.units)
		r.GBps = s.invert(c.bytes / 1e9)
		r.GFLOPs = s.invert(c.flops / 1e9)
		r.memory = summarize(slices.Clone(read[i/len(g.cases)])).Median / 1e9
	}
	return results, read, flop, nil
}

// Merge adds another level's figures, taken on the same machine.
func (rep *KernelReport) Merge(o *KernelReport) {
	rep.Ceilings = append(rep.Ceilings, o.Ceilings...)
	rep.Kernels = append(rep.Kernels, o.Kernels...)
	rep.Bind()
}

// Bind relates every kernel to the ceiling that binds it: the memory's, as
// measured beside it at its own level, or the arithmetic of the best level measured.
func (rep *KernelReport) Bind() {
	for i := range rep.Kernels {
		k := &rep.Kernels[i]
		if k.memory == 0 {
			k.memory = rep.ceiling(memoryRead, k.Threads, k.Level)
		}
		k.Share, k.Bound = Sample{}, ""
		if k.Cache == "memory" && k.memory > 0 {
			k.Share, k.Bound = k.GBps.Scale(1/k.memory), memoryRead
		}
		if peak := rep.ceiling(f32Arithmetic, k.Threads, ""); k.Arithmetic == "f32" && peak > 0 && k.GFLOPs.Median/peak > k.Share.Median {
			k.Share, k.Bound = k.GFLOPs.Scale(1/peak), f32Arithmetic
		}
	}
}

// ceiling returns the highest median of a ceiling, over all levels where
// level is empty.
func (rep *KernelReport) ceiling(name string, threads int, level string) float64 {
	best := 0.0
	for _, c := range rep.Ceilings {
		if c.Name == name && c.Threads == threads && (level == "" || c.Level == level) {
			best = max(best, c.Median)
		}
	}
	return best
}

func vector(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func vectors(r *rand.Rand, n, dim int) [][]float32 {
	vs := make([][]float32, n)
	for i := range vs {
		vs[i] = vector(r, dim)
	}
	return vs
}

func (o *KernelOptions) rand() *rand.Rand { return rand.New(rand.NewPCG(o.Seed, 1)) }

// rowBytes is the size of a stored row.
func (s *store) rowBytes() float64 { return float64(s.dim * s.dtype.Size()) }

// scoreRange scores consecutive keys, from memory and from cache.
func scoreRange(s *store, o *KernelOptions) []kernelCase {
	var cs []kernelCase
	for _, nq := range o.Queries {
		for _, cached := range []bool{false, true} {
			rows, cache := min(4096, s.n), "memory"
			if cached {
				rows, cache = min(1024, s.n), "cache"
			}
			cs = append(cs, kernelCase{
				name: "score-range", dim: s.dim, n: rows, queries: nq, cache: cache, unit: "key",
				units: float64(rows), bytes: float64(rows) * s.rowBytes(), flops: float64(2 * rows * nq * s.dim),
				worker: func(c *cursor) func() {
					qs, out, scratch := vectors(o.rand(), nq, s.dim), vectors(o.rand(), nq, rows), make([]float32, s.dim)
					return func() {
						head, lo := c.head%s.heads, 0
						if !cached {
							head, lo = c.next(s, rows)
						}
						kernel.ScoreRange(qs, s.keys[head], lo, lo+rows, out, scratch)
					}
				},
			})
		}
	}
	return cs
}

// lists are random row ids of a head, count lists of the given length.
func (s *store) lists(r *rand.Rand, count, length int) [][]uint32 {
	out := make([][]uint32, count)
	for i := range out {
		out[i] = make([]uint32, length)
		for j := range out[i] {
			out[i][j] = uint32(r.IntN(s.n))
		}
	}
	return out
}

// scoreList scores lists of 32 random keys, each of another head than the
// one before: what a graph search asks for.
func scoreList(s *store, o *KernelOptions) []kernelCase {
	const count, length = 32, 32
	var cs []kernelCase
	for _, nq := range o.Queries {
		cs = append(cs, kernelCase{
			name: "score-list", dim: s.dim, n: s.n, queries: nq, cache: "memory", unit: "key",
			units: count * length, bytes: count * length * s.rowBytes(), flops: float64(2 * count * length * nq * s.dim),
			worker: func(c *cursor) func() {
				r := rand.New(rand.NewPCG(o.Seed, uint64(c.head)))
				lists, at := s.lists(r, 64*count, length), 0
				qs, out, scratch := vectors(r, nq, s.dim), vectors(r, nq, length), make([]float32, s.dim)
				return func() {
					for range count {
						head, _ := c.next(s, s.n)
						kernel.ScoreList(qs, s.keys[head], lists[at], out, scratch)
						at = (at + 1) % len(lists)
					}
				}
			},
		})
	}
	return cs
}

// topK finds the best 100 keys of a head, as exact search does.
func topK(s *store, o *KernelOptions) []kernelCase {
	backend := compute.NewCPU()
	var cs []kernelCase
	for _, nq := range o.Queries {
		cs = append(cs, kernelCase{
			name: "top-k", dim: s.dim, n: s.n, queries: nq, cache: "memory", unit: "key",
			units: float64(s.n), bytes: float64(s.n) * s.rowBytes(), flops: float64(2 * s.n * nq * s.dim),
			worker: func(c *cursor) func() {
				qs, tops := vectors(o.rand(), nq, s.dim), collectors(nq, 100)
				return func() {
					for _, t := range tops {
						t.Reset(100)
					}
					head, _ := c.next(s, s.n)
					backend.TopK(s.kvc, 0, head, qs, kv.Range{Lo: 0, Hi: s.n}, tops)
				}
			},
		})
	}
	return cs
}

func collectors(n, k int) []*kernel.TopK {
	tops := make([]*kernel.TopK, n)
	for i := range tops {
		tops[i] = kernel.NewTopK(k)
	}
	return tops
}

// attendList attends one query to 100 retrieved tokens of a head: their keys
// are scored and their values summed by softmax weight.
func attendList(s *store, o *KernelOptions) []kernelCase {
	const count, length = 16, 100
	return []kernelCase{{
		name: "attend-list", dim: s.dim, n: s.n, queries: 1, cache: "memory", unit: "token",
		units: count * length, bytes: 2 * count * length * s.rowBytes(), flops: float64(4 * count * length * s.dim),
		worker: func(c *cursor) func() {
			r := rand.New(rand.NewPCG(o.Seed, uint64(c.head)))
			lists, at := s.lists(r, 64*count, length), 0
			q, scratch := vector(r, s.dim), make([]float32, 2*s.dim)
			p, scale := kernel.Partial{Acc: make([]float32, s.dim)}, softmaxScale(s.dim)
			return func() {
				for range count {
					head, _ := c.next(s, s.n)
					p.Reset()
					kernel.AttendList(q, s.keys[head], s.values[head], lists[at], nil, scale, &p, scratch)
					at = (at + 1) % len(lists)
				}
			}
		},
	}}
}

func softmaxScale(dim int) float32 { return float32(1 / math.Sqrt(float64(dim))) }

// attendDecode attends a group's queries to consecutive tokens, as static and
// full attention do in a decode step.
func attendDecode(s *store, o *KernelOptions) []kernelCase {
	var cs []kernelCase
	for _, nq := range o.Queries {
		cs = append(cs, attend(s, o, "attend-decode", nq, min(2048, s.n)))
	}
	return cs
}

// attendPrefill attends a block of prefill queries to consecutive tokens.
func attendPrefill(s *store, o *KernelOptions) []kernelCase {
	return []kernelCase{attend(s, o, "attend-prefill", kernel.CausalQueries, min(2048, s.n))}
}

func attend(s *store, o *KernelOptions, name string, nq, rows int) kernelCase {
	return kernelCase{
		name: name, dim: s.dim, n: rows, queries: nq, cache: "memory", unit: "token",
		units: float64(rows), bytes: float64(2*rows) * s.rowBytes(), flops: float64(4 * rows * nq * s.dim),
		worker: func(c *cursor) func() {
			q, scratch, scale := vector(o.rand(), nq*s.dim), make([]float32, kernel.CausalScratch(nq, s.dim)), softmaxScale(s.dim)
			ps := make([]kernel.Partial, nq)
			for i := range ps {
				ps[i].Acc = make([]float32, s.dim)
			}
			return func() {
				for i := range ps {
					ps[i].Reset()
				}
				head, lo := c.next(s, rows)
				kernel.AttendCausal(q, nq, nq, s.n, s.keys[head], s.values[head], lo, lo+rows, scale, ps, scratch)
			}
		},
	}
}

// matMul is a linear layer for one token (a matrix times a vector), for four
// and for a block of prefill, in pieces of 256 outputs.
func matMul(s *store, o *KernelOptions) []kernelCase {
	var cs []kernelCase
	for _, n := range []int{1, 4, 256} {
		rows := min(256, s.n)
		cs = append(cs, kernelCase{
			name: "matmul", dim: s.dim, n: s.n, queries: n, cache: "memory", unit: "row",
			units: float64(rows), bytes: float64(rows) * s.rowBytes(), flops: float64(2 * n * rows * s.dim),
			worker: func(c *cursor) func() {
				a, out, scratch := vector(o.rand(), n*s.dim), make([]float32, n*rows), make([]float32, kernel.GEMMScratch(s.dim))
				return func() {
					head, lo := c.next(s, rows)
					kernel.MatMul(a, n, s.keys[head], lo, lo+rows, out, rows, scratch)
				}
			},
		})
	}
	return cs
}

// elementwise is arithmetic element by element over vectors in cache.
func elementwise(name string, f func(x, y, z []float32)) func(*store, *KernelOptions) []kernelCase {
	const n, calls = 4096, 16
	return func(_ *store, o *KernelOptions) []kernelCase {
		return []kernelCase{{
			name: name, dim: n, n: n, cache: "cache", unit: "element", units: n * calls,
			worker: func(*cursor) func() {
				r := o.rand()
				x, y, z := vector(r, n), vector(r, n), make([]float32, n)
				return func() {
					for range calls {
						f(x, y, z)
					}
				}
			},
		}}
	}
}
