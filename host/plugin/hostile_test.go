package plugin

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/retrievalattention/ra/host/compute"
	"github.com/retrievalattention/ra/host/kernel"
	"github.com/retrievalattention/ra/host/kv"
	asm "github.com/retrievalattention/ra/host/plugin/internal/wasmasm"
	"github.com/retrievalattention/ra/host/plugin/internal/wasmbin"
	"github.com/retrievalattention/ra/host/retrieval"
	abi "github.com/retrievalattention/ra/sdk/abi/v1"
)

var digestInText = regexp.MustCompile(`@sha256:[0-9a-f]{12}`)

// errorText is an error's text without digests, which change with the module.
func errorText(err error) string {
	if err == nil {
		return ""
	}
	return digestInText.ReplaceAllString(err.Error(), "")
}

func TestLoadRefuses(t *testing.T) {
	i32, i64 := []byte{asm.I32}, []byte{asm.I64}
	lacking := func(name string) []byte { g := newGuest(); g.without = []string{name}; return g.module() }
	describing := func(text string) []byte { g := newGuest(); g.description = text; return g.module() }
	start := newGuest()
	start.Start(start.Func("", nil, nil, nil, unreachable))
	reserved := newGuest()
	reserved.Export("ra_fuel", wasmbin.KindGlobal, reserved.Global(asm.I64, asm.I64Const(0)))
	outside := newGuest()
	outside.body("ra_describe", asm.Op(0x23, 0))
	wrongType := newGuest()
	wrongType.without = []string{"ra_search"}
	wrongType.Func("ra_search", []byte{asm.I64, asm.F32}, i32, nil, asm.I32Const(0))
	newer := newGuest()
	newer.without = []string{abi.Marker}
	newer.Func("ra_abi_v2", nil, nil, nil)
	big := newGuest()
	big.pages = 16 * 300
	badInit := newGuest()
	badInit.Func("_initialize", i32, nil, nil)
	initTraps := newGuest()
	initTraps.Func("_initialize", nil, nil, nil, unreachable)
	memoryImport := newGuest()
	memoryImport.ImportRaw("ra", "memory", wasmbin.KindMemory, 0, 1)
	bigTable := newGuest()
	bigTable.Table(1<<21, -1)
	// The global that fuel would be: valid only after the rewriting.
	reachesFuel := newGuest().body("ra_search", asm.I64Const(math.MaxInt64), asm.Op(0x24, 0), asm.I32Const(0))
	dataOutside := newGuest()
	dataOutside.data[65530] = []byte("longer than the page")

	cases := map[string]struct {
		options Options
		kind    error
		text    string
	}{
		"no wasm":          {Options{Bytes: []byte("#!/bin/sh\n")}, ErrModule, `unusable module: malformed wasm module: not WebAssembly: the file does not begin with \0asm`},
		"truncated":        {Options{Bytes: newGuest().module()[:60]}, ErrModule, ""},
		"huge vector":      {Options{Bytes: []byte("\x00asm\x01\x00\x00\x00\t\t\xa7\xa7\xa70\xa7\xa7\xa7\xa70")}, ErrModule, `unusable module: malformed wasm module: offset 0xe: vector of 101307303 elements in 5 bytes`},
		"invalid code":     {Options{Bytes: newGuest().body("ra_search", asm.I64Const(0)).module()}, ErrModule, ""},
		"reaches for fuel": {Options{Bytes: reachesFuel.module()}, ErrModule, `unusable module: invalid function[5] export["ra_search"]: invalid global index`},
		"start section":    {Options{Bytes: start.module()}, ErrModule, `unusable module: it has a start section, which would run before any limit is set; export _initialize instead`},
		"reserved global":  {Options{Bytes: reserved.module()}, ErrModule, `unusable module: reserved name: the module exports "ra_fuel", which is the host's fuel counter; rename it`},
		"no marker":        {Options{Bytes: lacking(abi.Marker)}, ErrABI, `ABI mismatch: it does not export ra_abi_v1 ()`},
		"newer ABI":        {Options{Bytes: newer.module()}, ErrABI, `ABI mismatch: the module speaks ra_abi_v2, this host ra_abi_v1`},
		"no search":        {Options{Bytes: lacking("ra_search")}, ErrABI, `ABI mismatch: it does not export ra_search (param i32) (result i32)`},
		"no memory":        {Options{Bytes: lacking("memory")}, ErrModule, ""},
		"wrong signature":  {Options{Bytes: wrongType.module()}, ErrABI, `ABI mismatch: it exports ra_search as (param i64 f32) (result i32), expected (param i32) (result i32)`},
		"unknown import":   {Options{Bytes: newGuest().importing("ra", "teleport", i32, nil).module()}, ErrABI, `ABI mismatch: it imports ra.teleport (param i32), which this host does not have`},
		"import signature": {Options{Bytes: newGuest().importing("ra", "log", i64, nil).module()}, ErrABI, `ABI mismatch: it imports ra.log as (param i64), expected (param i32 i32 i32)`},
		"unknown module":   {Options{Bytes: newGuest().importing("env", "abort", i32, nil).module()}, ErrABI, `ABI mismatch: it imports "abort" from "env"; plugins may import from "ra" and "wasi_snapshot_preview1"`},
		"unknown WASI":     {Options{Bytes: newGuest().importing(wasiModule, "thread_spawn", i32, i32).module()}, ErrABI, `ABI mismatch: it imports "thread_spawn" from wasi_snapshot_preview1, which has no such function`},
		"WASI signature":   {Options{Bytes: newGuest().importing(wasiModule, "random_get", i32, i32).module()}, ErrABI, `ABI mismatch: it imports wasi_snapshot_preview1.random_get as (param i32) (result i32), expected (param i32 i32) (result i32)`},
		"memory import":    {Options{Bytes: memoryImport.module()}, ErrABI, `ABI mismatch: it imports the memory "memory" from "ra"; only functions are offered`},
		"too much memory":  {Options{Bytes: big.module()}, ErrMemory, `memory limit exceeded: the module begins with 300 MiB, limits.memory_mib is 256`},
		"table":            {Options{Bytes: bigTable.module()}, ErrModule, `unusable module: table too large: it begins with 2097152 elements, at most 1048576 are allowed`},
		"data outside":     {Options{Bytes: dataOutside.module()}, ErrModule, `unusable module: instantiate: data[1]: out of bounds memory access`},
		"initialize type":  {Options{Bytes: badInit.module()}, ErrABI, `ABI mismatch: it exports _initialize as (param i32), expected ()`},
		"initialize traps": {Options{Bytes: initTraps.module()}, ErrTrap, `trap: _initialize: unreachable`},
		"describe outside": {Options{Bytes: newGuest().body("ra_describe", asm.I64Const(-16<<32|100)).module()}, ErrABI, `ABI mismatch: ra_describe: 100 bytes at 0xfffffff0 reach beyond the memory of 65536 bytes`},
		"describe long":    {Options{Bytes: newGuest().body("ra_describe", asm.I64Const(0xffffffff)).module()}, ErrABI, `ABI mismatch: ra_describe: 4294967295 bytes, at most 65536 are allowed`},
		"describe garbage": {Options{Bytes: describing("hello")}, ErrABI, `ABI mismatch: ra_describe: invalid character 'h' looking for beginning of value`},
		"describe name":    {Options{Bytes: describing(`{"name":"../x","version":"1","kind":"search"}`)}, ErrABI, `ABI mismatch: ra_describe: name "../x", want lower-case letters, digits, - and _`},
		"describe kind":    {Options{Bytes: describing(`{"name":"x","version":"1","kind":"cache"}`)}, ErrABI, `ABI mismatch: ra_describe: kind "cache", want "search" or "policy"`},
		"other kind":       {Options{Bytes: describing(`{"name":"x","version":"1","kind":"policy"}`)}, ErrABI, `ABI mismatch: x is a policy plugin, a search plugin is asked for`},
		"need":             {Options{Bytes: describing(`{"name":"x","version":"1","kind":"search","needs":["gpu"]}`)}, ErrABI, `ABI mismatch: the plugin needs "gpu"; this host has ["prefill_queries" "weigh"]`},
		"feature":          {Options{Bytes: describing(`{"name":"x","version":"1","kind":"search","features":["gpu"]}`)}, ErrABI, `ABI mismatch: the plugin needs the feature "gpu"; this host has []`},
		"bad default":      {Options{Bytes: describing(`{"name":"x","version":"1","kind":"search","parameters":[{"name":"n","type":"int","min":1,"default":0}]}`)}, ErrABI, `ABI mismatch: ra_describe: the default of n is 0 (float64), want an integer of at least 1`},
		"configure fails":  {Options{Bytes: newGuest("fail").body("ra_configure", asm.I32Const(3)).module()}, ErrGuest, `plugin failed: ra_configure returned status 3 and no text`},
		"digest":           {Options{Name: "flat", SHA256: strings.Repeat("0", 64)}, ErrDigest, ""},
		"unknown":          {Options{Name: "flot"}, ErrUnknown, `unknown plugin: no built-in plugin "flot"; did you mean "flat"?`},
		"unknown, far":     {Options{Name: "hnsw"}, ErrUnknown, `unknown plugin: no built-in plugin "hnsw"; there is flat, sinkwindow (give a path for another)`},
		"nothing":          {Options{}, nil, `neither name, path nor bytes is set`},
		"both":             {Options{Bytes: []byte{}, Path: "x.wasm"}, nil, `both path and bytes are set`},
		"on_failure":       {Options{Name: "flat", OnFailure: "panic"}, nil, `on_failure is "panic", want "fallback" or "fail"`},
		"memory limit":     {Options{Name: "flat", Limits: Limits{MemoryMiB: 5000}}, nil, `limits.memory_mib is 5000, want 1 to 4096`},
		"parameter":        {Options{Name: "flat", Params: map[string]any{"bach": 4}}, ErrParam, `invalid parameter: flat has no parameter "bach"; did you mean "batch"?`},
		"parameter range":  {Options{Name: "flat", Params: map[string]any{"batch": 9}}, ErrParam, `invalid parameter: batch is 9 (int), want an integer from 1 to 8`},
		"parameter type":   {Options{Name: "flat", Params: map[string]any{"batch": "all"}}, ErrParam, `invalid parameter: batch is "all" (string), want an integer from 1 to 8`},
		"flat in 1 MiB":    {Options{Name: "flat", Limits: Limits{MemoryMiB: 1}}, ErrMemory, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := tryLoad(t, c.options)
			var e *Error
			if !errors.As(err, &e) || e.Operation != "load" {
				t.Fatalf("got %v, want an Error of load", err)
			}
			if c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("got %v, want one that is %q", err, c.kind)
			}
			if c.text != "" && e.Err.Error() != c.text {
				t.Errorf("got\n%s\nwant\n%s", e.Err, c.text)
			}
		})
	}
}

