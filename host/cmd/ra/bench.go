package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/retrievalattention/ra/host/bench"
	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/config"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/model"
	"github.com/retrievalattention/ra/host/retrieval"
)

func newBench(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure the kernels, or a model's speed, against what the machine gives",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newBenchKernels(g), newBenchModel(g))
	return c
}

// measured is what a measurement gives.
type measured interface {
	WriteText(out io.Writer) error
	WritePlot(file string) error
}

// benchOutput are the flags that say where a report goes.
type benchOutput struct {
	*globals
	json bool
	plot string
}

func (b *benchOutput) flags(c *cobra.Command) {
	c.Flags().BoolVar(&b.json, "json", false, "print JSON")
	c.Flags().StringVar(&b.plot, "plot", "", "also draw the figures to this file; its ending says the format: "+strings.Join(bench.PlotFormats(), " or "))
}

// check refuses a plot that could not be written, before the measurement.
func (b *benchOutput) check() error {
	if b.plot == "" {
		return nil
	}
	return usage(bench.CheckPlot(b.plot))
}

func (b *benchOutput) write(r measured) error {
	var err error
	if b.json {
		enc := json.NewEncoder(b.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.WriteText(b.out)
	}
	if err == nil && b.plot != "" {
		err = r.WritePlot(b.plot)
	}
	return err
}

// usage marks options that cannot be measured as usage errors.
func usage(err error) error {
	if errors.Is(err, bench.ErrOptions) {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return err
}

type benchKernels struct {
	benchOutput
	dtypes, levels []string
	workingSet     int
	o              bench.KernelOptions
}

func newBenchKernels(g *globals) *cobra.Command {
	b := &benchKernels{benchOutput: benchOutput{globals: g}}
	c := &cobra.Command{
		Use:   "kernels",
		Short: "Measure every kernel beside the memory's bandwidth and the core's arithmetic",
		Long: `Measure every kernel beside what the machine gives: the read bandwidth of its
memory and its f32 arithmetic, taken in the same run, in turns with the kernels.

A figure is the median of repeats; ± is half the distance of the quartiles.
Times are wall-clock times of all threads together. Kernels marked "memory"
rotate over a working set that caches do not hold.`,
		Example: `  ra bench kernels
  ra bench kernels --levels all --plot kernels.svg
  ra bench kernels --only score --dtypes bf16,f32 --queries 1,2,4,8 --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return b.run(c.Context()) },
	}
	threads := []int{1}
	if n := runtime.GOMAXPROCS(0); n > 1 {
		threads = append(threads, n)
	}
	f := c.Flags()
	f.StringSliceVar(&b.dtypes, "dtypes", []string{"bf16"}, "stored types: bf16, f16, f32")
	f.IntSliceVar(&b.o.Dims, "dims", []int{64, 128}, "head dimensions")
	f.IntSliceVar(&b.o.Queries, "queries", []int{1, 4}, fmt.Sprintf("queries a call, 1 to %d", kernel.MaxQueries))
	f.IntSliceVar(&b.o.Threads, "threads", threads, "threads side by side")
	f.StringVar(&b.o.Only, "only", "", "measure the kernels whose name contains this: "+strings.Join(bench.KernelNames(), ", "))
	f.StringSliceVar(&b.levels, "levels", nil, "levels of the kernels, or all that this CPU runs (default: the one in use)")
	f.IntVar(&b.o.Repeats, "repeats", 9, "slices of time that a figure is the median of")
	f.DurationVar(&b.o.Slice, "slice", 30*time.Millisecond, "least time of a slice")
	f.IntVar(&b.workingSet, "working-set", 256, "MiB of keys that calls rotate over")
	f.Uint64Var(&b.o.Seed, "seed", 1, "seed of the data")
	b.flags(c)
	return c
}

func (b *benchKernels) run(ctx context.Context) error {
	for _, name := range b.dtypes {
		d, ok := kvDTypes[name]
		if !ok {
			return fmt.Errorf("%w: --dtypes: unknown type %q; there are bf16, f16, f32", errUsage, name)
		}
		b.o.DTypes = append(b.o.DTypes, d)
	}
	b.o.WorkingSet = int64(b.workingSet) << 20
	if b.workingSet < 1 {
		return fmt.Errorf("%w: --working-set must be at least 1 MiB, not %d", errUsage, b.workingSet)
	}
	if err := b.check(); err != nil {
		return err
	}
	levels, err := b.resolveLevels()
	if err != nil {
		return err
	}
	if len(levels) == 0 || slices.Equal(levels, []string{kernel.Level()}) {
		bar := newProgress(b.err, "kernels "+kernel.Level(), max(b.o.Units(), 1))
		b.o.Progress = bar.add
		rep, err := bench.Kernels(ctx, b.o)
		bar.close()
		if err != nil {
			return usage(err)
		}
		return b.write(rep)
	}
	var all *bench.KernelReport
	for _, level := range levels {
		rep, err := b.atLevel(ctx, level)
		if err != nil {
			return err
		}
		if all == nil {
			all = rep
		} else {
			all.Merge(rep)
		}
	}
	all.Machine.Level = strings.Join(levels, ", ")
	return b.write(all)
}

func (b *benchKernels) resolveLevels() ([]string, error) {
	if slices.Equal(b.levels, []string{"all"}) {
		return kernel.Levels(), nil
	}
	for _, l := range b.levels {
		if !slices.Contains(kernel.Levels(), l) {
			return nil, fmt.Errorf("%w: --levels: this CPU does not run level %q; it runs %s", errUsage, l, strings.Join(kernel.Levels(), ", "))
		}
	}
	return b.levels, nil
}

// atLevel measures in a process of its own: the level is chosen when a
// program starts.
func (b *benchKernels) atLevel(ctx context.Context, level string) (*bench.KernelReport, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	ints := func(v []int) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(v), " ", ","), "[]") }
	cmd := exec.CommandContext(ctx, self, "bench", "kernels", "--json",
		"--dtypes", strings.Join(b.dtypes, ","), "--dims", ints(b.o.Dims), "--queries", ints(b.o.Queries), "--threads", ints(b.o.Threads),
		"--only", b.o.Only, "--repeats", strconv.Itoa(b.o.Repeats), "--slice", b.o.Slice.String(),
		"--working-set", strconv.Itoa(b.workingSet), "--seed", strconv.FormatUint(b.o.Seed, 10))
	cmd.Env = append(slices.Clone(b.environ), kernel.LevelEnv+"="+level)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, b.err
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("measure level %s: %w", level, err)
	}
	rep := &bench.KernelReport{}
	if err := json.Unmarshal(out.Bytes(), rep); err != nil {
		return nil, fmt.Errorf("measure level %s: %w", level, err)
	}
	return rep, nil
}

// benchModelFlags maps the flags of bench model to the keys that they
// override.
var benchModelFlags = map[string]string{
	"model":    "model.path",
	"policy":   "policy.plugin",
	"kv-dtype": "model.kv_dtype",
	"top-k":    "attention.budget.top_k",
	"sink":     "policy.params.sink",
	"window":   "policy.params.window",
}

// nativeSearch names the host's own exact search where a plugin could stand.
const nativeSearch = "native"

type benchModel struct {
	benchOutput
	geometry, attention, search string
	layers, workingSet          int
	params                      pluginParams
	o                           bench.ModelOptions
}

func newBenchModel(g *globals) *cobra.Command {
	b := &benchModel{benchOutput: benchOutput{globals: g}, params: pluginParams{}}
	c := &cobra.Command{
		Use:   "model",
		Short: "Measure decode steps against the context length, and prefill against the prompt length",
		Long: `Measure a model's decode steps against the context length, with what each
step is spent on, and its prefill against the prompt length.

The model is the configured one, or with --geometry the published shape of a
model with random weights, so that no download is needed. Keys and values of a
context are made up in place of a prefill that could take hours; decode steps
and prompts run through the engine as in 'ra generate'.

The floor of a step is the time that the bytes it must read take at the
memory's bandwidth, measured between the steps. A figure is the median of
repeats; ± is half the distance of the quartiles. Attention modes take turns.`,
		Example: `  ra bench model --geometry llama-3.2-1b --context 4096,32768
  ra bench model --geometry llama-3-8b --layers 8 --context 131072 --plot decode.png
  ra bench model --model models/mine --search mine.wasm --json`,
		Args: cobra.NoArgs,
		RunE: b.run,
	}
	f := c.Flags()
	f.StringVar(&b.geometry, "geometry", "", "shape with random weights: "+strings.Join(bench.GeometryNames(), ", "))
	f.IntVar(&b.layers, "layers", 0, "measure this many layers of the geometry and scale to all; 0: all")
	f.IntSliceVar(&b.o.Contexts, "context", []int{4096, 16384, 32768}, "tokens in context of the decode steps; 0: no decode steps")
	f.IntSliceVar(&b.o.Prompts, "prompt", []int{512}, "tokens prefilled; 0: no prefill")
	f.StringVar(&b.attention, "attention", "full,retrieval,static", "attention modes")
	f.StringVar(&b.search, "search", nativeSearch, "search of retrieval attention: "+nativeSearch+" (the host's exact search), or a plugin as in generate")
	f.IntVar(&b.o.Repeats, "repeats", 5, "least turns of every mode")
	f.IntVar(&b.o.Steps, "steps", 4, "decode steps measured in a turn")
	f.DurationVar(&b.o.MinTime, "min-time", 2*time.Second, "least time for a context length")
	f.IntVar(&b.workingSet, "working-set", 256, "MiB that the memory's bandwidth is measured on")
	f.Uint64Var(&b.o.Seed, "seed", 1, "seed of weights, keys, values and tokens")
	f.String("model", "", "model folder; empty: the embedded reference model")
	f.String("kv-dtype", "", "type of keys and values: bf16, f16 or f32")
	b.params.flags(c)
	f.String("policy", "", "placement policy: a built-in or configured name, or a .wasm file")
	f.Int("top-k", 0, "most tokens retrieved a query head and step")
	f.Int("sink", 0, "short for --policy-param sink=N: first tokens in the static set")
	f.Int("window", 0, "short for --policy-param window=N: last tokens in the static set")
	b.flags(c)
	return c
}

func (b *benchModel) run(c *cobra.Command, _ []string) (err error) {
	cfg, err := b.resolve(c)
	if err != nil {
		return err
	}
	var closers []func() error
	defer func() {
		for _, f := range slices.Backward(closers) {
			err = errors.Join(err, f())
		}
	}()
	ctx := c.Context()
	b.o.Backend = compute.NewCPU()
	closers = append(closers, b.o.Backend.Close)
	if slices.Contains(b.o.Modes, engine.Retrieval) {
		if b.o.Strategy, err = b.strategy(ctx, cfg); err != nil {
			return err
		}
		closers = append(closers, b.o.Strategy.Close)
	}
	policy, err := openPolicy(ctx, cfg, b.o.Backend, b.logger())
	if err != nil {
		return err
	}
	closers = append(closers, policy.Close)
	b.o.Policy = policy
	if b.geometry != "" {
		err = b.random()
	} else {
		var m *model.Model
		if m, err = openModel(cfg); err == nil {
			closers = append(closers, m.Close)
			b.o.Name, b.o.Weights, b.o.Layers, b.o.MaxContext = modelName(cfg), m.Weights, m.Config.Layers, m.Config.MaxPosition
		}
	}
	if err != nil {
		return err
	}
	bar := newProgress(b.err, "measure "+b.o.Name, max(b.o.Units(), 1))
	b.o.Progress = bar.add
	rep, err := bench.Model(ctx, b.o)
	bar.close()
	if err != nil {
		return usage(err)
	}
	return b.write(rep)
}

// resolve checks the flags and puts them and the configuration into options.
func (b *benchModel) resolve(c *cobra.Command) (*config.Resolved, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	var err error
	if b.o.Modes, err = parseModes(b.attention); err != nil {
		return nil, err
	}
	for _, lengths := range []*[]int{&b.o.Contexts, &b.o.Prompts} {
		if slices.Equal(*lengths, []int{0}) {
			*lengths = nil
		}
	}
	if b.workingSet < 1 {
		return nil, fmt.Errorf("%w: --working-set must be at least 1 MiB, not %d", errUsage, b.workingSet)
	}
	b.o.WorkingSet = int64(b.workingSet) << 20
	if b.geometry != "" && c.Flags().Changed("model") {
		return nil, fmt.Errorf("%w: --geometry and --model exclude each other", errUsage)
	}
	if b.geometry == "" && b.layers != 0 {
		return nil, fmt.Errorf("%w: --layers needs a --geometry", errUsage)
	}
	flags := changedFlags(c, benchModelFlags)
	if err := b.params.into(flags); err != nil {
		return nil, err
	}
	if b.search != nativeSearch {
		flags["search.plugin"] = b.search
	}
	cfg, err := b.load(flags)
	if err != nil {
		return nil, err
	}
	b.o.Memory = kv.NewAllocator(int64(cfg.Model.CPUMemoryMiB) << 20)
	b.o.DType, b.o.TopK = kvDTypes[cfg.Model.KVDType], cfg.Attention.Budget.TopK
	return cfg, nil
}

func (b *benchModel) strategy(ctx context.Context, cfg *config.Resolved) (retrieval.Strategy, error) {
	if b.search == nativeSearch {
		return retrieval.NewFlat(b.o.Backend), nil
	}
	return openPlugin(ctx, cfg, b.o.Backend, b.logger())
}

// random makes the weights of the geometry, if there is memory for them.
func (b *benchModel) random() error {
	g, err := bench.FindGeometry(b.geometry)
	if err != nil {
		return usage(err)
	}
	b.o.Name, b.o.Random, b.o.Layers = g.Name, true, g.Config.Layers
	layers := b.layers
	if layers == 0 {
		layers = g.Config.Layers
	}
	if layers < 0 || layers > g.Config.Layers {
		return fmt.Errorf("%w: --layers: %s has %d layers, not %d", errUsage, g.Name, g.Config.Layers, layers)
	}
	longest := slices.Max(append([]int{1}, slices.Concat(b.o.Contexts, b.o.Prompts)...))
	if err := bench.CheckMemory(g, layers, longest, b.o.DType, b.o.WorkingSet, bench.AvailableMemory()); err != nil {
		return err
	}
	b.o.Weights = g.Weights(layers, b.o.Seed)
	return nil
}
