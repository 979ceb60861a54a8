package kernel

var codesAVX2 = codeOps{
	hadamard: hadamardAVX2,
	gridSums: gridSumsAVX2,
	digits:   digitsAVX2,
	estimate: [4][3]estimateFunc{
		{estimate1x1AVX2, estimate1x2AVX2, estimate1x4AVX2},
		{estimate2x1AVX2, estimate2x2AVX2, estimate2x4AVX2},
		{estimate3x1AVX2, estimate3x2AVX2, estimate3x4AVX2},
		{estimate4x1AVX2, estimate4x2AVX2, estimate4x4AVX2},
	},
	countAtLeast: countAtLeastAVX2,
	takeAtLeast:  takeAtLeastAVX2,
	sumExp:       sumExpAVX2,
}

var codesAVX512 = codeOps{
	hadamard: hadamardAVX512,
	gridSums: gridSumsAVX512,
	digits:   digitsAVX512,
	estimate: [4][3]estimateFunc{
		{estimate1x1AVX512, estimate1x2AVX512, estimate1x4AVX512},
		{estimate2x1AVX512, estimate2x2AVX512, estimate2x4AVX512},
		{estimate3x1AVX512, estimate3x2AVX512, estimate3x4AVX512},
		{estimate4x1AVX512, estimate4x2AVX512, estimate4x4AVX512},
	},
	countAtLeast: countAtLeastAVX512,
	takeAtLeast:  takeAtLeastAVX512,
	sumExp:       sumExpAVX512,
}

var codesAVX512VNNI = func() codeOps {
	o := codesAVX512
	o.estimate = [4][3]estimateFunc{
		{estimate1x1AVX512VNNI, estimate1x2AVX512VNNI, estimate1x4AVX512VNNI},
		{estimate2x1AVX512VNNI, estimate2x2AVX512VNNI, estimate2x4AVX512VNNI},
		{estimate3x1AVX512VNNI, estimate3x2AVX512VNNI, estimate3x4AVX512VNNI},
		{estimate4x1AVX512VNNI, estimate4x2AVX512VNNI, estimate4x4AVX512VNNI},
	}
	return o
}()
