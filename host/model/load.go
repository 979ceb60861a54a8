package model

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/model/safetensors"
	"github.com/retrievalattention/ra/host/model/tokenizer"
)

// ErrWeights marks a tensor that is missing, unknown, or of the wrong shape.
var ErrWeights = errors.New("model weights do not fit the config")

// Model is a model in memory: its config, tokenizer and weights.
type Model struct {
	Config    *Config
	Tokenizer *tokenizer.Tokenizer
	// Weights are views of the mapped files where alignment allows; they are
	// valid until Close.
	Weights *compute.Weights

	files *safetensors.Set
}

// Open reads a model folder in Hugging Face layout: config.json,
// model.safetensors (or its shards and their index), tokenizer.json, and
// generation_config.json where there is one. The weights are mapped, not
// read.
func Open(dir string) (*Model, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("open model: %s is not a folder; name the folder that holds config.json", dir)
	}
	return open(os.DirFS(dir), dir, func() (*safetensors.Set, error) { return safetensors.Open(dir) })
}

// OpenFS reads a model from a file system, the embedded one for instance.
func OpenFS(fsys fs.FS, name string) (*Model, error) {
	return open(fsys, name, func() (*safetensors.Set, error) { return safetensors.OpenFS(fsys) })
}

func open(fsys fs.FS, name string, weights func() (*safetensors.Set, error)) (*Model, error) {
	m, err := read(fsys, weights)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", name, err)
	}
	return m, nil
}

func read(fsys fs.FS, weights func() (*safetensors.Set, error)) (*Model, error) {
	config, err := fs.ReadFile(fsys, "config.json")
	if err != nil {
		return nil, err
	}
	generation, err := fs.ReadFile(fsys, "generation_config.json")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	m := &Model{}
	if m.Config, err = ParseConfig(config, generation); err != nil {
		return nil, err
	}
	tok, err := fs.ReadFile(fsys, "tokenizer.json")
	if err != nil {
		return nil, err
	}
	if m.Tokenizer, err = tokenizer.Load(tok); err != nil {
		return nil, err
	}
	if n := m.Tokenizer.VocabSize(); n > m.Config.VocabSize {
		return nil, fmt.Errorf("%w: the tokenizer has %d tokens, the model %d", ErrConfig, n, m.Config.VocabSize)
	}
	if m.files, err = weights(); err != nil {
		return nil, err
	}
	if m.Weights, err = bind(m.Config, m.files); err != nil {
		return nil, errors.Join(err, m.files.Close())
	}
	return m, nil
}

// Close unmaps the weights.
func (m *Model) Close() error { return m.files.Close() }

// binder fetches tensors by name and keeps the first error.
type binder struct {
	files *safetensors.Set
	used  map[string]bool
	err   error
}

// bind gives every tensor of the files its place in the model.
func bind(c *Config, files *safetensors.Set) (*compute.Weights, error) {
	b := &binder{files: files, used: map[string]bool{}}
	h, q, kv := c.HiddenSize, c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	w := &compute.Weights{
		Spec: compute.Spec{
			Layers: c.Layers, Hidden: h, Intermediate: c.IntermediateSize, Vocab: c.VocabSize,
			Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim,
			NormEps: float32(c.RMSNormEps), InvFreq: c.InvFreq(),
		},
		Embedding: b.matrix("model.embed_tokens.weight", c.VocabSize, h),
		Norm:      b.vector("model.norm.weight", h),
	}
	for i := range c.Layers {
		p := fmt.Sprintf("model.layers.%d.", i)
		w.Layers = append(w.Layers, compute.LayerWeights{
			AttentionNorm: b.vector(p+"input_layernorm.weight", h),
			Q:             b.matrix(p+"self_attn.q_proj.weight", q, h),
			K:             b.matrix(p+"self_attn.k_proj.weight", kv, h),
			V:             b.matrix(p+"self_attn.v_proj.weight", kv, h),
			O:             b.matrix(p+"self_attn.o_proj.weight", h, q),
			MLPNorm:       b.vector(p+"post_attention_layernorm.weight", h),
			Gate:          b.matrix(p+"mlp.gate_proj.weight", c.IntermediateSize, h),
			Up:            b.matrix(p+"mlp.up_proj.weight", c.IntermediateSize, h),
			Down:          b.matrix(p+"mlp.down_proj.weight", h, c.IntermediateSize),
		})
	}
	const head = "lm_head.weight"
	if c.TieWordEmbeddings {
		w.Head = w.Embedding
		b.used[head] = true // some files repeat the embedding under this name
	} else {
		w.Head = b.matrix(head, c.VocabSize, h)
	}
	b.refuseUnknown()
	return w, b.err
}

func (b *binder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("%w: "+format, append([]any{ErrWeights}, args...)...)
	}
}

// tensor returns the named tensor if it has the given shape.
func (b *binder) tensor(name string, shape ...int) (t safetensors.Tensor, ok bool) {
	b.used[name] = true
	if b.err != nil {
		return t, false
	}
	t, err := b.files.Tensor(name)
	if err != nil {
		b.fail("%w", err)
		return t, false
	}
	if fmt.Sprint(t.Shape) != fmt.Sprint(shape) {
		b.fail("tensor %q has shape %v, the config asks for %v; config.json and the weights may be of different models", name, t.Shape, shape)
		return t, false
	}
	return t, true
}

func (b *binder) vector(name string, n int) []float32 {
	t, ok := b.tensor(name, n)
	if !ok {
		return nil
	}
	v, err := t.Widen()
	if err != nil {
		b.fail("%w", err)
	}
	return v
}

func (b *binder) matrix(name string, rows, cols int) kernel.Rows {
	t, ok := b.tensor(name, rows, cols)
	if !ok {
		return kernel.Rows{}
	}
	dtype := kernel.BF16
	switch t.DType {
	case safetensors.F32:
		data, err := t.F32()
		if err != nil {
			b.fail("%w", err)
		}
		return kernel.RowsF32(data, cols)
	case safetensors.F16:
		dtype = kernel.F16
	}
	data, err := t.U16()
	if err != nil {
		b.fail("%w", err)
	}
	return kernel.RowsU16(data, cols, dtype)
}

// refuseUnknown reports a tensor that the architecture does not have: the
// file would then describe another model than the one computed. Stored rotary
// frequencies are derived from the config and may be there.
func (b *binder) refuseUnknown() {
	for _, name := range b.files.Names() {
		if !b.used[name] && !strings.HasSuffix(name, ".rotary_emb.inv_freq") {
			b.fail("unknown tensor %q", name)
			return
		}
	}
}
