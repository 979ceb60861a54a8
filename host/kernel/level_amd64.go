package kernel

import "golang.org/x/sys/cpu"

// vectorLevels returns the levels above generic that this CPU runs, weakest
// first.
func vectorLevels() []level {
	var ls []level
	x := &cpu.X86
	if !x.HasAVX2 || !x.HasFMA || !x.HasF16C {
		return nil
	}
	ls = append(ls, level{"avx2", &ops{
		dots: [3][3]dotsFunc{
			F32:  {dots1F32AVX2, dots2F32AVX2, dots4F32AVX2},
			BF16: {dots1BF16AVX2, dots2BF16AVX2, dots4BF16AVX2},
			F16:  {dots1F16AVX2, dots2F16AVX2, dots4F16AVX2},
		},
		dotsList: [3][3]dotsFunc{
			F32:  {dots1F32ListAVX2, dots2F32ListAVX2, dots4F32ListAVX2},
			BF16: {dots1BF16ListAVX2, dots2BF16ListAVX2, dots4BF16ListAVX2},
			F16:  {dots1F16ListAVX2, dots2F16ListAVX2, dots4F16ListAVX2},
		},
		weighted:     [3]weightedFunc{F32: weightedF32AVX2, BF16: weightedBF16AVX2, F16: weightedF16AVX2},
		weightedList: [3]weightedFunc{F32: weightedF32ListAVX2, BF16: weightedBF16ListAVX2, F16: weightedF16ListAVX2},
		widen:        [3]widenFunc{BF16: widenBF16AVX2, F16: widenF16AVX2},
		prefetch:     prefetchRows,
		axpy:         axpyAVX2,
		scale:        scaleAVX2,
		maxOf:        maxOfAVX2,
		firstAtLeast: firstAtLeastAVX2,
		expSum:       expSumAVX2,
		siluGate:     siluGateAVX2,
		sumSquares:   sumSquaresAVX2,
		normMul:      normMulAVX2,
		rope:         ropeAVX2,
		tiles:        tilesAVX2,
	}})
	if !x.HasAVX512F || !x.HasAVX512BW || !x.HasAVX512VL || !x.HasAVX512DQ {
		return ls
	}
	wide := ops{
		dots: [3][3]dotsFunc{
			F32:  {dots1F32AVX512, dots2F32AVX512, dots4F32AVX512},
			BF16: {dots1BF16AVX512, dots2BF16AVX512, dots4BF16AVX512},
			F16:  {dots1F16AVX512, dots2F16AVX512, dots4F16AVX512},
		},
		dotsList: [3][3]dotsFunc{
			F32:  {dots1F32ListAVX512, dots2F32ListAVX512, dots4F32ListAVX512},
			BF16: {dots1BF16ListAVX512, dots2BF16ListAVX512, dots4BF16ListAVX512},
			F16:  {dots1F16ListAVX512, dots2F16ListAVX512, dots4F16ListAVX512},
		},
		weighted:     [3]weightedFunc{F32: weightedF32AVX512, BF16: weightedBF16AVX512, F16: weightedF16AVX512},
		weightedList: [3]weightedFunc{F32: weightedF32ListAVX512, BF16: weightedBF16ListAVX512, F16: weightedF16ListAVX512},
		widen:        [3]widenFunc{BF16: widenBF16AVX512, F16: widenF16AVX512},
		prefetch:     prefetchRows,
		axpy:         axpyAVX512,
		scale:        scaleAVX512,
		maxOf:        maxOfAVX512,
		firstAtLeast: firstAtLeastAVX512,
		expSum:       expSumAVX512,
		siluGate:     siluGateAVX512,
		sumSquares:   sumSquaresAVX512,
		normMul:      normMulAVX512,
		rope:         ropeAVX512,
		tiles:        tilesAVX512,
	}
	ls = append(ls, level{"avx512", &wide})
	if !x.HasAVX512VNNI || !x.HasAVX512BF16 {
		return ls
	}
	vnni := wide
	vnni.tiles = wide.tiles.withBF16()
	return append(ls, level{"avx512vnni", &vnni})
}
