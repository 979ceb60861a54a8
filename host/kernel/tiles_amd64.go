package kernel

var tilesAVX2 = tileOps{
	rows: 6, columns: 16, packed: 24,
	mul:  []tileFunc{tile1AVX2, tile2AVX2, tile3AVX2, tile4AVX2, tile5AVX2, tile6AVX2},
	top:  tileTopAVX2,
	pack: [3]panelFunc{F32: packF32AVX2, BF16: packBF16AVX2, F16: packF16AVX2},
	few: [3][3]fewFunc{
		F32:  {few1F32AVX2, few2F32AVX2, few4F32AVX2},
		BF16: {few1BF16AVX2, few2BF16AVX2, few4BF16AVX2},
		F16:  {few1F16AVX2, few2F16AVX2, few4F16AVX2},
	},
	mix: [3][3]mixFunc{
		F32:  {mix1F32AVX2, mix2F32AVX2, mix4F32AVX2},
		BF16: {mix1BF16AVX2, mix2BF16AVX2, mix4BF16AVX2},
		F16:  {mix1F16AVX2, mix2F16AVX2, mix4F16AVX2},
	},
	softmax: softmaxAVX2,
}

var tilesAVX512 = tileOps{
	rows: 12, columns: 32, packed: 48,
	mul: []tileFunc{
		tile1AVX512, tile2AVX512, tile3AVX512, tile4AVX512, tile5AVX512, tile6AVX512,
		tile7AVX512, tile8AVX512, tile9AVX512, tile10AVX512, tile11AVX512, tile12AVX512,
	},
	top:  tileTopAVX512,
	pack: [3]panelFunc{F32: packF32AVX512, BF16: packBF16AVX512, F16: packF16AVX512},
	few: [3][3]fewFunc{
		F32:  {few1F32AVX512, few2F32AVX512, few4F32AVX512},
		BF16: {few1BF16AVX512, few2BF16AVX512, few4BF16AVX512},
		F16:  {few1F16AVX512, few2F16AVX512, few4F16AVX512},
	},
	mix: [3][3]mixFunc{
		F32:  {mix1F32AVX512, mix2F32AVX512, mix4F32AVX512},
		BF16: {mix1BF16AVX512, mix2BF16AVX512, mix4BF16AVX512},
		F16:  {mix1F16AVX512, mix2F16AVX512, mix4F16AVX512},
	},
	softmax: softmaxAVX512,
}

// withBF16 returns the tiles with those that need the BF16 instructions.
func (t tileOps) withBF16() tileOps {
	t.topBF16, t.narrow = tileTopBF16AVX512, roundBF16AVX512
	return t
}
