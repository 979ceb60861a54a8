package plugin

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/retrievalattention/ra/host/plugin/internal/wasmbin"
)

// wasiModule is the module of WASI preview 1, which language runtimes import
// whether they need it or not. A guest gets the functions that it imports, as
// stubs: no arguments, no environment, no files, no network; a clock that
// advances by a microsecond a reading; seeded random numbers.
const wasiModule = "wasi_snapshot_preview1"

// Error numbers of WASI.
const (
	wasiOK     = 0
	wasiBADF   = 8
	wasiINVAL  = 28
	wasiNOSYS  = 52
	wasiEpoch  = 1_735_689_600_000_000_000 // 2025-01-01, what the clock begins at
	clockTick  = 1000                      // nanoseconds a reading
	maxPause   = 1_000_000                 // nanoseconds of a pause that is skipped
	maxVectors = 1024                      // of one fd_write
	maxEvents  = 1024                      // of one poll_oneoff
)

// wasiFunc is a stub with its signature in value types of the text format.
type wasiFunc struct {
	params, results string
	call            func(*instance, args) int // the error number
}

var wasiFuncs = map[string]wasiFunc{
	"args_get":          {"i32 i32", "i32", func(*instance, args) int { return wasiOK }},
	"args_sizes_get":    {"i32 i32", "i32", (*instance).wasiNone},
	"environ_get":       {"i32 i32", "i32", func(*instance, args) int { return wasiOK }},
	"environ_sizes_get": {"i32 i32", "i32", (*instance).wasiNone},
	"clock_res_get":     {"i32 i32", "i32", (*instance).wasiClockRes},
	"clock_time_get":    {"i32 i64 i32", "i32", (*instance).wasiClockTime},
	"random_get":        {"i32 i32", "i32", (*instance).wasiRandom},
	"sched_yield":       {"", "i32", func(*instance, args) int { return wasiOK }},
	"poll_oneoff":       {"i32 i32 i32 i32", "i32", (*instance).wasiPoll},
	"fd_write":          {"i32 i32 i32 i32", "i32", (*instance).wasiWrite},
	"proc_exit":         {"i32", "", (*instance).wasiExit},
}

// wasiOthers are the rest of preview 1. They answer "no such descriptor"
// where they are about one, "not implemented" elsewhere.
const wasiOthers = ` fd_advise fd_allocate fd_close fd_datasync fd_fdstat_get fd_fdstat_set_flags fd_fdstat_set_rights
 fd_filestat_get fd_filestat_set_size fd_filestat_set_times fd_pread fd_prestat_dir_name fd_prestat_get fd_pwrite fd_read
 fd_readdir fd_renumber fd_seek fd_sync fd_tell path_create_directory path_filestat_get path_filestat_set_times path_link
 path_open path_readlink path_remove_directory path_rename path_symlink path_unlink_file proc_raise sock_accept sock_recv
 sock_send sock_shutdown `

// addWASI offers the functions that the module imports. Signatures of the
// stubs were checked before; what only fails takes any.
func addWASI(ctx context.Context, rt wazero.Runtime, imports []api.FunctionDefinition) error {
	b := rt.NewHostModuleBuilder(wasiModule)
	offered := map[string]bool{}
	for _, def := range imports {
		module, name, _ := def.Import()
		if module != wasiModule || offered[name] {
			continue
		}
		offered[name] = true
		stub, ok := wasiFuncs[name]
		if !ok {
			code := wasiNOSYS
			if strings.HasPrefix(name, "fd_") {
				code = wasiBADF
			}
			stub.call = func(*instance, args) int { return code }
		}
		results := len(def.ResultTypes())
		fn := func(ctx context.Context, _ api.Module, stack []uint64) {
			in := instanceOf(ctx)
			in.call.host = name
			in.spend(callCost)
			if code := stub.call(in, stack); results > 0 {
				stack[0] = uint64(code)
			}
		}
		b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(fn), def.ParamTypes(), def.ResultTypes()).Export(name)
	}
	if len(offered) == 0 {
		return nil
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("host module %s: %w", wasiModule, err)
	}
	return nil
}

// checkWASI checks one import of the module.
func checkWASI(def api.FunctionDefinition) error {
	_, name, _ := def.Import()
	f, ok := wasiFuncs[name]
	if !ok {
		if strings.Contains(strings.ReplaceAll(wasiOthers, "\n", " "), " "+name+" ") {
			return nil
		}
		return fmt.Errorf("%w: it imports %q from %s, which has no such function", ErrABI, clip(name, 64), wasiModule)
	}
	want := signature(strings.Fields(f.params), strings.Fields(f.results))
	if got := signatureOf(def); got != want {
		return fmt.Errorf("%w: it imports %s.%s as %s, expected %s", ErrABI, wasiModule, name, got, want)
	}
	return nil
}

