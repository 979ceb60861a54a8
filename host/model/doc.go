// Package model describes model families: what a Hugging Face folder says about a model
// (config.json and generation_config.json), in a form that the rest of the host computes with.
// Weights are read by package safetensors, text by package tokenizer, and the next token is chosen
// by package sampling, all below this one.
//
// The rule for all of them: what is not known to be supported is refused by name, never guessed.
// A model that loads computes what Hugging Face transformers computes from the same files.
package model
