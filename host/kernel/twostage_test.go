package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// parts cuts keys into stretches with codes of their own, the last ones with room
// to spare; what lies between the ranges to be searched is not asked for. ids
// returns the key of an id.
func parts(t *testing.T, r *rand.Rand, c *Coder, keys Rows) (ps []CodedKeys, keyOf map[uint32]int) {
	keyOf = map[uint32]int{}
	first := uint32(r.IntN(100))
	for lo := 0; lo < keys.N; {
		n := min(1+r.IntN(keys.N), keys.N-lo)
		p := CodedKeys{Keys: keys.Slice(lo, lo+n), First: first}
		p.Codes = coded(t, c, p.Keys, r.IntN(20))
		p.Lo = r.IntN(n+1) / 4
		p.Hi = n - r.IntN(n-p.Lo+1)/4
		for i := p.Lo; i < p.Hi; i++ {
			keyOf[first+uint32(i)] = lo + i
		}
		ps = append(ps, p)
		first += uint32(n + r.IntN(50))
		lo += n
	}
	return ps, keyOf
}

// A search returns min(k, keys) keys with their inner products, best first,
// and the mass of all others; with every key a candidate it is exact. Whatever the
// parts, the numbers of keys, of queries, and of what is asked for.
func TestTwoStage(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(61, 1))
		var search TwoStage
		for range 80 {
			dim := []int{32, 64, 80, 128}[r.IntN(4)]
			n := r.IntN(4000)
			keys := store(dtypes[r.IntN(3)], random(r, n*dim), dim)
			exact := wide(keys)
			c := NewCoder(NewRotation(dim, 4), 1+r.IntN(4), keys)
			ps, keyOf := parts(t, r, c, keys)
			k, want := r.IntN(120), r.IntN(n+100)
			nq := 1 + r.IntN(MaxQueries)
			var qs [][]float32
			for range nq {
				qs = append(qs, random(r, dim))
			}
			tops, rest := make([]*TopK, nq), make([]Partial, nq)
			for j := range tops {
				tops[j] = NewTopK(1)
			}
			const scale = 0.03
			scored := search.Search(qs, ps, k, want, tops, rest, scale)
			if want >= len(keyOf) && scored != nq*len(keyOf) {
				t.Fatalf("%d of %d keys scored", scored, nq*len(keyOf))
			}
			for j, q := range qs {
				ids, scores := make([]uint32, k), make([]float32, k)
				m := tops[j].Take(ids, scores)
				if m != min(k, len(keyOf)) {
					t.Fatalf("%d hits, asked for %d of %d keys", m, k, len(keyOf))
				}
				var all []float64
				hit := map[uint32]bool{}
				var mass float64
				for i, id := range ids[:m] {
					key, ok := keyOf[id]
					if !ok || hit[id] {
						t.Fatalf("id %d is no key to be searched, or came twice", id)
					}
					hit[id] = true
					if s, abs := dot64(q, exact[key]); math.Abs(s-float64(scores[i])) > dotTolerance*abs {
						t.Fatalf("key %d: %v, want %v", key, scores[i], s)
					}
				}
				for id, key := range keyOf {
					s, _ := dot64(q, exact[key])
					all = append(all, s)
					if !hit[id] {
						mass += math.Exp(scale * s)
					}
				}
				slices.SortFunc(all, func(a, b float64) int { return int(math.Copysign(1, b-a)) })
				if want >= len(keyOf) {
					for i, s := range scores[:m] {
						if math.Abs(float64(s)-all[i]) > 1e-4*(1+math.Abs(all[i])) {
							t.Fatalf("rank %d has %v, want %v", i, s, all[i])
						}
					}
				}
				// Long keys weigh most, and few of them make up the rest of a small set.
				lse, tolerance := float64(rest[j].LSE()), []float64{0, 0.5, 0.2, 0.1, 0.1}[c.bits]
				if want >= len(keyOf) {
					tolerance = 1e-4
				}
				if mass > 0 && math.Abs(lse-math.Log(mass)) > tolerance || mass == 0 && !math.IsInf(lse, -1) {
					t.Fatalf("%d bits, %d keys, %d candidates: the rest is %v, want %v", c.bits, len(keyOf), want, lse, math.Log(mass))
				}
			}
		}
	})
}

