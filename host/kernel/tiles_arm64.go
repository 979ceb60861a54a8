package kernel

var tilesNEON = tileOps{
	rows: 8, columns: 8, packed: 24,
	mul:  []tileFunc{tile1NEON, tile2NEON, tile3NEON, tile4NEON, tile5NEON, tile6NEON, tile7NEON, tile8NEON},
	top:  tileTopNEON,
	pack: [3]panelFunc{F32: packF32NEON, BF16: packBF16NEON, F16: packF16NEON},
	few: [3][3]fewFunc{
		F32:  {few1F32NEON, few2F32NEON, few4F32NEON},
		BF16: {few1BF16NEON, few2BF16NEON, few4BF16NEON},
		F16:  {few1F16NEON, few2F16NEON, few4F16NEON},
	},
	mix: [3][3]mixFunc{
		F32:  {mix1F32NEON, mix2F32NEON, mix4F32NEON},
		BF16: {mix1BF16NEON, mix2BF16NEON, mix4BF16NEON},
		F16:  {mix1F16NEON, mix2F16NEON, mix4F16NEON},
	},
	softmax: softmaxNEON,
}
