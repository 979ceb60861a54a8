package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/retrievalattention/ra/host/config"
	"github.com/retrievalattention/ra/host/engine"
	"github.com/retrievalattention/ra/host/model/sampling"
)

// generateFlags maps the flags of generate to the keys that they override.
var generateFlags = map[string]string{
	"model":        "model.path",
	"search":       "search.plugin",
	"policy":       "policy.plugin",
	"top-k":        "attention.budget.top_k",
	"sink":         "policy.params.sink",
	"window":       "policy.params.window",
	"max-tokens":   "generate.max_tokens",
	"temperature":  "generate.temperature",
	"sample-top-k": "generate.top_k",
	"top-p":        "generate.top_p",
	"seed":         "generate.seed",
}

type generate struct {
	*globals
	file, text string
	questions  []string
	attention  string
	params     pluginParams
	json       bool
}

func newGenerate(g *globals) *cobra.Command {
	r := &generate{globals: g, params: pluginParams{}}
	c := &cobra.Command{
		Use:   "generate",
		Short: "Answer a prompt",
		Long: `Answer a prompt from a long document.

The document is run through the model exactly (prefill). A question after it is
read token by token as decode steps in the attention mode, so that one prefill
serves several questions and several modes. Without -q the text is the whole
prompt and its last line plays the question's part.

The answer goes to stdout, one a line when there are several; progress and
figures go to stderr.`,
		Example: `  ra generate -f book.txt -q "Who betrayed the king?"
  ra generate -f book.txt -q "First?" -q "Second?" --attention retrieval,full --json
  ra generate -f book.txt -q "Who?" --search mine.wasm --top-k 200`,
		Args: cobra.NoArgs,
		RunE: r.run,
	}
	f := c.Flags()
	f.StringVarP(&r.file, "file", "f", "", "file with the document, or with the whole prompt; - for stdin")
	f.StringVarP(&r.text, "prompt", "p", "", "the document or the whole prompt as text")
	f.StringArrayVarP(&r.questions, "question", "q", nil, "question about the document; may be given several times")
	f.StringVar(&r.attention, "attention", "", "attention mode: retrieval, full or static; several with commas, answered on one prefill")
	f.BoolVar(&r.json, "json", false, "print one JSON object")
	f.String("model", "", "model folder; empty: the embedded reference model")
	f.String("search", "", "search plugin: a built-in or configured name, or a .wasm file")
	r.params.flags(c)
	f.String("policy", "", "placement policy: a built-in or configured name, or a .wasm file")
	f.Int("top-k", 0, "most tokens retrieved a query head and step")
	f.Int("sink", 0, "short for --policy-param sink=N: first tokens in the static set")
	f.Int("window", 0, "short for --policy-param window=N: last tokens in the static set")
	f.Int("max-tokens", 0, "most tokens to generate an answer")
	f.Float64("temperature", 0, "sampling temperature; 0 is greedy")
	f.Int("sample-top-k", 0, "sample among the k most likely tokens; 0: all")
	f.Float64("top-p", 1, "sample among the most likely tokens that hold this probability")
	f.Uint64("seed", 0, "seed of the sampling")
	return c
}

func (r *generate) run(c *cobra.Command, _ []string) (err error) {
	cfg, modes, err := r.resolve(c)
	if err != nil {
		return err
	}
	prompt, err := r.prompt()
	if err != nil {
		return err
	}
	ctx := c.Context()
	h, err := openHost(ctx, cfg, modes, r.logger())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	document, questions, err := prompt.Encode(h.model.Tokenizer)
	if err != nil {
		return err
	}
	room := 0
	for _, q := range questions {
		room = max(room, len(q)+cfg.Generate.MaxTokens)
	}
	bar := newProgress(r.err, fmt.Sprintf("prefill %d tokens", len(document)), len(document)*h.model.Config.Layers)
	doc, err := h.engine.Prefill(ctx, document, engine.PrefillOptions{Modes: modes, Room: room, Progress: bar.add})
	bar.close()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, doc.Close()) }()
	report := newReport(cfg, doc)
	for i, q := range questions {
		report.PromptTokens += len(q)
		for _, mode := range modes {
			if err := r.answer(ctx, h, cfg, doc, mode, prompt.Questions[i], q, report); err != nil {
				return err
			}
		}
	}
	report.finish(h)
	if !r.json {
		report.warn(r.err)
		return nil
	}
	return report.write(r.out)
}

