package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/retrievalattention/ra/host/plugin/internal/fuel"
	"github.com/retrievalattention/ra/host/plugin/internal/wasmbin"
	"github.com/retrievalattention/ra/host/retrieval"
	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// Plugin is a loaded search plugin. It is safe for concurrent use: each call
// takes an instance of its own.
type Plugin struct {
	opts   Options
	log    *slog.Logger
	digest string
	size   int // bytes of the module
	desc   *Description
	params string // text for params_read

	rt       wazero.Runtime
	cache    wazero.CompilationCache // nil when shared or none
	compiled wazero.CompiledModule
	pool     *pool
	memory   atomic.Int64 // bytes committed by all instances
	closed   atomic.Bool

	exact   *retrieval.Flat
	built   builds
	backoff backoff
	stats   statistics
	once    sync.Once // of Close
}

var _ retrieval.Strategy = (*Plugin)(nil)

// Load reads, checks, compiles and configures a plugin, and makes one
// instance of it, so that a bad plugin fails here and not in a search. All
// errors are an [*Error]. The caller must close the plugin.
func Load(ctx context.Context, o Options) (*Plugin, error) { return loadKind(ctx, o, abi.KindSearch) }

// loadKind loads a plugin of the given kind, or of any when it is empty.
func loadKind(ctx context.Context, o Options, kind string) (*Plugin, error) {
	fail := func(label, digest string, err error) (*Plugin, error) {
		return nil, &Error{Plugin: label, Digest: digest, Operation: "load", Layer: -1, Step: -1, Err: err}
	}
	if err := o.complete(); err != nil {
		return fail(o.Name+o.Path, "", err)
	}
	module, label, err := o.read()
	if err != nil {
		return fail(label, "", err)
	}
	p := &Plugin{opts: o, digest: Digest(module), size: len(module), pool: newPool(o.Instances), exact: retrieval.NewFlat(o.Scanner), backoff: backoff{now: time.Now}}
	p.opts.Bytes = nil
	p.log = o.Logger.With("plugin", label)
	if err := p.load(ctx, module, kind); err != nil {
		p.shutDown()
		return fail(label, p.digest, err)
	}
	return p, nil
}

func (p *Plugin) load(ctx context.Context, module []byte, kind string) error {
	m, err := wasmbin.Parse(module)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrModule, err)
	}
	if err := p.checkModule(m); err != nil {
		return err
	}
	if err := p.compile(ctx, module); err != nil {
		return err
	}
	if err := addHostModule(ctx, p.rt); err != nil {
		return err
	}
	if err := addWASI(ctx, p.rt, p.compiled.ImportedFunctions()); err != nil {
		return err
	}
	in, err := p.instantiate(ctx)
	if err != nil {
		return err
	}
	if err := p.introduce(ctx, in, kind); err != nil {
		in.close()
		return err
	}
	in.end()
	p.pool.idle, p.pool.alive = append(p.pool.idle, in), 1
	return nil
}

// introduce asks the first instance what it is and configures it.
func (p *Plugin) introduce(ctx context.Context, in *instance, kind string) error {
	in.begin(ctx, abi.ScopeInit, p.opts.Limits.BuildTimeout)
	if err := in.run("ra_describe", in.mod.ExportedFunction("ra_describe")); err != nil {
		return err
	}
	ptr, n := uint32(in.stack[0]>>32), uint32(in.stack[0])
	if n > abi.MaxDescription {
		return fmt.Errorf("%w: ra_describe: %d bytes, at most %d are allowed", ErrABI, n, abi.MaxDescription)
	}
	text, ok := in.view.Read(ptr, n)
	if !ok {
		return fmt.Errorf("%w: ra_describe: %d bytes at %#x reach beyond the memory of %d bytes", ErrABI, n, ptr, in.view.Size())
	}
	d, err := parseDescription(text)
	if err != nil {
		return err
	}
	if kind == "" {
		kind = d.Kind
	}
	if d.Kind != kind {
		return fmt.Errorf("%w: %s is a %s plugin, a %s plugin is asked for", ErrABI, d.Name, d.Kind, kind)
	}
	for _, e := range abi.Exports() {
		if asked := !e.Optional || slices.Contains(d.Needs, strings.TrimPrefix(e.Name, "ra_")); e.Kind == kind && asked && in.exports[e.Name] == nil {
			return fmt.Errorf("%w: it does not export %s %s", ErrABI, e.Name, e.Signature())
		}
	}
	if p.params, err = d.resolve(p.opts.Params); err != nil {
		return err
	}
	p.desc = d
	p.log = p.opts.Logger.With("plugin", d.Name)
	return in.setUp(ctx)
}

