// Package sched shares the process's cores among its loops.
//
// [Run] is a parallel loop. The goroutine that calls it works on it, and idle
// helpers join. Loops may be nested at will (heads, in them queries, in them
// ranges): a body that runs a loop of its own gives the others something to
// help with, and helpers are counted over all loops, so that the goroutines
// at work do not outnumber GOMAXPROCS.
//
// Helpers are started when a loop opens, look for another loop for some
// microseconds after it, so that the many short loops of a decode step find
// them awake, and end. Nothing has to be closed.
package sched
