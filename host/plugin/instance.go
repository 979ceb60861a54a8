package plugin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/plugin/internal/fuel"
	"github.com/retrievalattention/ra/host/retrieval"
	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// instance is one instantiation of a plugin's module. One goroutine uses it
// at a time. It is thrown away after any trap, for a trap leaves the guest's
// own stack pointer and heap in an unknown state.
type instance struct {
	p      *Plugin
	mod    api.Module
	mem    *memory
	view   api.Memory
	fuel   api.MutableGlobal // nil when trusted
	ctx    *instanceContext
	stack  [4]uint64
	broken bool

	exports map[string]api.Function // those of the ABI

	call guestCall

	// Scratch of the kernels.
	queries [abi.MaxQueries][]float32
	index   [abi.MaxQueries]int
	outs    [abi.MaxQueries][]float32
	tops    [abi.MaxQueries]*kernel.TopK
	scores  []float32
	logits  [][]float32 // of the hits, by query, while weighing
	keys    []float32   // stored keys that are used as queries
	checker retrieval.Checker

	clock  uint64 // nanoseconds, by readings and skipped pauses
	random *rand.ChaCha8
}

// guestCall is the state of one call into a guest.
type guestCall struct {
	scope    abi.Scope
	export   string
	host     string // the host function under way
	caller   context.Context
	deadline time.Time
	limit    time.Duration
	work     int64 // multiply-adds since the last look at the clock
	done     int64 // before that

	layer       int
	views       []*kv.View
	build       *retrieval.Build  // of a build
	search      *retrieval.Call   // of a search
	result      *retrieval.Result // of a search
	place       *placement.Call   // of a policy
	moves       []placement.Move  // of a policy
	head        int               // KV head of a build or append
	firstKVHead int
	kvHeads     int
	scored      int64

	fault    error  // why the host ended the call
	failText string // from fail
	logLines int
	stderr   []byte // the beginning of what the guest wrote to descriptors 1 and 2
	line     []byte // of it, not yet logged
	randomOK bool   // the random source was seeded for this call
}

// instanceContext carries an instance to the host functions. It is made once
// an instance, so that calls allocate nothing; deadlines are kept apart.
type instanceContext struct {
	context.Context
	in *instance
}

func instanceOf(ctx context.Context) *instance { return ctx.(*instanceContext).in }

// instantiate makes, initialises and configures an instance.
func (p *Plugin) instantiate(ctx context.Context) (in *instance, err error) {
	in = &instance{p: p}
	in.ctx = &instanceContext{context.Background(), in}
	alloc := &allocator{limit: uint64(p.opts.Limits.MemoryMiB) << 20, total: &p.memory}
	defer func() {
		// wazero panics when a memory cannot be had.
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: instantiate: %v", ErrMemory, r)
		}
		if err != nil {
			if alloc.last != nil && alloc.last.err != nil {
				err = fmt.Errorf("%w: %w", err, alloc.last.err)
			}
			in.close()
			if alloc.last != nil {
				alloc.last.Free() // of an instantiation that failed half-way
			}
		}
	}()
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	in.mod, err = p.rt.InstantiateModule(experimental.WithMemoryAllocator(in.ctx, alloc), p.compiled, config)
	if err != nil {
		return in, fmt.Errorf("%w: instantiate: %s", ErrModule, firstLine(err))
	}
	in.mem, in.view = alloc.last, in.mod.Memory()
	if !p.opts.Trusted {
		in.fuel = in.mod.ExportedGlobal(fuel.Global).(api.MutableGlobal)
	}
	in.exports = map[string]api.Function{}
	for _, e := range abi.Exports() {
		if f := in.mod.ExportedFunction(e.Name); f != nil {
			in.exports[e.Name] = f
		}
	}
	in.begin(ctx, abi.ScopeInit, p.opts.Limits.BuildTimeout)
	if f := in.mod.ExportedFunction("_initialize"); f != nil {
		if err := in.run("_initialize", f); err != nil {
			return in, err
		}
	}
	if p.desc == nil {
		return in, nil // load configures the first one itself
	}
	return in, in.setUp(ctx)
}

// setUp passes the parameters.
func (in *instance) setUp(ctx context.Context) error {
	in.begin(ctx, abi.ScopeConfigure, in.p.opts.Limits.BuildTimeout)
	return in.status("ra_configure", uint64(len(in.p.params)))
}

// begin starts a call of the given scope; the caller fills in the rest.
func (in *instance) begin(ctx context.Context, scope abi.Scope, timeout time.Duration) {
	stderr, line := in.call.stderr[:0], in.call.line[:0]
	in.call = guestCall{scope: scope, caller: ctx, limit: timeout, deadline: time.Now().Add(timeout), stderr: stderr, line: line}
}

