package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/config"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
)

// finding is one line of the doctor's report.
type finding struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"` // how to get what is missing
}

func newDoctor(g *globals) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Show what was found: CPU, GPU, configuration, model, plugins",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			findings, err := examine(c.Context(), g)
			if asJSON {
				enc := json.NewEncoder(g.out)
				enc.SetIndent("", "  ")
				if e := enc.Encode(findings); e != nil {
					return e
				}
			} else if e := printFindings(g.out, findings); e != nil {
				return e
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// examine looks at everything; the error is the first thing that keeps
// generate from working.
func examine(ctx context.Context, g *globals) (findings []finding, first error) {
	add := func(what, detail string, err error, mend string) {
		f := finding{What: what, OK: err == nil, Detail: detail}
		if err != nil {
			f.Detail, f.Mend = err.Error(), mend
			if first == nil {
				first = err
			}
		}
		findings = append(findings, f)
	}
	add("cpu", fmt.Sprintf("%s/%s, %d cores in use, features: %s", runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), cpuFeatures()), nil, "")
	add("kernels", describeKernels(kernel.Level(), kernel.LevelNote()), nil, "")
	add("gpu", "not used: this version computes on the CPU", nil, "")
	cfg, err := g.load(nil)
	if err != nil {
		add("config", "", err, "mend the file, then run 'ra config check'")
		return findings, first
	}
	add("config", describeConfig(cfg), nil, "")
	add("memory", describeMemory(cfg), nil, "")
	m, err := openModel(cfg)
	if err != nil {
		add("model", "", err, "check model.path; 'model.path = \"\"' uses the embedded model")
	} else {
		c := m.Config
		add("model", fmt.Sprintf("%s: %d layers, hidden %d, %d query heads over %d KV heads of %d, vocabulary %d, up to %d tokens",
			c.Architecture, c.Layers, c.HiddenSize, c.Heads, c.KVHeads, c.HeadDim, c.VocabSize, c.MaxPosition), m.Close(), "")
	}
	add("built-in plugins", strings.Join(plugin.Builtins(), ", "), nil, "")
	p, err := openPlugin(ctx, cfg, compute.NewCPU(), g.logger())
	if err != nil {
		add("search plugin", "", err, "check search.plugin and its [[plugin]] entry")
		return findings, first
	}
	i := p.Info()
	add("search plugin", fmt.Sprintf("%s %s, %s, %s", i.Name, i.Version, i.Runtime, i.Digest), p.Close(), "")
	policy, err := openPolicy(ctx, cfg, compute.NewCPU(), g.logger())
	if err != nil {
		add("policy", "", err, "check policy.plugin, policy.params and its [[plugin]] entry")
		return findings, first
	}
	i = policy.Info()
	add("policy", fmt.Sprintf("%s %s, %s, %s", i.Name, i.Version, i.Runtime, i.Digest), policy.Close(), "")
	return findings, first
}

func describeKernels(level, note string) string {
	if note == "" {
		return level
	}
	return level + " (" + note + ")"
}

func describeMemory(c *config.Resolved) string {
	budget := "no limit"
	if n := c.Model.CPUMemoryMiB; n > 0 {
		budget = fmt.Sprintf("%d MiB", n)
	}
	return fmt.Sprintf("%s for keys, values and indexes; huge pages: %s", budget, kv.HugePages())
}

func describeConfig(c *config.Resolved) string {
	if c.File == "" {
		return "no file: the defaults"
	}
	return c.File
}

func cpuFeatures() string {
	var have []string
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"avx2", cpu.X86.HasAVX2}, {"fma", cpu.X86.HasFMA}, {"avx512", cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL},
		{"avx512-bf16", cpu.X86.HasAVX512BF16}, {"avx512-vnni", cpu.X86.HasAVX512VNNI}, {"neon", cpu.ARM64.HasASIMD}, {"dotprod", cpu.ARM64.HasASIMDDP},
	} {
		if f.ok {
			have = append(have, f.name)
		}
	}
	if len(have) == 0 {
		return "none that kernels could use"
	}
	return strings.Join(have, " ")
}

func printFindings(out io.Writer, findings []finding) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		mark := "ok"
		if !f.OK {
			mark = "MISSING"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", mark, f.What, f.Detail)
		if f.Mend != "" {
			fmt.Fprintf(w, "\t\tto mend: %s\n", f.Mend)
		}
	}
	return w.Flush()
}
