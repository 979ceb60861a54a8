// Package peak holds loops that do nothing but multiply and add on registers:
// what a core's arithmetic can be at most. Measurements compare kernels with
// them.
package peak

// Loop is one of them: a call of Run(steps) does steps * FLOP f32 operations,
// a multiply-add counted as two.
type Loop struct {
	Run  func(steps int)
	FLOP float64
}

// Loops returns the loops of this architecture by kernel level; a level that
// is not there has none. The caller must know that the CPU runs the level.
func Loops() map[string]Loop { return loops }
