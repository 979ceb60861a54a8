package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/model"
)

// Geometry is the published shape of a model.
type Geometry struct {
	Name   string
	Config model.Config
}

// geometries are shapes as the models' config.json files have them.
var geometries = []Geometry{
	llama("llama-2-7b", 32, 4096, 11008, 32, 32, 128, 32000, model.RoPE{Theta: 1e4}, false),
	llama("llama-3-8b", 32, 4096, 14336, 32, 8, 128, 128256, model.RoPE{Theta: 5e5}, false),
	llama("llama-3.1-8b", 32, 4096, 14336, 32, 8, 128, 128256, llama3(8), false),
	llama("llama-3.2-1b", 16, 2048, 8192, 32, 8, 64, 128256, llama3(32), true),
	llama("llama-3.2-3b", 28, 3072, 8192, 24, 8, 128, 128256, llama3(32), true),
	llama("mistral-7b", 32, 4096, 14336, 32, 8, 128, 32768, model.RoPE{Theta: 1e6}, false),
	llama("qwen2.5-7b", 28, 3584, 18944, 28, 4, 128, 152064, model.RoPE{Theta: 1e6}, false),
	llama("qwen3-8b", 36, 4096, 12288, 32, 8, 128, 151936, model.RoPE{Theta: 1e6}, false),
	llama("yi-6b-200k", 32, 4096, 11008, 32, 4, 128, 64000, model.RoPE{Theta: 5e6}, false),
	llama("yi-9b-200k", 48, 4096, 11008, 32, 4, 128, 64000, model.RoPE{Theta: 5e6}, false),
}

func llama(name string, layers, hidden, intermediate, heads, kvHeads, dim, vocab int, rope model.RoPE, tied bool) Geometry {
	if rope.Kind == "" {
		rope.Kind, rope.Factor = model.RoPEDefault, 1
	}
	return Geometry{name, model.Config{
		Layers: layers, HiddenSize: hidden, IntermediateSize: intermediate, Heads: heads, KVHeads: kvHeads, HeadDim: dim,
		VocabSize: vocab, RMSNormEps: 1e-5, TieWordEmbeddings: tied, RoPE: rope,
	}}
}

func llama3(factor float64) model.RoPE {
	return model.RoPE{Kind: model.RoPELlama3, Theta: 5e5, Factor: factor, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPosition: 8192}
}

// GeometryNames lists the known shapes.
func GeometryNames() []string {
	var names []string
	for _, g := range geometries {
		names = append(names, g.Name)
	}
	return names
}

// FindGeometry returns the shape of that name; the error for an unknown one
// names the nearest.
func FindGeometry(name string) (Geometry, error) {
	nearest, least := "", math.MaxInt
	for _, g := range geometries {
		if g.Name == name {
			return g, nil
		}
		if d := levenshtein.ComputeDistance(strings.ToLower(name), g.Name); d < least {
			nearest, least = g.Name, d
		}
	}
	return Geometry{}, badOption("unknown geometry %q, the nearest is %q; there are %s", name, nearest, strings.Join(GeometryNames(), ", "))
}

// spec is the shape with its first layers only.
func (g Geometry) spec(layers int) compute.Spec {
	c := g.Config
	return compute.Spec{
		Layers: layers, Hidden: c.HiddenSize, Intermediate: c.IntermediateSize, Vocab: c.VocabSize,
		Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim, NormEps: float32(c.RMSNormEps), InvFreq: c.InvFreq(),
	}
}

// layerParameters are the weights of the linear layers of one transformer layer.
func layerParameters(s *compute.Spec) int64 {
	h, q, kv, f := int64(s.Hidden), int64(s.Heads*s.HeadDim), int64(s.KVHeads*s.HeadDim), int64(s.Intermediate)
	return h*(2*q+2*kv) + 3*h*f
}

// weightBytes is the memory of random bf16 weights.
func (g Geometry) weightBytes(layers int) int64 {
	s := g.spec(layers)
	tables := int64(2)
	if g.Config.TieWordEmbeddings {
		tables = 1
	}
	return 2 * (int64(layers)*layerParameters(&s) + tables*int64(s.Vocab)*int64(s.Hidden))
}

// Weights returns seeded random bf16 weights for the first layers of the
// shape, each in memory of its own: normal with a standard deviation of 0.02,
// as models begin their training.
func (g Geometry) Weights(layers int, seed uint64) *compute.Weights {
	s := g.spec(layers)
	w := &compute.Weights{Spec: s, Norm: ones(s.Hidden)}
	var all []kernel.Rows
	matrix := func(rows, cols int) kernel.Rows {
		m := kernel.RowsU16(make([]uint16, rows*cols), cols, kernel.BF16)
		all = append(all, m)
		return m
	}
	q, kvd := s.Heads*s.HeadDim, s.KVHeads*s.HeadDim
	w.Embedding = matrix(s.Vocab, s.Hidden)
	w.Head = w.Embedding
	if !g.Config.TieWordEmbeddings {
		w.Head = matrix(s.Vocab, s.Hidden)
	}
	for range layers {
		w.Layers = append(w.Layers, compute.LayerWeights{
			AttentionNorm: ones(s.Hidden), MLPNorm: ones(s.Hidden),
			Q: matrix(q, s.Hidden), K: matrix(kvd, s.Hidden), V: matrix(kvd, s.Hidden), O: matrix(s.Hidden, q),
			Gate: matrix(s.Intermediate, s.Hidden), Up: matrix(s.Intermediate, s.Hidden), Down: matrix(s.Hidden, s.Intermediate),
		})
	}
	var normal [1 << 12]uint16
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range normal {
		normal[i] = kernel.F32ToBF16(float32(0.02 * r.NormFloat64()))
	}
	spread(len(all), func(i int) {
		p := rand.NewPCG(seed, uint64(i+1))
		for piece := range slices.Chunk(all[i].U16, 5) {
			bits := p.Uint64()
			for j := range piece {
				piece[j] = normal[bits&(1<<12-1)]
				bits >>= 12
			}
		}
	})
	return w
}

func ones(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = 1
	}
	return v
}
