package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/config"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/plugin/process"
	"github.com/retrievalattention/ra/host/plugin/scaffold"
	"github.com/retrievalattention/ra/host/retrieval"
	abi "github.com/retrievalattention/ra/sdk/abi/v1"
	"github.com/retrievalattention/ra/sdk/conformance"
)

func newPlugin(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use:   "plugin",
		Short: "Begin, build, check, test, measure and pin plugins",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	for _, add := range []func(*globals) *cobra.Command{newPluginNew, newPluginBuild, newPluginValidate, newPluginInspect, newPluginTest, newPluginBench, newPluginList, newPluginLock} {
		c.AddCommand(add(g))
	}
	return c
}

func newPluginNew(g *globals) *cobra.Command {
	o := scaffold.Options{}
	c := &cobra.Command{
		Use:   "new NAME",
		Short: "Begin a plugin: a folder with a working one, its test and the SDK",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o.Name = args[0]
			dir, err := scaffold.New(o)
			if err != nil {
				return err
			}
			fmt.Fprintf(g.out, "%s: a %s plugin in %s. Next:\n", dir, o.Kind, o.Lang)
			next := []string{"cd " + dir}
			if o.Lang == "go" {
				next = append(next, "go test ./...")
			}
			next = append(next, "ra plugin build")
			name := o.Name + ".wasm"
			if scaffold.IsProcess(o.Lang) {
				name = o.Name // as raconfig.toml has it
			}
			if o.Kind == "search" {
				next = append(next, fmt.Sprintf("ra plugin test %s --min-recall 0.2", name), fmt.Sprintf("ra generate -f FILE -q QUESTION --search %s", name))
			} else {
				next = append(next, fmt.Sprintf("ra plugin validate %s", name), fmt.Sprintf("ra generate -f FILE -q QUESTION --policy %s", name))
			}
			for _, line := range next {
				fmt.Fprintln(g.out, "  "+line)
			}
			return nil
		},
	}
	c.Flags().StringVar(&o.Lang, "lang", "go", "language: "+strings.Join(scaffold.Langs(), ", "))
	c.Flags().StringVar(&o.Kind, "kind", "search", "kind: "+strings.Join(scaffold.Kinds(), ", "))
	c.Flags().StringVar(&o.Dir, "dir", "", "folder to make the plugin's folder in")
	return c
}

func newPluginBuild(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "build [DIR]",
		Short: "Compile the plugin in a folder (the working directory), and check it",
		Long: `Compile the plugin in a folder (the working directory) to NAME.wasm there, and
check it. A Go plugin that is a process is compiled to the executable NAME; for
Python, a virtual environment is made in .venv and what requirements.txt lists
is installed in it.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			file, err := scaffold.Build(c.Context(), dir)
			if err != nil {
				return err
			}
			if strings.HasSuffix(file, ".wasm") {
				return g.validate(c.Context(), file)
			}
			if strings.HasSuffix(file, ".py") {
				fmt.Fprintln(g.out, "installed requirements.txt in .venv")
			}
			dir = filepath.Dir(file)
			if g.file == "" {
				g.file = filepath.Join(dir, config.FileName) // the entry of the plugin
			}
			return g.validate(c.Context(), filepath.Base(dir))
		},
	}
}

func newPluginValidate(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "validate PLUGIN",
		Short: "Check that a plugin can be loaded: a .wasm file, a configured name or a built-in one",
		Args:  cobra.ExactArgs(1),
		RunE:  func(c *cobra.Command, args []string) error { return g.validate(c.Context(), args[0]) },
	}
}

func (g *globals) validate(ctx context.Context, name string) error {
	i, err := g.inspect(ctx, name)
	if err != nil {
		return err
	}
	fmt.Fprintf(g.out, "ok: %s, %s plugin %s %s, %s\n", name, i.Kind, i.Name, i.Version, i.Digest)
	return nil
}

// inspect loads the named plugin with its default parameters.
func (g *globals) inspect(ctx context.Context, name string) (*plugin.Inspection, error) {
	cfg, err := g.load(nil)
	if err != nil {
		return nil, err
	}
	return g.inspectPlugin(ctx, cfg.Plugin(name))
}

func (g *globals) inspectPlugin(ctx context.Context, p config.Plugin) (*plugin.Inspection, error) {
	if p.Runtime == runtimeProcess {
		return process.Inspect(ctx, processOptions(p, nil, compute.NewCPU(), nil, g.logger()))
	}
	return plugin.Inspect(ctx, pluginOptions(p, nil, compute.NewCPU(), g.logger()))
}

func newPluginInspect(g *globals) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "inspect PLUGIN",
		Short: "Show what a plugin is: digest, imports, parameters, cost of loading it",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			i, err := g.inspect(c.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(g.out, i)
			}
			return printInspection(g.out, i)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func printJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printInspection(out io.Writer, i *plugin.Inspection) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	none := func(list []string) string {
		if len(list) == 0 {
			return "none"
		}
		return strings.Join(list, " ")
	}
	rows := [][2]string{
		{"name", i.Name + " " + i.Version}, {"kind", i.Kind}, {"about", i.Doc}, {"digest", i.Digest}, {"ABI", i.ABI},
		{"features", none(i.Features)},
	}
	if i.ABI == abi.Marker {
		rows = append(rows, [][2]string{
			{"needs", none(i.Needs)}, {"exports", none(i.Exports)}, {"imports", none(i.Imports)},
			{"module", fmt.Sprintf("%d bytes", i.Bytes)}, {"compiles in", fmt.Sprintf("%.0f ms", i.CompileSeconds*1e3)},
			{"an instance", fmt.Sprintf("%.1f ms, %d KiB of linear memory", i.InstanceSeconds*1e3, i.MemoryBytes>>10)},
		}...)
	} else {
		rows = append(rows, [][2]string{
			{"file", fmt.Sprintf("%d bytes", i.Bytes)}, {"starts in", fmt.Sprintf("%.0f ms", i.InstanceSeconds*1e3)},
		}...)
	}
	for _, row := range rows {
		fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
	for _, p := range i.Parameters {
		fmt.Fprintf(w, "parameter\t%s = %v\t%s; %s\n", p.Name, p.Default, p.Want(), p.Doc)
	}
	return w.Flush()
}

func newPluginTest(g *globals) *cobra.Command {
	var asJSON bool
	var junit string
	var minRecall float64
	c := &cobra.Command{
		Use:   "test PLUGIN",
		Short: "Run the conformance suite on a search plugin",
		Long: `Run the conformance suite on a search plugin: valid hits on every shape of call,
tokens found once they were appended, determinism, cancellation, no growth.
Each check runs on a freshly loaded plugin.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			cfg, err := g.load(nil)
			if err != nil {
				return err
			}
			p := cfg.Plugin(args[0])
			p.OnFailure = string(plugin.Fail) // a fallback would hide what is to be found
			suite := conformance.Options{MinRecall: minRecall}
			if p.Runtime == runtimeProcess {
				if suite.Allocator, err = kv.NewSharedAllocator(0); err != nil {
					return err
				}
				defer func() { err = errors.Join(err, suite.Allocator.Close()) }()
			} else {
				suite.Memory = func(s retrieval.Strategy) int64 { return s.(*plugin.Plugin).Stats().MemoryBytes }
			}
			suite.New = func(ctx context.Context) (retrieval.Strategy, error) {
				return loadSearch(ctx, p, nil, compute.NewCPU(), suite.Allocator, g.logger())
			}
			report, err := conformance.Run(c.Context(), suite)
			if err != nil {
				return err
			}
			if junit != "" {
				if err := writeJUnit(junit, report); err != nil {
					return err
				}
			}
			if asJSON {
				err = printJSON(g.out, report)
			} else {
				err = printConformance(g.out, report)
			}
			if err == nil && !report.Passed() {
				err = fmt.Errorf("%w: %d of %d checks failed", errConformance, report.Failed(), len(report.Results))
			}
			return err
		},
	}
	f := c.Flags()
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	f.StringVar(&junit, "junit", "", "also write the results to this file as JUnit XML")
	f.Float64Var(&minRecall, "min-recall", 0.5, "least share of the exact top-k to find on random keys; 1: the plugin is exact")
	return c
}

