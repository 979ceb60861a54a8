package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/retrievalattention/ra/host/bench"
	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/config"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/retrieval"
	"github.com/retrievalattention/ra/host/retrieval/graph"
	"github.com/retrievalattention/ra/host/retrieval/lists"
)

// benchPluginFlags maps flags of `ra plugin bench` to the configuration keys
// that they override.
var benchPluginFlags = map[string]string{
	"top-k":    "attention.budget.top_k",
	"kv-dtype": "model.kv_dtype",
}

type benchPlugin struct {
	*globals
	json      bool
	synth     bench.SynthOptions
	data      string
	repeats   int
	overrides map[string]string // of configuration keys
}

func newPluginBench(g *globals) *cobra.Command {
	b := &benchPlugin{globals: g}
	c := &cobra.Command{
		Use:   "bench PLUGIN[:NAME=VALUE,...]...",
		Short: "Measure search plugins beside exact search: recall, time, index",
		Long: `Measure search plugins beside the host's exact search (native:flat), which
always takes part: the share of the exact top-k that is found, the keys that
are scored for it, the time of a call (one layer of a decode step, all query
heads), of the build and of an append, and the memory of the index.

A plugin is a .wasm file, a configured name or a built-in one; native:graph and
native:ivf are the host's own indexes. Parameters follow a colon, so that one
plugin can be measured with several settings. Searches take turns step by step.

The keys and queries are made up (seeded; queries out of the keys'
distribution), or read from a folder with keys.fbin and queries.fbin: two
little-endian uint32, count and dimension, then the vectors in f32.`,
		Example: `  ra plugin bench my-index.wasm
  ra plugin bench my-index:beam=100 my-index:beam=200 native:graph --keys 131072
  ra plugin bench my-index --data sift --group 1 --top-k 10 --json`,
		Args: cobra.MinimumNArgs(1),
		RunE: b.run,
	}
	f := c.Flags()
	f.StringVar(&b.synth.Kind, "synth", "hard", "set to make up: mild or hard")
	f.StringVar(&b.data, "data", "", "folder with keys.fbin and queries.fbin, in place of a made-up set")
	f.IntVar(&b.synth.Keys, "keys", 32768, "keys a KV head")
	f.IntVar(&b.synth.Dim, "dim", 128, "head dimension")
	f.IntVar(&b.synth.KVHeads, "kv-heads", 2, "KV heads")
	f.IntVar(&b.synth.Group, "group", 4, "query heads a KV head; with --data, rows of queries.fbin that make one step")
	f.IntVar(&b.synth.Steps, "queries", 200, "decode steps to search, each with one query a query head")
	f.IntVar(&b.synth.Appended, "append", 256, "tokens appended after the searches; with --data, the last rows of keys.fbin")
	f.Uint64Var(&b.synth.Seed, "seed", 1, "seed of the made-up set")
	f.IntVar(&b.repeats, "repeats", 3, "rounds through the steps")
	f.Int("top-k", 0, "tokens to find for a query (default: attention.budget.top_k of the configuration)")
	f.String("kv-dtype", "", "type that keys are stored in: bf16, f16 or f32")
	f.BoolVar(&b.json, "json", false, "print one JSON object")
	return c
}

func (b *benchPlugin) run(c *cobra.Command, args []string) (err error) {
	if b.data != "" {
		for _, name := range []string{"synth", "keys", "dim", "kv-heads", "seed"} {
			if c.Flags().Changed(name) {
				return fmt.Errorf("%w: --data and --%s exclude each other", errUsage, name)
			}
		}
	}
	b.overrides = changedFlags(c, benchPluginFlags)
	var named []benchArg
	for _, arg := range args {
		a, err := parseBenchArg(arg)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(named, func(n benchArg) bool { return n.text == a.text }) {
			return fmt.Errorf("%w: %s is named twice", errUsage, arg)
		}
		if a.text != bench.ExactSearch { // takes part anyway
			named = append(named, a)
		}
	}
	cfg, err := b.load(b.overrides)
	if err != nil {
		return err
	}
	memory := kv.NewAllocator(int64(cfg.Model.CPUMemoryMiB) << 20)
	if slices.ContainsFunc(named, func(a benchArg) bool { return !a.native() && cfg.Plugin(a.name).Runtime == runtimeProcess }) {
		if memory, err = kv.NewSharedAllocator(memory.Budget()); err != nil {
			return err
		}
	}
	backend := compute.NewCPU()
	closers := []func() error{memory.Close, backend.Close}
	defer func() {
		for _, f := range slices.Backward(closers) {
			err = errors.Join(err, f())
		}
	}()
	o := bench.SearchOptions{
		Backend: backend, Memory: memory, DType: kvDTypes[cfg.Model.KVDType],
		TopK: cfg.Attention.Budget.TopK, Repeats: b.repeats, Seed: b.synth.Seed,
	}
	for _, a := range named {
		candidate, err := b.open(c.Context(), cfg, a, backend, memory)
		if err != nil {
			return err
		}
		o.Candidates = append(o.Candidates, candidate)
		closers = append(closers, candidate.Strategy.Close)
	}
	if o.Set, err = b.set(); err != nil {
		return usage(err)
	}
	bar := newProgress(b.err, "measure", max(o.Units(), 1))
	o.Progress = bar.add
	rep, err := bench.Search(c.Context(), o)
	bar.close()
	if err != nil {
		return usage(err)
	}
	if b.json {
		return printJSON(b.out, rep)
	}
	return rep.WriteText(b.out)
}