// small is the geometry of the hostile tests: tokens 8 to 191 are indexed.
var small = geometry{layers: 2, kvHeads: 2, group: 2, dim: 16, dtype: kernel.BF16, tokens: []int{200}, sink: 8, window: 8, topK: 4}

func TestHostileSearches(t *testing.T) {
	g := newGuest // short, for the table
	emit := g("emit").words(atIDs, 10, 11, 12, 13, 14)
	ids := func(ids ...uint32) *guest {
		h := g("emit").words(atIDs, ids...)
		return h.search(h.call("emit", 0, atIDs, 0, int32(len(ids))))
	}
	bias := func(b float32) *guest {
		h := g("emit").words(atIDs, 20).words(atBias, math.Float32bits(b))
		return h.search(h.call("emit", 1, atIDs, atBias, 1))
	}
	// calls makes a guest whose search makes one call and drops its result.
	calls := func(name string, args ...int32) *guest {
		h := g(name).words(atIDs, 10, 11, 12, 13, 14)
		code := h.call(name, args...)
		for _, f := range abi.Imports() {
			if f.Name == name && len(f.Results) > 0 {
				code = append(code, drop...)
			}
		}
		return h.search(code)
	}
	flood := g("topk_range")
	flood.search(forever(flood.call("topk_range", 0, 2, 0, -1, 4, atIDs, 0, atOut), drop))
	tiny := g("log")
	tiny.search(forever(tiny.call("log", 0, 0, 0)))
	recursion := g()
	recursion.search(asm.Op(0x10, recursion.Func("", nil, nil, nil, asm.Op(0x10, 0))))
	failing := g("fail")
	failing.data[atIDs] = []byte("no \x00such\nlist \xff")
	failing.body("ra_search", failing.call("fail", atIDs, 15), asm.I32Const(1))
	sleeping := g().importing(wasiModule, "poll_oneoff", []byte{asm.I32, asm.I32, asm.I32, asm.I32}, []byte{asm.I32})
	sleeping.words(atIDs, 0, 0, 0, 0, 0, 0, 5_000_000, 0, 0, 0, 0, 0).search(sleeping.call("poll_oneoff", atIDs, atOut, 1, atBias), drop)
	exiting := g().importing(wasiModule, "proc_exit", []byte{asm.I32}, nil)
	exiting.search(exiting.call("proc_exit", 2))
	growing := g()
	growing.search(forever(asm.I32Const(16), memoryGrow, asm.I32Const(-1), asm.Op(0x46), []byte{0x04, 0x40, 0, 0x0b}))
	filling := g()
	filling.search(forever(asm.I32Const(0), asm.I32Const(0), asm.I32Const(65536), []byte{0xfc, 11, 0}))

	cases := map[string]struct {
		guest  *guest
		limits Limits
		kind   error
		text   string
	}{
		"trap":         {g().search(unreachable), Limits{}, ErrTrap, "trap: ra_search: unreachable"},
		"divide":       {g().search(asm.I32Const(1), asm.I32Const(0), []byte{0x6e}, drop), Limits{}, ErrTrap, "trap: ra_search: integer divide by zero"},
		"memory":       {g().search(asm.I32Const(-8), []byte{0x28, 2, 0}, drop), Limits{}, ErrTrap, "trap: ra_search: out of bounds memory access"},
		"endless loop": {g().search(forever()), Limits{Fuel: 1e6}, ErrFuel, "out of fuel: ra_search used its 1000000 units of fuel; raise limits.fuel or mark the plugin trusted"},
		"recursion":    {recursion, Limits{Fuel: 1e4}, ErrFuel, "out of fuel: ra_search used its 10000 units of fuel; raise limits.fuel or mark the plugin trusted"},
		"bulk":         {filling, Limits{Fuel: 1e6}, ErrFuel, "out of fuel: ra_search used its 1000000 units of fuel; raise limits.fuel or mark the plugin trusted"},
		"sleep":        {sleeping, Limits{}, ErrCapability, "not permitted: poll_oneoff: plugin tried to sleep for 5000000 ns; a search has no time to wait"},
		"exit":         {exiting, Limits{}, ErrExit, "plugin exited: proc_exit: the plugin ended itself with code 2"},
		"grows":        {growing, Limits{MemoryMiB: 8}, ErrTrap, "trap: ra_search: unreachable; it had asked for 9 MiB of memory, more than limits.memory_mib = 8"},
		"flood":        {flood, Limits{SearchTimeout: 10 * time.Millisecond}, ErrDeadline, "deadline exceeded: topk_range: ra_search ran longer than 10ms"},
		"small calls":  {tiny, Limits{SearchTimeout: 10 * time.Millisecond}, ErrDeadline, "deadline exceeded: log: ra_search ran longer than 10ms"},
		"status":       {g().body("ra_search", asm.I32Const(-7)), Limits{}, ErrGuest, "plugin failed: ra_search returned status -7 and no text"},
		"fail":         {failing, Limits{}, ErrGuest, "plugin failed: no  such list ?"},

		"id beyond the end":    {ids(10, 200), Limits{}, retrieval.ErrHits, "invalid search result: query 0: id 200 is out of range, the context has 200 tokens"},
		"id far beyond":        {ids(math.MaxUint32), Limits{}, retrieval.ErrHits, "invalid search result: query 0: id 4294967295 is out of range, the context has 200 tokens"},
		"id twice":             {ids(10, 11, 10), Limits{}, retrieval.ErrHits, "invalid search result: query 0: id 10 was returned twice"},
		"id of the static set": {ids(10, 3), Limits{}, retrieval.ErrHits, "invalid search result: query 0: id 3 is a static token, only indexed ones may be returned"},
		"too many":             {ids(10, 11, 12, 13, 14), Limits{}, retrieval.ErrHits, "invalid search result: emit: query 0: 5 hits, at most 4 were asked for"},
		"too many in two":      {emit.search(emit.call("emit", 0, atIDs, 0, 3), emit.call("emit", 0, atIDs+12, 0, 2)), Limits{}, retrieval.ErrHits, "invalid search result: emit: query 0: 5 hits, at most 4 were asked for"},
		"NaN bias":             {bias(float32(math.NaN())), Limits{}, retrieval.ErrHits, "invalid search result: query 1: the bias of id 20 is NaN"},
		"infinite bias":        {bias(float32(math.Inf(1))), Limits{}, retrieval.ErrHits, "invalid search result: query 1: the bias of id 20 is +Inf"},

		"query of the prefill": {calls("score", 1<<30, 1, atIDs, 1, atOut), Limits{}, ErrCall, "invalid host call: score: query 0 of the prefill: there are none during ra_search; list \"prefill_queries\" under \"needs\" of the description to have them for ra_build"},
		"stored key as query":  {calls("score", math.MinInt32, 1, atIDs, 1, atOut), Limits{}, ErrCall, "invalid host call: score: query 0 is a stored key, which can be used in ra_build and ra_append, not in ra_search"},
		"unknown tag":          {calls("score", -1, 1, atIDs, 1, atOut), Limits{}, ErrCall, "invalid host call: score: query 0xffffffff has the unknown tag 3"},
		"query beyond":         {calls("score", 4, 1, atIDs, 1, atOut), Limits{}, ErrCall, "invalid host call: score: query 4, the call has 4"},
		"no queries":           {calls("score", 0, 0, atIDs, 1, atOut), Limits{}, ErrCall, "invalid host call: score: 0 queries, want 1 to 8"},
		"nine queries":         {calls("score", 0, 9, atIDs, 1, atOut), Limits{}, ErrCall, "invalid host call: score: 9 queries, want 1 to 8"},
		"beyond the group":     {calls("score", 1, 2, atIDs, 1, atOut), Limits{}, ErrCall, "invalid host call: score: 2 queries from query 1 on, its sequence and KV head have 1 left"},
		"score: absurd n":      {calls("score", 0, 1, atIDs, -1, atOut), Limits{}, ErrCall, "invalid host call: score: 4294967295 ids, at most 65536 are allowed"},
		"score: id":            {calls("score", 0, 1, atBias, 1, -4).words(atBias, 200), Limits{}, ErrCall, "invalid host call: score: id 200, the sequence has 200 tokens"},
		"score: ids outside":   {calls("score", 0, 1, 65532, 2, atOut), Limits{}, ErrCall, "invalid host call: score: ids: 8 bytes at 0xfffc reach beyond the memory of 65536 bytes"},
		"score: out outside":   {calls("score", 0, 2, atIDs, 2, 65528), Limits{}, ErrCall, "invalid host call: score: out: 16 bytes at 0xfff8 reach beyond the memory of 65536 bytes"},
		"score: misaligned":    {calls("score", 0, 1, atIDs+1, 1, atOut), Limits{}, ErrCall, "invalid host call: score: ids: pointer 0x1001 is not a multiple of 4"},
		"score: overlap":       {calls("score", 0, 2, atIDs, 2, atIDs+4), Limits{}, ErrCall, "invalid host call: score: ids and out overlap"},
		"range: reversed":      {calls("score_range", 0, 1, 5, 4, atOut), Limits{}, ErrCall, "invalid host call: score_range: positions [5, 4) of a sequence of 200"},
		"range: beyond":        {calls("score_range", 0, 1, 0, 201, atOut), Limits{}, ErrCall, "invalid host call: score_range: positions [0, 201) of a sequence of 200"},
		"range: outside":       {calls("score_range", 0, 1, 0, 200, -4), Limits{}, ErrCall, "invalid host call: score_range: out: 800 bytes at 0xfffffffc reach beyond the memory of 65536 bytes"},
		"topk: absurd k":       {calls("topk_range", 0, 2, 0, -1, -1, atIDs, 0, atOut), Limits{}, ErrCall, "invalid host call: topk_range: out_ids: 8589934590 elements do not fit a memory"},
		"topk: ids":            {calls("topk_range", 0, 2, 0, -1, 1, -8, 0, atOut), Limits{}, ErrCall, "invalid host call: topk_range: out_ids: 8 bytes at 0xfffffff8 reach beyond the memory of 65536 bytes"},
		"topk: scores":         {calls("topk_range", 0, 2, 0, -1, 1, atIDs, 65532, atOut), Limits{}, ErrCall, "invalid host call: topk_range: out_scores: 8 bytes at 0xfffc reach beyond the memory of 65536 bytes"},
		"topk: counts":         {calls("topk_range", 0, 2, 0, -1, 1, atIDs, 0, 65536), Limits{}, ErrCall, "invalid host call: topk_range: out_counts: 8 bytes at 0x10000 reach beyond the memory of 65536 bytes"},
		"emit: ids":            {calls("emit", 0, 65536, 0, 1), Limits{}, ErrCall, "invalid host call: emit: ids: 4 bytes at 0x10000 reach beyond the memory of 65536 bytes"},
		"emit: bias":           {calls("emit", 0, atIDs, -4, 2), Limits{}, ErrCall, "invalid host call: emit: bias: 8 bytes at 0xfffffffc reach beyond the memory of 65536 bytes"},
		"emit: absurd n":       {calls("emit", 0, atIDs, 0, -1), Limits{}, retrieval.ErrHits, "invalid search result: emit: query 0: 4294967295 hits, at most 4 were asked for"},
		"store: sequence":      {calls("store_info", 1, 0, atOut, 24), Limits{}, ErrCall, "invalid host call: store_info: sequence 1, the call has 1"},
		"store: head":          {calls("store_info", 0, -1, atOut, 24), Limits{}, ErrCall, "invalid host call: store_info: KV head 4294967295, the call has heads 0 to 1"},
		"store: buf":           {calls("store_info", 0, 0, -16, 100), Limits{}, ErrCall, "invalid host call: store_info: buf: 24 bytes at 0xfffffff0 reach beyond the memory of 65536 bytes"},
		"ranges: buf":          {calls("indexed_ranges", 0, 0, -4, -1), Limits{}, ErrCall, "invalid host call: indexed_ranges: buf: 8 bytes at 0xfffffffc reach beyond the memory of 65536 bytes"},
		"queries: buf":         {calls("queries_info", 65535, 2), Limits{}, ErrCall, "invalid host call: queries_info: buf: 2 bytes at 0xffff reach beyond the memory of 65536 bytes"},
		"read queries":         {calls("read_queries", 0, 2, 65536-64), Limits{}, ErrCall, "invalid host call: read_queries: out: 128 bytes at 0xffc0 reach beyond the memory of 65536 bytes"},
		"vectors: kind":        {calls("read_vectors", 2, 0, 0, atIDs, 1, atOut), Limits{}, ErrCall, "invalid host call: read_vectors: vectors of kind 2, want 0 (keys) or 1 (values)"},
		"vectors: out":         {calls("read_vectors", 0, 0, 0, atIDs, 2, 65536-64), Limits{}, ErrCall, "invalid host call: read_vectors: out: 128 bytes at 0xffc0 reach beyond the memory of 65536 bytes"},
		"vectors: overlap":     {calls("read_vectors", 0, 0, 0, atIDs, 2, atIDs-32), Limits{}, ErrCall, "invalid host call: read_vectors: ids and out overlap"},
		"log: text":            {calls("log", 1, -1, 2), Limits{}, ErrCall, "invalid host call: log: text: 2 bytes at 0xffffffff reach beyond the memory of 65536 bytes"},
		"log: level":           {calls("log", 4, 0, 0), Limits{}, ErrCall, "invalid host call: log: level 4, want 0 to 3"},
		"fail: text":           {calls("fail", -1024, -1), Limits{}, ErrCall, "invalid host call: fail: text: 1024 bytes at 0xfffffc00 reach beyond the memory of 65536 bytes"},
		"params in a search":   {calls("params_read", atOut, 100), Limits{}, ErrCall, "invalid host call: params_read: may not be called during ra_search, only during configure"},
	}
	view := newView(t, small, 1)
	call := newCall(small, 1, view)
	var want retrieval.Result
	if err := retrieval.NewFlat(compute.NewCPU()).Search(t.Context(), call, &want); err != nil {
		t.Fatal(err)
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			module := c.guest.module()
			p := load(t, Options{Bytes: module, Limits: c.limits, Instances: 1})
			var got retrieval.Result
			for range 2 { // the second call finds a fresh instance
				err := p.Search(t.Context(), call, &got)
				var e *Error
				if !errors.As(err, &e) || e.Plugin != "hostile" || e.Operation != "search" || e.Layer != 1 || e.Step != 7 {
					t.Fatalf("got %v, want an Error of the search", err)
				}
				if !errors.Is(err, c.kind) {
					t.Errorf("got %v, want one that is %q", err, c.kind)
				}
				if text, want := errorText(err), "plugin hostile: search layer 1 step 7: "+c.text; text != want {
					t.Errorf("got\n%s\nwant\n%s", text, want)
				}
			}
			if s := p.Stats(); s.Failures != 2 || s.Fallbacks != 0 || s.Searches != 2 || s.LastError == "" {
				t.Errorf("counted %+v", s)
			}
			f := load(t, Options{Bytes: module, Limits: c.limits, Instances: 1, OnFailure: Fallback})
			for i := range int64(2) {
				if err := f.Search(t.Context(), call, &got); err != nil {
					t.Fatal(err)
				}
				sameHits(t, &got, &want)
				if s := f.Stats(); s.Fallbacks != i+1 || s.Failures != i+1 {
					t.Errorf("counted %+v", s)
				}
			}
		})
	}
}

