package kernel

import (
	"math"
	"math/rand/v2"
)

// synthetic returns n bf16 keys and queries like those of an attention head:
// keys in 512 clusters of very different sizes around a common offset, with a
// spectrum that falls off, one key in a hundred 2.5 times as far from the
// offset; queries out of the keys' distribution, with a mean and a covariance
// of their own, drawn to two to four clusters. Hard queries are drawn half as
// much and have twice the noise, so that their best keys come from everywhere
// and lie close together.
func synthetic(seed uint64, n, dim, queries int, hard bool) (Rows, [][]float32) {
	r := rand.New(rand.NewPCG(seed, 77))
	const clusters = 512
	gauss := func(scale func(i int) float64) []float64 {
		x := make([]float64, dim)
		for i := range x {
			x[i] = r.NormFloat64() * scale(i)
		}
		return x
	}
	// Spectra of keys and queries fall off over different dimensions.
	order := r.Perm(dim)
	falling := func(i int) float64 { return 2 / math.Sqrt(1+float64(order[i])/8) }
	rising := func(i int) float64 { return 2 / math.Sqrt(1+float64(dim-1-order[i])/8) }
	flat := func(int) float64 { return 1 }
	offset := gauss(func(int) float64 { return 2 })
	var centres [][]float64
	for range clusters {
		centres = append(centres, gauss(falling))
	}
	keys := RowsU16(make([]uint16, n*dim), dim, BF16)
	row := make([]float32, dim)
	for i := range n {
		// Cluster c has a share in proportion to 1/sqrt(c).
		u := r.Float64()
		centre := centres[int(u*u*clusters)]
		far := 1.0
		if r.IntN(100) == 0 {
			far = 2.5
		}
		own := gauss(falling)
		for d := range row {
			row[d] = float32(offset[d] + far*(0.7*centre[d]+0.7*own[d]))
		}
		keys.Narrow(i, row)
	}
	noise, pull := 0.5, 0.6
	if hard {
		noise, pull = 1, 0.3
	}
	drift := gauss(flat)
	var qs [][]float32
	for range queries {
		q, own := make([]float32, dim), gauss(rising)
		for range 2 + r.IntN(3) {
			centre := centres[r.IntN(clusters)]
			for d := range q {
				q[d] += float32(pull * centre[d])
			}
		}
		for d := range q {
			q[d] += float32(drift[d] + noise*own[d])
		}
		qs = append(qs, q)
	}
	return keys, qs
}