func (in *instance) wasiNone(a args) int {
	in.words("count", a.u32(0), 1)[0] = 0
	in.words("size", a.u32(1), 1)[0] = 0
	return wasiOK
}

func (in *instance) wasiClockRes(a args) int {
	binary.LittleEndian.PutUint64(in.bytes("resolution", a.u32(1), 8), clockTick)
	return wasiOK
}

func (in *instance) wasiClockTime(a args) int {
	in.clock += clockTick
	t := in.clock
	if a.u32(0) == 0 { // the wall clock
		t += wasiEpoch
	}
	binary.LittleEndian.PutUint64(in.bytes("time", a.u32(2), 8), t)
	return wasiOK
}

// wasiRandom gives every call of a layer the same numbers, whichever instance
// runs it and whatever its share of the heads.
func (in *instance) wasiRandom(a args) int {
	b := in.bytes("buf", a.u32(0), uint64(a.u32(1)))
	if c := &in.call; !c.randomOK {
		c.randomOK = true
		var seed [32]byte
		for i, v := range []uint64{in.p.opts.Seed, uint64(c.scope), uint64(c.layer)} {
			binary.LittleEndian.PutUint64(seed[8*i:], v)
		}
		if in.random == nil {
			in.random = rand.NewChaCha8(seed)
		}
		in.random.Seed(seed)
	}
	in.spend(int64(len(b)))
	_, _ = in.random.Read(b) // never fails
	return wasiOK
}

// wasiPoll answers polls that do not wait, which runtimes make between
// goroutines, and refuses to sleep. Pauses of up to a millisecond are skipped
// and the clock put forward: the Go runtime makes some before it says why it
// panics.
func (in *instance) wasiPoll(a args) int {
	const subSize, eventSize, typeClock = 48, 32, 0
	n := uint64(a.u32(2))
	if n == 0 {
		return wasiINVAL
	}
	if n > maxEvents {
		in.trap(ErrCall, "%d subscriptions, at most %d are allowed", n, maxEvents)
	}
	subs := in.bytes("subscriptions", a.u32(0), n*subSize)
	events := in.bytes("events", a.u32(1), n*eventSize)
	fired := in.words("count", a.u32(3), 1)
	var list [maxEvents]struct {
		userdata [8]byte
		kind     byte
	}
	// Subscriptions are read before events are written: they may overlap.
	for i := range n {
		s := subs[i*subSize:][:subSize]
		list[i].userdata, list[i].kind = [8]byte(s), s[8]
		if s[8] == typeClock {
			in.pause(s)
		}
	}
	clear(events)
	for i := range n {
		event := events[i*eventSize:][:eventSize]
		copy(event, list[i].userdata[:])
		event[10] = list[i].kind
		if list[i].kind != typeClock {
			event[8] = wasiBADF
		}
	}
	fired[0] = uint32(n)
	return wasiOK
}

// pause skips the wait of a clock subscription, or refuses it.
func (in *instance) pause(subscription []byte) {
	wait := binary.LittleEndian.Uint64(subscription[24:])
	if absolute := subscription[40]&1 == 1; absolute {
		now := in.clock
		if binary.LittleEndian.Uint32(subscription[16:]) == 0 {
			now += wasiEpoch
		}
		wait -= min(wait, now)
	}
	if wait > maxPause {
		in.trap(ErrCapability, "plugin tried to sleep for %d ns; a search has no time to wait", wait)
	}
	in.clock += wait
}

func (in *instance) wasiWrite(a args) int {
	if fd := a.u32(0); fd != 1 && fd != 2 {
		return wasiBADF
	}
	n := uint64(a.u32(2))
	if n > maxVectors {
		return wasiINVAL
	}
	total := uint32(0)
	for v := range slices.Chunk(in.words("vectors", a.u32(1), 2*n), 2) {
		b := in.bytes("text", v[0], uint64(v[1]))
		in.spend(int64(len(b)))
		in.write(b)
		total += uint32(len(b))
	}
	in.words("written", a.u32(3), 1)[0] = total
	return wasiOK
}

func (in *instance) wasiExit(a args) int {
	in.flushOutput()
	in.trap(ErrExit, "the plugin ended itself with code %d", a.u32(0))
	return wasiOK
}

// checkImports checks that the host offers everything that a module imports.
func checkImports(m *wasmbin.Module) error {
	for _, e := range m.Imports {
		if e.Kind != wasmbin.KindFunc {
			kind := map[byte]string{wasmbin.KindTable: "table", wasmbin.KindMemory: "memory", wasmbin.KindGlobal: "global"}[e.Kind]
			return fmt.Errorf("%w: it imports the %s %q from %q; only functions are offered", ErrABI, kind, clip(e.Name, 64), clip(e.Module, 64))
		}
	}
	return nil
}
