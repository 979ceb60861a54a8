package process

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	ra "github.com/retrievalattention/ra/sdk/go"
	sdk "github.com/retrievalattention/ra/sdk/process"
)

// runAs makes this process what the mode says.
func runAs(mode string) {
	switch name, arg, _ := strings.Cut(mode, ":"); name {
	case "flat":
		sdk.Serve(describe("flat", "keys"), flat{})
	case "scan":
		sdk.Serve(describe("scan", "keys"), scanner{})
	case "empty":
		sdk.Serve(describe("empty", "keys"), empty{})
	case "values":
		sdk.Serve(describe("values", "keys", "values"), flat{})
	case "tuned":
		d := describe("tuned", "keys")
		d.Parameters = []ra.Parameter{{Name: "depth", Type: "int", Min: 1, Max: 9, Default: 3}}
		sdk.Serve(d, flat{})
	case "badname":
		sdk.Serve(describe("Bad Name"), flat{})
	case "hostile":
		sdk.Serve(describe("hostile", "keys"), hostile{does: arg})
	case "keeper":
		sdk.Serve(describe("keeper", "keys", "queries"), newKeeper())
	case "exporter":
		sdk.Serve(describe("exporter", "keys"), exporter{newKeeper()})
	case "snoop":
		sdk.Serve(describe("snoop", "keys"), snoop{})
	case "family":
		family(arg)
		sdk.Serve(describe("family", "keys"), flat{})
	case "deaf": // the SDK does not watch
		os.Unsetenv("RA_PLUGIN_LIFELINE")
		family(arg)
		sdk.Serve(describe("family", "keys"), flat{})
	case "host":
		host(arg)
	case "print":
		fmt.Println(arg)
		time.Sleep(time.Hour)
	case "exit":
		fmt.Fprintln(os.Stderr, "no module named faiss")
		os.Exit(3)
	case "silent":
		time.Sleep(time.Hour)
	default:
		fmt.Fprintln(os.Stderr, "unknown mode", mode)
		os.Exit(3)
	}
}

func describe(name string, features ...string) sdk.Description {
	return sdk.Description{Name: name, Version: "1.0.0", Features: features}
}

// flat is exact search.
type flat struct{ sdk.NoIndex }

func (flat) Search(_ context.Context, c *sdk.Call) error {
	for i := range c.Count() {
		best(c, i, c.Sequence(i).Indexed)
	}
	return nil
}

// best emits the best of the tokens in ranges, which are indexed.
func best(c *sdk.Call, i int, ranges []sdk.Range) {
	type scored struct {
		id    uint32
		score float64
	}
	var all []scored
	q, key := c.Query(i), make([]float32, c.Sequences[0].HeadDim)
	s := *c.Sequence(i)
	s.Indexed = ranges
	for start, rows := range s.IndexedKeys(c.KVHead(i)) {
		for j := range rows.N {
			rows.Row(j, key)
			s := 0.0
			for d, x := range key {
				s += float64(x) * float64(q[d])
			}
			all = append(all, scored{uint32(start + j), s})
		}
	}
	slices.SortFunc(all, func(a, b scored) int {
		if a.score > b.score {
			return -1
		}
		return 1
	})
	var ids []uint32
	for _, s := range all[:min(c.TopK, len(all))] {
		ids = append(ids, s.id)
	}
	c.Emit(i, ids, nil)
}

// empty finds nothing.
type empty struct{ sdk.NoIndex }

func (empty) Search(context.Context, *sdk.Call) error { return nil }

// hostile answers wrongly, in the way that it is told.
type hostile struct {
	flat
	does string
}