func writeJUnit(file string, report *conformance.Report) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(report.WriteJUnit(f), f.Close())
}

func printConformance(out io.Writer, report *conformance.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range report.Results {
		mark, text := "ok", c.Doc
		switch {
		case c.Failure != "":
			mark, text = "FAILED", c.Doc+": "+c.Failure
		case c.Skipped != "":
			mark, text = "skipped", c.Skipped
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", mark, c.Name, text)
	}
	return w.Flush()
}

// listed is one line of `ra plugin list`.
type listed struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	From   string `json:"from"` // "built in" or the file
	Digest string `json:"digest,omitempty"`
	Error  string `json:"error,omitempty"`
}

// plugins lists the built-in plugins and those that the configuration
// declares, which replace built-in ones of their name.
func (g *globals) plugins(ctx context.Context, cfg *config.Resolved) []listed {
	names := plugin.Builtins()
	for _, p := range cfg.Plugins {
		if !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	for _, chosen := range []string{cfg.Search.Plugin, cfg.Policy.Plugin} {
		if strings.HasSuffix(chosen, ".wasm") {
			names = append(names, chosen)
		}
	}
	var list []listed
	for _, name := range names {
		p := cfg.Plugin(name)
		l := listed{Name: p.Name, Kind: p.Kind, From: p.Path}
		if p.Path == "" {
			l.From = "built in"
		}
		i, err := g.inspectPlugin(ctx, p)
		if err != nil {
			l.Error = err.Error()
		} else {
			l.Kind, l.Digest = i.Kind, i.Digest
		}
		list = append(list, l)
	}
	return list
}

func newPluginList(g *globals) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "list",
		Short: "List the built-in plugins and those of the configuration",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := g.load(nil)
			if err != nil {
				return err
			}
			list := g.plugins(c.Context(), cfg)
			if asJSON {
				return printJSON(g.out, list)
			}
			w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
			for _, l := range list {
				digest := l.Digest
				if l.Error != "" {
					digest = "error: " + l.Error
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.Name, l.Kind, l.From, digest)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON array")
	return c
}

func newPluginLock(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "lock",
		Short: "Pin the built-in plugins and those of the configuration in ra.lock, beside the configuration",
		Long: `Pin the built-in plugins and those of the configuration by their sha256 in
ra.lock, beside the configuration. While the file is there, a plugin that
differs from its entry or has none is refused.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := g.load(nil)
			if err != nil {
				return err
			}
			lock := config.Lock{Version: config.Version}
			for _, l := range g.plugins(c.Context(), cfg) {
				if l.Error != "" {
					return errors.New(l.Error)
				}
				lock.Plugins = append(lock.Plugins, config.LockedPlugin{Name: l.Name, SHA256: strings.TrimPrefix(l.Digest, "sha256:")})
			}
			if err := lock.Write(cfg.LockFile()); err != nil {
				return err
			}
			fmt.Fprintf(g.out, "%s: %d plugins\n", filepath.Clean(cfg.LockFile()), len(lock.Plugins))
			return nil
		},
	}
}
