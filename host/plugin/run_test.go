package plugin

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	asm "github.com/retrievalattention/ra/host/plugin/internal/wasmasm"
	"github.com/retrievalattention/ra/host/retrieval"
)

// TestBuiltinsAreReproducible builds the plugins again and compares bytes.
// With another Go version than the pinned one that would need a download.
func TestBuiltinsAreReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the plugins")
	}
	pinned, err := os.ReadFile("../../plugins/go-version")
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimSpace(string(pinned)); runtime.Version() != want {
		t.Skipf("this is %s; the committed plugins are built with %s", runtime.Version(), want)
	}
	dir := t.TempDir()
	if out, err := exec.Command("../../plugins/build.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range Builtins() {
		committed, err := builtin(name)
		if err != nil {
			t.Fatal(err)
		}
		built, err := os.ReadFile(filepath.Join(dir, name+".wasm"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(committed, built) {
			t.Errorf("%s.wasm is not what its source makes (%s, committed %s); run plugins/build.sh", name, Digest(built), Digest(committed))
		}
	}
}

// TestSoak: the memory of a Go guest must not grow with the number of calls.
// RA_LONG=1 makes a million of them.
func TestSoak(t *testing.T) {
	n := 20_000
	switch {
	case testing.Short():
		n = 500
	case os.Getenv("RA_LONG") != "":
		n = 1_000_000
	}
	g := small
	g.topK = 100
	p := load(t, Options{Name: "flat", Instances: 1})
	call := newCall(g, 1, newView(t, g, 1))
	var res retrieval.Result
	search := func(n int) {
		for range n {
			if err := p.Search(t.Context(), call, &res); err != nil {
				t.Fatal(err)
			}
		}
	}
	search(2048) // warm: two garbage collections
	warm := p.Stats().MemoryBytes
	search(n)
	if now := p.Stats().MemoryBytes; now > warm {
		t.Fatalf("the guest's memory grew from %d to %d bytes in %d calls", warm, now, n)
	} else {
		t.Logf("%d bytes after %d calls", now, n)
	}
}

func TestSearchAllocations(t *testing.T) {
	g := newGuest()
	p := load(t, Options{Bytes: g.module(), Instances: 2})
	call := newCall(small, 1, newView(t, small, 1))
	var res retrieval.Result
	n := testing.AllocsPerRun(100, func() {
		if err := p.Search(t.Context(), call, &res); err != nil {
			t.Fatal(err)
		}
	})
	if n > 16 {
		t.Errorf("%v allocations a search", n)
	}
}

// TestConcurrentSearches: more callers than instances, one of them trapping,
// all answered.
func TestConcurrentSearches(t *testing.T) {
	p := load(t, Options{Name: "flat", Instances: 3})
	exact := retrieval.NewFlat(compute.NewCPU())
	geo := geometry{layers: 1, kvHeads: 3, group: 2, dim: 32, dtype: kernel.BF16, tokens: []int{500}, sink: 5, window: 5, topK: 10}
	view := newView(t, geo, 1)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var got, want retrieval.Result
			for j := range 10 {
				call := newCall(geo, uint64(100*i+j), view)
				if err := p.Search(t.Context(), call, &got); err != nil {
					t.Error(err)
					return
				}
				if err := exact.Search(t.Context(), call, &want); err != nil {
					t.Error(err)
					return
				}
				for q := range want.Hits {
					if !slices.Equal(got.Hits[q].IDs, want.Hits[q].IDs) {
						t.Errorf("query %d: got %v, want %v", q, got.Hits[q].IDs, want.Hits[q].IDs)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if s := p.Stats(); s.Instances < 1 || s.Instances > 3 || s.Searches != 80 || s.MemoryBytes == 0 {
		t.Fatalf("counted %+v", s)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Instances != 0 || s.MemoryBytes != 0 {
		t.Fatalf("after Close: %+v", s)
	}
	var res retrieval.Result
	if err := p.Search(t.Context(), newCall(geo, 1, view), &res); err == nil || !strings.HasSuffix(err.Error(), "plugin closed") {
		t.Fatalf("a closed plugin answered: %v", err)
	}
}

func TestCache(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	module := newGuest().module()
	dir := t.TempDir()
	entries := func() (n int) {
		filepath.WalkDir(dir, func(_ string, d os.DirEntry, _ error) error {
			if !d.IsDir() {
				n++
			}
			return nil
		})
		return n
	}
	load(t, Options{Bytes: module, CacheDir: dir, Logger: logger})
	first := entries()
	if first == 0 {
		t.Fatal("nothing was cached")
	}
	load(t, Options{Bytes: module, CacheDir: dir, Logger: logger})
	if n := entries(); n != first {
		t.Fatalf("%d entries after the second load, %d after the first", n, first)
	}
	if log.Len() > 0 {
		t.Fatalf("unexpected log: %s", log.String())
	}

	// A damaged entry is not used.
	filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
		if !d.IsDir() {
			if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return nil
	})
	load(t, Options{Bytes: module, CacheDir: dir, Logger: logger})
	log.Reset()

	// A directory that cannot be made is warned of.
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	load(t, Options{Bytes: module, CacheDir: filepath.Join(file, "below"), Logger: logger})
	if !strings.Contains(log.String(), "compiled modules are not cached") {
		t.Fatalf("got %q", log.String())
	}
	log.Reset()
	load(t, Options{Bytes: module, CacheDir: "off", Logger: logger})
	if log.Len() > 0 {
		t.Fatalf("unexpected log: %s", log.String())
	}
}

func TestLoadFromPath(t *testing.T) {
	module := newGuest().module()
	path := filepath.Join(t.TempDir(), "p.wasm")
	if err := os.WriteFile(path, module, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, sum := range []string{"", Digest(module), strings.ToUpper(strings.TrimPrefix(Digest(module), digestPrefix))} {
		if p := load(t, Options{Path: path, SHA256: sum}); p.Info().String() != "hostile@"+Digest(module)[:19] {
			t.Errorf("got %s", p.Info())
		}
	}
	_, err := tryLoad(t, Options{Path: path, SHA256: strings.Repeat("ab", 32)})
	want := fmt.Sprintf("plugin %s: load: digest mismatch: the file is %s, pinned is sha256:%s", path, Digest(module), strings.Repeat("ab", 32))
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err := tryLoad(t, Options{Path: path + "x"}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

// TestDeterminism: the clock and random numbers of a call are the same in a
// fresh instance and a used one, and differ with the seed.
func TestDeterminism(t *testing.T) {
	i32 := asm.I32
	// The ids of the answer are random numbers: 8 + byte%64, one a query.
	module := func() []byte {
		g := newGuest("emit").importing(wasiModule, "random_get", []byte{i32, i32}, []byte{i32})
		code := append(g.call("random_get", atOut, 16), drop...)
		for q := range int32(4) {
			code = append(code, asm.Cat(asm.I32Const(atIDs), asm.I32Const(atOut+q), []byte{0x2d, 0, 0}, // load8_u
				asm.I32Const(63), []byte{0x71}, asm.I32Const(8), []byte{0x6a}, []byte{0x36, 2, 0})...) // &63, +8, store
			code = append(code, g.call("emit", q, atIDs, 0, 1)...)
		}
		return g.search(code).module()
	}()
	call := newCall(small, 1, newView(t, small, 1))
	answer := func(seed uint64, times int) (ids []uint32) {
		p := load(t, Options{Bytes: module, Instances: 1, Seed: seed})
		var res retrieval.Result
		for range times {
			if err := p.Search(t.Context(), call, &res); err != nil {
				t.Fatal(err)
			}
		}
		for _, h := range res.Hits {
			ids = append(ids, h.IDs...)
		}
		return ids
	}
	first := answer(1, 1)
	if again := answer(1, 5); !slices.Equal(first, again) {
		t.Errorf("the fifth call gave %v, the first of another instance %v", again, first)
	}
	if other := answer(2, 1); slices.Equal(first, other) {
		t.Errorf("another seed gave the same %v", other)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"probes", "top_k", "beam_width"}
	for in, want := range map[string]string{"probe": "probes", "topk": "top_k", "beamwidth": "beam_width", "seed": "", "": ""} {
		if got := nearest(in, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestWorthSaying(t *testing.T) {
	var said []int64
	for n := range int64(2001) {
		if n > 0 && worthSaying(n) {
			said = append(said, n)
		}
	}
	if !slices.Equal(said, []int64{1, 10, 100, 1000}) {
		t.Errorf("got %v", said)
	}
}
