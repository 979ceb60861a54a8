package model

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/internal/golden"
)

// llama is a config with changes; a change to "" removes the field.
func llama(t testing.TB, changes map[string]string) []byte {
	t.Helper()
	fields := map[string]string{
		"architectures": `["LlamaForCausalLM"]`, "model_type": `"llama"`, "vocab_size": "128256", "hidden_size": "4096",
		"intermediate_size": "14336", "num_hidden_layers": "32", "num_attention_heads": "32", "num_key_value_heads": "8",
		"max_position_embeddings": "131072", "rms_norm_eps": "1e-05", "rope_theta": "500000.0", "bos_token_id": "128000",
		"eos_token_id": "128001", "hidden_act": `"silu"`, "torch_dtype": `"bfloat16"`, "tie_word_embeddings": "false",
		"attention_bias": "false", "mlp_bias": "false", "pretraining_tp": "1", "rope_scaling": "null", "use_cache": "true",
	}
	maps.Copy(fields, changes)
	doc := make(map[string]json.RawMessage)
	for k, v := range fields {
		if v != "" {
			doc[k] = json.RawMessage(v)
		}
	}
	js, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func baseline() Config {
	return Config{
		Architecture: "LlamaForCausalLM", VocabSize: 128256, HiddenSize: 4096, IntermediateSize: 14336, Layers: 32, Heads: 32, KVHeads: 8, HeadDim: 128,
		MaxPosition: 131072, RMSNormEps: 1e-5, RoPE: RoPE{Kind: RoPEDefault, Theta: 500000, Factor: 1}, BOSTokenID: 128000, EOSTokenIDs: []int32{128001},
		DType: "bfloat16",
	}
}

func TestParseConfig(t *testing.T) {
	llama3 := RoPE{Kind: RoPELlama3, Theta: 500000, Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPosition: 8192}
	const llama3JSON = `{"factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192,"rope_type":"llama3"}`
	tests := []struct {
		name       string
		changes    map[string]string
		generation string
		want       func(c *Config)
	}{
		{"as it is", nil, "", func(c *Config) {}},
		{"defaults", map[string]string{"num_key_value_heads": "", "bos_token_id": "", "eos_token_id": "", "rope_theta": "", "hidden_act": "", "torch_dtype": "", "tie_word_embeddings": "", "rope_scaling": ""}, "", func(c *Config) {
			c.KVHeads, c.BOSTokenID, c.EOSTokenIDs, c.RoPE.Theta, c.DType = 32, 1, []int32{2}, 10000, ""
		}},
		{"model_type alone", map[string]string{"architectures": ""}, "", func(c *Config) {}},
		{"mistral", map[string]string{"architectures": `["MistralForCausalLM"]`, "sliding_window": "null"}, "", func(c *Config) { c.Architecture = "MistralForCausalLM" }},
		{"head_dim, tied", map[string]string{"head_dim": "64", "hidden_size": "100", "tie_word_embeddings": "true"}, "", func(c *Config) { c.HeadDim, c.HiddenSize, c.TieWordEmbeddings = 64, 100, true }},
		{"null head_dim", map[string]string{"head_dim": "null"}, "", func(c *Config) {}},
		{"llama3, old", map[string]string{"rope_scaling": llama3JSON}, "", func(c *Config) { c.RoPE = llama3 }},
		{"llama3, new", map[string]string{"rope_theta": "", "rope_scaling": "", "rope_parameters": strings.Replace(llama3JSON, "{", `{"rope_theta":500000.0,`, 1), "torch_dtype": "", "dtype": `"float16"`}, "", func(c *Config) {
			c.RoPE, c.DType = llama3, "float16"
		}},
		{"llama3 without length", map[string]string{"rope_scaling": strings.Replace(llama3JSON, `"original_max_position_embeddings":8192,`, "", 1)}, "", func(c *Config) {
			c.RoPE = llama3
			c.RoPE.OriginalMaxPosition = 131072
		}},
		{"linear, oldest", map[string]string{"rope_scaling": `{"type":"linear","factor":4}`}, "", func(c *Config) { c.RoPE.Kind, c.RoPE.Factor = RoPELinear, 4 }},
		{"default, new", map[string]string{"rope_parameters": `{"rope_type":"default","rope_theta":1e6}`}, "", func(c *Config) { c.RoPE.Theta = 1e6 }},
		{"no special tokens", map[string]string{"bos_token_id": "null", "eos_token_id": "null"}, "", func(c *Config) { c.BOSTokenID, c.EOSTokenIDs = -1, []int32{} }},
		{"eos list", map[string]string{"eos_token_id": "[128009,128001,128009]"}, "", func(c *Config) { c.EOSTokenIDs = []int32{128001, 128009} }},
		{"generation_config wins", map[string]string{"eos_token_id": "128009"}, `{"bos_token_id":5,"eos_token_id":[128008,128001],"do_sample":true,"temperature":0.6,"top_p":0.9,"_from_model_config":true}`, func(c *Config) {
			c.BOSTokenID, c.EOSTokenIDs = 5, []int32{128001, 128008}
		}},
		{"generation_config is silent", nil, `{"eos_token_id":null,"top_k":null}`, func(*Config) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var gen []byte
			if tt.generation != "" {
				gen = []byte(tt.generation)
			}
			got, err := ParseConfig(llama(t, tt.changes), gen)
			if err != nil {
				t.Fatal(err)
			}
			want := baseline()
			tt.want(&want)
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got  %+v\nwant %+v", *got, want)
			}
		})
	}
}