// resolve returns the configuration under the flags given, and the modes.
func (r *generate) resolve(c *cobra.Command) (*config.Resolved, []engine.Mode, error) {
	flags := changedFlags(c, generateFlags)
	if err := r.params.into(flags); err != nil {
		return nil, nil, err
	}
	var modes []engine.Mode
	if r.attention != "" {
		var err error
		if modes, err = parseModes(r.attention); err != nil {
			return nil, nil, err
		}
		flags["attention.mode"] = string(modes[0])
	}
	cfg, err := r.load(flags)
	if err != nil {
		return nil, nil, err
	}
	if len(modes) == 0 {
		modes = []engine.Mode{engine.Mode(cfg.Attention.Mode)} // checked by config
	}
	return cfg, modes, nil
}

// pluginParams are the values of --search-param and --policy-param, by table.
type pluginParams map[string]*[]string

func (p pluginParams) flags(c *cobra.Command) {
	for _, table := range []string{"search", "policy"} {
		p[table] = c.Flags().StringArray(table+"-param", nil, "parameter of the "+table+" plugin, as NAME=VALUE; may be given several times")
	}
}

// into adds the keys that the parameters set.
func (p pluginParams) into(flags map[string]string) error {
	for table, list := range p {
		for _, param := range *list {
			name, value, ok := strings.Cut(param, "=")
			if !ok || name == "" {
				return fmt.Errorf("%w: --%s-param %q is not NAME=VALUE", errUsage, table, param)
			}
			flags[table+".params."+name] = value
		}
	}
	return nil
}

// changedFlags maps the keys of the flags that were given to their values.
func changedFlags(c *cobra.Command, keys map[string]string) map[string]string {
	values := map[string]string{}
	for name, key := range keys {
		if f := c.Flags().Lookup(name); f.Changed {
			values[key] = f.Value.String()
		}
	}
	return values
}

// parseModes reads the value of --attention.
func parseModes(list string) ([]engine.Mode, error) {
	var modes []engine.Mode
	for _, name := range strings.Split(list, ",") {
		m, err := engine.ParseMode(name)
		if err != nil {
			return nil, fmt.Errorf("%w: --attention: %w", errUsage, err)
		}
		if slices.Contains(modes, m) {
			return nil, fmt.Errorf("%w: --attention names %s twice", errUsage, m)
		}
		modes = append(modes, m)
	}
	return modes, nil
}

// prompt reads the text and divides it into document and questions.
func (r *generate) prompt() (engine.Prompt, error) {
	text := r.text
	switch {
	case r.file == "" && text == "":
		return engine.Prompt{}, fmt.Errorf("%w: no prompt; give a file with -f or text with -p", errUsage)
	case r.file != "" && text != "":
		return engine.Prompt{}, fmt.Errorf("%w: -f and -p exclude each other", errUsage)
	case r.file == "-":
		data, err := io.ReadAll(r.in)
		if err != nil {
			return engine.Prompt{}, fmt.Errorf("read the prompt from stdin: %w", err)
		}
		text = string(data)
	case r.file != "":
		data, err := os.ReadFile(r.file)
		if err != nil {
			return engine.Prompt{}, fmt.Errorf("read the prompt: %w", err)
		}
		text = string(data)
	}
	return engine.NewPrompt(text, r.questions)
}

// answer generates one answer, streams it unless JSON is asked for, and adds
// it to the report.
func (r *generate) answer(ctx context.Context, h *host, cfg *config.Resolved, doc *engine.Document, mode engine.Mode, question string, ids []int32, report *report) error {
	g := cfg.Generate
	sampler, err := sampling.New(sampling.Params{Temperature: g.Temperature, TopK: g.TopK, TopP: g.TopP, Seed: g.Seed})
	if err != nil {
		return err
	}
	var text strings.Builder
	stream := h.model.Tokenizer.Stream(true)
	emit := func(s string) {
		if !r.json {
			if text.Len() == 0 {
				s = strings.TrimLeft(s, " ")
			}
			fmt.Fprint(r.out, s)
		}
		text.WriteString(s)
	}
	a, err := doc.Answer(ctx, engine.AnswerOptions{
		Mode: mode, Question: ids, MaxTokens: g.MaxTokens, Sampler: sampler,
		Stop:  h.model.Config.EOSTokenIDs,
		Token: func(id int32) { emit(stream.Push(id)) },
	})
	if err != nil {
		return err
	}
	emit(stream.Flush())
	if !r.json {
		fmt.Fprintln(r.out)
		fmt.Fprintf(r.err, "%s attention: %.1f %% of the tokens attended, %d tokens read and %d generated in %.2f s, %.1f tokens/s\n",
			mode, 100*a.AttendedShare(), a.QuestionTokens, len(a.Tokens), a.DecodeSeconds, a.TokensPerSecond())
	}
	report.add(doc, mode, question, text.String(), a)
	return nil
}