// end drops what the call borrowed.
func (in *instance) end() {
	c := &in.call
	c.views, c.build, c.search, c.result, c.place, c.moves, c.caller = nil, nil, nil, nil, nil, nil, nil
	clear(in.queries[:])
	clear(in.outs[:])
}

// status runs an export that returns a status.
func (in *instance) status(name string, args ...uint64) error {
	if err := in.run(name, in.exports[name], args...); err != nil {
		return err
	}
	code := api.DecodeI32(in.stack[0])
	switch {
	case code == 0:
		return nil
	case in.call.failText != "":
		return fmt.Errorf("%w: %s", ErrGuest, in.call.failText)
	default:
		return fmt.Errorf("%w: %s returned status %d and no text", ErrGuest, name, code)
	}
}

// run calls an export with a full tank. The result is in in.stack[0].
func (in *instance) run(name string, f api.Function, args ...uint64) error {
	copy(in.stack[:], args)
	in.call.export = name
	if in.fuel != nil {
		in.fuel.Set(uint64(in.p.opts.Limits.Fuel))
	}
	err := f.CallWithStack(in.ctx, in.stack[:])
	in.flushOutput()
	if err == nil {
		return nil
	}
	in.broken = true
	return in.explain(err)
}

// explain turns wazero's error into one of this package's.
func (in *instance) explain(err error) error {
	c := &in.call
	var bug runtime.Error
	switch {
	case c.fault != nil:
		err = c.fault
	case in.fuel != nil && int64(in.fuel.Get()) < 0:
		err = fmt.Errorf("%w: %s used its %d units of fuel; raise limits.fuel or mark the plugin trusted",
			ErrFuel, c.export, in.p.opts.Limits.Fuel)
	case errors.As(err, &bug) && strings.Contains(err.Error(), "recovered by wazero"):
		err = fmt.Errorf("%w: host function %s failed, a bug of the host: %w", ErrTrap, c.host, bug)
	case strings.Contains(err.Error(), "stack overflow"):
		err = fmt.Errorf("%w: %s recursed too deeply", ErrStack, c.export)
	default:
		in.p.log.Debug("trap", "export", c.export, "trace", err.Error())
		err = fmt.Errorf("%w: %s: %s", ErrTrap, c.export, firstLine(err))
	}
	if in.mem != nil && in.mem.denied > 0 {
		err = fmt.Errorf("%w; it had asked for %d MiB of memory, more than limits.memory_mib = %d",
			err, (in.mem.denied+1<<20-1)>>20, in.p.opts.Limits.MemoryMiB)
	}
	// What follows an empty line is a Go guest's stack trace, which is logged.
	output, _, _ := strings.Cut(string(c.stderr), "\n\n")
	if text := printable(output); text != "" {
		err = fmt.Errorf("%w; it wrote %q", err, text)
	}
	return err
}

// firstLine returns wazero's message without its stack trace and prefix.
func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	s = strings.TrimSuffix(s, " (recovered by wazero)")
	return strings.TrimPrefix(s, "wasm error: ")
}

// trap ends the call under way: wazero recovers the panic and unwinds the
// guest.
func (in *instance) trap(kind error, format string, args ...any) {
	in.call.fault = fmt.Errorf("%w: %s: %s", kind, in.call.host, fmt.Sprintf(format, args...))
	panic(in.call.fault)
}

// callCost is what entering a host function counts for, and workPerCheck how
// much is done between two looks at the clock, in multiply-adds.
const (
	callCost     = 256
	workPerCheck = 1 << 18
)

// spend counts kernel work and ends the call when its time is over. Kernels
// call it before each piece of work.
func (in *instance) spend(work int64) {
	c := &in.call
	if c.work += work; c.work < workPerCheck {
		return
	}
	if c.done += c.work; c.done > in.p.opts.Limits.Work {
		in.trap(ErrWork, "%s asked for more than %d multiply-adds; raise limits.work", c.export, in.p.opts.Limits.Work)
	}
	c.work = 0
	if err := c.caller.Err(); err != nil {
		c.fault = err
		panic(err)
	}
	if time.Now().After(c.deadline) {
		in.trap(ErrDeadline, "%s ran longer than %v", c.export, c.limit)
	}
}

// close releases the instance's memory.
func (in *instance) close() {
	if in.mod != nil {
		// Closing an anonymous module without files cannot fail.
		_ = in.mod.Close(context.Background())
	}
	in.mod = nil
}
