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
		ropeTable:    ropeTableAVX2,
		narrow:       [3]narrowFunc{BF16: narrowBF16AVX2, F16: narrowF16AVX2},
		scans: [4]scanOps{
			F32: {
				step: 8, pack: packAVX2,
				dots: [3]scanFunc{scan1F32AVX2, scan2F32AVX2, scan4F32AVX2},
				list: [3]scanFunc{scan1F32ListAVX2, scan2F32ListAVX2, scan4F32ListAVX2},
				best: [3]bestFunc{best1F32AVX2, best2F32AVX2, best4F32AVX2},
			},
			BF16: {
				step: 16, pack: packSplitAVX2,
				dots: [3]scanFunc{scan1BF16AVX2, scan2BF16AVX2, scan4BF16AVX2},
				list: [3]scanFunc{scan1BF16ListAVX2, scan2BF16ListAVX2, scan4BF16ListAVX2},
				best: [3]bestFunc{best1BF16AVX2, best2BF16AVX2, best4BF16AVX2},
			},
			F16: {
				step: 8, pack: packAVX2,
				dots: [3]scanFunc{scan1F16AVX2, scan2F16AVX2, scan4F16AVX2},
				list: [3]scanFunc{scan1F16ListAVX2, scan2F16ListAVX2, scan4F16ListAVX2},
				best: [3]bestFunc{best1F16AVX2, best2F16AVX2, best4F16AVX2},
			},
		},
		codes: &codesAVX2,
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
		ropeTable:    ropeTableAVX512,
		narrow:       [3]narrowFunc{BF16: narrowBF16AVX512, F16: narrowF16AVX512},
		scans: [4]scanOps{
			F32: {
				step: 16, pack: packAVX512,
				dots: [3]scanFunc{scan1F32AVX512, scan2F32AVX512, scan4F32AVX512},
				list: [3]scanFunc{scan1F32ListAVX512, scan2F32ListAVX512, scan4F32ListAVX512},
				best: [3]bestFunc{best1F32AVX512, best2F32AVX512, best4F32AVX512},
			},
			BF16: {
				step: 32, pack: packSplitAVX512,
				dots: [3]scanFunc{scan1BF16AVX512, scan2BF16AVX512, scan4BF16AVX512},
				list: [3]scanFunc{scan1BF16ListAVX512, scan2BF16ListAVX512, scan4BF16ListAVX512},
				best: [3]bestFunc{best1BF16AVX512, best2BF16AVX512, best4BF16AVX512},
			},
			F16: {
				step: 16, pack: packAVX512,
				dots: [3]scanFunc{scan1F16AVX512, scan2F16AVX512, scan4F16AVX512},
				list: [3]scanFunc{scan1F16ListAVX512, scan2F16ListAVX512, scan4F16ListAVX512},
				best: [3]bestFunc{best1F16AVX512, best2F16AVX512, best4F16AVX512},
			},
		},
		padded: true,
		codes:  &codesAVX512,
	}
	ls = append(ls, level{"avx512", &wide})
	if !x.HasAVX512VNNI || !x.HasAVX512BF16 {
		return ls
	}
	vnni := wide
	vnni.tiles = wide.tiles.withBF16()
	vnni.scans[rounded] = scanOps{
		step: 16, pack: packAVX512,
		dots: [3]scanFunc{scan1RoundedAVX512, scan2RoundedAVX512, scan4RoundedAVX512},
		list: [3]scanFunc{scan1RoundedListAVX512, scan2RoundedListAVX512, scan4RoundedListAVX512},
		best: [3]bestFunc{best1RoundedAVX512, best2RoundedAVX512, best4RoundedAVX512},
	}
	vnni.codes = &codesAVX512VNNI
	return append(ls, level{"avx512vnni", &vnni})
}
