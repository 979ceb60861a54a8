package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/retrieval"
)

// ExactSearch names the host's exact search, which every search is compared
// with.
const ExactSearch = "native:flat"

// Candidate is a search to be measured.
type Candidate struct {
	Name     string
	Strategy retrieval.Strategy
	// Memory, when not nil, returns the bytes that the strategy holds beside
	// the index objects in the host's memory.
	Memory func() int64
}

// SearchOptions say what [Search] measures.
type SearchOptions struct {
	Set        *SearchSet
	Candidates []Candidate // beside [ExactSearch], which always takes part
	Backend    compute.Backend
	Memory     *kv.Allocator // of keys, values and prefill queries; shared if a process is to see them
	DType      kernel.DType  // of stored keys
	TopK       int           // tokens searched for a query
	Repeats    int           // rounds through the steps
	Seed       uint64        // that the set was made with, for the report
	// Progress, when not nil, is told of units of work done; [SearchOptions.Units]
	// are the whole.
	Progress func(units int)
}

// SearchReport is the result of [Search].
type SearchReport struct {
	Machine  Machine        `json:"machine"`
	Seed     uint64         `json:"seed"`
	Set      SetReport      `json:"set"`
	TopK     int            `json:"top_k"`
	Repeats  int            `json:"repeats"`
	Searches []SearchResult `json:"searches"`
}

// SetReport says what was searched.
type SetReport struct {
	Source   string `json:"source"`
	Keys     int    `json:"keys"`
	Appended int    `json:"appended"`
	Dim      int    `json:"dim"`
	KVHeads  int    `json:"kv_heads"`
	Group    int    `json:"group"`
	Steps    int    `json:"steps"`
	DType    string `json:"kv_dtype"`
	KeyBytes int64  `json:"key_bytes"` // stored keys of the prefill
}

// SearchResult is one search on the set.
type SearchResult struct {
	Name            string         `json:"name"`
	Search          retrieval.Info `json:"search"`
	Recall          float64        `json:"recall"`            // share of the exact top k that was found
	KeysScoredShare float64        `json:"keys_scored_share"` // as the plugin tells; a process may not
	Call            Latency        `json:"call_seconds"`      // of a step of the layer, all query heads
	Query           Sample         `json:"query_seconds"`     // a call's time over its queries
	Ratio           Sample         `json:"flat_ratio"`        // a call's time over that of exact search at the same step
	BuildSeconds    float64        `json:"build_seconds"`
	AppendSeconds   float64        `json:"append_seconds_per_token"` // 0 when nothing was appended
	IndexBytes      int64          `json:"index_bytes"`              // index objects in the host's memory, after the build
	MemoryBytes     int64          `json:"memory_bytes"`             // what the plugin holds beside; 0 when it is not told
}

// Latency is a sample with its tail.
type Latency struct {
	Sample
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
}

// appendBatch is how many tokens are appended at a time: as many as leave the
// window of recent tokens together.
const appendBatch = 64

// Units returns the units of work that the options ask for.
func (o *SearchOptions) Units() int {
	searches := len(o.Candidates) + 1
	return searches * (o.buildUnits() + o.Repeats*o.Set.Steps)
}

// buildUnits is what a build counts for beside a step.
func (o *SearchOptions) buildUnits() int { return max(o.Repeats*o.Set.Steps/4, 1) }

func (o *SearchOptions) did(units int) {
	if o.Progress != nil {
		o.Progress(units)
	}
}

func (o *SearchOptions) check() error {
	switch {
	case o.TopK < 1:
		return badOption("top-k is %d, must be at least 1", o.TopK)
	case o.Repeats < 1:
		return badOption("repeats are %d, must be at least 1", o.Repeats)
	}
	if o.Set.prefillRows() > 0 {
		return nil
	}
	for _, c := range o.Candidates {
		if usesQueries(c.Strategy) {
			return badOption("%s builds from the prefill's queries and %s has only those of the steps; ask for fewer steps than it has queries for", c.Name, o.Set.Source)
		}
	}
	return nil
}

func usesQueries(s retrieval.Strategy) bool {
	u, ok := s.(retrieval.QueryUser)
	return ok && u.UsesPrefillQueries()
}

// contender is a candidate at work.
type contender struct {
	Candidate
	view                  *kv.View
	res                   retrieval.Result
	times                 []float64 // of calls, s
	ratios                []float64 // to exact search, call by call
	result                SearchResult
	found, wanted, scored int64
	appended              time.Duration
}

