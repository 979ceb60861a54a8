package bench

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/retrievalattention/ra/host/engine"
)

// WriteText prints the report as tables.
func (rep *KernelReport) WriteText(out io.Writer) error {
	w := &table{}
	fmt.Fprintf(out, "%s\n\n", rep.Machine.line())
	w.row("ceiling", "level", "threads", "median", "±", "unit")
	for _, c := range rep.Ceilings {
		w.row(c.Name, c.Level, c.Threads, figure(c.Median), percent(c.Spread()), c.Unit)
	}
	if err := w.write(out); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w = &table{}
	w.row("kernel", "level", "dtype", "dim", "rows", "queries", "threads", "from", "ns", "per", "±", "GB/s", "GFLOP/s", "share", "of ceiling")
	for _, k := range rep.Kernels {
		queries, share := fmt.Sprint(k.Queries), percent(k.Share.Median)
		if k.Queries == 0 {
			queries = ""
		}
		if k.Bound == "" {
			share = ""
		}
		w.row(k.Name, k.Level, k.DType, k.Dim, k.N, queries, k.Threads, k.Cache, figure(k.NSUnit.Median), k.Unit, percent(k.NSUnit.Spread()),
			nonZero(k.GBps.Median), nonZero(k.GFLOPs.Median), share, k.Bound)
	}
	return w.write(out)
}

// WriteText prints the report as tables.
func (rep *ModelReport) WriteText(out io.Writer) error {
	m := rep.Model
	fmt.Fprintf(out, "%s\n%s: %d layers, hidden %d, %d query heads over %d KV heads of %d, vocabulary %d, %.2f billion parameters in %s%s; keys and values in %s\n",
		rep.Machine.line(), m.Name, m.Layers, m.Hidden, m.Heads, m.KVHeads, m.HeadDim, m.Vocab, float64(m.Parameters)/1e9, m.WeightDType,
		map[bool]string{true: " (random)"}[m.RandomWeights], rep.KVDType)
	if m.Scaled() {
		fmt.Fprintf(out, "SCALED: %d of %d layers were measured; times are scaled to all layers\n", m.LayersMeasured, m.Layers)
	}
	if s := rep.Search; s != nil {
		fmt.Fprintf(out, "retrieval: %s (%s), top-%d; placement: %s (%s)\n", s, s.Runtime, rep.TopK, rep.Policy, rep.Policy.Runtime)
	}
	if len(rep.Decode) > 0 {
		w := &table{}
		fmt.Fprintf(out, "memory read: %s GB/s ±%s, %d threads\n\ndecode step, ms\n", figure(rep.Memory.Median), percent(rep.Memory.Spread()), rep.Memory.Threads)
		w.row("context", "attention", "step", "±", "tokens/s", "projections", "attention", "logits", "other", "static", "search", "retrieved", "static tokens", "keys scored", "GB read", "floor", "x floor")
		ms := func(s Sample) string { return figure(s.Median * 1e3) }
		for _, d := range rep.Decode {
			search, retrieved, scored, floor, ratio := "", "", "", "", ""
			if d.Attention == engine.Retrieval {
				search, retrieved, scored = ms(d.Search), ms(d.Retrieved), percent(d.KeysScoredShare)
			}
			if d.FloorSeconds > 0 {
				floor, ratio = figure(d.FloorSeconds*1e3), fmt.Sprintf("%.2f", d.FloorRatio)
			}
			w.row(d.Context, d.Attention, ms(d.Step), percent(d.Step.Spread()), figure(d.TokensPerSecond), ms(d.Projections), ms(d.Attend), ms(d.Logits), ms(d.Other),
				ms(d.Static), search, retrieved, fmt.Sprintf("%.0f", d.StaticTokens), scored, figure(float64(d.Bytes)/1e9), floor, ratio)
		}
		if err := w.write(out); err != nil {
			return err
		}
	}
	if len(rep.Prefill) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\nprefill\n")
	w := &table{}
	w.row("prompt", "s", "±", "tokens/s", "GFLOP/s", "index s")
	for _, p := range rep.Prefill {
		w.row(p.Prompt, figure(p.Seconds.Median), percent(p.Seconds.Spread()), figure(p.TokensPerSecond), figure(p.GFLOPs), figure(p.IndexSeconds))
	}
	return w.write(out)
}

// WriteText prints the report as a table.
func (rep *SearchReport) WriteText(out io.Writer) error {
	s := rep.Set
	fmt.Fprintf(out, "%s\n%s: %d keys of %d a KV head in %s (%s MiB in all), %d KV heads, %d query heads each; %d steps, %d times; %d tokens appended\n\n",
		rep.Machine.line(), s.Source, s.Keys, s.Dim, s.DType, figure(float64(s.KeyBytes)/(1<<20)), s.KVHeads, s.Group, s.Steps, rep.Repeats, s.Appended)
	w := &table{}
	w.row("search", "runtime", fmt.Sprintf("recall@%d", rep.TopK), "keys scored", "call ms", "±", "p95", "p99", "query µs", "x flat", "build s", "append µs/token", "index MiB", "plugin MiB")
	for _, r := range rep.Searches {
		ms := func(s float64) string { return figure(s * 1e3) }
		mib := func(n int64) string { return nonZero(float64(n) / (1 << 20)) }
		scored := ""
		if r.KeysScoredShare > 0 {
			scored = fmt.Sprintf("%.1f %%", 100*r.KeysScoredShare)
		}
		w.row(r.Name, r.Search.Runtime, fmt.Sprintf("%.3f", r.Recall), scored,
			ms(r.Call.Median), percent(r.Call.Spread()), ms(r.Call.P95), ms(r.Call.P99), figure(r.Query.Median*1e6), fmt.Sprintf("%.2f", r.Ratio.Median),
			figure(r.BuildSeconds), figure(r.AppendSeconds*1e6), mib(r.IndexBytes), mib(r.MemoryBytes))
	}
	return w.write(out)
}

// line says in one line where the figures are from.
func (m Machine) line() string {
	cpu := m.CPU
	if cpu == "" {
		cpu = "unnamed CPU"
	}
	return fmt.Sprintf("%s, %s/%s, %d threads, kernels %s, %s, ra %s", cpu, m.OS, m.Arch, m.Threads, m.Level, m.Go, m.Version)
}

// table is rows of cells of which the first is the header. Columns of text
// are aligned left, columns of figures right.
type table struct{ rows [][]string }

func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, texts)
}

func (t *table) write(out io.Writer) error {
	widths, figures := make([]int, len(t.rows[0])), make([]bool, len(t.rows[0]))
	for i, r := range t.rows {
		for j, c := range r {
			widths[j] = max(widths[j], utf8.RuneCountInString(c))
			figures[j] = figures[j] || i > 0 && c != "" && c[0] >= '0' && c[0] <= '9'
		}
	}
	for _, r := range t.rows {
		var line strings.Builder
		for j, c := range r {
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(c))
			if figures[j] {
				c = pad + c
			} else {
				c += pad
			}
			line.WriteString(c + "  ")
		}
		if _, err := fmt.Fprintln(out, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// figure prints three significant digits without an exponent.
func figure(v float64) string {
	switch {
	case v >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995:
		return fmt.Sprintf("%.1f", v)
	case v >= 0.0995:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func nonZero(v float64) string {
	if v == 0 {
		return ""
	}
	return figure(v)
}

func percent(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }
