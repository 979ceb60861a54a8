//go:build !wasip1

// Package ratest runs a search plugin natively, against keys in Go slices, so
// that its logic is tested without WebAssembly.
package ratest

import (
	"fmt"
	"math"
	"slices"

	abi "github.com/retrievalattention/ra/sdk/abi/v1"
	ra "github.com/retrievalattention/ra/sdk/go"
)

// Store is one sequence in one layer.
type Store struct {
	HeadDim int
	Keys    [][]float32     // a KV head: [tokens][HeadDim]
	Values  [][]float32     // like Keys; nil when the plugin does not read them
	Indexed []ra.Range      // ascending and apart
	Heads   int             // query heads; needed for Queries
	Blobs   map[Slot][]byte // what the plugin keeps
	Queries []float32       // of the prefill, [tokens][Heads][HeadDim]; nil for none
}

// Slot is a place for a blob that a plugin keeps with a store.
type Slot struct{ Layer, KVHead, Slot int }

// Call is a search over one store, of one layer.
type Call struct {
	Store   *Store
	Layer   int
	Tokens  int
	Heads   int
	Queries []float32 // [Tokens][Heads][HeadDim]
	TopK    int
}

// Hits are what a plugin emitted for a query. Bias has one entry an id,
// LogMults one a summary, Values HeadDim.
type Hits struct {
	IDs  []uint32
	Bias []float32

	Logits, LogMults, Values []float32
}

// Answer is a plugin's answer: hits by query (token*heads + head), and the
// pairs of query and key that it had scored.
type Answer struct {
	Hits       []Hits
	KeysScored int
	Log        []string
}

// Search runs one search. It panics where the real host would trap, and
// returns what the plugin returned. It checks answers as the host does.
// Searches must not run in parallel.
func Search(p ra.Search, c *Call) (*Answer, error) {
	h := &host{call: c, answer: &Answer{Hits: make([]Hits, c.Tokens*c.Heads)}}
	defer ra.Attach(h)()
	if err := p.Search(ra.BeginCall(c.Layer)); err != nil {
		return nil, err
	}
	if w, ok := p.(ra.Weigher); ok {
		if err := w.Weigh(ra.BeginCall(c.Layer)); err != nil {
			return nil, err
		}
	}
	for i, hits := range h.answer.Hits {
		if err := h.check(hits); err != nil {
			return nil, fmt.Errorf("query %d: %w", i, err)
		}
	}
	return h.answer, nil
}

// Build runs one build. It panics where the real host would trap.
func Build(p ra.Search, s *Store, layer, kvHead int) error {
	defer ra.Attach(&host{call: &Call{Store: s, Layer: layer, Heads: s.Heads}, answer: &Answer{}, index: true, head: kvHead, queries: s.Queries})()
	return p.Build(layer, kvHead)
}

// Append tells the plugin of positions [lo, hi), which the store has as
// indexed. It panics where the real host would trap.
func Append(p ra.Search, s *Store, layer, kvHead, lo, hi int) error {
	defer ra.Attach(&host{call: &Call{Store: s, Layer: layer, Heads: s.Heads}, answer: &Answer{}, index: true, head: kvHead})()
	return p.Append(layer, kvHead, lo, hi)
}

// Placement is a layer for a policy to place.
type Placement struct {
	Placing ra.Placing
	Layer   int
	States  []ra.State // of every token; changed by Place
}

// Place runs a policy once. It panics where the real host would trap, and
// returns what the policy returned.
func Place(p ra.Policy, s *Placement) error {
	s.Placing.Tokens = len(s.States)
	defer ra.Attach(&host{placement: s, answer: &Answer{}})()
	return p.Place(s.Layer)
}

type host struct {
	call   *Call
	answer *Answer

	index   bool      // during a build or append, of head
	head    int       //
	queries []float32 // of the prefill

	placement *Placement
}

