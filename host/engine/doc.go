// Package engine answers questions about long documents.
//
// [Engine.Prefill] runs a document through the model exactly, layer by layer,
// and keeps its keys and values; the index of a layer is built while the next
// layer computes. [Document.Answer] then reads a question token by token as
// decode steps and generates the answer, in one of three modes (see [Mode]).
// Answers do not disturb the document: each works on a fork of its keys and
// values, so many questions, and many modes, share one prefill.
package engine
