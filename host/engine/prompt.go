package engine

import (
	"fmt"
	"strings"
)

// Encoder turns text into token ids; special says whether to add the tokens
// that begin a prompt.
type Encoder interface {
	Encode(text string, special bool) ([]int32, error)
}

// Prompt is text divided into what is prefilled exactly and what is read
// token by token in the attention mode.
type Prompt struct {
	Document  string
	Questions []string // at least one
}

// NewPrompt appends each question to the text on a line of its own. Without
// questions the text is the whole prompt and its last line plays the
// question's part; when it has one line only, all of it but its last token is
// the document. Line breaks at the end of the text are not part of the
// prompt.
func NewPrompt(text string, questions []string) (Prompt, error) {
	text = strings.TrimRight(text, "\r\n")
	if strings.TrimSpace(text) == "" {
		return Prompt{}, fmt.Errorf("%w: the text has no characters but white space", ErrEmptyPrompt)
	}
	for i, q := range questions {
		if strings.TrimSpace(q) == "" {
			return Prompt{}, fmt.Errorf("%w: question %d has no characters but white space", ErrEmptyPrompt, i+1)
		}
	}
	if len(questions) > 0 {
		return Prompt{Document: text + "\n", Questions: questions}, nil
	}
	cut := strings.LastIndexByte(text, '\n') + 1
	return Prompt{Document: text[:cut], Questions: []string{text[cut:]}}, nil
}

// Encode returns the document's tokens, beginning with the model's special
// tokens, and each question's. Document and questions are encoded apart.
func (p Prompt) Encode(enc Encoder) (document []int32, questions [][]int32, err error) {
	if document, err = enc.Encode(p.Document, true); err != nil {
		return nil, nil, fmt.Errorf("encode the document: %w", err)
	}
	for i, q := range p.Questions {
		ids, err := enc.Encode(q, false)
		if err != nil {
			return nil, nil, fmt.Errorf("encode question %d: %w", i+1, err)
		}
		questions = append(questions, ids)
	}
	if p.Document == "" {
		all := append(document, questions[0]...)
		if len(all) < 2 {
			return nil, nil, fmt.Errorf("%w: it has %d token, at least 2 are needed", ErrEmptyPrompt, len(all))
		}
		return all[:len(all)-1], [][]int32{all[len(all)-1:]}, nil
	}
	return document, questions, nil
}
