// Command gen writes the amd64 assembly of package kernel and the Go
// declarations that go with it:
//
//	go run . -part rows -level avx2 -out ../../rows_avx2_amd64.s -stubs ../../rows_avx2_amd64.go -pkg kernel
//
// `make kernels` runs it for every part at every level. It is a module of its own so that
// programs that use ra do not depend on the assembler.
//
// Registers are assigned by hand where a kernel's shape depends on how many
// there are (vectors), and left to avo elsewhere (addresses and counters).
package main

import (
	"flag"
	"log"
	"maps"
	"slices"
	"strings"

	. "github.com/mmcloughlin/avo/build"
)

var levels = map[string]*level{
	"avx2":   {name: "AVX2", lanes: 8},
	"avx512": {name: "AVX512", lanes: 16},

	"avx512vnni": {name: "AVX512VNNI", lanes: 16, vnni: true},
}

// parts are the families of kernels, a file each at every level.
var parts = map[string]func(*level){
	"rows": func(l *level) {
		for _, t := range []dtype{f32, bf16, f16} {
			for _, nq := range []int{1, 2, 4} {
				l.dots(t, nq)
			}
			for _, list := range []bool{false, true} {
				l.weighted(t, list)
			}
		}
		l.widen(bf16)
		l.widen(f16)
		if !l.wide() {
			prefetch() // needs no vector registers: written once, for every level
		}
	},
	"scan": func(l *level) {
		l.packQuery(false)
		l.packQuery(true)
		for _, f := range []form{scanF32, scanBF16, scanF16, scanRounded} {
			if f.rounded && !l.wide() {
				continue
			}
			for _, nq := range []int{1, 2, 4} {
				l.scan(f, nq, false)
				l.scan(f, nq, true)
				l.best(f, nq)
			}
		}
	},
	"elementwise": func(l *level) {
		l.axpy()
		l.scale()
		l.maxOf()
		l.firstAtLeast()
		l.expSum()
		l.siluGate()
		l.sumSquares()
		l.normMul()
		l.rope()
		l.ropeTable()
		l.narrow(bf16)
		l.narrow(f16)
	},
	"gemm":  (*level).gemm,
	"peak":  (*level).peak,
	"codes": (*level).codes,
}

func main() {
	name := flag.String("level", "", "instruction set: "+names(levels))
	part := flag.String("part", "", "family of kernels: "+names(parts))
	flag.Parse()
	l, write := levels[*name], parts[*part]
	if l == nil || write == nil {
		log.Fatalf("-level is %q, it must be one of %s; -part is %q, it must be one of %s", *name, names(levels), *part, names(parts))
	}
	ConstraintExpr("amd64")
	l.constants()
	write(l)
	Generate()
}

func names[V any](m map[string]V) string { return strings.Join(slices.Sorted(maps.Keys(m)), ", ") }
