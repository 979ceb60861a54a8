package compute

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/sched"
)

// NewCPU returns the CPU backend. It uses up to GOMAXPROCS cores a call.
func NewCPU() Backend { return &cpu{} }

type cpu struct {
	scratch sync.Pool // *[]float32
}

func (c *cpu) Name() string { return "cpu" }

func (c *cpu) Close() error { return nil }

// borrow returns n f32 of unspecified content; give them back with c.put.
func (c *cpu) borrow(n int) *[]float32 {
	b, _ := c.scratch.Get().(*[]float32)
	if b == nil || cap(*b) < n {
		s := make([]float32, n)
		b = &s
	}
	*b = (*b)[:n]
	return b
}

func (c *cpu) put(b *[]float32) { c.scratch.Put(b) }

// parallel calls f(i, scratch) for i in [0, n) on up to GOMAXPROCS cores,
// each with its own scratch of the given length, and stops early when ctx
// ends.
func (c *cpu) parallel(ctx context.Context, n, scratch int, f func(i int, scratch []float32)) error {
	return sched.Run(ctx, n, scratch, f)
}

// linear computes out = x W^T for n rows of x, split over blocks of outputs
// (and of rows where there are many). The blocks are as large as leaves each
// core a few of them: what a block packs or copies serves all of it.
func (c *cpu) linear(ctx context.Context, x []float32, n int, w kernel.Rows, out []float32) error {
	const rowBlock = 256
	colBlock := min(max(w.N/(4*runtime.GOMAXPROCS(0))&^31, 64), 256)
	cols, rows := (w.N+colBlock-1)/colBlock, (n+rowBlock-1)/rowBlock
	return c.parallel(ctx, cols*rows, kernel.GEMMScratch(w.Dim), func(i int, scratch []float32) {
		j, r := i%cols*colBlock, i/cols*n/rows
		m := (i/cols+1)*n/rows - r
		kernel.MatMul(x[r*w.Dim:], m, w, j, min(j+colBlock, w.N), out[r*w.N+j:], w.N, scratch)
	})
}

// Load checks the shapes of w and returns the model; nothing is copied.
func (c *cpu) Load(w *Weights) (Model, error) {
	if w.Heads%w.KVHeads != 0 {
		return nil, fmt.Errorf("%d query heads do not divide among %d KV heads", w.Heads, w.KVHeads)
	}
	if len(w.Layers) != w.Spec.Layers {
		return nil, fmt.Errorf("%d layers of weights for a model of %d", len(w.Layers), w.Spec.Layers)
	}
	return &cpuModel{cpu: c, w: w}, nil
}

type cpuModel struct {
	*cpu
	w *Weights
}

func (m *cpuModel) Spec() *Spec { return &m.w.Spec }

func (m *cpuModel) Close() error { return nil }

// cpuStream is a residual stream in Go memory, [tokens][hidden].
type cpuStream struct {
	n int
	x []float32
}

func (s *cpuStream) Tokens() int  { return s.n }
func (s *cpuStream) Close() error { s.x = nil; return nil }

func (m *cpuModel) Embed(tokens []int32) (Stream, error) {
	h := m.w.Hidden
	s := &cpuStream{n: len(tokens), x: make([]float32, len(tokens)*h)}
	for i, t := range tokens {
		if t < 0 || int(t) >= m.w.Embedding.N {
			return nil, fmt.Errorf("token id %d is outside the vocabulary of %d", t, m.w.Embedding.N)
		}
		m.w.Embedding.Widen(int(t), s.x[i*h:(i+1)*h])
	}
	return s, nil
}

// chunk is how many tokens pass through the dense parts of a layer together.
const chunk = 512

func (m *cpuModel) Prefill(ctx context.Context, st Stream, layer, first int, kvc *kv.Context, queries []float32, progress func(int)) error {
	s, err := m.stream(st)
	if err != nil {
		return err
	}
	w := &m.w.Spec
	qd := w.Heads * w.HeadDim
	h := w.Hidden
	q := make([]float32, min(chunk, s.n)*qd)
	out := make([]float32, min(chunk, s.n)*qd)
	for lo := 0; lo < s.n; lo += chunk {
		n := min(chunk, s.n-lo)
		part := &cpuStream{n: n, x: s.x[lo*h : (lo+n)*h]}
		qs := q[:n*qd]
		if queries != nil {
			qs = queries[lo*qd : (lo+n)*qd]
		}
		if err := m.project(ctx, part, layer, first+lo, kvc, qs); err != nil {
			return err
		}
		if err := m.attendCausal(ctx, qs, n, layer, first+lo, kvc, out[:n*qd]); err != nil {
			return err
		}
		if err := m.finish(ctx, part, layer, out[:n*qd]); err != nil {
			return err
		}
		if progress != nil {
			progress(n)
		}
	}
	return nil
}