func (b *benchPlugin) set() (*bench.SearchSet, error) {
	if b.data != "" {
		return bench.FileSet(bench.FileOptions{Dir: b.data, Appended: b.synth.Appended, Steps: b.synth.Steps, Group: b.synth.Group})
	}
	b.synth.Available = bench.AvailableMemory()
	return bench.SynthSet(b.synth)
}

// benchArg is a search to measure, as the command line names it.
type benchArg struct {
	text   string
	name   string
	params map[string]string
}

// nativePrefix begins the names of the host's own strategies.
const nativePrefix = "native:"

func (a *benchArg) native() bool { return strings.HasPrefix(a.name, nativePrefix) }

// withParams is a name with parameters. A name may itself have colons.
var withParams = regexp.MustCompile(`^(.+?):([a-z_][a-z0-9_]*=.*)$`)

func parseBenchArg(text string) (benchArg, error) {
	a := benchArg{text: text, name: text, params: map[string]string{}}
	m := withParams.FindStringSubmatch(text)
	if m == nil {
		return a, nil
	}
	a.name = m[1]
	for _, p := range strings.Split(m[2], ",") {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return a, fmt.Errorf("%w: %s: the parameter %q is not NAME=VALUE", errUsage, text, p)
		}
		if _, twice := a.params[name]; twice {
			return a, fmt.Errorf("%w: %s: the parameter %s is set twice", errUsage, text, name)
		}
		a.params[name] = value
	}
	return a, nil
}

// open loads what a names. base is the configuration without a's parameters.
func (b *benchPlugin) open(ctx context.Context, base *config.Resolved, a benchArg, backend compute.Backend, memory *kv.Allocator) (bench.Candidate, error) {
	if a.native() {
		s, err := openNative(a, backend, memory)
		return bench.Candidate{Name: a.text, Strategy: s}, err
	}
	flags := map[string]string{"search.plugin": a.name}
	for key, value := range b.overrides {
		flags[key] = value
	}
	for name, value := range a.params {
		flags["search.params."+name] = value
	}
	cfg, err := b.load(flags)
	if err != nil {
		return bench.Candidate{}, err
	}
	if base.Search.Plugin != a.name { // the configured parameters are another's
		for name := range base.Search.Params {
			if _, given := a.params[name]; !given {
				delete(cfg.Search.Params, name)
			}
		}
	}
	p, pinned, err := chosen(cfg, a.name)
	if err != nil {
		return bench.Candidate{}, err
	}
	p.OnFailure = string(plugin.Fail) // what exact search answers instead is not the plugin's
	s, err := loadSearch(ctx, p, cfg.Search.Params, backend, memory, b.logger())
	if err != nil {
		bad := (*plugin.ParamError)(nil)
		if errors.As(err, &bad) {
			if _, here := a.params[bad.Param]; here { // and not in the configuration
				return bench.Candidate{}, fmt.Errorf("%s: %w", a.text, err)
			}
		}
		return bench.Candidate{}, located(cfg, "search", pinned, err)
	}
	return bench.Candidate{Name: a.text, Strategy: s, Memory: func() int64 { return s.Stats().MemoryBytes }}, nil
}

// openNative makes one of the host's own strategies, each with one parameter.
func openNative(a benchArg, backend compute.Backend, memory *kv.Allocator) (retrieval.Strategy, error) {
	var param string
	var value *int
	var s func() (retrieval.Strategy, error)
	g, l := graph.DefaultParams(), lists.DefaultParams()
	switch a.name {
	case nativePrefix + "graph":
		param, value = "beam", &g.Search.Beam
		s = func() (retrieval.Strategy, error) { return graph.NewStrategy(backend, memory, g) }
	case nativePrefix + "ivf":
		param, value = "lists", &l.Search.Lists
		s = func() (retrieval.Strategy, error) { return lists.NewStrategy(backend, memory, l) }
	case bench.ExactSearch:
		return nil, fmt.Errorf("%w: %s: exact search has no parameters", errUsage, a.text)
	default:
		return nil, fmt.Errorf("%w: there is no %s; there are native:flat, native:graph and native:ivf", errUsage, a.name)
	}
	for name, text := range a.params {
		n, err := strconv.Atoi(text)
		if name != param || err != nil || n < 1 {
			return nil, fmt.Errorf("%w: %s: the parameter of %s is %s, a positive integer", errUsage, a.text, a.name, param)
		}
		*value = n
	}
	return s()
}