func TestParseConfigErrors(t *testing.T) {
	tests := []struct {
		field, value string
		want         string
		is           error
	}{
		{"architectures", `["GPT2LMHeadModel"]`, `config.json: architectures: unknown architecture "GPT2LMHeadModel"; supported: LlamaForCausalLM, MistralForCausalLM`, ErrUnsupported},
		{"architectures", `"LlamaForCausalLM"`, `config.json: architectures: must be a list of one string, found "LlamaForCausalLM"`, ErrConfig},
		{"vocab_size", ``, `config.json: vocab_size: is missing`, ErrConfig},
		{"hidden_size", `"4096"`, `config.json: hidden_size: must be a whole number from 1 to 131072, found "4096"`, ErrConfig},
		{"hidden_size", `4096.5`, `config.json: hidden_size: must be a whole number from 1 to 131072, found 4096.5`, ErrConfig},
		{"hidden_size", `4097`, `config.json: hidden_size: 4097 is not a multiple of num_attention_heads 32, and head_dim is not given`, ErrConfig},
		{"intermediate_size", `0`, `config.json: intermediate_size: must be a whole number from 1 to 1048576, found 0`, ErrConfig},
		{"num_hidden_layers", `-3`, `config.json: num_hidden_layers: must be a whole number from 1 to 1024, found -3`, ErrConfig},
		{"num_hidden_layers", `99999999999999999999`, `config.json: num_hidden_layers: must be a whole number from 1 to 1024, found 99999999999999999999`, ErrConfig},
		{"num_key_value_heads", `5`, `config.json: num_attention_heads: 32 is not a multiple of num_key_value_heads 5`, ErrConfig},
		{"head_dim", `63`, `config.json: head_dim: 63: it must be even and at most 1024`, ErrConfig},
		{"num_attention_heads", `1`, `config.json: num_attention_heads: 1 is not a multiple of num_key_value_heads 8`, ErrConfig},
		{"rms_norm_eps", ``, `config.json: rms_norm_eps: must be given, at least 0 and below 1`, ErrConfig},
		{"rms_norm_eps", `"x"`, `config.json: rms_norm_eps: must be a number, found "x"`, ErrConfig},
		{"hidden_act", `"gelu"`, `config.json: hidden_act: "gelu" is not supported; supported: silu`, ErrUnsupported},
		{"attention_bias", `true`, `config.json: attention_bias: true is not supported; supported: false`, ErrUnsupported},
		{"attention_bias", `1`, `config.json: attention_bias: must be true or false, found 1`, ErrConfig},
		{"mlp_bias", `true`, `config.json: mlp_bias: true is not supported; supported: false`, ErrUnsupported},
		{"pretraining_tp", `2`, `config.json: pretraining_tp: 2 is not supported; supported: 1`, ErrUnsupported},
		{"quantization_config", `{"quant_method":"awq"}`, `config.json: quantization_config: quantised weights (awq) are not supported; use the F32, F16 or BF16 weights of this model`, ErrUnsupported},
		{"partial_rotary_factor", `0.5`, `config.json: partial_rotary_factor: 0.5 is not supported; supported: 1`, ErrUnsupported},
		{"layer_types", `["full_attention","sliding_attention"]`, `config.json: layer_types[1]: "sliding_attention" is not supported; supported: full_attention`, ErrUnsupported},
		{"rope_theta", `0`, `config.json: rope_theta: 0: must be above 1`, ErrConfig},
		{"rope_scaling", `{"rope_type":"yarn","factor":4}`, `config.json: rope_scaling.rope_type: "yarn" is not supported; supported: default, linear, llama3`, ErrUnsupported},
		{"rope_scaling", `{"type":"dynamic","factor":4}`, `config.json: rope_scaling.type: "dynamic" is not supported; supported: default, linear, llama3`, ErrUnsupported},
		{"rope_scaling", `{"type":"linear"}`, `config.json: rope_scaling.factor: is missing`, ErrConfig},
		{"rope_scaling", `{"type":"linear","factor":0}`, `config.json: rope_scaling.factor: 0: must be above 0`, ErrConfig},
		{"rope_scaling", `"linear"`, `config.json: rope_scaling: must be a JSON object, found "linear"`, ErrConfig},
		{"rope_parameters", `{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4}`, `config.json: rope_parameters.high_freq_factor: 4 must be above low_freq_factor 4`, ErrConfig},
		{"rope_parameters", `{"partial_rotary_factor":0.25}`, `config.json: rope_parameters.partial_rotary_factor: 0.25 is not supported; supported: 1`, ErrUnsupported},
		{"eos_token_id", `128256`, `config.json: eos_token_id: 128256 is not a token id of a vocabulary of 128256`, ErrConfig},
		{"eos_token_id", `[1,null]`, `config.json: eos_token_id: must not have null in the list`, ErrConfig},
		{"eos_token_id", `"x"`, `config.json: eos_token_id: must be a token id, a list of them, or null, found "x"`, ErrConfig},
		{"bos_token_id", `[1,2]`, `config.json: bos_token_id: must be one token, found 2`, ErrConfig},
	}
	for _, tt := range tests {
		_, err := ParseConfig(llama(t, map[string]string{tt.field: tt.value}), nil)
		if want := tt.want + " (" + tt.is.Error() + ")"; err == nil || err.Error() != want || !errors.Is(err, tt.is) {
			t.Errorf("%s = %s:\ngot  %v\nwant %s", tt.field, tt.value, err, want)
		}
	}
	mistral := func(sw string) []byte {
		return llama(t, map[string]string{"architectures": `["MistralForCausalLM"]`, "sliding_window": sw})
	}
	whole := []struct {
		config, generation []byte
		want               string
	}{
		{nil, nil, `config.json: byte 0: the JSON ends too early; download it again (invalid model config)`},
		{[]byte(`{"a":`), nil, `config.json: byte 5: the JSON ends too early; download it again (invalid model config)`},
		{[]byte(`{"a":}`), nil, `config.json: byte 6: invalid character '}' looking for beginning of value (invalid model config)`},
		{[]byte(`[]`), nil, `config.json: must be a JSON object, found a array (invalid model config)`},
		{[]byte(`null`), nil, `config.json: must be a JSON object, found null (invalid model config)`},
		{[]byte(`{} 1`), nil, `config.json: byte 2: text follows the JSON object (invalid model config)`},
		{[]byte(`{}`), nil, `config.json: architectures: is missing, and so is model_type; supported: LlamaForCausalLM, MistralForCausalLM (invalid model config)`},
		{[]byte(`{"model_type":"gemma"}`), nil, `config.json: model_type: unknown architecture "gemma"; supported: LlamaForCausalLM, MistralForCausalLM (unsupported model)`},
		{mistral("4096"), nil, `config.json: sliding_window: 4096: sliding windows are not supported: only null is (unsupported model)`},
		{mistral(""), nil, `config.json: sliding_window: is missing, which means 4096; sliding windows are not supported: only null is (unsupported model)`},
		{llama(t, nil), []byte(`{`), `generation_config.json: byte 1: the JSON ends too early; download it again (invalid model config)`},
		{llama(t, nil), []byte(`{"eos_token_id":-1}`), `generation_config.json: eos_token_id: -1 is not a token id of a vocabulary of 128256 (invalid model config)`},
	}
	for _, tt := range whole {
		if _, err := ParseConfig(tt.config, tt.generation); err == nil || err.Error() != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
}

// TestGoldenModels reads the configs of the small models and compares the rotary frequencies with
// those of transformers.
func TestGoldenModels(t *testing.T) {
	dirs, err := filepath.Glob("testdata/*/config.json")
	if err != nil || len(dirs) < 4 {
		t.Fatalf("%d models, %v", len(dirs), err)
	}
	kinds := make(map[RoPEKind]int)
	for _, path := range dirs {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			js, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			gen, err := os.ReadFile(filepath.Join(dir, "generation_config.json"))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			c, err := ParseConfig(js, gen)
			if err != nil {
				t.Fatal(err)
			}
			kinds[c.RoPE.Kind]++
			g, err := golden.Load(filepath.Join(dir, "golden.safetensors"))
			if err != nil {
				t.Fatal(err)
			}
			if len(g.Logits[0]) != c.VocabSize {
				t.Errorf("%d logits for a vocabulary of %d", len(g.Logits[0]), c.VocabSize)
			}
			got := c.InvFreq()
			if len(got) != len(g.InvFreq) {
				t.Fatalf("%d frequencies, want %d", len(got), len(g.InvFreq))
			}
			exact := 0
			for i, want := range g.InvFreq {
				// One unit in the last place is 1.2e-7 at most.
				if d := math.Abs(float64(got[i]-want)) / float64(want); d > 1.2e-7 {
					t.Errorf("frequency %d: %v, want %v (off by %.2g)", i, got[i], want, d)
				}
				if got[i] == want {
					exact++
				}
			}
			t.Logf("%d of %d frequencies are exact", exact, len(got))
		})
	}
	for _, k := range []RoPEKind{RoPEDefault, RoPELinear, RoPELlama3} {
		if kinds[k] == 0 {
			t.Errorf("no model with RoPE %s", k)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add(llama(f, nil), []byte(`{"eos_token_id":[1,2]}`))
	f.Add(llama(f, map[string]string{"rope_scaling": `{"type":"linear","factor":4}`}), []byte(`{}`))
	f.Fuzz(func(t *testing.T, config, generation []byte) {
		c, err := ParseConfig(config, generation)
		if err != nil {
			if !errors.Is(err, ErrConfig) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("%v has no sentinel", err)
			}
			return
		}
		if c.Heads%c.KVHeads != 0 || c.HeadDim%2 != 0 || c.VocabSize < 1 {
			t.Fatalf("%+v", c)
		}
		for _, x := range c.InvFreq() {
			if !(x >= 0) || math.IsInf(float64(x), 0) {
				t.Fatalf("frequency %v of %+v", x, c.RoPE)
			}
		}
	})
}
