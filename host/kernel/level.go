package kernel

import (
	"fmt"
	"os"
	"strings"
)

// LevelEnv is the environment variable that chooses the level of the kernels.
const LevelEnv = "RA_KERNEL"

// level is a set of forms of the kernels, named for the CPU features it
// needs.
type level struct {
	name string
	ops  *ops // nil for the pure-Go forms
}

var (
	// levels are those that this CPU runs, weakest first.
	levels = append([]level{{name: "generic"}}, vectorLevels()...)

	current, levelNote = choose(levels, os.Getenv(LevelEnv))

	// active holds the vector forms in use, nil for none. Tests change it.
	active = current.ops
)

// levelNames are all levels that there are, on any CPU.
var levelNames = []string{"generic", "avx2", "avx512", "avx512vnni", "neon", "neondot"}

// choose returns the level of the given name, else the best one and why the
// name was not followed. An empty name means the best one.
func choose(levels []level, name string) (level, string) {
	best := levels[len(levels)-1]
	if name == "" {
		return best, ""
	}
	for _, l := range levels {
		if l.name == name {
			return l, ""
		}
	}
	for _, n := range levelNames {
		if n == name {
			return best, fmt.Sprintf("%s=%s: this CPU does not run that level; using %s", LevelEnv, name, best.name)
		}
	}
	return best, fmt.Sprintf("%s=%s: no such level (there are %s); using %s", LevelEnv, name, strings.Join(levelNames, ", "), best.name)
}

// Level returns the level of the kernels in use: "generic" (pure Go), "avx2"
// (AVX2, FMA and F16C), "avx512" (AVX-512 F, BW, VL and DQ), "avx512vnni"
// (the same with BF16 and VNNI), and on arm64 "neon" (what ARMv8.0 has) or
// "neondot" (the same with inner products of bytes). It is the best that the
// CPU runs, unless [LevelEnv] names another, and does not change.
func Level() string { return current.name }

// Levels returns the levels that this CPU runs, weakest first.
func Levels() []string {
	var names []string
	for _, l := range levels {
		names = append(names, l.name)
	}
	return names
}

// LevelNote says why the level that [LevelEnv] names is not used; empty when
// it is, or when none is named.
func LevelNote() string { return levelNote }
