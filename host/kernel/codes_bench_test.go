package kernel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unsafe"
)

// A head is a KV head's keys with their codes and queries that look for them.
type head struct {
	keys    Rows
	queries [][]float32
	codes   [5]*Codes // by bits
}

// codedHeads returns eight heads of 131072 bf16 keys of dimension 128, 256 MiB,
// more than caches hold, mild or hard ones. All have the keys of the first, in
// another order.
func codedHeads(b *testing.B, hard bool) []head {
	const n, dim = 1 << 17, 128
	kind := &coded8[0]
	if hard {
		kind = &coded8[1]
	}
	if *kind != nil {
		return *kind
	}
	keys, queries := synthetic(1, n, dim, 64, hard)
	for h := range 8 {
		mem := pages(b, 2*n*dim)
		mine := RowsU16(unsafe.Slice((*uint16)(unsafe.Pointer(&mem[0])), n*dim), dim, BF16)
		at := copy(mine.U16, keys.U16[h*n/8*dim:])
		copy(mine.U16[at:], keys.U16)
		hd := head{keys: mine, queries: queries[8*h : 8*h+8]}
		for bits := 1; bits <= 4; bits++ {
			c := NewCoder(NewRotation(dim, 1), bits, mine)
			hd.codes[bits] = c.Over(pages(b, c.Bytes(n)), 0)
			hd.codes[bits].Append(mine, 0, n)
		}
		*kind = append(*kind, hd)
	}
	return *kind
}

var coded8 [2][]head

// Coding bf16 keys.
func BenchmarkCodesAppend(b *testing.B) {
	const n = 4096
	for _, dim := range []int{64, 96, 128} {
		keys := store(BF16, random(rand.New(rand.NewPCG(51, 1)), n*dim), dim)
		for bits := 1; bits <= 4; bits++ {
			b.Run(fmt.Sprintf("dim%d/bits%d", dim, bits), func(b *testing.B) {
				c := NewCoder(NewRotation(dim, 1), bits, keys)
				mem := make([]byte, c.Bytes(n))
				eachLevel(b, n, "key", func() { c.Over(mem, 0).Append(keys, 0, n) })
			})
		}
	}
}

// Estimates of keys in memory, without and with the threshold and the rest.
func BenchmarkCodesScan(b *testing.B) {
	for bits := 1; bits <= 4; bits++ {
		for _, nq := range []int{1, 4, 8} {
			for _, rest := range []bool{false, true} {
				b.Run(fmt.Sprintf("bits%d/queries%d/rest=%v", bits, nq, rest), func(b *testing.B) {
					heads := codedHeads(b, false)
					var s CodeQueries
					into := lists(nq, 8192)
					ps := make([]Partial, nq)
					if !rest {
						ps = nil
					}
					least := make([]float32, nq)
					i := 0
					n := heads[0].keys.N
					for j := range least {
						s.Set(heads[0].codes[bits].coder, heads[0].queries[:nq])
						out := outputs(nq, n)
						heads[0].codes[bits].Bound(&s, 0, n, out)
						least[j] = kthLargest(out[j], n/80, 0)
					}
					eachLevel(b, float64(n*nq), "key-query", func() {
						h := &heads[i%len(heads)]
						i++
						s.Set(h.codes[bits].coder, heads[0].queries[:nq])
						for j := range into {
							into[j].IDs, into[j].Bounds = into[j].IDs[:0], into[j].Bounds[:0]
						}
						if h.codes[bits].Scan(&s, 0, n, 0, least, into, ps, 0.1) != n {
							b.Fatal("too many candidates")
						}
					})
				})
			}
		}
	}
}

// Estimates of keys whose codes stay in the second-level cache: arithmetic
// alone.
func BenchmarkCodesEstimateCached(b *testing.B) {
	const n, dim = 4096, 128
	keys := store(BF16, random(rand.New(rand.NewPCG(52, 2)), n*dim), dim)
	for bits := 1; bits <= 4; bits++ {
		c := NewCoder(NewRotation(dim, 1), bits, keys)
		codes := c.Over(make([]byte, c.Bytes(n)), 0)
		codes.Append(keys, 0, n)
		for _, nq := range []int{1, 2, 4} {
			var s CodeQueries
			s.Set(c, queriesOf(nq, dim))
			var out [MaxQueries][]float32
			for j := range nq {
				out[j] = make([]float32, chunkKeys)
			}
			b.Run(fmt.Sprintf("bits%d/queries%d", bits, nq), func(b *testing.B) {
				eachLevel(b, float64(n*nq), "key-query", func() {
					for i := 0; i < n; i += chunkKeys {
						codes.estimateBlocks(&s, i/blockKeys, chunkKeys/blockKeys, false, &out)
					}
				})
			})
		}
	}
}

