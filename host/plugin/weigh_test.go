package plugin

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

// compileGuest builds a Go guest of testdata.
func compileGuest(t *testing.T, name string) []byte {
	t.Helper()
	if testing.Short() {
		t.Skip("compiles a plugin")
	}
	file := filepath.Join(t.TempDir(), name+".wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "./testdata/"+name)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	module, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return module
}

// TestSamplerGuest: what a guest sees of the prefill's queries, of keys as
// queries and of its hits' logits is what the host has, and its summaries and
// biases reach the result.
func TestSamplerGuest(t *testing.T) {
	var log bytes.Buffer
	p := load(t, Options{Bytes: compileGuest(t, "samplerguest"), Instances: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if !p.UsesPrefillQueries() {
		t.Error("the need for the prefill's queries is lost")
	}
	view := newView(t, small, 1)
	const tokens, layer = 11, 1
	heads := small.kvHeads * small.group
	queries := newCall(geometry{layers: 2, kvHeads: small.kvHeads, group: small.group, dim: small.dim, callTokens: tokens}, 4, view).Queries
	if err := p.Build(t.Context(), &retrieval.Build{View: view, Layer: layer, Heads: heads, Queries: queries}); err != nil {
		t.Fatal(err)
	}
	c := compute.NewCPU()
	for head := range small.kvHeads {
		prefill := func(token, g int) []float32 {
			return queries[(token*heads+head*small.group+g)*small.dim:][:small.dim]
		}
		want := []string{"build", fmt.Sprint(head), fmt.Sprint(tokens), fmt.Sprint(small.group), fmt.Sprint(small.dim)}
		for _, q := range [][][]float32{
			{prefill(1, 0), prefill(1, 1)}, {prefill(tokens-1, 0), prefill(tokens-1, 1)},
			{widened(view, layer, head, 20), widened(view, layer, head, 21)},
		} {
			out := [][]float32{make([]float32, 3), make([]float32, 3)}
			c.Score(view.Context(), layer, head, q, []uint32{9, 10, 30}, out)
			for _, v := range slices.Concat(out...) {
				want = append(want, fmt.Sprintf("%x", math.Float32bits(v)))
			}
		}
		if line := strings.Join(want, " "); !strings.Contains(log.String(), line) {
			t.Errorf("the log lacks %s:\n%s", line, log.String())
		}
	}

	call := newCall(small, 1, view)
	var res retrieval.Result
	for range 2 { // the second search reuses everything
		if err := p.Search(t.Context(), call, &res); err != nil {
			t.Fatal(err)
		}
		for i, hits := range res.Hits {
			if i%small.group == 0 {
				if !slices.Equal(hits.IDs, []uint32{9, 8}) || len(hits.Bias) != 2 || hits.Summaries.Len() != 0 {
					t.Fatalf("query %d: %+v", i, hits)
				}
				for j, id := range hits.IDs {
					key := widened(view, layer, call.KVHead(i), int(id))
					want := -kernel.Dot(call.Query(i), key) / 2 / float32(math.Sqrt(float64(small.dim)))
					if math.Abs(float64(hits.Bias[j]-want)) > 1e-5 {
						t.Errorf("query %d, token %d: bias %v, want %v", i, id, hits.Bias[j], want)
					}
				}
				continue
			}
			s := hits.Summaries
			if len(hits.IDs) != 0 || !slices.Equal(s.Logits, []float32{1, -2}) || !slices.Equal(s.LogMults, []float32{0.5, 3}) || len(s.Values) != 2*small.dim || s.Values[small.dim+1] != float32(small.dim+1) {
				t.Fatalf("query %d: %+v", i, hits)
			}
		}
	}
	testBlobs(t, p, view, &log)
}

// testBlobs: what a guest keeps follows forks, which do not see each other's.
func testBlobs(t *testing.T, p *Plugin, view *kv.View, log *bytes.Buffer) {
	const layer = 1
	var forks [2]*kv.View
	for i := range forks {
		c := view.Context().Fork()
		forks[i] = view.Fork(c)
		defer c.Close()
		defer forks[i].Close()
	}
	if err := p.Append(t.Context(), forks[0], layer, kv.Range{Lo: 150, Hi: 160}); err != nil {
		t.Fatal(err)
	}
	if err := view.Close(); err != nil { // the forks keep theirs
		t.Fatal(err)
	}
	for i, want := range []string{"kept: built 1 appended 150 160\"", "kept: built 1\""} {
		log.Reset()
		var res retrieval.Result
		if err := p.Search(t.Context(), newCall(small, 1, forks[i]), &res); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(log.String(), want) {
			t.Errorf("fork %d: the log lacks %s:\n%s", i, want, log.String())
		}
	}
	for _, f := range forks {
		if f.AttachmentBytes() == 0 || f.Close() != nil {
			t.Error("a fork has no objects to close")
		}
	}
	if used := p.opts.Memory.Used(); used != 0 {
		t.Errorf("%d bytes of objects are left", used)
	}
}

// widened returns a stored key as f32.
func widened(view *kv.View, layer, head, pos int) []float32 {
	out := make([]float32, view.Context().Geometry().HeadDim)
	for s := range view.Context().Segments(layer, head, pos, pos+1) {
		s.Keys.Widen(0, out)
	}
	return out
}
