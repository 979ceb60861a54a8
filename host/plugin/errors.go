package plugin

import (
	"errors"
	"fmt"
	"strings"
)

// Errors of a plugin, wrapped in an [Error]. A wrong answer wraps
// retrieval.ErrHits.
var (
	// ErrUnknown: no built-in plugin has the name.
	ErrUnknown = errors.New("unknown plugin")
	// ErrModule: the file is not a module that this host can run.
	ErrModule = errors.New("unusable module")
	// ErrABI: the module lacks an export, or imports or exports something of
	// another signature, or speaks another version.
	ErrABI = errors.New("ABI mismatch")
	// ErrDigest: the file is not the one that was pinned.
	ErrDigest = errors.New("digest mismatch")
	// ErrParam: a parameter is unknown, of the wrong type or out of range.
	ErrParam = errors.New("invalid parameter")
	// ErrMemory: the module needs more memory than its limit.
	ErrMemory = errors.New("memory limit exceeded")
	// ErrFuel: a call used up its fuel.
	ErrFuel = errors.New("out of fuel")
	// ErrWork: a call asked the kernels for more than its limit.
	ErrWork = errors.New("work limit exceeded")
	// ErrDeadline: a call ran past its deadline.
	ErrDeadline = errors.New("deadline exceeded")
	// ErrStack: a call recursed too deeply.
	ErrStack = errors.New("stack overflow")
	// ErrCall: the guest called a host function with arguments that it does
	// not take, or where it may not be called.
	ErrCall = errors.New("invalid host call")
	// ErrCapability: the guest asked for something that it was not granted.
	ErrCapability = errors.New("not permitted")
	// ErrExit: the guest ended itself.
	ErrExit = errors.New("plugin exited")
	// ErrTrap: any other trap.
	ErrTrap = errors.New("trap")
	// ErrGuest: the guest reported a failure.
	ErrGuest = errors.New("plugin failed")
	// ErrClosed: the plugin was closed.
	ErrClosed = errors.New("plugin closed")
)

// ParamError is a parameter that is unknown, of the wrong type or out of
// range. It wraps [ErrParam].
type ParamError struct {
	Param  string
	Reason string
}

// Error says what is wrong.
func (e *ParamError) Error() string { return ErrParam.Error() + ": " + e.Reason }

// Unwrap returns [ErrParam].
func (e *ParamError) Unwrap() error { return ErrParam }

// Error is a failed operation of a plugin.
type Error struct {
	Plugin    string // name, or the path before the name is known
	Digest    string // "sha256:..."
	Operation string // "load", "configure", "build", "append", "search"
	Layer     int    // -1 outside build, append and search
	Step      int    // position of the search's first token, -1 elsewhere
	Err       error
}

// Error says which plugin failed where, and why.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("plugin " + e.Plugin)
	if d, ok := strings.CutPrefix(e.Digest, digestPrefix); ok {
		b.WriteString("@" + digestPrefix + d[:min(len(d), 12)])
	}
	b.WriteString(": " + e.Operation)
	if e.Layer >= 0 {
		fmt.Fprintf(&b, " layer %d", e.Layer)
	}
	if e.Step >= 0 {
		fmt.Fprintf(&b, " step %d", e.Step)
	}
	return b.String() + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
