// Package tokenizer turns text into token ids and back, as the tokenizer.json of a Hugging Face
// model folder says, for byte-level BPE: the tokenizers of GPT-2, Llama 3, Qwen 2 and their kin.
//
// The steps of Encode, each as in Hugging Face tokenizers:
//
//	added tokens    "<|eot|>" and the like are cut out of the text by exact match
//	normalizer      none, or NFC
//	pre-tokenizer   a regular expression cuts the text into words
//	byte-level BPE  each word's bytes are merged, in order of rank, into tokens
//	post-processor  a template adds begin-of-text and end-of-text tokens
//
// The patterns of the families above are matched by a hand-written scanner, any other by
// github.com/dlclark/regexp2; tests compare the two. Character classes follow Unicode 16, which
// is what the reference knows, for the scanner, and the Go library's Unicode version for regexp2.
//
// A step or a setting that is not supported is refused by name and JSON path when the file is
// loaded. Text need not be valid UTF-8: bytes that are not are encoded as they are, and Decode
// gives them back.
package tokenizer
