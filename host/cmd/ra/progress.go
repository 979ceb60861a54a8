package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// progress shows how far a long piece of work is: a bar on a terminal, else a
// line for every quarter.
type progress struct {
	out   io.Writer
	name  string
	total int
	done  int
	start time.Time
	pool  *mpb.Progress // nil when out is not a terminal
	bar   *mpb.Bar
}

func newProgress(out io.Writer, name string, total int) *progress {
	p := &progress{out: out, name: name, total: total, start: time.Now()}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.pool = mpb.New(mpb.WithOutput(f), mpb.WithWidth(48))
		p.bar = p.pool.AddBar(int64(total),
			mpb.PrependDecorators(decor.Name(name+" ")),
			mpb.AppendDecorators(decor.Percentage(), decor.Name(" "), decor.AverageETA(decor.ET_STYLE_GO)))
	}
	return p
}

// add counts n more units.
func (p *progress) add(n int) {
	before := p.done
	p.done += n
	if p.bar != nil {
		p.bar.IncrBy(n)
		return
	}
	if quarter := 4 * p.done / p.total; quarter > 4*before/p.total {
		fmt.Fprintf(p.out, "%s: %d %%, %.1f s\n", p.name, 25*quarter, time.Since(p.start).Seconds())
	}
}

// close ends the display, also when the work did not finish.
func (p *progress) close() {
	if p.bar != nil {
		p.bar.Abort(false)
		p.pool.Wait()
	}
}
