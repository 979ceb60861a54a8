package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	referencemodel "github.com/retrievalattention/ra/examples/reference-model"
	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/config"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/model"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/plugin/process"
	"github.com/retrievalattention/ra/host/retrieval"
)

// host is everything that a configuration asks for, opened.
type host struct {
	model   *model.Model
	memory  *kv.Allocator
	plugin  searcher // nil when no mode needs a search
	engine  *engine.Engine
	closers []func() error
}

// searcher is a search plugin of any runtime.
type searcher interface {
	retrieval.Strategy
	Description() *plugin.Description
	Stats() plugin.Stats
}

// openModel reads the configured model.
func openModel(c *config.Resolved) (*model.Model, error) {
	var m *model.Model
	var err error
	if c.Model.Path == "" {
		m, err = model.OpenFS(referencemodel.Files, referencemodel.Name)
	} else {
		m, err = model.Open(c.Model.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errModel, err)
	}
	return m, nil
}

// openHost opens the model, the backend and, for the modes that search, the
// search plugin.
func openHost(ctx context.Context, c *config.Resolved, modes []engine.Mode, log *slog.Logger) (h *host, err error) {
	h = &host{}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if h.model, err = openModel(c); err != nil {
		return h, err
	}
	h.closers = append(h.closers, h.model.Close)
	limit := h.model.Config.MaxPosition
	if c.Model.MaxContext > limit {
		return h, fmt.Errorf("%w: model.max_context: %d is more than the %d positions that the model was made for", config.ErrInvalid, c.Model.MaxContext, limit)
	}
	if c.Model.MaxContext > 0 {
		limit = c.Model.MaxContext
	}
	backend := compute.NewCPU()
	h.closers = append(h.closers, backend.Close)
	loaded, err := backend.Load(h.model.Weights)
	if err != nil {
		return h, fmt.Errorf("%w: %w", errModel, err)
	}
	h.closers = append(h.closers, loaded.Close)
	search := slices.Contains(modes, engine.Retrieval)
	if h.memory, err = openMemory(c, search); err != nil {
		return h, err
	}
	h.closers = append(h.closers, h.memory.Close)
	var strategy retrieval.Strategy
	if search {
		if h.plugin, err = openPlugin(ctx, c, backend, h.memory, log); err != nil {
			return h, err
		}
		h.closers = append(h.closers, h.plugin.Close)
		strategy = h.plugin
	}
	policy, err := openPolicy(ctx, c, backend, log)
	if err != nil {
		return h, err
	}
	h.closers = append(h.closers, policy.Close)
	h.engine, err = engine.New(engine.Options{
		Model: loaded, Backend: backend, Strategy: strategy,
		Memory:     h.memory,
		DType:      kvDTypes[c.Model.KVDType],
		TopK:       c.Attention.Budget.TopK,
		Policy:     policy,
		MaxContext: limit,
	})
	return h, err
}

var kvDTypes = map[string]kernel.DType{"bf16": kernel.BF16, "f16": kernel.F16, "f32": kernel.F32}

const runtimeProcess = "process"

// openMemory returns the allocator of keys and values, shared if a process is
// to search them.
func openMemory(c *config.Resolved, search bool) (*kv.Allocator, error) {
	budget := int64(c.Model.CPUMemoryMiB) << 20
	if search && c.Plugin(c.Search.Plugin).Runtime == runtimeProcess {
		return kv.NewSharedAllocator(budget)
	}
	return kv.NewAllocator(budget), nil
}

// openPlugin loads the configured search plugin.
func openPlugin(ctx context.Context, c *config.Resolved, scanner compute.Scanner, memory *kv.Allocator, log *slog.Logger) (searcher, error) {
	p, pinned, err := chosen(c, c.Search.Plugin)
	if err != nil {
		return nil, err
	}
	s, err := loadSearch(ctx, p, c.Search.Params, scanner, memory, log)
	return s, located(c, "search", pinned, err)
}

// loadSearch loads a search plugin as declared.
func loadSearch(ctx context.Context, p config.Plugin, params map[string]any, scanner compute.Scanner, memory *kv.Allocator, log *slog.Logger) (searcher, error) {
	if p.Runtime == runtimeProcess {
		return opened(process.Load(ctx, processOptions(p, params, scanner, memory, log)))
	}
	o := pluginOptions(p, params, scanner, log)
	o.Memory = memory
	return opened(plugin.Load(ctx, o))
}

