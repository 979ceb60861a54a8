package plugin

import (
	"math"
	"slices"

	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

// weigh lets a guest that asks for it set the biases of what it emitted,
// now that the exact logits are known: strategies that sample (MagicPIG, arXiv
// 2410.16179) divide a token's weight by the chance that it was sampled,
// which depends on its logit.
func (in *instance) weigh() error {
	if !slices.Contains(in.p.desc.Needs, abi.NeedWeigh) {
		return nil
	}
	call := in.call.search
	scale := float32(1 / math.Sqrt(float64(call.Dim())))
	for len(in.logits) < call.Count() {
		in.logits = append(in.logits, nil)
	}
	for i := range in.share() {
		ids := in.call.result.Hits[i].IDs
		l := append(in.logits[i][:0], make([]float32, len(ids))...)
		in.queries[0], in.outs[0] = call.Query(i), l
		in.p.opts.Scanner.Score(call.View(i).Context(), call.Layer, call.KVHead(i), in.queries[:1], ids, in.outs[:1])
		for j := range l {
			l[j] *= scale
		}
		in.logits[i] = l
	}
	in.call.scope = abi.ScopeWeigh
	if err := in.status("ra_weigh", uint64(call.Layer)); err != nil {
		return err
	}
	return in.checkHits()
}

// hostHitsRead copies the ids and logits of a query's hits.
func (in *instance) hostHitsRead(a args) {
	s := in.queryOfCall(a.u32(0))
	i := s.index[0]
	ids := in.call.result.Hits[i].IDs
	n := min(len(ids), int(a.u32(3)))
	in.spend(int64(n))
	if a.u32(1) != 0 {
		copy(in.words("out_ids", a.u32(1), uint64(n)), ids)
	}
	if a.u32(2) != 0 {
		copy(in.floats("out_logits", a.u32(2), uint64(n)), in.logits[i])
	}
	a.result(len(ids))
}

// hostEmitBias replaces the biases of a query's hits.
func (in *instance) hostEmitBias(a args) {
	s := in.queryOfCall(a.u32(0))
	hits := &in.call.result.Hits[s.index[0]]
	if n := a.u32(2); int64(n) != int64(len(hits.IDs)) {
		in.trap(ErrCall, "%d biases for query %d, which has %d hits", n, s.index[0], len(hits.IDs))
	}
	in.spend(int64(len(hits.IDs)))
	hits.Bias = append(hits.Bias[:0], in.floats("bias", a.u32(1), uint64(len(hits.IDs)))...)
}
