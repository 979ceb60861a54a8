// Command quickstart hides a number in a long text, asks the ra program for it
// by retrieval attention, full attention and static attention on one prefill,
// and shows what each answered and what it read.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"text/tabwriter"

	referencemodel "github.com/retrievalattention/ra/examples/reference-model"
	"github.com/retrievalattention/ra/host/eval/ruler"
	"github.com/retrievalattention/ra/host/model"
)

func main() {
	ra := flag.String("ra", "bin/ra", "the ra program")
	tokens := flag.Int("tokens", 32768, "least tokens of the document")
	keys := flag.Int("keys", 1, "needles in the document; one is asked for")
	seed := flag.Uint64("seed", 1, "seed of the document")
	dir := flag.String("dir", filepath.Join(".cache", "demo"), "folder for the document")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *ra, *dir, *tokens, *keys, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, ra, dir string, tokens, keys int, seed uint64) error {
	task, size, err := write(tokens, keys, seed)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "document.txt")
	if err := os.WriteFile(file, []byte(task.Document), 0o644); err != nil {
		return err
	}
	fmt.Printf("document: %s, %d tokens of text with %d hidden number(s)\nquestion: %s\nanswer:   %s\n\n", file, size, keys, task.Question, task.Answer)
	args := []string{"generate", "-f", file, "-q", task.Question,
		"--attention", "retrieval,full,static", "--search", "flat",
		"--sink", "128", "--window", "512", "--top-k", "100", "--max-tokens", "12", "--json"}
	fmt.Printf("$ %s %s\n", ra, quote(args))
	var out bytes.Buffer
	c := exec.CommandContext(ctx, ra, args...)
	c.Stdout, c.Stderr = &out, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w", ra, err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		return fmt.Errorf("read the output of ra: %w", err)
	}
	return show(os.Stdout, r, task.Answer)
}

// write makes the document from text that the reference model has not seen.
func write(tokens, keys int, seed uint64) (*ruler.Task, int, error) {
	m, err := model.OpenFS(referencemodel.Files, referencemodel.Name)
	if err != nil {
		return nil, 0, err
	}
	defer m.Close()
	count := func(text string) (int, error) {
		ids, err := m.Tokenizer.Encode(text, false)
		return len(ids), err
	}
	task, err := ruler.New(ruler.Options{
		Tokens: tokens, Keys: keys, Words: referencemodel.Words(), Prose: referencemodel.Prose,
		Seed: seed, Depth: 0.4, Count: count,
	})
	if err != nil {
		return nil, 0, err
	}
	n, err := count(task.Document)
	return task, n, err
}

// report is the part of ra's JSON that is shown.
type report struct {
	PromptTokens   int     `json:"prompt_tokens"`
	PrefillSeconds float64 `json:"prefill_seconds"`
	PeakRSSBytes   int64   `json:"peak_rss_bytes"`
	Search         struct {
		Name, Digest string
		Fallbacks    int64
	} `json:"search"`
	Answers []answer `json:"answers"`
}

type answer struct {
	Attention       string  `json:"attention"`
	Text            string  `json:"text"`
	AttendedShare   float64 `json:"attended_share"`
	KeysScoredShare float64 `json:"keys_scored_share"`
	TokensPerSecond float64 `json:"tokens_per_second"`
}

// show prints the table and fails unless retrieval and full attention know
// the number and static attention does not.
func show(w io.Writer, r report, want string) error {
	fmt.Fprintf(w, "\nprompt of %d tokens, prefilled in %.1f s; peak memory %d MiB; search plugin %s %s\n\n",
		r.PromptTokens, r.PrefillSeconds, r.PeakRSSBytes>>20, r.Search.Name, r.Search.Digest)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "attention\tanswer\tright\ttokens attended\tkeys scored\ttokens/s")
	var errs []error
	for _, a := range r.Answers {
		right := strings.Contains(a.Text, want)
		fmt.Fprintf(t, "%s\t%s\t%v\t%.1f %%\t%.1f %%\t%.1f\n", a.Attention, strings.TrimSpace(a.Text), right,
			100*a.AttendedShare, 100*a.KeysScoredShare, a.TokensPerSecond)
		if right != (a.Attention != "static") {
			errs = append(errs, fmt.Errorf("%s attention answered %q, the number is %s", a.Attention, a.Text, want))
		}
	}
	if r.Search.Fallbacks > 0 {
		errs = append(errs, fmt.Errorf("the search plugin failed %d times", r.Search.Fallbacks))
	}
	return errors.Join(append(errs, t.Flush())...)
}

// quote shows arguments as a shell would take them.
func quote(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		if strings.ContainsAny(a, " ?'\"") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		b.WriteString(a)
	}
	return b.String()
}