// attendCausal runs exact causal attention of n tokens at positions first,
// first+1, ... over everything stored up to each, split over KV heads and
// blocks of tokens: the queries of a group share what is packed of its keys
// and values.
func (m *cpuModel) attendCausal(ctx context.Context, q []float32, n, layer, first int, kvc *kv.Context, out []float32) error {
	w := &m.w.Spec
	d, group := w.HeadDim, w.Heads/w.KVHeads
	block := max(kernel.CausalQueries/group, 1)
	blocks, rows := (n+block-1)/block, min(block, n)*group
	scale := float32(1 / math.Sqrt(float64(d)))
	size := kernel.CausalScratch(rows, d) + 2*rows*d
	return m.parallel(ctx, w.KVHeads*blocks, size, func(i int, scratch []float32) {
		head, lo := i%w.KVHeads, i/w.KVHeads*block
		nb := min(block, n-lo)
		hq, rest := scratch[:nb*group*d], scratch[rows*d:]
		acc, rest := rest[:nb*group*d], rest[rows*d:]
		ps := make([]kernel.Partial, nb*group)
		for x := range ps {
			ps[x].Acc = acc[x*d : (x+1)*d]
			ps[x].Reset()
		}
		for x := range nb {
			copy(hq[x*group*d:(x+1)*group*d], q[((lo+x)*w.Heads+head*group)*d:])
		}
		for s := range kvc.Segments(layer, head, 0, first+lo+nb) {
			kernel.AttendCausal(hq, nb*group, group, first+lo-s.Start, s.Keys, s.Values, 0, s.Keys.N, scale, ps, rest)
		}
		for x := range ps {
			ps[x].Output(out[((lo+x/group)*w.Heads+head*group+x%group)*d:][:d])
		}
	})
}

func (m *cpuModel) stream(s Stream) (*cpuStream, error) {
	c, ok := s.(*cpuStream)
	if !ok {
		return nil, errors.New("residual stream of another backend")
	}
	return c, nil
}

func (m *cpuModel) Project(st Stream, layer, first int, kvc *kv.Context, queries []float32) error {
	s, err := m.stream(st)
	if err != nil {
		return err
	}
	return m.project(context.Background(), s, layer, first, kvc, queries)
}

func (m *cpuModel) project(ctx context.Context, s *cpuStream, layer, first int, kvc *kv.Context, queries []float32) error {
	w, l := &m.w.Spec, &m.w.Layers[layer]
	h, d, kd := w.Hidden, w.HeadDim, w.KVHeads*w.HeadDim
	buf := m.borrow(s.n * (h + 2*kd))
	defer m.put(buf)
	x, rest := (*buf)[:s.n*h], (*buf)[s.n*h:]
	k, v := rest[:s.n*kd], rest[s.n*kd:]
	for i := range s.n {
		kernel.RMSNorm(s.x[i*h:(i+1)*h], l.AttentionNorm, w.NormEps, x[i*h:(i+1)*h])
	}
	for _, p := range []struct {
		w   kernel.Rows
		out []float32
	}{{l.Q, queries}, {l.K, k}, {l.V, v}} {
		if err := m.linear(ctx, x, s.n, p.w, p.out); err != nil {
			return err
		}
	}
	const block = 16 // tokens
	return m.parallel(ctx, (s.n+block-1)/block, d, func(i int, scratch []float32) {
		cos, sin := scratch[:d/2], scratch[d/2:d]
		lo, hi := i*block, min((i+1)*block, s.n)
		for t := lo; t < hi; t++ {
			kernel.RoPETable(first+t, w.InvFreq, cos, sin)
			for j := range w.Heads {
				kernel.RoPE(queries[(t*w.Heads+j)*d:][:d], cos, sin)
			}
			for j := range w.KVHeads {
				kernel.RoPE(k[t*kd+j*d:][:d], cos, sin)
			}
		}
		for j := range w.KVHeads {
			kvc.PutRows(layer, j, first+lo, hi-lo, kd, k[lo*kd+j*d:], v[lo*kd+j*d:])
		}
	})
}

func (m *cpuModel) Finish(st Stream, layer int, attention []float32) error {
	s, err := m.stream(st)
	if err != nil {
		return err
	}
	return m.finish(context.Background(), s, layer, attention)
}

func (m *cpuModel) finish(ctx context.Context, s *cpuStream, layer int, attention []float32) error {
	w, l := &m.w.Spec, &m.w.Layers[layer]
	h, f := w.Hidden, w.Intermediate
	buf := m.borrow(s.n * (h + 2*f))
	defer m.put(buf)
	x, rest := (*buf)[:s.n*h], (*buf)[s.n*h:]
	gate, up := rest[:s.n*f], rest[s.n*f:]
	if err := m.linear(ctx, attention, s.n, l.O, x); err != nil {
		return err
	}
	kernel.AddTo(x, s.x)
	for i := range s.n {
		kernel.RMSNorm(s.x[i*h:(i+1)*h], l.MLPNorm, w.NormEps, x[i*h:(i+1)*h])
	}
	if err := m.linear(ctx, x, s.n, l.Gate, gate); err != nil {
		return err
	}
	if err := m.linear(ctx, x, s.n, l.Up, up); err != nil {
		return err
	}
	err := m.parallel(ctx, s.n, 0, func(i int, _ []float32) {
		kernel.SiLUGate(gate[i*f:(i+1)*f], up[i*f:(i+1)*f])
	})
	if err != nil {
		return err
	}
	if err := m.linear(ctx, gate, s.n, l.Down, x); err != nil {
		return err
	}
	kernel.AddTo(x, s.x)
	return nil
}

func (m *cpuModel) Logits(st Stream, i int, out []float32) error {
	s, err := m.stream(st)
	if err != nil {
		return err
	}
	h := m.w.Hidden
	buf := m.borrow(h)
	defer m.put(buf)
	kernel.RMSNorm(s.x[i*h:(i+1)*h], m.w.Norm, m.w.NormEps, *buf)
	return m.linear(context.Background(), *buf, 1, m.w.Head, out)
}
