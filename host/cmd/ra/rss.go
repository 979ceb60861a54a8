package main

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// peakRSS returns the largest resident set of this process so far, in bytes,
// or 0 when the system does not tell.
func peakRSS() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	if runtime.GOOS == "darwin" { // bytes there, KiB elsewhere
		return int64(u.Maxrss)
	}
	return int64(u.Maxrss) << 10
}