// searchRun is a measurement under way. The first contender is exact.
type searchRun struct {
	*SearchOptions
	kvc        *kv.Context
	contenders []*contender
	queries    []float32 // of the step
	judge      judge
}

// Search measures the candidates beside exact search: builds each one's index
// over the prefill's keys, lets them answer the decode steps in turns, round
// by round, and then append tokens. What was found is judged by the host's own
// inner products of the stored keys. An answer that breaks the rules of
// [retrieval.Checker] ends the measurement.
func Search(ctx context.Context, o SearchOptions) (rep *SearchReport, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := o.Set
	geo := kv.Geometry{Layers: 1, KVHeads: s.KVHeads, HeadDim: s.Dim, DType: o.DType}
	r := &searchRun{SearchOptions: &o, queries: make([]float32, s.KVHeads*s.Group*s.Dim)}
	if r.kvc, err = kv.NewContext(geo, s.Keys, o.Memory); err != nil {
		return nil, err
	}
	defer func() {
		for _, c := range r.contenders {
			err = errors.Join(err, c.view.Close())
		}
		err = errors.Join(err, r.kvc.Close())
	}()
	r.store(0, s.Keys)
	r.judge = judge{scanner: o.Backend, kvc: r.kvc}
	exact := Candidate{Name: ExactSearch, Strategy: retrieval.NewFlat(o.Backend)}
	for _, c := range slices.Insert(slices.Clone(o.Candidates), 0, exact) {
		view := kv.NewView(r.kvc)
		view.Place(0, kv.Range{Hi: s.Keys}, kv.Indexed)
		r.contenders = append(r.contenders, &contender{Candidate: c, view: view})
	}
	for _, step := range []func(context.Context) error{r.build, r.search, r.append} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return r.report(), nil
}

// store writes the keys and values of the tokens [lo, hi).
func (r *searchRun) store(lo, hi int) {
	for h, head := range r.Set.heads {
		d := r.Set.Dim
		r.kvc.PutRows(0, h, lo, hi-lo, d, head.keys[lo*d:hi*d], head.values[lo*d:hi*d])
	}
	r.kvc.Commit(hi - lo)
}

// build lets all build their indexes, one after the other.
func (r *searchRun) build(ctx context.Context) (err error) {
	heads := r.Set.KVHeads * r.Set.Group
	var prefill []float32
	if slices.ContainsFunc(r.Candidates, func(c Candidate) bool { return usesQueries(c.Strategy) }) {
		n := int64(r.Set.Keys * heads * r.Set.Dim)
		region, allocErr := r.Memory.Alloc(4*n, kv.Queries)
		if allocErr != nil {
			return allocErr
		}
		defer func() { err = errors.Join(err, region.Release()) }()
		prefill = kv.Slice[float32](region, 0, n)
		r.Set.prefill(prefill)
	}
	for _, c := range r.contenders {
		b := &retrieval.Build{View: c.view, Heads: heads}
		if usesQueries(c.Strategy) {
			b.Queries = prefill
		}
		start := time.Now()
		if err := c.Strategy.Build(ctx, b); err != nil {
			return fmt.Errorf("%s: build: %w", c.Name, err)
		}
		c.result.BuildSeconds = time.Since(start).Seconds()
		c.result.IndexBytes = c.view.AttachmentBytes()
		r.did(r.buildUnits())
	}
	return nil
}

// search lets all answer every step, one after the other and each in turn
// first. The first round says what is found; a call before it counts for
// nothing.
func (r *searchRun) search(ctx context.Context) error {
	r.Set.step(r.Set.Steps-1, r.queries)
	for _, c := range r.contenders {
		if _, err := r.call(ctx, c, r.Set.Steps-1); err != nil {
			return err
		}
	}
	turns := make([]float64, len(r.contenders))
	for round := range r.Repeats {
		for t := range r.Set.Steps {
			r.Set.step(t, r.queries)
			for i := range r.contenders {
				at := (round + t + i) % len(r.contenders)
				var err error
				if turns[at], err = r.call(ctx, r.contenders[at], t); err != nil {
					return err
				}
			}
			for i, c := range r.contenders {
				c.times, c.ratios = append(c.times, turns[i]), append(c.ratios, turns[i]/turns[0])
				if round == 0 {
					if err := r.judge.score(r.request(c, t), r.contenders[0], c); err != nil {
						return err
					}
				}
			}
			r.did(len(r.contenders))
		}
	}
	return nil
}

