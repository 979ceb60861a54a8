package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/retrievalattention/ra/host/config"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/kv"
	"github.com/retrievalattention/ra/host/plugin"
	"github.com/retrievalattention/ra/host/retrieval"
)

// report is the object that generate --json prints. Its own figures are over
// all answers; with one answer they are that answer's.
type report struct {
	Text            string  `json:"text"`          // of all answers, joined by newlines
	PromptTokens    int     `json:"prompt_tokens"` // document and all questions
	GeneratedTokens int     `json:"generated_tokens"`
	PrefillSeconds  float64 `json:"prefill_seconds"`
	decodeFigures
	PeakRSSBytes int64           `json:"peak_rss_bytes"`
	Memory       memoryReport    `json:"memory"`
	Model        string          `json:"model"`
	Search       *searchReport   `json:"search"` // null when no mode searches
	Answers      []*answerReport `json:"answers"`

	sum engine.Answer
}

// answerReport is one answer.
type answerReport struct {
	Question        string      `json:"question"`
	Attention       engine.Mode `json:"attention"`
	Text            string      `json:"text"`
	PromptTokens    int         `json:"prompt_tokens"` // document and this question
	GeneratedTokens int         `json:"generated_tokens"`
	Stopped         bool        `json:"stopped"` // by the model, not by max_tokens
	decodeFigures
}

// decodeFigures are the cost of decoding. The rate counts decode steps, those
// that read the question included; shares are means over steps, layers and
// query heads, of the tokens in context.
type decodeFigures struct {
	DecodeSeconds   float64 `json:"decode_seconds"`
	TokensPerSecond float64 `json:"tokens_per_second"`
	AttendedShare   float64 `json:"attended_share"`
	KeysScoredShare float64 `json:"keys_scored_share"`
}

// memoryReport is the most memory of each kind that was held at once, out of
// the budget.
type memoryReport struct {
	BudgetBytes     int64 `json:"budget_bytes"` // 0: no limit
	KeysValuesBytes int64 `json:"keys_values_bytes"`
	IndexBytes      int64 `json:"index_bytes"`
	QueriesBytes    int64 `json:"prefill_queries_bytes"`
}

// searchReport says what searched and how often it failed: fallbacks counts
// searches that exact search answered instead.
type searchReport struct {
	retrieval.Info
	plugin.Stats
}

func figures(a *engine.Answer) decodeFigures {
	return decodeFigures{a.DecodeSeconds, a.TokensPerSecond(), a.AttendedShare(), a.KeysScoredShare()}
}

func newReport(cfg *config.Resolved, doc *engine.Document) *report {
	return &report{Model: modelName(cfg), PromptTokens: doc.Tokens(), PrefillSeconds: doc.PrefillSeconds}
}

// modelName is the configured model as reports show it.
func modelName(cfg *config.Resolved) string {
	if cfg.Model.Path == "" {
		return "embedded"
	}
	return cfg.Model.Path
}

func (r *report) add(doc *engine.Document, mode engine.Mode, question, text string, a *engine.Answer) {
	if len(r.Answers) > 0 {
		r.Text += "\n"
	}
	r.Text += text
	r.GeneratedTokens += len(a.Tokens)
	r.sum.DecodeSeconds += a.DecodeSeconds
	r.sum.Steps += a.Steps
	r.sum.Stats.Add(a.Stats)
	r.Answers = append(r.Answers, &answerReport{
		Question: question, Attention: mode, Text: text,
		PromptTokens: doc.Tokens() + a.QuestionTokens, GeneratedTokens: len(a.Tokens),
		Stopped: a.Stopped, decodeFigures: figures(a),
	})
}

// finish fills in what is known at the end.
func (r *report) finish(h *host) {
	r.decodeFigures = figures(&r.sum)
	r.PeakRSSBytes = peakRSS()
	r.Memory.BudgetBytes = h.memory.Budget()
	_, r.Memory.KeysValuesBytes = h.memory.Usage(kv.KeysValues)
	_, r.Memory.IndexBytes = h.memory.Usage(kv.Index)
	_, r.Memory.QueriesBytes = h.memory.Usage(kv.Queries)
	if h.plugin == nil {
		return
	}
	r.Search = &searchReport{h.plugin.Info(), h.plugin.Stats()}
}

// warn says on a terminal what JSON says in search.fallbacks.
func (r *report) warn(out io.Writer) {
	if s := r.Search; s != nil && s.Fallbacks > 0 {
		fmt.Fprintf(out, "search plugin %s failed: exact search answered %d of %d searches instead; last error: %s\n",
			s.Info, s.Fallbacks, s.Searches, s.LastError)
	}
}

func (r *report) write(out io.Writer) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}