// A search never returns too little, though samples mislead, estimates are
// all the same or missing, or scores are not numbers.
func TestTwoStageNeverShort(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		const dim, n, k, want = 64, 20000, 100, 200
		r := rand.New(rand.NewPCG(62, 2))
		nan := float32(math.NaN())
		plain := random(r, n*dim)
		fill := func(f func(i int, row []float32)) Rows {
			data := slices.Clone(plain)
			for i := range n {
				f(i, data[i*dim:(i+1)*dim])
			}
			return RowsF32(data, dim)
		}
		for name, keys := range map[string]Rows{
			"all keys equal":    fill(func(_ int, row []float32) { copy(row, plain) }),
			"two kinds of keys": fill(func(i int, row []float32) { copy(row, plain[i%2*dim:][:dim]) }),
			"the best lie in sampled blocks": fill(func(i int, row []float32) {
				if i/blockKeys%(n/4096) != 0 || i%300 != 0 {
					clear(row)
				}
			}),
			"no key is finite": fill(func(i int, row []float32) { row[i%dim] = nan }),
			"fifty keys are finite": fill(func(i int, row []float32) {
				if i%(n/50) != 7 {
					row[i%dim] = nan
				}
			}),
		} {
			c := NewCoder(NewRotation(dim, 4), 2, keys)
			codes := c.Over(make([]byte, c.Bytes(n)), 0)
			codes.Append(keys, 0, n)
			q, bad := random(r, dim), random(r, dim)
			bad[0] = nan
			var search TwoStage
			tops, rest := []*TopK{NewTopK(0), NewTopK(0)}, make([]Partial, 2)
			search.Search([][]float32{q, bad}, []CodedKeys{{Codes: codes, Keys: keys, Hi: n}}, k, want, tops, rest, 0.1)
			for j, top := range tops {
				ids, scores := make([]uint32, k), make([]float32, k)
				if m := top.Take(ids, scores); m != k {
					t.Fatalf("%s, query %d: %d hits", name, j, m)
				}
				if slices.Sort(ids); len(slices.Compact(ids)) != k {
					t.Fatalf("%s, query %d: an id came twice", name, j)
				}
				if finite := keys.F32[7*dim] == keys.F32[7*dim]; name == "fifty keys are finite" && j == 0 && finite {
					if i := slices.IndexFunc(scores, func(s float32) bool { return math.IsInf(float64(s), -1) }); i != 50 {
						t.Errorf("%s: %d hits have a number for a score", name, i)
					}
				}
			}
		}
	})
}

// The keys found are nearly all of the best ones, on keys and queries like
// those of attention.
func TestTwoStageRecall(t *testing.T) {
	const n, dim, k, queries = 1 << 14, 128, 100, 8
	for _, hard := range []bool{false, true} {
		keys, qs := synthetic(3, n, dim, queries, hard)
		best := bestOf(keys, qs, k)
		c := NewCoder(NewRotation(dim, 1), 2, keys)
		codes := c.Over(make([]byte, c.Bytes(n)), 0)
		codes.Append(keys, 0, n)
		atEveryLevel(t, func(t *testing.T) {
			var search TwoStage
			tops := make([]*TopK, queries)
			for j := range tops {
				tops[j] = NewTopK(k)
			}
			scored := search.Search(qs, []CodedKeys{{Codes: codes, Keys: keys, Hi: n}}, k, n/20, tops, nil, 0)
			if per := scored / queries; per < n/30 || per > n/12 {
				t.Errorf("hard=%v: %d candidates a query, asked for %d", hard, per, n/20)
			}
			if got := recall(tops, best); got < 0.97 {
				t.Errorf("hard=%v: recall %.3f", hard, got)
			}
		})
	}
}

// bestOf returns the ids of the k best keys of each query.
func bestOf(keys Rows, qs [][]float32, k int) [][]uint32 {
	var best [][]uint32
	scores, out := make([]float32, k), outputs(1, keys.N)
	for j := range qs {
		ScoreRange(qs[j:j+1], keys, 0, keys.N, out, make([]float32, keys.Dim))
		top, ids := NewTopK(k), make([]uint32, k)
		top.Push(0, out[0])
		best = append(best, ids[:top.Take(ids, scores)])
	}
	return best
}

