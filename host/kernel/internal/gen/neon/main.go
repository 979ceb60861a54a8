// Command neon writes the arm64 assembly of package kernel and the Go
// declarations that go with it:
//
//	go run . -out ../../../neon_arm64.s -stubs ../../../neon_arm64.go
//
// `make kernels` runs it. The instructions are those that every ARMv8.0 CPU
// has; functions whose names end in Dot also need inner products of bytes
// (FEAT_DotProd). Go's assembler lacks many vector instructions, so they are
// all encoded here (encode.go) and written as words, each with its mnemonic
// beside it; a test has another assembler translate the mnemonics and compares.
package main

import (
	"flag"
	"log"
	"os"
)

func main() {
	out := flag.String("out", "", "file of the assembly")
	stubs := flag.String("stubs", "", "file of the Go declarations")
	flag.Parse()
	a := kernels()
	for name, text := range map[string]string{*out: a.assembly(), *stubs: a.declarations()} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// kernels generates all functions.
func kernels() *asm {
	a := &asm{}
	for _, t := range []dtype{f32, bf16, f16} {
		for _, by := range []access{inRange, inList} {
			for _, nq := range []int{1, 2, 4} {
				a.dots(t, nq, by)
			}
			a.weighted(t, by == inList)
		}
	}
	a.widen(bf16)
	a.widen(f16)
	a.prefetch()
	a.axpy()
	a.scale()
	a.maxOf()
	a.firstAtLeast()
	a.expSum()
	a.siluGate()
	a.sumSquares()
	a.normMul()
	a.rope()
	a.gemm()
	a.codes()
	return a
}
