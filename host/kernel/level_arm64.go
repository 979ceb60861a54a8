package kernel

import "golang.org/x/sys/cpu"

// vectorLevels returns the levels above generic that this CPU runs, weakest
// first. The first needs no more than what every CPU has that runs Go on
// arm64.
func vectorLevels() []level {
	plain := ops{
		dots: [3][3]dotsFunc{
			F32:  {dots1F32NEON, dots2F32NEON, dots4F32NEON},
			BF16: {dots1BF16NEON, dots2BF16NEON, dots4BF16NEON},
			F16:  {dots1F16NEON, dots2F16NEON, dots4F16NEON},
		},
		dotsList: [3][3]dotsFunc{
			F32:  {dots1F32ListNEON, dots2F32ListNEON, dots4F32ListNEON},
			BF16: {dots1BF16ListNEON, dots2BF16ListNEON, dots4BF16ListNEON},
			F16:  {dots1F16ListNEON, dots2F16ListNEON, dots4F16ListNEON},
		},
		weighted:     [3]weightedFunc{F32: weightedF32NEON, BF16: weightedBF16NEON, F16: weightedF16NEON},
		weightedList: [3]weightedFunc{F32: weightedF32ListNEON, BF16: weightedBF16ListNEON, F16: weightedF16ListNEON},
		widen:        [3]widenFunc{BF16: widenBF16NEON, F16: widenF16NEON},
		prefetch:     prefetchRowsNEON,
		axpy:         axpyNEON,
		scale:        scaleNEON,
		maxOf:        maxOfNEON,
		firstAtLeast: firstAtLeastNEON,
		expSum:       expSumNEON,
		siluGate:     siluGateNEON,
		sumSquares:   sumSquaresNEON,
		normMul:      normMulNEON,
		rope:         ropeNEON,
		codes:        &codesNEON,
		tiles:        tilesNEON,
	}
	ls := []level{{"neon", &plain}}
	if !cpu.ARM64.HasASIMDDP {
		return ls
	}
	dot := plain
	dot.codes = &codesNEONDot
	return append(ls, level{"neondot", &dot})
}
