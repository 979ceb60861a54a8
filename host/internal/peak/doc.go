// Package peak holds loops that do nothing but multiply and add on registers,
// or nothing but read memory: what a core can do at most. Measurements compare
// kernels with them.
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

// Read reads data, a multiple of 1024 bytes, as four streams that lie apart,
// with the vectors of a kernel level. It reports false where there is no such
// loop. The caller must know that the CPU runs the level.
func Read(level string, data []byte) bool {
	read := readers[level]
	if read == nil || len(data) == 0 || len(data)%1024 != 0 {
		return false
	}
	read(&data[0], len(data))
	return true
}
