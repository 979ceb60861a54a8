//go:build !linux

package kv

import (
	"errors"
	"os"
)

// punches says that a freed block reads as zeros from then on.
const punches = false

// openArena makes a temporary file and removes its name.
func openArena(name string) (rw, ro *os.File, err error) {
	rw, err = os.CreateTemp("", "ra-"+name+"-*")
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(rw.Name())
	if ro, err = os.Open(rw.Name()); err != nil {
		return nil, nil, errors.Join(err, rw.Close())
	}
	return rw, ro, nil
}

// punch does nothing: the block keeps its room until it is used again.
func punch(*os.File, extent) error { return nil }

func adviseShared([]byte) {}
