package process

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	contract "github.com/retrievalattention/ra/sdk/process/v1"
)

// Grants that a plugin can be given, in the order in which it inherits their
// descriptors.
var Grants = []string{contract.FeatureKeys, contract.FeatureValues, contract.FeatureQueries}

// Limits bound what a plugin may take. Zero means the default.
type Limits struct {
	// StartTimeout bounds starting and configuring. Default 30 s.
	StartTimeout time.Duration
	// SearchTimeout bounds one search or append. Default 10 s.
	SearchTimeout time.Duration
	// BuildTimeout bounds the build, export or import of one layer. Default
	// 5 min.
	BuildTimeout time.Duration
}

// Options say which plugin to run and how.
type Options struct {
	// Name is what the configuration calls the plugin.
	Name string
	// Path is the plugin's file. It is run with Args, by Interpreter when
	// that is set.
	Path, Interpreter string
	Args              []string
	// Env is the plugin's whole environment, beside what go-plugin sets.
	Env map[string]string
	// SHA256 of the file at Path is verified before each start when set: hex,
	// with or without "sha256:" before it.
	SHA256 string
	// Grants name what the plugin may see; see the variable Grants.
	Grants []string
	// Params are checked against what the plugin declares.
	Params map[string]any
	Limits Limits
	// OnFailure defaults to Fail.
	OnFailure plugin.OnFailure
	// Memory is the shared allocator of the contexts to be searched. Its
	// arenas are what the grants give access to.
	Memory *kv.Allocator
	// Scanner computes exact search. Default: the CPU backend.
	Scanner compute.Scanner
	// Seed is for the plugin's random numbers and the jitter of restarts.
	Seed uint64
	// Logger receives the plugin's messages and the host's. Default:
	// slog.Default().
	Logger *slog.Logger

	clock clock
}

// complete checks o and fills in the defaults.
func (o *Options) complete() error {
	l := &o.Limits
	switch {
	case o.Path == "":
		return fmt.Errorf("no path is set")
	case l.StartTimeout < 0 || l.SearchTimeout < 0 || l.BuildTimeout < 0:
		return fmt.Errorf("a timeout is negative")
	case o.Memory == nil:
		return fmt.Errorf("no memory is set")
	}
	if keys, _, _ := o.Memory.Shared(); keys == nil {
		return fmt.Errorf("the memory for keys and values is not shared")
	}
	for _, g := range o.Grants {
		if !slices.Contains(Grants, g) {
			return fmt.Errorf("grants: %q is not one of %s", g, strings.Join(Grants, ", "))
		}
	}
	switch o.OnFailure {
	case "":
		o.OnFailure = plugin.Fail
	case plugin.Fallback, plugin.Fail:
	default:
		return fmt.Errorf("on_failure is %q, want %q or %q", o.OnFailure, plugin.Fallback, plugin.Fail)
	}
	orElse(&l.StartTimeout, 30*time.Second)
	orElse(&l.SearchTimeout, 10*time.Second)
	orElse(&l.BuildTimeout, 5*time.Minute)
	orElse(&o.Name, o.Path)
	if o.Scanner == nil {
		o.Scanner = compute.NewCPU()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.clock == nil {
		o.clock = wallClock{}
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
