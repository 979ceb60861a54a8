package plugin

import (
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// blockWork is the multiply-adds of one piece of a kernel: about a
// millisecond of portable code at most.
const blockWork = 1 << 20

// blockRows returns how many rows make a block for n queries of dimension d.
// It is a multiple of the backend's own block.
func blockRows(n, d int) int { return max(512, blockWork/(n*d)&^511) }

// sequence returns the view of a sequence argument.
func (in *instance) sequence(s uint32) *kv.View {
	if uint64(s) >= uint64(len(in.call.views)) {
		in.trap(ErrCall, "sequence %d, the call has %d", s, len(in.call.views))
	}
	return in.call.views[s]
}

// kvHead checks a KV head argument: a search is given some of the heads.
func (in *instance) kvHead(h uint32) int {
	first, n := in.call.firstKVHead, in.call.kvHeads
	if int64(h) < int64(first) || int64(h) >= int64(first+n) {
		in.trap(ErrCall, "KV head %d, the call has heads %d to %d", h, first, first+n-1)
	}
	return int(h)
}

// selection is the queries that a kernel call names.
type selection struct {
	view   *kv.View
	kvHead int
	dim    int
	index  []int       // of retrieval.Call; nil for other queries
	vecs   [][]float32 // borrowed
}

// selectQueries resolves a query argument and the n-1 queries that follow it
// in its KV head's order: the heads of the group, then those of the next
// token; for stored keys the next positions.
func (in *instance) selectQueries(query, n uint32) selection {
	if n == 0 || n > abi.MaxQueries {
		in.trap(ErrCall, "%d queries, want 1 to %d", n, abi.MaxQueries)
	}
	i := int(query & abi.QueryIndexMask)
	switch tag := query >> abi.QueryTagShift; tag {
	case abi.QueryOfCall:
		return in.queriesOfCall(i, int(n))
	case abi.QueryOfPrefill:
		return in.queriesOfPrefill(i, int(n))
	case abi.QueryOfKey:
		return in.queriesOfKeys(i, int(n))
	default:
		in.trap(ErrCall, "query %#x has the unknown tag %d", query, tag)
		return selection{}
	}
}

func (in *instance) queriesOfCall(i, n int) selection {
	call := in.call.search
	if call == nil {
		in.trap(ErrCall, "query %d is one of a search, and this is %s", i, in.call.export)
	}
	if i >= call.Count() {
		in.trap(ErrCall, "query %d, the call has %d", i, call.Count())
	}
	s := selection{view: call.View(i), dim: call.Dim()}
	s.kvHead = in.kvHead(uint32(call.KVHead(i)))
	group := call.Heads / s.view.Context().Geometry().KVHeads
	g, token := i%call.Heads%group, i/call.Heads%call.Tokens
	if left := (call.Tokens-token)*group - g; n > left {
		in.trap(ErrCall, "%d queries from query %d on, its sequence and KV head have %d left", n, i, left)
	}
	for j := range n {
		in.index[j] = i
		in.queries[j] = call.Query(i)
		if g++; g == group {
			g, i = 0, i+call.Heads-group
		}
		i++
	}
	s.index, s.vecs = in.index[:n], in.queries[:n]
	return s
}

func (in *instance) queriesOfPrefill(i, n int) selection {
	b := in.call.build
	if b == nil || b.Queries == nil {
		in.trap(ErrCall, "query %d of the prefill: there are none during %s; list %q under \"needs\" of the description to have them for ra_build",
			i, in.call.export, abi.NeedPrefillQueries)
	}
	geo := b.View.Context().Geometry()
	d, group := geo.HeadDim, b.Heads/geo.KVHeads
	if count := len(b.Queries) / (b.Heads * d) * group; i+n > count {
		in.trap(ErrCall, "%d queries of the prefill from %d on, the KV head has %d", n, i, count)
	}
	for j := range n {
		at := ((i+j)/group*b.Heads + in.call.head*group + (i+j)%group) * d
		in.queries[j] = b.Queries[at : at+d]
	}
	return selection{view: b.View, kvHead: in.call.head, dim: d, vecs: in.queries[:n]}
}

func (in *instance) queriesOfKeys(i, n int) selection {
	if in.call.scope&abi.ScopeIndex == 0 {
		in.trap(ErrCall, "query %d is a stored key, which can be used in ra_build and ra_append, not in %s", i, in.call.export)
	}
	view := in.call.views[0]
	if i+n > view.Len() {
		in.trap(ErrCall, "%d keys from %d on, the sequence has %d tokens", n, i, view.Len())
	}
	d := view.Context().Geometry().HeadDim
	if len(in.keys) < abi.MaxQueries*d {
		in.keys = make([]float32, abi.MaxQueries*d)
	}
	for s := range view.Context().Segments(in.call.layer, in.call.head, i, i+n) {
		for r := range s.Keys.N {
			s.Keys.Widen(r, in.keys[(s.Start-i+r)*d:][:d])
		}
	}
	for j := range n {
		in.queries[j] = in.keys[j*d : (j+1)*d]
	}
	return selection{view: view, kvHead: in.call.head, dim: d, vecs: in.queries[:n]}
}

// work returns the multiply-adds of scoring rows rows.
func (s *selection) work(rows int) int64 { return int64(rows) * int64(len(s.vecs)*s.dim) }

// ids returns an id list argument, all of tokens of the view.
func (in *instance) ids(view *kv.View, ptr, n uint32) []uint32 {
	if n > abi.MaxRows {
		in.trap(ErrCall, "%d ids, at most %d are allowed", n, abi.MaxRows)
	}
	ids := in.words("ids", ptr, uint64(n))
	for _, id := range ids {
		if int64(id) >= int64(view.Len()) {
			in.trap(ErrCall, "id %d, the sequence has %d tokens", id, view.Len())
		}
	}
	return ids
}

// apart checks that a kernel does not write over the checked ids that it is
// reading.
func (in *instance) apart(ids uint32, n uint64, out uint32, m uint64) {
	if a, b := uint64(ids), uint64(out); a < b+4*m && b < a+4*n {
		in.trap(ErrCall, "ids and out overlap")
	}
}

func (in *instance) hostStoreInfo(a args) {
	view := in.sequence(a.u32(0))
	in.kvHead(a.u32(1))
	geo := view.Context().Geometry()
	var f [abi.StoreWords]uint32
	f[abi.StoreTokens] = uint32(view.Len())
	for r := range view.Ranges(in.call.layer, kv.Indexed) {
		f[abi.StoreIndexed] += uint32(r.Len())
		f[abi.StoreRanges]++
	}
	f[abi.StoreHeadDim] = uint32(geo.HeadDim)
	f[abi.StoreLayers] = uint32(geo.Layers)
	f[abi.StoreKVHeads] = uint32(geo.KVHeads)
	in.putWords(a, a.u32(2), a.u32(3), f[:])
}

func (in *instance) hostIndexedRanges(a args) {
	view := in.sequence(a.u32(0))
	in.kvHead(a.u32(1))
	in.putRanges(a, view, kv.Indexed, a.u32(2), a.u32(3))
}

// putRanges writes the ranges of a state as pairs, as many as fit whole.
func (in *instance) putRanges(a args, view *kv.View, state kv.State, buf, limit uint32) {
	count := 0
	for range view.Ranges(in.call.layer, state) {
		count++
	}
	out := in.words("buf", buf, uint64(2*min(count, int(limit/8))))
	in.spend(int64(count))
	for r := range view.Ranges(in.call.layer, state) {
		if len(out) == 0 {
			break
		}
		out[0], out[1] = uint32(r.Lo), uint32(r.Hi)
		out = out[2:]
	}
	a.result(8 * count)
}

func (in *instance) hostReadVectors(a args) {
	what, view := a.u32(0), in.sequence(a.u32(1))
	head := in.kvHead(a.u32(2))
	if what != abi.VectorKey && what != abi.VectorValue {
		in.trap(ErrCall, "vectors of kind %d, want 0 (keys) or 1 (values)", what)
	}
	kvc := view.Context()
	d := kvc.Geometry().HeadDim
	ids := in.ids(view, a.u32(3), a.u32(4))
	n := uint64(len(ids)) * uint64(d)
	out := in.floats("out", a.u32(5), n)
	in.apart(a.u32(3), uint64(len(ids)), a.u32(5), n)
	for i, id := range ids {
		in.spend(int64(d))
		for s := range kvc.Segments(in.call.layer, head, int(id), int(id)+1) {
			rows := s.Keys
			if what == abi.VectorValue {
				rows = s.Values
			}
			rows.Widen(0, out[i*d:(i+1)*d])
		}
	}
}

func (in *instance) hostBuildInfo(a args) {
	geo := in.call.views[0].Context().Geometry()
	var f [abi.BuildWords]uint32
	f[abi.BuildKVHead], f[abi.BuildHeadDim] = uint32(in.call.head), uint32(geo.HeadDim)
	if b := in.call.build; b != nil {
		f[abi.BuildGroup] = uint32(b.Heads / geo.KVHeads)
		f[abi.BuildQueries] = uint32(len(b.Queries) / (b.Heads * geo.HeadDim))
	}
	in.putWords(a, a.u32(0), a.u32(1), f[:])
}

func (in *instance) hostQueriesInfo(a args) {
	c := in.call.search
	kvHeads := c.Views[0].Context().Geometry().KVHeads
	var f [abi.QueriesWords]uint32
	f[abi.QueriesSequences] = uint32(len(c.Views))
	f[abi.QueriesTokens] = uint32(c.Tokens)
	f[abi.QueriesHeads] = uint32(c.Heads)
	f[abi.QueriesFirstKVHead] = uint32(in.call.firstKVHead)
	f[abi.QueriesKVHeads] = uint32(in.call.kvHeads)
	f[abi.QueriesGroup] = uint32(c.Heads / kvHeads)
	f[abi.QueriesHeadDim] = uint32(c.Dim())
	f[abi.QueriesTopK] = uint32(c.TopK)
	in.putWords(a, a.u32(0), a.u32(1), f[:])
}

func (in *instance) hostReadQueries(a args) {
	s := in.selectQueries(a.u32(0), a.u32(1))
	out := in.floats("out", a.u32(2), uint64(len(s.vecs)*s.dim))
	for j, q := range s.vecs {
		copy(out[j*s.dim:], q)
	}
}

func (in *instance) hostScore(a args) {
	s := in.selectQueries(a.u32(0), a.u32(1))
	ids := in.ids(s.view, a.u32(2), a.u32(3))
	n, m := len(ids), uint64(len(ids))*uint64(len(s.vecs))
	out := in.floats("out", a.u32(4), m)
	in.apart(a.u32(2), uint64(n), a.u32(4), m)
	step := blockRows(len(s.vecs), s.dim)
	for lo := 0; lo < n; lo += step {
		hi := min(lo+step, n)
		in.spend(s.work(hi - lo))
		for j := range s.vecs {
			in.outs[j] = out[j*n+lo : j*n+hi]
		}
		in.p.opts.Scanner.Score(s.view.Context(), in.call.layer, s.kvHead, s.vecs, ids[lo:hi], in.outs[:len(s.vecs)])
	}
	in.call.scored += int64(m)
}

func (in *instance) hostScoreRange(a args) {
	s := in.selectQueries(a.u32(0), a.u32(1))
	first, last := a.u32(2), a.u32(3)
	switch {
	case first > last || int64(last) > int64(s.view.Len()):
		in.trap(ErrCall, "positions [%d, %d) of a sequence of %d", first, last, s.view.Len())
	case last-first > abi.MaxRows:
		in.trap(ErrCall, "%d positions, at most %d are allowed", last-first, abi.MaxRows)
	}
	n := int(last - first)
	m := uint64(n) * uint64(len(s.vecs))
	out := in.floats("out", a.u32(4), m)
	step := blockRows(len(s.vecs), s.dim)
	for lo := 0; lo < n; lo += step {
		hi := min(lo+step, n)
		in.spend(s.work(hi - lo))
		for j := range s.vecs {
			in.outs[j] = out[j*n+lo : j*n+hi]
		}
		r := kv.Range{Lo: int(first) + lo, Hi: int(first) + hi}
		in.p.opts.Scanner.ScoreRange(s.view.Context(), in.call.layer, s.kvHead, s.vecs, r, in.outs[:len(s.vecs)])
	}
	in.call.scored += int64(m)
}

func (in *instance) hostTopKRange(a args) {
	s := in.selectQueries(a.u32(0), a.u32(1))
	lo, hi := int(a.u32(2)), min(int(a.u32(3)), s.view.Len())
	k := int(a.u32(4))
	n := len(s.vecs)
	ids := in.words("out_ids", a.u32(5), uint64(n)*uint64(k))
	var scores []float32
	if a.u32(6) != 0 {
		scores = in.floats("out_scores", a.u32(6), uint64(n)*uint64(k))
	}
	counts := in.words("out_counts", a.u32(7), uint64(n))
	for j := range n {
		if in.tops[j] == nil {
			in.tops[j] = kernel.NewTopK(0)
		}
		in.tops[j].Reset(k)
	}
	rows := 0
	step := blockRows(n, s.dim)
	for r := range s.view.Ranges(in.call.layer, kv.Indexed) {
		end := min(r.Hi, hi)
		for at := max(r.Lo, lo); at < end; at += step {
			block := kv.Range{Lo: at, Hi: min(at+step, end)}
			in.spend(s.work(block.Len()))
			in.p.opts.Scanner.TopK(s.view.Context(), in.call.layer, s.kvHead, s.vecs, block, in.tops[:n])
			rows += block.Len()
		}
	}
	in.call.scored += int64(rows) * int64(n)
	for j, t := range in.tops[:n] {
		counts[j] = uint32(in.take(t, ids[j*k:(j+1)*k], scores, j*k))
	}
	a.result(rows)
}

// take empties t into ids and, unless scores is nil, scores[at:].
func (in *instance) take(t *kernel.TopK, ids []uint32, scores []float32, at int) int {
	n := t.Len()
	if scores == nil {
		if len(in.scores) < n {
			in.scores = make([]float32, n)
		}
		return t.Take(ids, in.scores)
	}
	return t.Take(ids, scores[at:])
}

// queryOfCall resolves an argument that must be a query of the search.
func (in *instance) queryOfCall(query uint32) selection {
	s := in.selectQueries(query, 1)
	if s.index == nil {
		in.trap(ErrCall, "query %#x is not one of the search", query)
	}
	return s
}

// hostEmit copies hits to the result. What depends on single ids is checked
// when the search is over.
func (in *instance) hostEmit(a args) {
	s := in.queryOfCall(a.u32(0))
	n := a.u32(3)
	hits := &in.call.result.Hits[s.index[0]]
	if top := in.call.search.TopK; int64(len(hits.IDs))+int64(n) > int64(top) {
		in.trap(retrieval.ErrHits, "query %d: %d hits, at most %d were asked for", s.index[0], int64(len(hits.IDs))+int64(n), top)
	}
	ids := in.words("ids", a.u32(1), uint64(n))
	in.spend(int64(n))
	biased := a.u32(2) != 0
	if biased || hits.Bias != nil {
		// Hits without a bias have the bias zero.
		for len(hits.Bias) < len(hits.IDs) {
			hits.Bias = append(hits.Bias, 0)
		}
		if biased {
			hits.Bias = append(hits.Bias, in.floats("bias", a.u32(2), uint64(n))...)
		} else {
			hits.Bias = append(hits.Bias, make([]float32, n)...)
		}
	}
	hits.IDs = append(hits.IDs, ids...)
}

// hostEmitSummary copies summaries to the result.
func (in *instance) hostEmitSummary(a args) {
	s := in.queryOfCall(a.u32(0))
	n := a.u32(1)
	sums := &in.call.result.Hits[s.index[0]].Summaries
	if have := sums.Len(); int64(have)+int64(n) > abi.MaxSummaries {
		in.trap(retrieval.ErrHits, "query %d: %d summaries, at most %d are allowed", s.index[0], int64(have)+int64(n), abi.MaxSummaries)
	}
	logits := in.floats("logits", a.u32(2), uint64(n))
	mults := in.floats("log_mults", a.u32(3), uint64(n))
	values := in.floats("values", a.u32(4), uint64(n)*uint64(s.dim))
	in.spend(int64(len(values)))
	for j, logit := range logits {
		sums.Add(logit, mults[j], values[j*s.dim:(j+1)*s.dim])
	}
}
