// Package plugin runs search strategies that are WebAssembly modules.
//
// [Load] checks a module, compiles it and returns a [Plugin], which is a
// retrieval.Strategy. The module speaks the ABI described in sdk/abi/v1: it
// decides, and the host's kernels compute on the host's data.
//
// # What a guest can and cannot do
//
// A guest sees its own linear memory and the functions of the ABI, nothing
// else: no files, network, clock or environment. Every pointer, length and
// answer is checked. Its loops are bounded by fuel, an instruction counter
// that the loader writes into the module, because Go cannot interrupt machine
// code; its kernel work is bounded by a deadline that the kernels check; its
// memory is bounded by the allocator. A trusted plugin runs without fuel, and
// one that loops then hangs the host. Recursion is bounded by wazero, with or
// without fuel: a call stack may take up to 400 MB of the host's memory
// before the call fails.
//
// # Failures
//
// A call that traps, runs out of fuel or time, or answers wrongly fails with
// an [Error], and the instance that ran it is thrown away. With
// [Fallback] exact search answers instead; [Plugin.Stats] counts it.
package plugin
