// Command ra answers questions about long documents with RetrievalAttention.
//
// Results go to stdout, everything else to stderr. See exit.go for the exit
// codes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/retrievalattention/ra/host/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], terminal{os.Stdin, os.Stdout, os.Stderr, os.Environ()})
	stop()
	os.Exit(code)
}

// terminal is what a command reads and writes.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, t terminal) int {
	root := newRoot(t)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if code == exitInterrupted {
		fmt.Fprintln(t.err, "ra: interrupted")
	} else {
		fmt.Fprintf(t.err, "ra: %v\n", err)
	}
	if errors.Is(err, errUsage) {
		fmt.Fprintln(t.err, "Run 'ra help' for usage.")
	}
	return code
}

func newRoot(t terminal) *cobra.Command {
	g := &globals{terminal: t}
	root := &cobra.Command{
		Use:           "ra",
		Short:         "Answer questions about long documents by retrieval attention",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	root.PersistentFlags().StringVar(&g.file, "config", "", "configuration file (default: "+config.FileName+" in the working directory, if it is there; or $RA_CONFIG)")
	root.PersistentFlags().BoolVarP(&g.verbose, "verbose", "v", false, "log more")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	for _, add := range []func(*globals) *cobra.Command{newGenerate, newPlugin, newBench, newConfig, newDoctor} {
		c := add(g)
		root.AddCommand(c)
	}
	usageErrors(root)
	return root
}

// usageErrors marks complaints about positional arguments as usage errors.
func usageErrors(c *cobra.Command) {
	check := c.Args
	c.Args = func(c *cobra.Command, args []string) error {
		if check == nil {
			return nil
		}
		if err := check(c, args); err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		return nil
	}
	for _, sub := range c.Commands() {
		usageErrors(sub)
	}
}

// globals are the flags of every command.
type globals struct {
	terminal
	file    string
	verbose bool
}

// load resolves the configuration; flags maps key paths to values.
func (g *globals) load(flags map[string]string) (*config.Resolved, error) {
	file := g.file
	for _, e := range g.environ {
		if v, ok := strings.CutPrefix(e, config.FileEnv+"="); ok && file == "" {
			file = v
		}
	}
	r, err := config.Load(config.Source{File: file, Environ: g.environ, Flags: flags})
	if err != nil {
		return nil, err
	}
	for _, note := range r.Ignored {
		g.logger().Warn(note)
	}
	return r, nil
}

// logger writes to stderr.
func (g *globals) logger() *slog.Logger {
	level := slog.LevelInfo
	if g.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(g.err, &slog.HandlerOptions{Level: level}))
}