func (h *host) check(hits Hits) error {
	if len(hits.IDs) > h.call.TopK {
		return fmt.Errorf("%d hits, at most %d were asked for", len(hits.IDs), h.call.TopK)
	}
	seen := map[uint32]bool{}
	for j, id := range hits.IDs {
		b := hits.Bias[j]
		switch {
		case seen[id]:
			return fmt.Errorf("id %d twice", id)
		case !slices.ContainsFunc(h.call.Store.Indexed, func(r ra.Range) bool { return r.Lo <= id && id < r.Hi }):
			return fmt.Errorf("id %d is not indexed", id)
		case b-b != 0:
			return fmt.Errorf("the bias of id %d is %v", id, b)
		}
		seen[id] = true
	}
	for _, x := range [][]float32{hits.Logits, hits.LogMults, hits.Values} {
		for _, v := range x {
			if v-v != 0 {
				return fmt.Errorf("a summary has the element %v", v)
			}
		}
	}
	return nil
}

func (h *host) kvHeads() int { return len(h.call.Store.Keys) }
func (h *host) group() int   { return h.call.Heads / h.kvHeads() }
func (h *host) tokens(kvHead int) int {
	return len(h.call.Store.Keys[kvHead]) / h.call.Store.HeadDim
}

// query resolves the j-th query behind q in its KV head's order.
func (h *host) query(q ra.Query, j uint32) (index, kvHead int, vector []float32) {
	d := h.call.Store.HeadDim
	switch i := int(q&abi.QueryIndexMask) + int(j); {
	case q>>abi.QueryTagShift == abi.QueryOfPrefill && h.queries != nil:
		at := (i/h.group()*h.call.Heads + h.head*h.group() + i%h.group()) * d
		return -1, h.head, h.queries[at : at+d]
	case q>>abi.QueryTagShift == abi.QueryOfKey && h.index:
		return -1, h.head, h.row(h.call.Store.Keys, h.head, uint32(i))
	}
	if q>>abi.QueryTagShift != abi.QueryOfCall || int(q) >= len(h.answer.Hits) {
		panic(fmt.Sprintf("ratest: query %#x of a call of %d", uint32(q), len(h.answer.Hits)))
	}
	token, head, g := int(q)/h.call.Heads, int(q)%h.call.Heads, h.group()
	kvHead = head / g
	at := token*g + head%g + int(j)
	if at >= h.call.Tokens*g {
		panic("ratest: more queries than the KV head has")
	}
	index = at/g*h.call.Heads + kvHead*g + at%g
	return index, kvHead, h.call.Queries[index*d : (index+1)*d]
}

func (h *host) score(vector []float32, kvHead int, id uint32) float32 {
	h.answer.KeysScored++
	var s float32
	for i, v := range h.row(h.call.Store.Keys, kvHead, id) {
		s += v * vector[i]
	}
	return s
}

func (h *host) row(rows [][]float32, kvHead int, id uint32) []float32 {
	d := h.call.Store.HeadDim
	return rows[kvHead][int(id)*d : (int(id)+1)*d]
}

// Log implements ra.Host, as do the following.
func (h *host) Log(_ uint32, text string) { h.answer.Log = append(h.answer.Log, text) }

// StoreInfo describes the store.
func (h *host) StoreInfo(_, kvHead uint32, buf []uint32) {
	indexed := uint32(0)
	for _, r := range h.call.Store.Indexed {
		indexed += r.Hi - r.Lo
	}
	copy(buf, []uint32{
		abi.StoreTokens: uint32(h.tokens(int(kvHead))), abi.StoreIndexed: indexed, abi.StoreRanges: uint32(len(h.call.Store.Indexed)),
		abi.StoreHeadDim: uint32(h.call.Store.HeadDim), abi.StoreLayers: uint32(h.call.Layer + 1), abi.StoreKVHeads: uint32(h.kvHeads()),
	})
}

// IndexedRanges copies the ranges.
func (h *host) IndexedRanges(_, _ uint32, buf []ra.Range) uint32 {
	copy(buf, h.call.Store.Indexed)
	return uint32(8 * len(h.call.Store.Indexed))
}

