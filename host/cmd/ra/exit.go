package main

import (
	"context"
	"errors"

	"github.com/retrievalattention/ra/host/bench"
	"github.com/retrievalattention/ra/host/config"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/plugin/scaffold"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailure     = 1   // anything not named below
	exitUsage       = 2   // wrong command line
	exitConfig      = 3   // invalid configuration
	exitModel       = 4   // a model that cannot be read
	exitPlugin      = 5   // a plugin that cannot be built or loaded, fails its tests or, with on_failure = "fail", failed
	exitPrompt      = 6   // a prompt that is empty or over a limit, or a measurement that memory does not hold
	exitInterrupted = 130 // SIGINT or SIGTERM
)

// Errors that decide the exit code.
var (
	errUsage = errors.New("usage")
	errModel = errors.New("cannot open the model")
	// errConformance: a plugin does not keep its contract.
	errConformance = errors.New("not conformant")
)

func exitCode(err error) int {
	if errors.Is(err, plugin.ErrParam) {
		return exitConfig
	}
	if failed := (*plugin.Error)(nil); errors.As(err, &failed) && !errors.Is(err, context.Canceled) {
		return exitPlugin
	}
	for _, c := range []struct {
		err  error
		code int
	}{
		{context.Canceled, exitInterrupted},
		{errUsage, exitUsage},
		{config.ErrInvalid, exitConfig},
		{scaffold.ErrOptions, exitUsage},
		{scaffold.ErrCompiler, exitPlugin},
		{errConformance, exitPlugin},
		{errModel, exitModel},
		{engine.ErrEmptyPrompt, exitPrompt},
		{engine.ErrPromptTooLong, exitPrompt},
		{kv.ErrBudget, exitPrompt},
		{bench.ErrMemory, exitPrompt},
	} {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return exitFailure
}