// TestGoodGuestsOfOddKind covers what looks hostile and is allowed.
func TestGoodGuestsOfOddKind(t *testing.T) {
	big := newGuest()
	big.search(asm.I32Const(131072), memoryGrow, drop) // 8 GiB: refused, and the guest goes on
	empty := newGuest("emit")
	empty.search(empty.call("emit", 0, atIDs, atBias, 0))
	mixed := newGuest("emit").words(atIDs, 10, 11, 12).words(atBias, math.Float32bits(-1.5))
	mixed.search(mixed.call("emit", 0, atIDs, 0, 1), mixed.call("emit", 0, atIDs+4, atBias, 1), mixed.call("emit", 0, atIDs+8, 0, 1))
	endOfMemory := newGuest("queries_info")
	endOfMemory.search(endOfMemory.call("queries_info", 65536-32, 32), drop, endOfMemory.call("queries_info", 65536, 0), drop)
	call := newCall(small, 1, newView(t, small, 1))
	for name, g := range map[string]*guest{"8 GiB": big, "empty": empty, "mixed": mixed, "end of memory": endOfMemory} {
		p := load(t, Options{Bytes: g.module(), Instances: 1})
		var res retrieval.Result
		if err := p.Search(t.Context(), call, &res); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if h := res.Hits[0]; name == "mixed" && (len(h.IDs) != 3 || len(h.Bias) != 3 || h.Bias[0] != 0 || h.Bias[1] != -1.5 || h.Bias[2] != 0) {
			t.Errorf("%s: got %+v", name, h)
		}
	}
}

