package kernel

// ScoreList writes out[j][i] = qs[j] . rows[ids[i]] for each of the 1 to
// [MaxQueries] queries (f32, length rows.Dim). scratch has length rows.Dim.
func ScoreList(qs [][]float32, rows Rows, ids []uint32, out [][]float32, scratch []float32) {
	if active != nil && rows.Dim > 0 {
		active.scoreList(qs, rows, ids, out)
		return
	}
	for i, id := range ids {
		row := widened(rows, int(id), scratch)
		for j, q := range qs {
			out[j][i] = Dot(q, row)
		}
	}
}

// ScoreRange writes out[j][i-lo] = qs[j] . rows[i] for i in [lo, hi).
// scratch has length rows.Dim.
func ScoreRange(qs [][]float32, rows Rows, lo, hi int, out [][]float32, scratch []float32) {
	if active != nil && rows.Dim > 0 {
		active.scoreRange(qs, rows, lo, hi, out)
		return
	}
	for i := lo; i < hi; i++ {
		row := widened(rows, i, scratch)
		for j, q := range qs {
			out[j][i-lo] = Dot(q, row)
		}
	}
}

// widened returns row i as f32: a view for f32 rows, else a copy in scratch.
func widened(rows Rows, i int, scratch []float32) []float32 {
	if rows.DType == F32 {
		return rows.F32[i*rows.Dim : (i+1)*rows.Dim]
	}
	rows.Widen(i, scratch)
	return scratch[:rows.Dim]
}

// Dot returns the inner product of two vectors of the same length, summed in
// four interleaved f32 accumulators.
func Dot(a, b []float32) float32 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
		a, b = a[4:], b[4:]
	}
	for i, v := range a {
		s0 += v * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}
