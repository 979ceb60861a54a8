package bench

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/retrievalattention/ra/host/engine"
)

// PlotFormats lists the endings of files that a plot can be written to.
func PlotFormats() []string { return []string{".png", ".svg"} }

// CheckPlot refuses a file whose ending names no known format or whose
// folder is not there.
func CheckPlot(file string) error {
	if ext := strings.ToLower(filepath.Ext(file)); !slices.Contains(PlotFormats(), ext) {
		return badOption("cannot plot to %s: its ending must be %s", file, strings.Join(PlotFormats(), " or "))
	}
	if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
		return badOption("cannot plot to %s: there is no folder %s; make it first", file, filepath.Dir(file))
	}
	return nil
}

// The colours of Okabe and Ito, which colour-blind readers can tell apart.
var (
	blue   = color.RGBA{0, 114, 178, 255}
	orange = color.RGBA{213, 94, 0, 255}
	green  = color.RGBA{0, 158, 115, 255}
	yellow = color.RGBA{230, 159, 0, 255}
	sky    = color.RGBA{86, 180, 233, 255}
	pink   = color.RGBA{204, 121, 167, 255}
	grey   = color.RGBA{120, 120, 120, 255}
	pale   = color.RGBA{225, 225, 225, 255}
)

// panel is a plot in the style of all of them.
func panel(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text = title
	for _, s := range []*text.Style{
		&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle,
		&p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle,
	} {
		s.Font.Variant, s.Font.Size = "Sans", 9
	}
	p.Title.TextStyle.Font.Size = 11
	p.Title.Padding = 8
	p.X.Tick.Marker, p.Y.Tick.Marker = plainTicks{}, plainTicks{}
	p.Legend.Padding = 2
	p.Legend.YPosition = draw.PosCenter
	return p
}

// plainTicks are the usual ticks, labelled without superfluous zeros.
type plainTicks struct{}

// Ticks implements plot.Ticker.
func (plainTicks) Ticks(low, high float64) []plot.Tick {
	ts := plot.DefaultTicks{}.Ticks(low, high)
	for i := range ts {
		if ts[i].Label != "" {
			ts[i].Label = fmt.Sprint(ts[i].Value)
		}
	}
	return ts
}

// grid draws pale lines at the ticks of the axes asked for.
func grid(p *plot.Plot, vertical, horizontal bool) {
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = pale, pale
	g.Vertical.Dashes, g.Horizontal.Dashes = nil, nil
	if !vertical {
		g.Vertical.Color = nil
	}
	if !horizontal {
		g.Horizontal.Color = nil
	}
	p.Add(g)
}

// writePlot draws panels side by side under a line of text.
func writePlot(file, line string, width, height vg.Length, panels ...*plot.Plot) (err error) {
	const margin = 10
	var canvas vg.CanvasWriterTo
	if strings.ToLower(filepath.Ext(file)) == ".svg" {
		canvas = vgsvg.New(width, height)
	} else {
		canvas = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(144))}
	}
	dc := draw.New(canvas.(vg.CanvasSizer))
	dc.SetColor(color.White)
	dc.Fill(dc.Rectangle.Path())
	style := panels[0].Title.TextStyle
	style.Font.Size, style.Color = 8, grey
	style.XAlign, style.YAlign = draw.XLeft, draw.YBottom
	dc.FillText(style, vg.Point{X: margin, Y: margin / 2}, line)
	tiles := draw.Tiles{Rows: 1, Cols: len(panels), PadTop: margin, PadBottom: 2 * margin, PadLeft: margin, PadRight: margin, PadX: 2 * margin}
	for i, c := range plot.Align([][]*plot.Plot{panels}, tiles, dc)[0] {
		panels[i].Draw(c)
	}
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	_, err = canvas.(io.WriterTo).WriteTo(f)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	return nil
}