func TestOnlyOwnHeadsMayBeAnswered(t *testing.T) {
	g := newGuest("emit").words(atIDs, 10)
	g.search(g.call("emit", 0, atIDs, 0, 1))
	p := load(t, Options{Bytes: g.module(), Instances: 2})
	var res retrieval.Result
	err := p.Search(t.Context(), newCall(small, 1, newView(t, small, 1)), &res)
	if !errors.Is(err, ErrCall) || !strings.HasSuffix(errorText(err), "invalid host call: emit: KV head 0, the call has heads 1 to 1") {
		t.Fatal(err)
	}
	if n := p.Stats().Instances; n != 1 {
		t.Fatalf("%d instances live on, want 1", n)
	}
}

// TestStackOverflow: wazero bounds recursion where there is no fuel.
func TestStackOverflow(t *testing.T) {
	g := newGuest()
	g.search(asm.Op(0x10, g.Func("", nil, nil, nil, asm.Op(0x10, 0))))
	p := load(t, Options{Bytes: g.module(), Instances: 1, Trusted: true})
	var res retrieval.Result
	err := p.Search(t.Context(), newCall(small, 1, newView(t, small, 1)), &res)
	if !errors.Is(err, ErrStack) || !strings.HasSuffix(errorText(err), ": stack overflow: ra_search recursed too deeply") {
		t.Fatal(err)
	}
}

