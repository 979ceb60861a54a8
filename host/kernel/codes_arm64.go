package kernel

var codesNEON = codeOps{
	hadamard: hadamardNEON,
	gridSums: gridSumsNEON,
	digits:   digitsNEON,
	estimate: [4][3]estimateFunc{
		{estimate1x1NEON, estimate1x2NEON, estimate1x4NEON},
		{estimate2x1NEON, estimate2x2NEON, estimate2x4NEON},
		{estimate3x1NEON, estimate3x2NEON, estimate3x4NEON},
		{estimate4x1NEON, estimate4x2NEON, estimate4x4NEON},
	},
	countAtLeast: countAtLeastNEON,
	takeAtLeast:  takeAtLeastNEON,
	sumExp:       sumExpNEON,
}

var codesNEONDot = func() codeOps {
	o := codesNEON
	o.estimate = [4][3]estimateFunc{
		{estimate1x1NEONDot, estimate1x2NEONDot, estimate1x4NEONDot},
		{estimate2x1NEONDot, estimate2x2NEONDot, estimate2x4NEONDot},
		{estimate3x1NEONDot, estimate3x2NEONDot, estimate3x4NEONDot},
		{estimate4x1NEONDot, estimate4x2NEONDot, estimate4x4NEONDot},
	}
	return o
}()
