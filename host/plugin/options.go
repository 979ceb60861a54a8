package plugin

import (
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kv"
)

// OnFailure says what a search does when the plugin fails.
type OnFailure string

// Ways to go on after a failure.
const (
	// Fallback answers by exact search.
	Fallback OnFailure = "fallback"
	// Fail returns the error.
	Fail OnFailure = "fail"
)

// Limits bound what a plugin may take. Zero means the default.
type Limits struct {
	// MemoryMiB is the largest linear memory of one instance. Default 256.
	MemoryMiB int
	// SearchTimeout bounds one search or append. Default 10 s.
	SearchTimeout time.Duration
	// BuildTimeout bounds the build of one layer, and loading. Default 5 min.
	BuildTimeout time.Duration
	// Fuel is the number of units that one call into the guest may use: one
	// a function entry or loop iteration, 16 and one for each 64 bytes a bulk
	// memory operation. Default 1e9, which is one to three seconds of pure
	// computing, during which a garbage collection of the host has to wait.
	// Not used when the plugin is trusted.
	Fuel int64
	// Work is the most multiply-adds that kernels may do in one call into the
	// guest. Default 1e13, some minutes of one core.
	Work int64
}

// Options say which plugin to load and how to run it.
type Options struct {
	// Path is the module's file, Bytes the module itself; at most one is set,
	// and Name is then a label for messages. Without either, Name chooses a
	// built-in plugin.
	Name  string
	Path  string
	Bytes []byte
	// SHA256 is verified when set: hex, with or without "sha256:" before it.
	SHA256 string
	// Params are checked against what the plugin declares. Numbers may be of
	// any Go integer or float type; a string is read as the declared type.
	Params map[string]any
	Limits Limits
	// Instances bounds the instances alive at once; a search is split over
	// the idle ones by KV head. Default GOMAXPROCS.
	Instances int
	// Trusted leaves out fuel. A trusted plugin that loops hangs the host.
	Trusted bool
	// OnFailure defaults to Fail.
	OnFailure OnFailure
	// CacheDir holds compiled modules. Default: "ra/wasm" in the user's
	// cache directory; "off" for none. One that cannot be written is warned
	// of and not used.
	CacheDir string
	// Scanner computes. Default: the CPU backend.
	Scanner compute.Scanner
	// Memory is what the guest's objects in the host take. Default: an
	// allocator without budget.
	Memory *kv.Allocator
	// Seed makes the guest's random numbers.
	Seed uint64
	// Logger receives the guest's messages and the host's. Default:
	// slog.Default().
	Logger *slog.Logger

	cache wazero.CompilationCache // shared by tests; not closed by the plugin
}

const defaultMemoryMiB, maxMemoryMiB = 256, 4096

// complete checks o and fills in the defaults.
func (o *Options) complete() error {
	l := &o.Limits
	switch {
	case l.MemoryMiB < 0 || l.MemoryMiB > maxMemoryMiB:
		return fmt.Errorf("limits.memory_mib is %d, want 1 to %d", l.MemoryMiB, maxMemoryMiB)
	case l.SearchTimeout < 0 || l.BuildTimeout < 0:
		return fmt.Errorf("a timeout is negative")
	case l.Fuel < 0:
		return fmt.Errorf("limits.fuel is %d, want a positive number", l.Fuel)
	case l.Work < 0:
		return fmt.Errorf("limits.work is %d, want a positive number", l.Work)
	case o.Instances < 0:
		return fmt.Errorf("instances is %d, want a positive number", o.Instances)
	}
	switch o.OnFailure {
	case "":
		o.OnFailure = Fail
	case Fallback, Fail:
	default:
		return fmt.Errorf("on_failure is %q, want %q or %q", o.OnFailure, Fallback, Fail)
	}
	orElse(&l.MemoryMiB, defaultMemoryMiB)
	orElse(&l.SearchTimeout, 10*time.Second)
	orElse(&l.BuildTimeout, 5*time.Minute)
	orElse(&l.Fuel, int64(1e9))
	orElse(&l.Work, int64(1e13))
	orElse(&o.Instances, runtime.GOMAXPROCS(0))
	if o.Scanner == nil {
		o.Scanner = compute.NewCPU()
	}
	if o.Memory == nil {
		o.Memory = kv.NewAllocator(0)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return nil
}

// orElse sets *v to d when it is zero.
func orElse[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