// request is the call of a step.
func (r *searchRun) request(c *contender, t int) *retrieval.Call {
	return &retrieval.Call{
		Views: []*kv.View{c.view}, Tokens: 1, Heads: r.Set.KVHeads * r.Set.Group,
		Queries: r.queries, TopK: r.TopK, Step: r.Set.Keys + t,
	}
}

// call makes one search and returns its time in seconds.
func (r *searchRun) call(ctx context.Context, c *contender, t int) (float64, error) {
	call := r.request(c, t)
	start := time.Now()
	err := c.Strategy.Search(ctx, call, &c.res)
	took := time.Since(start).Seconds()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("%s: search: %w", c.Name, err)
	}
	return took, nil
}

// append lets all append the tokens after the prefill, batch by batch.
func (r *searchRun) append(ctx context.Context) error {
	end := r.Set.Keys + r.Set.Appended
	for lo := r.Set.Keys; lo < end; lo += appendBatch {
		batch := kv.Range{Lo: lo, Hi: min(lo+appendBatch, end)}
		if err := r.kvc.Reserve(batch.Len()); err != nil {
			return err
		}
		r.store(batch.Lo, batch.Hi)
		for _, c := range r.contenders {
			c.view.Extend(batch.Len())
			c.view.Place(0, batch, kv.Indexed)
			start := time.Now()
			if err := c.Strategy.Append(ctx, c.view, 0, batch); err != nil {
				return fmt.Errorf("%s: append: %w", c.Name, err)
			}
			c.appended += time.Since(start)
		}
	}
	return nil
}

func (r *searchRun) report() *SearchReport {
	s := r.Set
	rep := &SearchReport{
		Machine: ThisMachine(), Seed: r.Seed, TopK: r.TopK, Repeats: r.Repeats,
		Set: SetReport{
			Source: s.Source, Keys: s.Keys, Appended: s.Appended, Dim: s.Dim, KVHeads: s.KVHeads, Group: s.Group, Steps: s.Steps,
			DType: r.DType.String(), KeyBytes: int64(s.Keys*s.KVHeads*s.Dim) * int64(r.DType.Size()),
		},
	}
	queries := s.KVHeads * s.Group
	for _, c := range r.contenders {
		res := c.result
		res.Name, res.Search = c.Name, c.Strategy.Info()
		res.Recall = float64(c.found) / float64(c.wanted)
		res.KeysScoredShare = float64(c.scored) / (float64(s.Steps*queries) * float64(s.Keys))
		res.Call = Latency{Sample: summarize(c.times)} // and orders the times
		res.Call.P95, res.Call.P99 = quantile(c.times, 0.95), quantile(c.times, 0.99)
		res.Query = res.Call.Scale(1 / float64(queries))
		res.Ratio = summarize(c.ratios)
		if s.Appended > 0 {
			res.AppendSeconds = c.appended.Seconds() / float64(s.Appended)
		}
		if c.Memory != nil {
			res.MemoryBytes = c.Memory()
		}
		rep.Searches = append(rep.Searches, res)
	}
	return rep
}

// judge says which tokens should have been found.
type judge struct {
	scanner compute.Scanner
	kvc     *kv.Context
	checker retrieval.Checker
	scores  []float32
}

// score counts what c found of the exact answer. A token that is not in it
// but scores as much as its last, a tie, counts as found.
func (j *judge) score(call *retrieval.Call, exact, c *contender) error {
	if len(c.res.Hits) != call.Count() {
		return fmt.Errorf("%s: %d answers to %d queries", c.Name, len(c.res.Hits), call.Count())
	}
	for q, h := range c.res.Hits {
		if err := j.checker.Check(call, q, h); err != nil {
			return fmt.Errorf("%s: step %d: %w", c.Name, call.Step, err)
		}
		want := exact.res.Hits[q].IDs
		least := slices.Min(j.of(call, q, want))
		for _, s := range j.of(call, q, h.IDs) {
			if s >= least {
				c.found++
			}
		}
		c.wanted += int64(len(want))
	}
	c.scored += c.res.KeysScored
	return nil
}

// of returns the inner products of query q and the keys of the ids, until the
// next call.
func (j *judge) of(call *retrieval.Call, q int, ids []uint32) []float32 {
	if len(j.scores) < call.TopK {
		j.scores = make([]float32, call.TopK)
	}
	out := j.scores[:len(ids)]
	if len(ids) > 0 {
		j.scanner.Score(j.kvc, call.Layer, call.KVHead(q), [][]float32{call.Query(q)}, ids, [][]float32{out})
	}
	return out
}