// checkModule checks what needs no compilation.
func (p *Plugin) checkModule(m *wasmbin.Module) error {
	if m.HasStart {
		return fmt.Errorf("%w: it has a start section, which would run before any limit is set; export _initialize instead", ErrModule)
	}
	if err := checkImports(m); err != nil {
		return err
	}
	limit := uint32(p.opts.Limits.MemoryMiB) * 16 // pages
	for _, mem := range m.Memories {
		if mem.Min > limit {
			return fmt.Errorf("%w: the module begins with %d MiB, limits.memory_mib is %d", ErrMemory, (mem.Min+15)/16, p.opts.Limits.MemoryMiB)
		}
	}
	return nil
}

// compile validates the module as it is, checks its functions, rewrites it
// and compiles the result.
func (p *Plugin) compile(ctx context.Context, module []byte) error {
	p.openRuntime(ctx)
	original, err := p.compileModule(ctx, module)
	if err != nil {
		return err
	}
	defer original.Close(ctx)
	if err := checkFunctions(original); err != nil {
		return err
	}
	rewritten, err := fuel.Rewrite(module, !p.opts.Trusted)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrModule, err)
	}
	p.compiled, err = p.compileModule(ctx, rewritten)
	return err
}

// compileModule compiles in this goroutine alone: in a worker of wazero's, a
// panic over an odd module could not be recovered from.
func (p *Plugin) compileModule(ctx context.Context, module []byte) (c wazero.CompiledModule, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: the compiler failed: %v", ErrModule, r)
		}
	}()
	c, err = p.rt.CompileModule(ctx, module)
	if err != nil && p.cache != nil && ofCache(err) {
		// A full disk or a damaged entry must not cost the plugin.
		p.log.Warn("compiling without a cache", "error", firstLine(err))
		p.closeRuntime()
		p.opts.CacheDir = cacheOff
		p.openRuntime(ctx)
		c, err = p.rt.CompileModule(ctx, module)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrModule, firstLine(err))
	}
	return c, nil
}

// ofCache reports whether wazero failed to read or write its cache rather
// than to compile.
func ofCache(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) || strings.HasPrefix(err.Error(), "compilationcache:")
}

// openRuntime makes the plugin's runtime: one each, because wazero's settings
// are a runtime's. Memory is limited by the allocator, which can say so.
func (p *Plugin) openRuntime(ctx context.Context) {
	config := wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2).WithDebugInfoEnabled(false)
	switch {
	case p.opts.cache != nil:
		config = config.WithCompilationCache(p.opts.cache)
	case p.opts.CacheDir != cacheOff:
		if c, err := openCache(p.opts.CacheDir); err != nil {
			p.log.Warn("compiled modules are not cached", "error", err)
		} else {
			p.cache = c
			config = config.WithCompilationCache(c)
		}
	}
	p.rt = wazero.NewRuntimeWithConfig(ctx, config)
}

// cacheOff as a cache directory means none.
const cacheOff = "off"

// openCache opens the cache of compiled modules, whose entries are keyed by
// the digest of the rewritten module, the CPU and wazero's version.
func openCache(dir string) (wazero.CompilationCache, error) {
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, err
		}
		dir = filepath.Join(base, "ra", "wasm")
	}
	c, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, err
	}
	// An existing directory may still be read-only.
	f, err := os.CreateTemp(dir, "probe-*")
	if err != nil {
		return nil, errors.Join(err, c.Close(context.Background()))
	}
	f.Close()
	os.Remove(f.Name())
	return c, nil
}

