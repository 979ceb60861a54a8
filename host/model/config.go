package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

var (
	// ErrConfig: config.json or generation_config.json is malformed or contradicts itself.
	ErrConfig = errors.New("invalid model config")
	// ErrUnsupported: the files are sound, but ask for something that is not implemented.
	ErrUnsupported = errors.New("unsupported model")
)

// Architectures lists the supported values of architectures in config.json.
func Architectures() []string { return []string{"LlamaForCausalLM", "MistralForCausalLM"} }

// RoPEKind names how rotary position embeddings are scaled, as rope_type in config.json.
type RoPEKind string

// The supported kinds.
const (
	RoPEDefault RoPEKind = "default" // no scaling
	RoPELinear  RoPEKind = "linear"  // every frequency divided by Factor
	RoPELlama3  RoPEKind = "llama3"  // low frequencies divided by Factor, high ones kept, blended between
)

// RoPE is the rotary position embedding of a model. A pair of dimensions (i, i+HeadDim/2) of a
// query or key at position p is turned by the angle p*InvFreq()[i].
type RoPE struct {
	Kind  RoPEKind
	Theta float64 // the base of the frequencies

	Factor float64 // linear and llama3; 1 otherwise

	// Of llama3 alone, 0 otherwise: wavelengths above OriginalMaxPosition/LowFreqFactor are
	// scaled, those below OriginalMaxPosition/HighFreqFactor are not.
	LowFreqFactor, HighFreqFactor float64
	OriginalMaxPosition           int
}

// Config describes a decoder of the Llama family: RMSNorm before attention and MLP, rotary
// positions, grouped-query attention without bias, SwiGLU. It is read-only after ParseConfig.
type Config struct {
	Architecture string // one of Architectures()

	VocabSize        int // rows of the embedding table and length of the logits
	HiddenSize       int // width of the residual stream
	IntermediateSize int // width of the MLP
	Layers           int
	Heads            int // query heads
	KVHeads          int // key and value heads; Heads is a multiple of it
	HeadDim          int // even; Heads*HeadDim need not equal HiddenSize
	MaxPosition      int // the longest sequence the model was made for, in tokens

	RMSNormEps        float64
	TieWordEmbeddings bool // the output matrix is the embedding table
	RoPE              RoPE

	BOSTokenID  int32   // -1 if there is none
	EOSTokenIDs []int32 // ends of text, ascending; may be empty

	DType string // element type of the weights as the file names it, "" if it does not
}

// InvFreq gives the rotary frequencies in radians per position, HeadDim/2 of them, the highest
// first. Each operation is rounded to float32 in the order in which transformers does it, since
// at position 100,000 a difference of one unit in the last place is seen in the angle.
func (c *Config) InvFreq() []float32 {
	r := c.RoPE
	inv := make([]float32, c.HeadDim/2)
	for i := range inv {
		x := float32(2*i) / float32(c.HeadDim)
		inv[i] = 1 / float32(math.Pow(float64(float32(r.Theta)), float64(x)))
	}
	factor := float32(r.Factor)
	switch r.Kind {
	case RoPELinear:
		for i := range inv {
			inv[i] /= factor
		}
	case RoPELlama3:
		old := float64(r.OriginalMaxPosition)
		low, high := float32(old/r.LowFreqFactor), float32(old/r.HighFreqFactor)
		for i, f := range inv {
			wavelen := float32(2*math.Pi) / f
			switch {
			case wavelen > low:
				inv[i] = f / factor
			case wavelen >= high:
				s := (float32(old)/wavelen - float32(r.LowFreqFactor)) / float32(r.HighFreqFactor-r.LowFreqFactor)
				// The conversions forbid a fused multiply-add, which rounds once less.
				a, b := float32(float32((1-s)*f)/factor), float32(s*f)
				inv[i] = a + b
			}
		}
	}
	return inv
}

// Bounds on what a config may ask for: several times the largest public models, small enough that
// no product of three of them overflows an int64.
const (
	maxHidden   = 1 << 17
	maxMLP      = 1 << 20
	maxLayers   = 1 << 10
	maxHeads    = 1 << 12
	maxHeadDim  = 1 << 10
	maxVocab    = 1 << 24
	maxPosition = 1 << 27
)