// WritePlot draws what share of its ceiling every kernel reaches, a panel for
// each number of threads.
func (rep *KernelReport) WritePlot(file string) error {
	var threads []int
	for _, k := range rep.Kernels {
		if k.Bound != "" && !slices.Contains(threads, k.Threads) {
			threads = append(threads, k.Threads)
		}
	}
	if len(threads) == 0 {
		return badOption("none of these kernels has a ceiling to plot against")
	}
	var panels []*plot.Plot
	rows := 0
	for _, t := range threads {
		var ks []KernelResult
		for _, k := range rep.Kernels {
			if k.Threads == t && k.Bound != "" {
				ks = append(ks, k)
			}
		}
		rows = max(rows, len(ks))
		p, err := rep.shares(ks, t)
		if err != nil {
			return err
		}
		panels = append(panels, p)
	}
	return writePlot(file, rep.Machine.line(), vg.Length(len(panels))*460, vg.Length(rows)*15+110, panels...)
}

// shares is one panel of horizontal bars, the first kernel on top.
func (rep *KernelReport) shares(ks []KernelResult, threads int) (*plot.Plot, error) {
	slices.Reverse(ks)
	p := panel(fmt.Sprintf("Share of the ceiling, %s", count(threads, "thread")))
	p.X.Label.Text = "% of the ceiling that binds"
	grid(p, true, false)
	levels := len(rep.Ceilings) > 0 && slices.ContainsFunc(rep.Ceilings, func(c Ceiling) bool { return c.Level != rep.Ceilings[0].Level })
	var names []string
	labels := plotter.XYLabels{}
	for _, bound := range []string{memoryRead, f32Arithmetic} {
		values := make(plotter.Values, len(ks))
		for i, k := range ks {
			if k.Bound == bound {
				values[i] = 100 * k.Share.Median
			}
		}
		bars, err := plotter.NewBarChart(values, 10)
		if err != nil {
			return nil, err
		}
		bars.Horizontal, bars.LineStyle.Width, bars.Color = true, 0, blue
		if bound == f32Arithmetic {
			bars.Color = orange
		}
		p.Add(bars)
		p.Legend.Add(fmt.Sprintf("%s: %s %s", bound, figure(rep.ceiling(bound, threads, "")), map[string]string{memoryRead: "GB/s", f32Arithmetic: "GFLOP/s"}[bound]), bars)
	}
	for i, k := range ks {
		name := fmt.Sprintf("%s %s x %d", k.Name, k.DType, k.Dim)
		if k.Queries > 1 {
			name += fmt.Sprintf(", %d queries", k.Queries)
		}
		if k.Name == "matmul" {
			name = fmt.Sprintf("%s %d x %d x %d %s", k.Name, k.Queries, k.Dim, k.N, k.DType)
		}
		if k.Cache == "cache" {
			name += ", in cache"
		}
		if levels {
			name += ", " + k.Level
		}
		names = append(names, name)
		labels.XYs = append(labels.XYs, plotter.XY{X: 100*k.Share.Median + 1, Y: float64(i)})
		amount := figure(k.GBps.Median) + " GB/s"
		if k.Bound == f32Arithmetic {
			amount = figure(k.GFLOPs.Median) + " GFLOP/s"
		}
		labels.Labels = append(labels.Labels, amount)
	}
	if err := addLabels(p, labels, draw.XLeft, draw.YCenter); err != nil {
		return nil, err
	}
	p.NominalY(names...)
	p.Y.Tick.Label.Font.Size = 8
	p.X.Min, p.X.Max = 0, max(125, p.X.Max+25) // room for the amounts
	p.X.Tick.Marker = plot.ConstantTicks(ticks(0, 20, 40, 60, 80, 100))
	p.Y.Min, p.Y.Max = -0.6, float64(len(ks))+1.6 // room for the legend
	p.Legend.Top = true
	return p, nil
}

func addLabels(p *plot.Plot, labels plotter.XYLabels, x text.XAlignment, y text.YAlignment) error {
	l, err := plotter.NewLabels(labels)
	if err != nil {
		return err
	}
	for i := range l.TextStyle {
		l.TextStyle[i].Font.Variant, l.TextStyle[i].Font.Size = "Sans", 7
		l.TextStyle[i].XAlign, l.TextStyle[i].YAlign = x, y
	}
	p.Add(l)
	return nil
}

