package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrInvalid marks every error about the content of a configuration.
var ErrInvalid = errors.New("invalid configuration")

// Version is the version of the schema.
const Version = 1

// Config is a whole configuration. The doc tags are the comments of
// [Resolved.Print].
type Config struct {
	Version   int       `toml:"version" doc:"version of this schema"`
	Model     Model     `toml:"model"`
	Attention Attention `toml:"attention"`
	Search    Choice    `toml:"search"`
	Policy    Policy    `toml:"policy"`
	Generate  Generate  `toml:"generate"`
	Plugins   []Plugin  `toml:"plugin"`
}

// Model chooses the model and where it runs.
type Model struct {
	Path         string `toml:"path" doc:"folder with config.json, safetensors and tokenizer.json; empty: the embedded reference model"`
	Device       string `toml:"device" doc:"auto or cpu"`
	KVDType      string `toml:"kv_dtype" doc:"stored keys and values: bf16, f16 or f32"`
	MaxContext   int    `toml:"max_context" doc:"most tokens of prompt and answer together; 0: what the model was made for"`
	CPUMemoryMiB int    `toml:"cpu_memory_mib" doc:"most memory for keys, values, indexes and kept queries; 0: no limit"`
}

// Attention chooses what a decode step attends to.
type Attention struct {
	Mode   string `toml:"mode" doc:"retrieval, full or static"`
	Budget Budget `toml:"budget"`
}

// Budget bounds what a search returns.
type Budget struct {
	TopK int `toml:"top_k" doc:"most tokens retrieved a query head and step"`
}

// Choice names a plugin and its parameters.
type Choice struct {
	Plugin string         `toml:"plugin" doc:"search strategy: a built-in plugin or the name of a [[plugin]]"`
	Params map[string]any `toml:"params"`
}

// Policy chooses a placement policy and its parameters.
type Policy struct {
	Plugin string         `toml:"plugin" doc:"placement policy: a built-in plugin or the name of a [[plugin]]"`
	Params map[string]any `toml:"params"`
}

// Generate sets how answers are sampled.
type Generate struct {
	MaxTokens   int     `toml:"max_tokens" doc:"most tokens to generate an answer"`
	Temperature float64 `toml:"temperature" doc:"0: greedy"`
	TopK        int     `toml:"top_k" doc:"sample among the k most likely tokens; 0: all"`
	TopP        float64 `toml:"top_p" doc:"sample among the most likely tokens that hold this probability; 1: all"`
	Seed        uint64  `toml:"seed" doc:"seed of the sampling"`
}

// Plugin declares a plugin file.
type Plugin struct {
	Name      string `toml:"name"`
	Kind      string `toml:"kind"`       // "search" or "policy"
	Runtime   string `toml:"runtime"`    // "wasm"
	Path      string `toml:"path"`       // empty: the built-in plugin of that name
	SHA256    string `toml:"sha256"`     // checked when set
	Trusted   bool   `toml:"trusted"`    // leave fuel out
	OnFailure string `toml:"on_failure"` // "fallback" or "fail"
	Instances int    `toml:"instances"`  // 0: as many as cores
	Limits    Limits `toml:"limits"`
}

// Limits bound one plugin. Zero values mean the runtime's defaults.
type Limits struct {
	MemoryMiB     int           `toml:"memory_mib"`
	SearchTimeout time.Duration `toml:"search_timeout"`
	BuildTimeout  time.Duration `toml:"build_timeout"`
	Fuel          int64         `toml:"fuel"` // units a call
	Work          int64         `toml:"work"` // multiply-adds of the kernels a call
}

// Default returns the configuration without file, environment and flags.
func Default() Config {
	return Config{
		Version:   Version,
		Model:     Model{Device: "auto", KVDType: "bf16"},
		Attention: Attention{Mode: "retrieval", Budget: Budget{TopK: 100}},
		Search:    Choice{Plugin: "flat"},
		Policy:    Policy{Plugin: "sinkwindow"},
		Generate:  Generate{MaxTokens: 64, TopP: 1},
	}
}

// Validate reports every value that the schema does not allow.
func (c *Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: %s: %s", ErrInvalid, key, fmt.Sprintf(format, args...)))
	}
	oneOf := func(key, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			bad(key, "%q is not one of %s", value, strings.Join(allowed, ", "))
		}
	}
	least := func(key string, value, low int) {
		if value < low {
			bad(key, "%d is below %d", value, low)
		}
	}
	if c.Version != Version {
		bad("version", "%d is not a version that this program reads; write version = %d", c.Version, Version)
	}
	oneOf("model.device", c.Model.Device, "auto", "cpu")
	oneOf("model.kv_dtype", c.Model.KVDType, "bf16", "f16", "f32")
	least("model.max_context", c.Model.MaxContext, 0)
	least("model.cpu_memory_mib", c.Model.CPUMemoryMiB, 0)
	oneOf("attention.mode", c.Attention.Mode, "retrieval", "full", "static")
	least("attention.budget.top_k", c.Attention.Budget.TopK, 0)
	if c.Search.Plugin == "" {
		bad("search.plugin", "names no plugin")
	}
	if c.Policy.Plugin == "" {
		bad("policy.plugin", "names no plugin")
	}
	least("generate.max_tokens", c.Generate.MaxTokens, 1)
	if t := c.Generate.Temperature; !(t >= 0 && t <= 100) {
		bad("generate.temperature", "%v is outside 0 to 100", t)
	}
	least("generate.top_k", c.Generate.TopK, 0)
	if p := c.Generate.TopP; !(p > 0 && p <= 1) {
		bad("generate.top_p", "%v is outside the range above 0 and up to 1", p)
	}
	names := map[string]bool{}
	for i, p := range c.Plugins {
		key := fmt.Sprintf("plugin[%d]", i)
		if p.Name != "" {
			key = fmt.Sprintf("plugin %q", p.Name)
		}
		switch {
		case p.Name == "":
			bad(key, "has no name")
		case names[p.Name]:
			bad(key, "is declared twice")
		}
		names[p.Name] = true
		oneOf(key+".kind", p.Kind, "search", "policy")
		oneOf(key+".runtime", p.Runtime, "wasm")
		oneOf(key+".on_failure", p.OnFailure, "fallback", "fail")
		least(key+".instances", p.Instances, 0)
		least(key+".limits.memory_mib", p.Limits.MemoryMiB, 0)
		if p.Limits.MemoryMiB > 4096 {
			bad(key+".limits.memory_mib", "%d is above 4096, the most that a wasm module can address", p.Limits.MemoryMiB)
		}
		if p.Limits.SearchTimeout < 0 || p.Limits.BuildTimeout < 0 || p.Limits.Fuel < 0 || p.Limits.Work < 0 {
			bad(key+".limits", "must not be negative")
		}
		if n := len(p.SHA256); n != 0 && n != 64 {
			bad(key+".sha256", "has %d characters, a sha256 has 64 hexadecimal digits", n)
		}
	}
	return errors.Join(errs...)
}

// Plugin returns the declaration of the named plugin. A name that ends in
// .wasm is a file; another name without a declaration is a built-in plugin;
// both get default values.
func (c *Config) Plugin(name string) Plugin {
	for _, p := range c.Plugins {
		if p.Name == name {
			return p
		}
	}
	p := Plugin{Name: name, Kind: "search", Runtime: "wasm", OnFailure: "fallback"}
	if strings.HasSuffix(name, ".wasm") {
		p.Name, p.Path = strings.TrimSuffix(filepath.Base(name), ".wasm"), name
	}
	return p
}
