// Package referencemodel holds the reference model, trained to find needles
// in long text (see the model card, README.md), and held-out text and words
// to test it with.
package referencemodel

import (
	"embed"
	"strings"
)

// Name is how the embedded model is called in messages.
const Name = "reference-model (embedded)"

// Files is the model in Hugging Face layout.
//
//go:embed config.json generation_config.json model.safetensors tokenizer.json
var Files embed.FS

// Prose is public-domain text that the model has not seen in training, a
// paragraph a line.
//
//go:embed heldout.txt
var Prose string

//go:embed words_heldout.txt
var words string

// Words returns words, names and city names that the model has not seen as
// needles in training.
func Words() []string { return strings.Split(strings.TrimSpace(words), "\n") }