func (h hostile) Build(context.Context, *sdk.Build) error {
	switch h.does {
	case "build-fails":
		return errors.New("no space left")
	case "build-dies":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return nil
}

func (h hostile) Search(ctx context.Context, c *sdk.Call) error {
	if err := h.flat.Search(ctx, c); err != nil {
		return err
	}
	nan := float32(math.NaN())
	switch h.does {
	case "range":
		c.Emit(0, []uint32{1 << 30}, nil)
	case "static":
		c.Emit(0, []uint32{0}, nil)
	case "many":
		c.Emit(0, make([]uint32, c.TopK+1), nil)
	case "twice":
		c.Emit(0, []uint32{5, 5}, nil)
	case "nan":
		c.Emit(0, []uint32{5, 6}, []float32{0, nan})
	case "large":
		c.Emit(0, make([]uint32, 1<<20), nil)
	case "error":
		return errors.New("the index is broken")
	case "panic":
		panic("out of ideas")
	case "hang":
		select {}
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return nil
}

// keeper keeps an index: the tokens of a view that it was told of. It finds
// no others, and has none of a view that it was not told of.
type keeper struct {
	mu    sync.Mutex
	index map[[2]uint64][]sdk.Range // by view and layer
}

func newKeeper() *keeper { return &keeper{index: map[[2]uint64][]sdk.Range{}} }

func (k *keeper) Configure(ra.Params, uint64) error { return nil }

func (k *keeper) Build(_ context.Context, b *sdk.Build) error {
	sum := float32(0)
	for _, x := range b.Queries.F32 {
		sum += x
	}
	slog.Info("build", "view", b.View, "layer", b.Layer, "queries", b.Queries.N, "sum", fmt.Sprint(sum))
	k.mu.Lock()
	defer k.mu.Unlock()
	k.index[[2]uint64{b.View, uint64(b.Layer)}] = b.Indexed
	return nil
}

func (k *keeper) Append(_ context.Context, layer int, s *sdk.Sequence, ranges []sdk.Range) error {
	slog.Info("append", "view", s.View, "layer", layer, "ranges", fmt.Sprint(ranges))
	k.mu.Lock()
	defer k.mu.Unlock()
	key := [2]uint64{s.View, uint64(layer)}
	k.index[key] = append(k.index[key], ranges...)
	return nil
}

func (k *keeper) Search(_ context.Context, c *sdk.Call) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range c.Count() {
		s := c.Sequence(i)
		known := append(slices.Clone(k.index[[2]uint64{s.Parent, uint64(c.Layer)}]), k.index[[2]uint64{s.View, uint64(c.Layer)}]...)
		if known == nil {
			return fmt.Errorf("no index of view %d", s.View)
		}
		best(c, i, known)
	}
	return nil
}

func (k *keeper) Forget(views []uint64) {
	slog.Info("forget", "views", fmt.Sprint(views))
	k.mu.Lock()
	defer k.mu.Unlock()
	for key := range k.index {
		if slices.Contains(views, key[0]) {
			delete(k.index, key)
		}
	}
}

// exporter is a keeper whose index can be saved.
type exporter struct{ *keeper }

func (e exporter) Export(_ context.Context, view uint64, layer int, w io.Writer) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.index[[2]uint64{view, uint64(layer)}] {
		if err := binary.Write(w, binary.LittleEndian, [2]uint32{uint32(r.Lo), uint32(r.Hi)}); err != nil {
			return err
		}
	}
	_, err := w.Write(make([]byte, 3<<20)) // several messages
	return err
}

func (e exporter) Import(_ context.Context, b *sdk.Build, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	key := [2]uint64{b.View, uint64(b.Layer)}
	for ; binary.LittleEndian.Uint32(data[4:]) != 0; data = data[8:] {
		e.index[key] = append(e.index[key], sdk.Range{
			Lo: int(binary.LittleEndian.Uint32(data)), Hi: int(binary.LittleEndian.Uint32(data[4:])),
		})
	}
	slog.Info("import", "view", b.View, "layer", b.Layer, "zeros", len(data))
	return nil
}

// snoop tries what a plugin must not be able to do, and says how that went.
type snoop struct{ flat }

func (snoop) Search(_ context.Context, c *sdk.Call) error {
	var found []string
	say := func(what string, err error) {
		if err == nil {
			found = append(found, what)
		}
	}
	const keys = firstFD + 1
	_, err := syscall.Pwrite(keys, []byte{1}, 0)
	say("wrote to the keys", err)
	say("cut the keys", syscall.Ftruncate(keys, 0))
	_, err = syscall.Mmap(keys, 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	say("mapped the keys for writing", err)
	if os.Getuid() != 0 {
		_, err = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", keys), os.O_RDWR, 0)
		say("opened the keys for writing", err)
	}
	func() {
		defer func() { recover() }()
		for range c.Sequences[0].Values(0) {
			found = append(found, "read values")
		}
	}()
	for fd := keys + 1; fd < 64; fd++ {
		if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && strings.Contains(target, "ra-") {
			found = append(found, "holds "+target)
		}
	}
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if name != pluginEnv && name != "GORACE" && name != "RA_PLUGIN" && name != "RA_PLUGIN_LIFELINE" && !strings.HasPrefix(name, "PLUGIN_") {
			found = append(found, "knows "+e)
		}
	}
	if n, err := os.Stdin.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		found = append(found, "reads standard input")
	}
	return fmt.Errorf("found: %v", found)
}

// family starts a child that would outlive its parent and notes both.
func family(file string) {
	cmd := exec.Command("/bin/sleep", "600")
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, "%d %d", os.Getpid(), cmd.Process.Pid), 0o600); err != nil {
		panic(err)
	}
}