func ticks(at ...float64) []plot.Tick {
	var ts []plot.Tick
	for _, v := range at {
		ts = append(ts, plot.Tick{Value: v, Label: fmt.Sprint(v)})
	}
	return ts
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

var modeColors = map[engine.Mode]color.Color{engine.Full: blue, engine.Retrieval: orange, engine.StaticSet: green}

// WritePlot draws the decode step against the context length where several
// were measured, what it consists of at the longest, and the prefill where
// several prompts were measured or nothing else.
func (rep *ModelReport) WritePlot(file string) error {
	var panels []*plot.Plot
	add := func(p *plot.Plot, err error) error {
		panels = append(panels, p)
		return err
	}
	if len(rep.Decode) > len(rep.modes()) {
		if err := add(rep.stepsPanel()); err != nil {
			return err
		}
	}
	if len(rep.Decode) > 0 {
		if err := add(rep.partsPanel()); err != nil {
			return err
		}
	}
	if len(rep.Prefill) > 1 || len(rep.Decode) == 0 {
		if err := add(rep.prefillPanel()); err != nil {
			return err
		}
	}
	line := rep.Model.Name
	if rep.Model.Scaled() {
		line += fmt.Sprintf(" (SCALED from %d of %d layers)", rep.Model.LayersMeasured, rep.Model.Layers)
	}
	return writePlot(file, line+", "+rep.Machine.line(), vg.Length(len(panels))*340, 330, panels...)
}

// modes lists the modes measured, in order.
func (rep *ModelReport) modes() []engine.Mode {
	var modes []engine.Mode
	for _, d := range rep.Decode {
		if !slices.Contains(modes, d.Attention) {
			modes = append(modes, d.Attention)
		}
	}
	return modes
}

func (rep *ModelReport) stepsPanel() (*plot.Plot, error) {
	p := panel("Decode step")
	p.X.Label.Text, p.Y.Label.Text = "tokens in context", "ms"
	grid(p, true, true)
	var floors []plot.Plotter
	for _, mode := range rep.modes() {
		var line, floor series
		for _, d := range rep.Decode {
			if d.Attention != mode {
				continue
			}
			line.add(float64(d.Context), d.Step.Scale(1e3))
			if d.FloorSeconds > 0 {
				floor.add(float64(d.Context), Sample{Median: d.FloorSeconds * 1e3})
			}
		}
		l, pts, err := plotter.NewLinePoints(line.XYs)
		if err != nil {
			return nil, err
		}
		l.Color, l.Width = modeColors[mode], 1.5
		pts.Color, pts.Shape = modeColors[mode], draw.CircleGlyph{}
		bars, err := plotter.NewYErrorBars(&line)
		if err != nil {
			return nil, err
		}
		bars.Color = modeColors[mode]
		p.Add(l, pts, bars)
		p.Legend.Add(string(mode), l, pts)
		if len(floor.XYs) == 0 {
			continue
		}
		f, err := plotter.NewLine(floor.XYs)
		if err != nil {
			return nil, err
		}
		f.Color, f.Dashes = modeColors[mode], []vg.Length{3, 3}
		floors = append(floors, f)
	}
	if len(floors) > 0 {
		p.Add(floors...)
		p.Legend.Add("the time that its bytes need", dashes{})
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.XOffs = 4
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.35 // room for the legend
	var at []float64
	for _, d := range rep.Decode {
		at = append(at, float64(d.Context))
	}
	lengthAxis(p, at)
	return p, nil
}

var dashed = draw.LineStyle{Color: color.Black, Width: 1, Dashes: []vg.Length{3, 3}}

// dashes is the thumbnail of all dashed lines.
type dashes struct{}

func (dashes) Thumbnail(c *draw.Canvas) {
	y := c.Center().Y
	c.StrokeLine2(dashed, c.Min.X, y, c.Max.X, y)
}

// rung is a mark across a bar and a little beyond.
type rung struct{}

func (rung) DrawGlyph(c *draw.Canvas, _ draw.GlyphStyle, at vg.Point) {
	c.StrokeLine2(dashed, at.X-barWidth*0.6, at.Y, at.X+barWidth*0.6, at.Y)
}

// barWidth is that of the bars of parts.
const barWidth = 42

// lengthAxis makes x a logarithmic axis of token counts with ticks at the
// measured ones.
func lengthAxis(p *plot.Plot, at []float64) {
	slices.Sort(at)
	at = slices.Compact(at)
	var ts []plot.Tick
	for _, v := range at {
		label := fmt.Sprint(v)
		if v >= 1024 && math.Mod(v, 1024) == 0 {
			label = fmt.Sprintf("%gK", v/1024)
		}
		ts = append(ts, plot.Tick{Value: v, Label: label})
	}
	p.X.Tick.Marker = plot.ConstantTicks(ts)
	p.X.Scale = plot.LogScale{}
	p.X.Min, p.X.Max = slices.Min(at)/1.3, slices.Max(at)*1.3
}

// series are points with quartiles.
type series struct {
	plotter.XYs
	plotter.YErrors
}

func (s *series) add(x float64, y Sample) {
	s.XYs = append(s.XYs, plotter.XY{X: x, Y: y.Median})
	s.YErrors = append(s.YErrors, struct{ Low, High float64 }{y.Median - y.Q1, y.Q3 - y.Median})
}

// partsPanel stacks the parts of a step at the longest context.
func (rep *ModelReport) partsPanel() (*plot.Plot, error) {
	longest := 0
	for _, d := range rep.Decode {
		longest = max(longest, d.Context)
	}
	p := panel(fmt.Sprintf("Parts of a step at %d tokens", longest))
	p.Y.Label.Text = "ms"
	grid(p, false, true)
	var names []string
	var ds []DecodeResult
	for _, d := range rep.Decode {
		if d.Context == longest {
			ds, names = append(ds, d), append(names, string(d.Attention))
		}
	}
	var below *plotter.BarChart
	for _, part := range []struct {
		name  string
		color color.Color
		of    func(d *DecodeResult) float64
	}{
		{"linear layers", sky, func(d *DecodeResult) float64 { return d.Projections.Median }},
		{"attention and search", yellow, func(d *DecodeResult) float64 { return d.Attend.Median }},
		{"logits", pink, func(d *DecodeResult) float64 { return d.Logits.Median }},
		{"other", grey, func(d *DecodeResult) float64 { return d.Other.Median }},
	} {
		values := make(plotter.Values, len(ds))
		for i := range ds {
			values[i] = 1e3 * part.of(&ds[i])
		}
		bars, err := plotter.NewBarChart(values, barWidth)
		if err != nil {
			return nil, err
		}
		bars.LineStyle.Width, bars.Color = 0, part.color
		if below != nil {
			bars.StackOn(below)
		}
		below = bars
		p.Add(bars)
		p.Legend.Add(part.name, bars)
	}
	labels, floors := plotter.XYLabels{}, plotter.XYs{}
	for i := range ds {
		if ds[i].FloorSeconds > 0 {
			floors = append(floors, plotter.XY{X: float64(i), Y: 1e3 * ds[i].FloorSeconds})
		}
		labels.XYs = append(labels.XYs, plotter.XY{X: float64(i), Y: below.BarHeight(i)})
		labels.Labels = append(labels.Labels, figure(1e3*ds[i].Step.Median)+" ms")
	}
	if err := addLabels(p, labels, draw.XCenter, draw.YBottom); err != nil {
		return nil, err
	}
	if len(floors) > 0 {
		marks, err := plotter.NewScatter(floors)
		if err != nil {
			return nil, err
		}
		marks.Shape = rung{}
		p.Add(marks)
		p.Legend.Add("the time that its bytes need", dashes{})
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.6, float64(len(ds))-0.4
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.45 // room for the legend
	p.Legend.Top = true
	return p, nil
}

func (rep *ModelReport) prefillPanel() (*plot.Plot, error) {
	p := panel("Prefill")
	p.X.Label.Text, p.Y.Label.Text = "tokens in prompt", "tokens/s"
	grid(p, true, true)
	var s series
	var at []float64
	for _, r := range rep.Prefill {
		s.add(float64(r.Prompt), r.Seconds.invert(float64(r.Prompt)))
		at = append(at, float64(r.Prompt))
	}
	l, pts, err := plotter.NewLinePoints(s.XYs)
	if err != nil {
		return nil, err
	}
	l.Color, l.Width, pts.Color, pts.Shape = blue, 1.5, blue, draw.CircleGlyph{}
	bars, err := plotter.NewYErrorBars(&s)
	if err != nil {
		return nil, err
	}
	bars.Color = blue
	p.Add(l, pts, bars)
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.1
	lengthAxis(p, at)
	return p, nil
}