// opened makes a searcher of what was loaded, and nil of nothing.
func opened[P searcher](p P, err error) (searcher, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

// openPolicy loads the configured placement policy.
func openPolicy(ctx context.Context, c *config.Resolved, scanner compute.Scanner, log *slog.Logger) (*plugin.Policy, error) {
	p, pinned, err := chosen(c, c.Policy.Plugin)
	if err != nil {
		return nil, err
	}
	if p.Runtime == runtimeProcess {
		return nil, fmt.Errorf("%w: policy.plugin: %q is a process; a policy is a wasm module", config.ErrInvalid, p.Name)
	}
	policy, err := plugin.LoadPolicy(ctx, pluginOptions(p, c.Policy.Params, scanner, log))
	return policy, located(c, "policy", pinned, err)
}

// chosen returns the declaration of a plugin that the configuration chooses,
// pinned by the lock file if there is one; pinned is that file.
func chosen(c *config.Resolved, name string) (p config.Plugin, pinned string, err error) {
	p = c.Plugin(name)
	lock, err := config.ReadLock(c.LockFile())
	if err != nil {
		return p, "", err
	}
	digest, err := lock.Digest(p.Name)
	if err != nil {
		return p, "", err
	}
	if digest != "" && p.SHA256 == "" {
		p.SHA256, pinned = digest, lock.File
	}
	return p, pinned, nil
}

// located says where a parameter that a plugin refuses was set, and which
// file pins the digest that a plugin does not have.
func located(c *config.Resolved, table, pinned string, err error) error {
	if pinned != "" && errors.Is(err, plugin.ErrDigest) {
		return fmt.Errorf("%w in %s; if the change is wanted, run 'ra plugin lock'", err, pinned)
	}
	var p *plugin.ParamError
	if !errors.As(err, &p) {
		return err
	}
	if where := c.Where(table + ".params." + p.Param); where != "" {
		return fmt.Errorf("%s: %w", where, err)
	}
	return err
}

// checkPlugins loads the plugins that a configuration chooses, with their
// parameters, and closes them again.
func checkPlugins(ctx context.Context, c *config.Resolved, log *slog.Logger) error {
	backend := compute.NewCPU()
	memory, err := openMemory(c, true)
	if err != nil {
		return err
	}
	search, err := openPlugin(ctx, c, backend, memory, log)
	if err != nil {
		return errors.Join(err, memory.Close())
	}
	policy, err := openPolicy(ctx, c, backend, log)
	if err != nil {
		return errors.Join(err, search.Close(), memory.Close())
	}
	return errors.Join(search.Close(), policy.Close(), memory.Close(), backend.Close())
}

func processOptions(p config.Plugin, params map[string]any, scanner compute.Scanner, memory *kv.Allocator, log *slog.Logger) process.Options {
	return process.Options{
		Name: p.Name, Path: p.Path, Interpreter: p.Interpreter, Args: p.Args, Env: p.Env,
		SHA256: p.SHA256, Grants: p.Grants, Params: params,
		Limits: process.Limits{
			StartTimeout:  p.Limits.StartTimeout,
			SearchTimeout: p.Limits.SearchTimeout,
			BuildTimeout:  p.Limits.BuildTimeout,
		},
		OnFailure: plugin.OnFailure(p.OnFailure), Memory: memory, Scanner: scanner, Logger: log,
	}
}

func pluginOptions(p config.Plugin, params map[string]any, scanner compute.Scanner, log *slog.Logger) plugin.Options {
	return plugin.Options{
		Name: p.Name, Path: p.Path, SHA256: p.SHA256, Params: params,
		Limits: plugin.Limits{
			MemoryMiB:     p.Limits.MemoryMiB,
			SearchTimeout: p.Limits.SearchTimeout,
			BuildTimeout:  p.Limits.BuildTimeout,
			Fuel:          p.Limits.Fuel,
			Work:          p.Limits.Work,
		},
		Instances: p.Instances, Trusted: p.Trusted, OnFailure: plugin.OnFailure(p.OnFailure),
		Scanner: scanner, Logger: log,
	}
}

// close releases everything in the reverse order of opening.
func (h *host) close() error {
	var errs []error
	for _, f := range slices.Backward(h.closers) {
		errs = append(errs, f())
	}
	h.closers = nil
	return errors.Join(errs...)
}