// ReadVectors copies keys or values.
func (h *host) ReadVectors(what, _, kvHead uint32, ids []uint32, out []float32) {
	rows := h.call.Store.Keys
	if what == abi.VectorValue {
		rows = h.call.Store.Values
	}
	for i, id := range ids {
		copy(out[i*h.call.Store.HeadDim:], h.row(rows, int(kvHead), id))
	}
}

// QueriesInfo describes the call.
func (h *host) QueriesInfo(buf []uint32) {
	copy(buf, []uint32{
		abi.QueriesSequences: 1, abi.QueriesTokens: uint32(h.call.Tokens), abi.QueriesHeads: uint32(h.call.Heads),
		abi.QueriesFirstKVHead: 0, abi.QueriesKVHeads: uint32(h.kvHeads()), abi.QueriesGroup: uint32(h.group()),
		abi.QueriesHeadDim: uint32(h.call.Store.HeadDim), abi.QueriesTopK: uint32(h.call.TopK),
	})
}

// ReadQueries copies query vectors.
func (h *host) ReadQueries(q ra.Query, n uint32, out []float32) {
	for j := range n {
		_, _, v := h.query(q, j)
		copy(out[int(j)*len(v):], v)
	}
}

// Score scores a list.
func (h *host) Score(q ra.Query, n uint32, ids []uint32, out []float32) {
	for j := range n {
		_, kvHead, v := h.query(q, j)
		for i, id := range ids {
			out[int(j)*len(ids)+i] = h.score(v, kvHead, id)
		}
	}
}

// ScoreRange scores a range.
func (h *host) ScoreRange(q ra.Query, n, lo, hi uint32, out []float32) {
	for j := range n {
		_, kvHead, v := h.query(q, j)
		for id := lo; id < hi; id++ {
			out[j*(hi-lo)+id-lo] = h.score(v, kvHead, id)
		}
	}
}

// TopKRange scans.
func (h *host) TopKRange(q ra.Query, n, lo, hi, k uint32, ids []uint32, scores []float32, counts []uint32) uint32 {
	scanned := uint32(0)
	for j := range n {
		_, kvHead, v := h.query(q, j)
		type hit struct {
			id    uint32
			score float32
		}
		var hits []hit
		for _, r := range h.call.Store.Indexed {
			for id := max(r.Lo, lo); id < min(r.Hi, hi); id++ {
				hits = append(hits, hit{id, h.score(v, kvHead, id)})
			}
		}
		scanned = uint32(len(hits))
		slices.SortStableFunc(hits, func(a, b hit) int {
			switch {
			case a.score > b.score || b.score != b.score && a.score == a.score:
				return -1
			case a.score < b.score || a.score != a.score && b.score == b.score:
				return 1
			}
			return 0
		})
		hits = hits[:min(len(hits), int(k))]
		counts[j] = uint32(len(hits))
		for i, hit := range hits {
			ids[int(j*k)+i] = hit.id
			if scores != nil {
				scores[int(j*k)+i] = hit.score
			}
		}
	}
	return scanned
}

// Emit collects hits.
func (h *host) Emit(q ra.Query, ids []uint32, bias []float32) {
	i, _, _ := h.query(q, 0)
	hits := &h.answer.Hits[i]
	hits.IDs = append(hits.IDs, ids...)
	if bias == nil {
		bias = make([]float32, len(ids))
	}
	hits.Bias = append(hits.Bias, bias...)
}

// EmitSummary collects summaries.
func (h *host) EmitSummary(q ra.Query, logits, logMults, values []float32) {
	i, _, _ := h.query(q, 0)
	hits := &h.answer.Hits[i]
	hits.Logits, hits.LogMults = append(hits.Logits, logits...), append(hits.LogMults, logMults...)
	hits.Values = append(hits.Values, values[:len(logits)*h.call.Store.HeadDim]...)
}

