package engine

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/placement"
	"github.com/retrievalattention/ra/host/retrieval"
)

// Errors that callers decide on.
var (
	// ErrEmptyPrompt marks a prompt without any token to answer.
	ErrEmptyPrompt = errors.New("empty prompt")
	// ErrPromptTooLong marks a prompt over the context limit.
	ErrPromptTooLong = errors.New("prompt too long")
)

// Mode says which tokens a decode step attends to.
type Mode string

// Attention modes.
const (
	Retrieval Mode = "retrieval" // static set, and what the search finds of the rest
	Full      Mode = "full"      // every token
	StaticSet Mode = "static"    // static set alone
)

// Modes lists all modes.
func Modes() []Mode { return []Mode{Retrieval, Full, StaticSet} }

// ParseMode returns the mode of that name.
func ParseMode(s string) (Mode, error) {
	for _, m := range Modes() {
		if s == string(m) {
			return m, nil
		}
	}
	return "", fmt.Errorf("unknown attention mode %q; it is one of %s", s, joinModes())
}

func joinModes() string {
	var names []string
	for _, m := range Modes() {
		names = append(names, string(m))
	}
	return strings.Join(names, ", ")
}

// Options configure an engine.
type Options struct {
	Model      compute.Model
	Backend    compute.Backend
	Strategy   retrieval.Strategy // finds indexed tokens; needed for Retrieval
	Memory     *kv.Allocator      // for keys, values and kept queries, and for the strategy; nil means without budget
	DType      kernel.DType       // of keys and values
	TopK       int                // most tokens retrieved a query head
	Policy     placement.Policy   // places tokens, in all modes but Full
	MaxContext int                // most tokens in context, question and answer included
}

// Engine runs one model. It is safe for concurrent use.
type Engine struct {
	o      Options
	tenure atomic.Pointer[tenure] // of the search strategy
}

// New returns an engine.
func New(o Options) (*Engine, error) {
	switch {
	case o.Model == nil || o.Backend == nil || o.Policy == nil:
		return nil, errors.New("engine needs a model, a backend and a placement policy")
	case o.TopK < 0:
		return nil, fmt.Errorf("top-k is %d, must not be negative", o.TopK)
	case o.MaxContext < 1:
		return nil, fmt.Errorf("max context is %d, must be positive", o.MaxContext)
	}
	if o.Memory == nil {
		o.Memory = kv.NewAllocator(0)
	}
	e := &Engine{o: o}
	e.tenure.Store(newTenure(o.Strategy))
	return e, nil
}