// TestBuildFailure: a layer without an index is searched exactly.
func TestBuildFailure(t *testing.T) {
	// Builds of layer 1 trap; searches emit nothing.
	module := newGuest().body("ra_build", asm.Op(0x20, 0), []byte{0x04, 0x40, 0, 0x0b}, asm.I32Const(0)).module()
	view, other := newView(t, small, 1), newView(t, small, 2)
	call := newCall(small, 1, view)
	var want retrieval.Result
	if err := retrieval.NewFlat(compute.NewCPU()).Search(t.Context(), call, &want); err != nil {
		t.Fatal(err)
	}
	b := &retrieval.Build{View: view, Layer: 1, Heads: 4}

	p := load(t, Options{Bytes: module})
	err := p.Build(t.Context(), b)
	if text := errorText(err); text != "plugin hostile: build layer 1: trap: ra_build: unreachable" {
		t.Fatal(text)
	}

	p = load(t, Options{Bytes: module, OnFailure: Fallback})
	if err := p.Build(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	var got retrieval.Result
	if err := p.Search(t.Context(), call, &got); err != nil {
		t.Fatal(err)
	}
	sameHits(t, &got, &want)
	if s := p.Stats(); s.Failures != 1 || s.Fallbacks != 1 {
		t.Fatalf("counted %+v", s)
	}
	if err := p.Append(t.Context(), view, 1, kv.Range{Lo: 190, Hi: 192}); err != nil {
		t.Fatal(err)
	}
	// Another layer is searched by the plugin, which finds nothing, and so is
	// another view once it was built; a view of unknown history is not.
	call.Layer = 0
	if err := p.Search(t.Context(), call, &got); err != nil || len(got.Hits[0].IDs) != 0 {
		t.Fatalf("layer 0: %d hits, error %v", len(got.Hits[0].IDs), err)
	}
	call.Layer, call.Views = 1, []*kv.View{other}
	if err := p.Search(t.Context(), call, &got); err != nil || len(got.Hits[0].IDs) != small.topK {
		t.Fatalf("unknown view: %d hits, error %v", len(got.Hits[0].IDs), err)
	}
	p.built.record(other, 1, true)
	if err := p.Search(t.Context(), call, &got); err != nil || len(got.Hits[0].IDs) != 0 {
		t.Fatalf("built view: %d hits, error %v", len(got.Hits[0].IDs), err)
	}
}

// TestLogIsBounded: a guest that writes garbage without end fills neither the
// log nor memory.
func TestLogIsBounded(t *testing.T) {
	i32 := asm.I32
	g := newGuest("log").importing(wasiModule, "fd_write", []byte{i32, i32, i32, i32}, []byte{i32})
	g.words(atIDs, 0, 65536).data[100] = []byte("a\x1b[31mred\x00\xff\xfe\nline\n\n")
	g.search(forever(g.call("log", 1, 0, -1), g.call("fd_write", 2, atIDs, 1, atOut), drop))
	var log bytes.Buffer
	p := load(t, Options{
		Bytes: g.module(), Instances: 1, Limits: Limits{Fuel: 200},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	var res retrieval.Result
	if err := p.Search(t.Context(), newCall(small, 1, newView(t, small, 1)), &res); !errors.Is(err, ErrFuel) {
		t.Fatal(err)
	}
	lines := strings.Count(log.String(), "\n")
	if lines > abi.MaxLogLines+2 || log.Len() > (abi.MaxLogLines+2)*2*abi.MaxLogText {
		t.Fatalf("%d lines, %d bytes", lines, log.Len())
	}
	if strings.ContainsAny(log.String(), "\x1b\x00") {
		t.Fatal("control characters reached the log")
	}
	if !strings.Contains(log.String(), "plugin=hostile") || !strings.Contains(log.String(), "further messages of this call are dropped") {
		t.Fatalf("got %s", log.String())
	}
}