// ParseConfig reads config.json and, where generation is not nil, generation_config.json, both as
// transformers 4 and 5 write them. Of the latter only the special tokens count: how answers are
// sampled is the configuration's to say. Fields that do not change the computation are ignored. Errors
// name file and field, and wrap ErrConfig or ErrUnsupported.
func ParseConfig(config, generation []byte) (*Config, error) {
	o, err := parseObject("config.json", config)
	if err != nil {
		return nil, err
	}
	c := &Config{}
	c.Architecture = o.architecture()
	if o.err != nil {
		return nil, o.err
	}
	c.VocabSize = o.dim("vocab_size", maxVocab)
	c.HiddenSize = o.dim("hidden_size", maxHidden)
	c.IntermediateSize = o.dim("intermediate_size", maxMLP)
	c.Layers = o.dim("num_hidden_layers", maxLayers)
	c.Heads = o.dim("num_attention_heads", maxHeads)
	c.MaxPosition = o.dim("max_position_embeddings", maxPosition)
	c.KVHeads = c.Heads
	if o.has("num_key_value_heads") || c.Architecture == "MistralForCausalLM" {
		// transformers takes 8 where a Mistral model does not say; such a file is not to be trusted.
		c.KVHeads = o.dim("num_key_value_heads", maxHeads)
	}
	if o.err == nil && c.Heads%c.KVHeads != 0 {
		o.fail("num_attention_heads", ErrConfig, "%d is not a multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	}
	switch {
	case o.err != nil:
	case o.has("head_dim"):
		c.HeadDim = o.dim("head_dim", maxHeadDim)
	case c.HiddenSize%c.Heads != 0:
		o.fail("hidden_size", ErrConfig, "%d is not a multiple of num_attention_heads %d, and head_dim is not given", c.HiddenSize, c.Heads)
	default:
		c.HeadDim = c.HiddenSize / c.Heads
	}
	if o.err == nil && (c.HeadDim%2 != 0 || c.HeadDim > maxHeadDim) {
		o.fail("head_dim", ErrConfig, "%d: it must be even and at most %d", c.HeadDim, maxHeadDim)
	}
	c.RMSNormEps = o.number("rms_norm_eps", math.NaN())
	if o.err == nil && !(c.RMSNormEps >= 0 && c.RMSNormEps < 1) {
		o.fail("rms_norm_eps", ErrConfig, "must be given, at least 0 and below 1")
	}
	c.TieWordEmbeddings = o.boolean("tie_word_embeddings", false)
	c.DType = o.text("dtype", o.text("torch_dtype", ""))

	if act := o.text("hidden_act", "silu"); o.err == nil && act != "silu" {
		o.fail("hidden_act", ErrUnsupported, "%q is not supported; supported: silu", act)
	}
	o.onlyFalse("attention_bias")
	o.onlyFalse("mlp_bias")
	if tp := o.number("pretraining_tp", 1); o.err == nil && tp != 1 {
		o.fail("pretraining_tp", ErrUnsupported, "%v is not supported; supported: 1", tp)
	}
	if o.has("quantization_config") {
		o.fail("quantization_config", ErrUnsupported, "quantised weights (%s) are not supported; use the F32, F16 or BF16 weights of this model", o.quantMethod())
	}
	o.slidingWindow(c.Architecture)
	c.RoPE = o.rope(c.MaxPosition)

	// The defaults are those of transformers for both families.
	bos := o.ids("bos_token_id", []int32{1}, c.VocabSize)
	c.EOSTokenIDs = o.ids("eos_token_id", []int32{2}, c.VocabSize)
	if o.err != nil {
		return nil, o.err
	}
	if generation != nil {
		g, err := parseObject("generation_config.json", generation)
		if err != nil {
			return nil, err
		}
		// Generation stops where generation_config.json says; config.json counts only where it is silent.
		bos = g.ids("bos_token_id", bos, c.VocabSize)
		if g.has("eos_token_id") {
			c.EOSTokenIDs = g.ids("eos_token_id", nil, c.VocabSize)
		}
		if g.err != nil {
			return nil, g.err
		}
	}
	switch len(bos) {
	case 0:
		c.BOSTokenID = -1
	case 1:
		c.BOSTokenID = bos[0]
	default:
		o.fail("bos_token_id", ErrConfig, "must be one token, found %d", len(bos))
		return nil, o.err
	}
	return c, nil
}

// object is a JSON object whose fields are read one by one; the first error stays.
type object struct {
	file   string
	prefix string // of a nested object, with a dot at its end
	fields map[string]json.RawMessage
	err    error
}

func parseObject(file string, data []byte) (*object, error) {
	o := &object{file: file}
	dec := json.NewDecoder(bytes.NewReader(data))
	err := dec.Decode(&o.fields)
	var syn *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syn):
		return nil, fmt.Errorf("%s: byte %d: %v (%w)", file, syn.Offset, err, ErrConfig)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("%s: byte %d: the JSON ends too early; download it again (%w)", file, len(data), ErrConfig)
	case errors.As(err, &typ):
		return nil, fmt.Errorf("%s: must be a JSON object, found a %s (%w)", file, typ.Value, ErrConfig)
	case err != nil:
		return nil, fmt.Errorf("%s: %v (%w)", file, err, ErrConfig)
	case o.fields == nil:
		return nil, fmt.Errorf("%s: must be a JSON object, found null (%w)", file, ErrConfig)
	}
	if rest := bytes.TrimSpace(data[dec.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("%s: byte %d: text follows the JSON object (%w)", file, dec.InputOffset(), ErrConfig)
	}
	return o, nil
}

func (o *object) fail(field string, sentinel error, format string, args ...any) {
	if o.err == nil {
		o.err = fmt.Errorf("%s: %s%s: %s (%w)", o.file, o.prefix, field, fmt.Sprintf(format, args...), sentinel)
	}
}

// has says whether a field is there and not null.
func (o *object) has(field string) bool {
	v, ok := o.fields[field]
	return ok && string(v) != "null"
}

// clip is a value as an error shows it.
func clip(v []byte) string {
	if len(v) > 60 {
		return string(v[:60]) + "..."
	}
	return string(v)
}

func (o *object) number(field string, def float64) float64 {
	if !o.has(field) || o.err != nil {
		return def
	}
	var v float64
	if err := json.Unmarshal(o.fields[field], &v); err != nil {
		o.fail(field, ErrConfig, "must be a number, found %s", clip(o.fields[field]))
		return def
	}
	return v
}

// dim reads a required positive whole number.
func (o *object) dim(field string, limit int) int {
	if o.err != nil {
		return 0
	}
	if !o.has(field) {
		o.fail(field, ErrConfig, "is missing")
		return 0
	}
	v, err := strconv.Atoi(string(o.fields[field]))
	if err != nil || v < 1 || v > limit {
		o.fail(field, ErrConfig, "must be a whole number from 1 to %d, found %s", limit, clip(o.fields[field]))
		return 0
	}
	return v
}

func (o *object) boolean(field string, def bool) bool {
	if !o.has(field) || o.err != nil {
		return def
	}
	var v bool
	if err := json.Unmarshal(o.fields[field], &v); err != nil {
		o.fail(field, ErrConfig, "must be true or false, found %s", clip(o.fields[field]))
	}
	return v
}

func (o *object) text(field, def string) string {
	if !o.has(field) || o.err != nil {
		return def
	}
	var v string
	if err := json.Unmarshal(o.fields[field], &v); err != nil {
		o.fail(field, ErrConfig, "must be a string, found %s", clip(o.fields[field]))
	}
	return v
}

func (o *object) onlyFalse(field string) {
	if o.boolean(field, false) {
		o.fail(field, ErrUnsupported, "true is not supported; supported: false")
	}
}

// architecture reads architectures, or model_type where a file has only that.
func (o *object) architecture() string {
	supported := strings.Join(Architectures(), ", ")
	if !o.has("architectures") {
		switch mt := o.text("model_type", ""); {
		case o.err != nil:
		case mt == "llama":
			return "LlamaForCausalLM"
		case mt == "mistral":
			return "MistralForCausalLM"
		case mt == "":
			o.fail("architectures", ErrConfig, "is missing, and so is model_type; supported: %s", supported)
		default:
			o.fail("model_type", ErrUnsupported, "unknown architecture %q; supported: %s", mt, supported)
		}
		return ""
	}
	var archs []string
	if err := json.Unmarshal(o.fields["architectures"], &archs); err != nil || len(archs) != 1 {
		o.fail("architectures", ErrConfig, "must be a list of one string, found %s", clip(o.fields["architectures"]))
		return ""
	}
	if !slices.Contains(Architectures(), archs[0]) {
		o.fail("architectures", ErrUnsupported, "unknown architecture %q; supported: %s", archs[0], supported)
	}
	return archs[0]
}

func (o *object) quantMethod() string {
	var q struct {
		Method string `json:"quant_method"`
	}
	if json.Unmarshal(o.fields["quantization_config"], &q) != nil || q.Method == "" {
		return "method not named"
	}
	return clip([]byte(q.Method))
}

// slidingWindow refuses models in which tokens see only the latest ones.
func (o *object) slidingWindow(arch string) {
	if arch == "MistralForCausalLM" {
		if v, ok := o.fields["sliding_window"]; !ok {
			o.fail("sliding_window", ErrUnsupported, "is missing, which means 4096; sliding windows are not supported: only null is")
		} else if string(v) != "null" {
			o.fail("sliding_window", ErrUnsupported, "%s: sliding windows are not supported: only null is", clip(v))
		}
	}
	if !o.has("layer_types") || o.err != nil {
		return
	}
	var types []string
	if err := json.Unmarshal(o.fields["layer_types"], &types); err != nil {
		o.fail("layer_types", ErrConfig, "must be a list of strings, found %s", clip(o.fields["layer_types"]))
		return
	}
	for i, t := range types {
		if t != "full_attention" {
			o.fail(fmt.Sprintf("layer_types[%d]", i), ErrUnsupported, "%q is not supported; supported: full_attention", t)
			return
		}
	}
}

// rope reads rope_parameters (transformers 5) or rope_theta and rope_scaling (before).
func (o *object) rope(modelMax int) RoPE {
	r := RoPE{Kind: RoPEDefault, Theta: 10000, Factor: 1}
	if o.err != nil {
		return r
	}
	r.Theta = o.number("rope_theta", r.Theta)
	name := "rope_parameters"
	if o.has("rope_scaling") { // takes precedence in transformers as well
		name = "rope_scaling"
	}
	p := &object{file: o.file, err: o.err}
	if o.has(name) {
		if err := json.Unmarshal(o.fields[name], &p.fields); err != nil {
			o.fail(name, ErrConfig, "must be a JSON object, found %s", clip(o.fields[name]))
			return r
		}
		p.prefix = name + "."
	}
	r.Theta = p.number("rope_theta", r.Theta)
	if p.err == nil && !(r.Theta > 1 && r.Theta <= math.MaxFloat32) {
		p.fail("rope_theta", ErrConfig, "%v: must be above 1", r.Theta)
	}
	r.Kind = RoPEKind(p.text("rope_type", p.text("type", string(RoPEDefault))))
	for _, q := range []*object{o, p} {
		if f := q.number("partial_rotary_factor", 1); q.err == nil && f != 1 {
			q.fail("partial_rotary_factor", ErrUnsupported, "%v is not supported; supported: 1", f)
		}
	}
	field := "rope_type"
	if !p.has(field) && p.has("type") {
		field = "type"
	}
	switch {
	case p.err != nil:
	case r.Kind == RoPEDefault:
	case r.Kind == RoPELinear:
		r.Factor = p.positive("factor")
	case r.Kind == RoPELlama3:
		r.Factor = p.positive("factor")
		r.LowFreqFactor = p.positive("low_freq_factor")
		r.HighFreqFactor = p.positive("high_freq_factor")
		if p.err == nil && r.HighFreqFactor <= r.LowFreqFactor {
			p.fail("high_freq_factor", ErrConfig, "%v must be above low_freq_factor %v", r.HighFreqFactor, r.LowFreqFactor)
		}
		// transformers lets the outer field win, and falls back to the model's length.
		switch {
		case o.has("original_max_position_embeddings"):
			r.OriginalMaxPosition = o.dim("original_max_position_embeddings", maxPosition)
		case p.has("original_max_position_embeddings"):
			r.OriginalMaxPosition = p.dim("original_max_position_embeddings", maxPosition)
		default:
			r.OriginalMaxPosition = modelMax
		}
	default:
		p.fail(field, ErrUnsupported, "%q is not supported; supported: %s, %s, %s", r.Kind, RoPEDefault, RoPELinear, RoPELlama3)
	}
	if o.err == nil {
		o.err = p.err
	}
	return r
}

func (o *object) positive(field string) float64 {
	if o.err == nil && !o.has(field) {
		o.fail(field, ErrConfig, "is missing")
	}
	v := o.number(field, 1)
	if o.err == nil && !(v > 0 && v <= math.MaxFloat32) {
		o.fail(field, ErrConfig, "%v: must be above 0", v)
	}
	return v
}

// ids reads a token id, a list of them or null (none); def is for a field that is not there.
func (o *object) ids(field string, def []int32, vocab int) []int32 {
	raw, ok := o.fields[field]
	if o.err != nil {
		return nil
	}
	if !ok {
		def = slices.DeleteFunc(slices.Clone(def), func(id int32) bool { return int(id) >= vocab })
		return def
	}
	list := []*int64{}
	if json.Unmarshal(raw, &list) != nil {
		var id *int64
		if err := json.Unmarshal(raw, &id); err != nil {
			o.fail(field, ErrConfig, "must be a token id, a list of them, or null, found %s", clip(raw))
			return nil
		}
		list = []*int64{id}
	}
	out := []int32{}
	for _, id := range list {
		switch {
		case id == nil && len(list) == 1: // null
		case id == nil:
			o.fail(field, ErrConfig, "must not have null in the list")
		case *id < 0 || *id >= int64(vocab):
			o.fail(field, ErrConfig, "%d is not a token id of a vocabulary of %d", *id, vocab)
		default:
			out = append(out, int32(*id))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
