// Command gen writes the amd64 assembly of package kernel and the Go
// declarations that go with it:
//
//	go run . -level avx2 -out ../../avx2_amd64.s -stubs ../../avx2_amd64.go -pkg kernel
//
// `make kernels` runs it for every level. It is a module of its own so that
// programs that use ra do not depend on the assembler.
//
// Registers are assigned by hand where a kernel's shape depends on how many
// there are (vectors), and left to avo elsewhere (addresses and counters).
package main

import (
	"flag"
	"log"

	. "github.com/mmcloughlin/avo/build"
)

func main() {
	name := flag.String("level", "", "instruction set: avx2 or avx512")
	flag.Parse()
	var l level
	switch *name {
	case "avx2":
		l = level{name: "AVX2", lanes: 8}
	case "avx512":
		l = level{name: "AVX512", lanes: 16}
	default:
		log.Fatalf("-level is %q; it must be avx2 or avx512", *name)
	}
	ConstraintExpr("amd64")
	l.constants()
	for _, t := range []dtype{f32, bf16, f16} {
		for _, list := range []bool{false, true} {
			for _, nq := range []int{1, 2, 4} {
				l.dots(t, nq, list)
			}
			l.weighted(t, list)
		}
	}
	l.widen(bf16)
	l.widen(f16)
	l.axpy()
	l.scale()
	l.maxOf()
	l.firstAtLeast()
	l.expSum()
	l.siluGate()
	l.sumSquares()
	l.normMul()
	l.rope()
	if !l.wide() {
		prefetch() // needs no vector registers: written once, for every level
	}
	Generate()
}