// recall returns the share of the best keys that were found, and empties the
// collectors.
func recall(tops []*TopK, best [][]uint32) float64 {
	found, all := 0, 0
	for j, want := range best {
		ids, scores := make([]uint32, tops[j].Len()), make([]float32, tops[j].Len())
		ids = ids[:tops[j].Take(ids, scores)]
		for _, id := range want {
			if slices.Contains(ids, id) {
				found++
			}
		}
		all += len(want)
	}
	return float64(found) / float64(all)
}

// A search allocates nothing once its memory has grown.
func TestTwoStageAllocates(t *testing.T) {
	const n, dim, queries = 1 << 13, 64, 4
	keys, qs := synthetic(3, n, dim, queries, false)
	c := NewCoder(NewRotation(dim, 1), 2, keys)
	codes := c.Over(make([]byte, c.Bytes(n+1)), 0)
	codes.Append(keys, 0, n)
	part := []CodedKeys{{Codes: codes, Keys: keys, Hi: n}}
	var search TwoStage
	tops, rest := make([]*TopK, queries), make([]Partial, queries)
	for j := range tops {
		tops[j] = NewTopK(100)
	}
	f := func() { search.Search(qs, part, 100, 200, tops, rest, 0.1) }
	f()
	if got := testing.AllocsPerRun(10, f); got != 0 {
		t.Errorf("a search allocates %v times", got)
	}
	if got := testing.AllocsPerRun(10, func() { codes.n--; codes.Append(keys, 5, 6) }); got != 0 {
		t.Errorf("an append allocates %v times", got)
	}
}

// A list that runs full keeps the keys with the best bounds, and what it drops
// adds to the rest, as do the keys that were never taken.
func TestKeepBest(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		const dim, n, want, scale = 64, 9000, 150, 0.03
		r := rand.New(rand.NewPCG(63, 3))
		keys := store(BF16, random(r, n*dim), dim)
		c := NewCoder(NewRotation(dim, 4), 2, keys)
		ps, keyOf := parts(t, r, c, keys)
		var search TwoStage
		rest := make([]Partial, 3)
		search.queries.Set(c, [][]float32{random(r, dim), random(r, dim), make([]float32, dim)}) // the last one ties all
		search.reset(3, rest, 2*want+chunkKeys)
		for j := range rest {
			search.least[j] = float32(math.Inf(-1))
		}
		search.scan(ps, want, rest, scale)
		for j := range rest {
			found := map[uint32]bool{}
			for _, place := range search.found[j].IDs {
				found[place] = true
			}
			var bounds []float32
			var mass float64
			a, b := search.queries.Unit(j)
			place, taken := 0, 0
			least := search.least[j]
			for _, p := range ps {
				bound, estimate := outputs(3, p.Hi-p.Lo), outputs(3, p.Hi-p.Lo)
				p.Codes.Bound(&search.queries, p.Lo, p.Hi, bound)
				p.Codes.Estimate(&search.queries, p.Lo, p.Hi, estimate)
				for i, v := range bound[j] {
					bounds = append(bounds, v)
					if found[uint32(place+p.Lo+i)] {
						taken++
						continue
					}
					if v > least {
						t.Fatalf("query %d: a key with bound %v was dropped, the threshold is %v", j, v, least)
					}
					mass += math.Exp(scale * (float64(a)*float64(estimate[j][i]) + float64(b)))
				}
				place += p.Hi
			}
			if taken != len(found) || taken < want || taken > 2*want+chunkKeys || len(bounds) != len(keyOf) {
				t.Fatalf("query %d: %d candidates, %d of them keys to be searched", j, len(found), taken)
			}
			if lse := float64(rest[j].LSE()); math.Abs(lse-math.Log(mass)) > 1e-3 {
				t.Errorf("query %d: the rest is %v, want %v", j, lse, math.Log(mass))
			}
		}
	})
}