// The best 100 of 131072 keys for four queries: two stages against scores of
// all keys, in turns over the same heads.
func BenchmarkTwoStage(b *testing.B) {
	const k, nq = 100, 4
	for _, hard := range []bool{false, true} {
		for bits := 1; bits <= 4; bits++ {
			for _, share := range []float64{0.0025, 0.005, 0.01, 0.02} {
				name := fmt.Sprintf("hard=%v/bits%d/want%g%%", hard, bits, 100*share)
				for _, l := range levels[1:] {
					b.Run(name+"/"+l.name, func(b *testing.B) {
						heads := codedHeads(b, hard)
						use(b, l.name)
						var search TwoStage
						tops := make([]*TopK, nq)
						for j := range tops {
							tops[j] = NewTopK(k)
						}
						n := heads[0].keys.N
						out, scratch := outputs(nq, 512), make([]float32, 128)
						flat := func(h *head, qs [][]float32) {
							for _, t := range tops {
								t.Reset(k)
							}
							for lo := 0; lo < n; lo += 512 {
								ScoreRange(qs, h.keys, lo, lo+512, out, scratch)
								for j, t := range tops {
									t.Push(uint32(lo), out[j])
								}
							}
						}
						var flats, twos []float64
						var found, scored float64
						rounds := 0
						for b.Loop() {
							for i := range heads {
								h, qs := &heads[i], heads[i].queries[:nq]
								start := time.Now()
								flat(h, qs)
								mid := time.Now()
								scored += float64(search.Search(qs, []CodedKeys{{Codes: h.codes[bits], Keys: h.keys, Hi: n}}, k, int(share*float64(n)), tops, nil, 0))
								flats, twos = append(flats, mid.Sub(start).Seconds()), append(twos, time.Since(mid).Seconds())
								if rounds == 0 {
									found += recall(tops, bestOf(h.keys, qs, k))
								}
							}
							rounds++
						}
						slices.Sort(flats)
						slices.Sort(twos)
						flatTime, time := flats[len(flats)/2], twos[len(twos)/2]
						b.ReportMetric(time/flatTime, "x-flat")
						b.ReportMetric(time*1e6/nq, "us/query")
						b.ReportMetric(flatTime*1e6/nq, "us/query-flat")
						b.ReportMetric(found/float64(len(heads)), "recall")
						b.ReportMetric(scored/float64(rounds*len(heads)*nq*n)*100, "%scored")
						b.ReportMetric(0, "ns/op")
					})
				}
			}
		}
	}
}

// The share of the 100 best of 131072 keys that is among the R of
// them with the best bounds, for 16 queries: no time, but what a time is worth.
func BenchmarkCodesRecall(b *testing.B) {
	const n, k, queries = 1 << 17, 100, 16
	for _, dim := range []int{64, 128} {
		for _, hard := range []bool{false, true} {
			keys, qs := synthetic(2, n, dim, queries, hard)
			best := bestOf(keys, qs, k)
			for bits := 1; bits <= 4; bits++ {
				c := NewCoder(NewRotation(dim, 1), bits, keys)
				codes := c.Over(make([]byte, c.Bytes(n)), 0)
				codes.Append(keys, 0, n)
				b.Run(fmt.Sprintf("dim%d/hard=%v/bits%d", dim, hard, bits), func(b *testing.B) {
					out := outputs(queries, n)
					for b.Loop() {
						var s CodeQueries
						for j := 0; j < queries; j += MaxQueries {
							s.Set(c, qs[j:j+MaxQueries])
							codes.Bound(&s, 0, n, out[j:])
						}
					}
					for _, percent := range []float64{0.25, 0.5, 1, 2, 3, 5} {
						found := 0
						for j := range qs {
							least := kthLargest(out[j], int(n*percent/100), 0)
							for _, id := range best[j] {
								if out[j][id] >= least {
									found++
								}
							}
						}
						b.ReportMetric(float64(found)/queries/k, fmt.Sprintf("%g%%", percent))
					}
					b.ReportMetric(0, "ns/op")
				})
			}
		}
	}
}