// ReadHits copies what was emitted and its logits.
func (h *host) ReadHits(q ra.Query, ids []uint32, logits []float32) uint32 {
	i, kvHead, vector := h.query(q, 0)
	hits := h.answer.Hits[i]
	scored := h.answer.KeysScored
	for j, id := range hits.IDs[:min(len(ids), len(hits.IDs))] {
		ids[j] = id
		logits[j] = h.score(vector, kvHead, id) / float32(math.Sqrt(float64(h.call.Store.HeadDim)))
	}
	h.answer.KeysScored = scored // the attention computes these anyway
	return uint32(len(hits.IDs))
}

// EmitBias replaces the biases.
func (h *host) EmitBias(q ra.Query, bias []float32) {
	i, _, _ := h.query(q, 0)
	if len(bias) != len(h.answer.Hits[i].IDs) {
		panic(fmt.Sprintf("ratest: %d biases for %d hits", len(bias), len(h.answer.Hits[i].IDs)))
	}
	h.answer.Hits[i].Bias = slices.Clone(bias)
}

// PutBlob keeps bytes.
func (h *host) PutBlob(slot uint32, data []byte) {
	if !h.index || slot >= abi.MaxSlots {
		panic(fmt.Sprintf("ratest: a blob put outside of Build and Append, or into slot %d", slot))
	}
	s := h.call.Store
	if s.Blobs == nil {
		s.Blobs = map[Slot][]byte{}
	}
	s.Blobs[Slot{h.call.Layer, h.head, int(slot)}] = slices.Clone(data)
}

// GetBlob copies bytes.
func (h *host) GetBlob(_, kvHead, slot, offset uint32, buf []byte) uint32 {
	data, ok := h.call.Store.Blobs[Slot{h.call.Layer, int(kvHead), int(slot)}]
	if !ok {
		return abi.NoBlob
	}
	copy(buf, data[min(int(offset), len(data)):])
	return uint32(len(data))
}

// BuildInfo describes the build.
func (h *host) BuildInfo(buf []uint32) {
	info := []uint32{abi.BuildKVHead: uint32(h.head), abi.BuildGroup: 0, abi.BuildHeadDim: uint32(h.call.Store.HeadDim)}
	if h.call.Heads > 0 {
		info[abi.BuildGroup] = uint32(h.group())
		info[abi.BuildQueries] = uint32(len(h.queries) / (h.call.Heads * h.call.Store.HeadDim))
	}
	copy(buf, info)
}

// PlaceInfo describes the layer to place.
func (h *host) PlaceInfo(buf []uint32) {
	p := h.placement.Placing
	decoding := uint32(0)
	if p.Decoding {
		decoding = 1
	}
	copy(buf, []uint32{
		abi.PlaceTokens: uint32(p.Tokens), abi.PlacePrefill: uint32(p.Prefill), abi.PlaceDecoding: decoding,
		abi.PlaceLayers: uint32(p.Layers), abi.PlaceKVHeads: uint32(p.KVHeads), abi.PlaceHeadDim: uint32(p.HeadDim),
	})
}

// StateRanges lists the ranges of a state.
func (h *host) StateRanges(s ra.State, buf []ra.Range) uint32 {
	n := uint32(0)
	for lo := 0; lo < len(h.placement.States); {
		hi := lo + 1
		for hi < len(h.placement.States) && h.placement.States[hi] == h.placement.States[lo] {
			hi++
		}
		if h.placement.States[lo] == s {
			if int(n) < len(buf) {
				buf[n] = ra.Range{Lo: uint32(lo), Hi: uint32(hi)}
			}
			n++
		}
		lo = hi
	}
	return 8 * n
}

// Place moves tokens.
func (h *host) Place(s ra.State, lo, hi uint32) {
	states := h.placement.States
	if lo < hi && int(hi) >= len(states) || s == ra.Static {
		panic(fmt.Sprintf("ratest: place [%d, %d) of %d tokens as state %d", lo, hi, len(states), s))
	}
	for p := lo; p < hi; p++ {
		if states[p] == ra.Dropped && s != ra.Dropped {
			panic(fmt.Sprintf("ratest: token %d is dropped", p))
		}
		states[p] = s
	}
}