// closeRuntime frees the runtime, its modules and its cache.
func (p *Plugin) closeRuntime() {
	if p.rt != nil {
		_ = p.rt.Close(context.Background()) // nothing in it can fail to close
	}
	if p.cache != nil {
		_ = p.cache.Close(context.Background())
	}
	p.rt, p.cache, p.compiled = nil, nil, nil
}

func (p *Plugin) shutDown() {
	p.pool.close()
	p.closeRuntime()
}

// checkFunctions checks the exports and imports of a compiled module against
// the ABI.
func checkFunctions(c wazero.CompiledModule) error {
	exports := c.ExportedFunctions()
	if exports[abi.Marker] == nil {
		for name := range exports {
			if strings.HasPrefix(name, abi.MarkerPrefix) {
				return fmt.Errorf("%w: the module speaks %s, this host %s", ErrABI, clip(name, 64), abi.Marker)
			}
		}
	}
	var names []string
	for _, e := range abi.Exports() {
		names = append(names, e.Name)
		def := exports[e.Name]
		if def == nil {
			if e.Kind == "" {
				return fmt.Errorf("%w: it does not export %s %s", ErrABI, e.Name, e.Signature())
			}
			continue
		}
		if got := signatureOf(def); got != e.Signature() {
			return fmt.Errorf("%w: it exports %s as %s, expected %s", ErrABI, e.Name, got, e.Signature())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(exports)) {
		if strings.HasPrefix(name, "ra_") && !slices.Contains(names, name) {
			return fmt.Errorf("%w: it exports %s, which is not in the ABI%s", ErrABI, clip(name, 64), meant(nearest(name, names)))
		}
	}
	if def := exports["_initialize"]; def != nil && signatureOf(def) != "()" {
		return fmt.Errorf("%w: it exports _initialize as %s, expected ()", ErrABI, signatureOf(def))
	}
	if _, ok := c.ExportedMemories()["memory"]; !ok {
		return fmt.Errorf("%w: it does not export a memory named \"memory\"", ErrABI)
	}
	offered := map[string]abi.Func{}
	for _, f := range abi.Imports() {
		offered[f.Name] = f
	}
	for _, def := range c.ImportedFunctions() {
		module, name, _ := def.Import()
		switch module {
		case wasiModule:
			if err := checkWASI(def); err != nil {
				return err
			}
		case abi.Module:
			f, ok := offered[name]
			if !ok {
				return fmt.Errorf("%w: it imports %s.%s %s, which this host does not have", ErrABI, module, clip(name, 64), signatureOf(def))
			}
			if got := signatureOf(def); got != f.Signature() {
				return fmt.Errorf("%w: it imports %s.%s as %s, expected %s", ErrABI, module, name, got, f.Signature())
			}
		default:
			return fmt.Errorf("%w: it imports %q from %q; plugins may import from %q and %q", ErrABI, clip(name, 64), clip(module, 64), abi.Module, wasiModule)
		}
	}
	return nil
}

// signatureOf renders a function's type as abi.Func.Signature does.
func signatureOf(def api.FunctionDefinition) string {
	return signature(typeNames(def.ParamTypes()), typeNames(def.ResultTypes()))
}

func typeNames(ts []api.ValueType) []string {
	names := make([]string, len(ts))
	for i, t := range ts {
		names[i] = api.ValueTypeName(t)
	}
	return names
}

func signature(params, results []string) string {
	var parts []string
	if len(params) > 0 {
		parts = append(parts, "(param "+strings.Join(params, " ")+")")
	}
	if len(results) > 0 {
		parts = append(parts, "(result "+strings.Join(results, " ")+")")
	}
	if len(parts) == 0 {
		return "()"
	}
	return strings.Join(parts, " ")
}
