// Package ra is the guest SDK for search plugins in Go.
//
// A plugin implements [Search], registers itself in an init function and is
// compiled to WebAssembly:
//
//	func init() { ra.Register(ra.Description{Name: "mine", Version: "1"}, &mine{}) }
//	func main() {}
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o mine.wasm .
//
// The plugin decides and the host computes: keys and queries stay in the
// host, and the functions of this package score them there. A search that
// calls few, large kernels is as fast as native code.
//
// # Rules
//
// One goroutine calls into a plugin at a time, but several instances of it
// may run, each with its own memory, and any of them may get any call: keep
// nothing between calls that a fresh instance could not do without. Sleeping
// ends the call. There are no files, no network and no environment; the clock
// only counts its readings, and random numbers are seeded by the host.
//
// # Memory
//
// [Call.Uint32s] and [Call.Float32s] lend memory for the time of one search
// without burdening the garbage collector. Other allocations are collected
// every 1024 calls, at the end of a call.
//
// # Tests
//
// Everything but the exports compiles on any platform. Package ratest runs a
// plugin against keys in Go slices.
package ra
