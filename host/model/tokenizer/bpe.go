package tokenizer

import (
	"fmt"
	"strings"
)

// merge is what two adjacent tokens become.
type merge struct {
	rank int32 // lower ranks merge first
	id   int32
}

// bpe is the merge table over token ids.
type bpe struct {
	byteID [256]int32 // token of each single byte, -1 if there is none
	merges map[uint64]merge
	words  map[string]int32 // ignore_merges: tokens by their bytes; nil without
	unkID  int32            // replaces bytes that have no token; -1: they are an error
	fuse   bool             // adjacent unknown bytes are one unknown token
}

func pair(a, b int32) uint64 { return uint64(uint32(a))<<32 | uint64(uint32(b)) }

const (
	maxCachedWord  = 48      // bytes
	maxCachedWords = 1 << 14 // some 2 MB
)

// symbol is a token of a word while it is merged: a doubly linked list in an array.
type symbol struct {
	id         int32 // -1: merged into the one before
	prev, next int32 // -1: none
}

// candidate is a merge that was possible when it was found.
type candidate struct {
	rank, pos   int32
	left, right int32 // the pair; if it changed since, the candidate is stale
	id          int32
}

// scratch is what one Encode at a time works in. Words repeat, so that their tokens are kept.
type scratch struct {
	cache   map[string][]int32
	symbols []symbol
	heap    []candidate
}

// encode appends the tokens of one word's bytes.
func (m *bpe) encode(out []int32, word string, s *scratch) ([]int32, error) {
	if len(word) == 1 && m.words == nil {
		if id := m.byteID[word[0]]; id >= 0 {
			return append(out, id), nil
		}
	}
	cacheable := len(word) <= maxCachedWord
	if cacheable {
		if ids, ok := s.cache[word]; ok {
			return append(out, ids...), nil
		}
	}
	from := len(out)
	var err error
	if id, ok := m.words[word]; ok {
		out = append(out, id)
	} else if out, err = m.mergeWord(out, word, s); err != nil {
		return nil, err
	}
	if cacheable {
		if len(s.cache) >= maxCachedWords {
			clear(s.cache)
		}
		// The clone keeps the cache from holding the whole text.
		s.cache[strings.Clone(word)] = append([]int32(nil), out[from:]...)
	}
	return out, nil
}

func (m *bpe) mergeWord(out []int32, word string, s *scratch) ([]int32, error) {
	syms := s.symbols[:0]
	unknown := false
	for i := range len(word) {
		id := m.byteID[word[i]]
		if id < 0 {
			if m.unkID < 0 {
				return nil, fmt.Errorf("tokenizer: the vocabulary has no token for the byte 0x%02x: %w", word[i], ErrNoToken)
			}
			if unknown && m.fuse {
				continue
			}
			id, unknown = m.unkID, true
		} else {
			unknown = false
		}
		n := int32(len(syms))
		syms = append(syms, symbol{id, n - 1, n + 1})
	}
	s.symbols = syms
	syms[len(syms)-1].next = -1

	s.heap = s.heap[:0]
	for i := range len(syms) - 1 {
		m.propose(s, int32(i))
	}
	for len(s.heap) > 0 {
		c := s.pop()
		cur := &syms[c.pos]
		if cur.id != c.left || cur.next < 0 || syms[cur.next].id != c.right {
			continue
		}
		gone := &syms[cur.next]
		cur.id, cur.next = c.id, gone.next
		gone.id = -1
		if cur.next >= 0 {
			syms[cur.next].prev = c.pos
			m.propose(s, c.pos)
		}
		if cur.prev >= 0 {
			m.propose(s, cur.prev)
		}
	}
	for i := int32(0); i >= 0; i = syms[i].next {
		out = append(out, syms[i].id)
	}
	return out, nil
}

// propose puts the merge of the symbol at i with its next one on the heap, if there is one.
func (m *bpe) propose(s *scratch, i int32) {
	l, r := s.symbols[i].id, s.symbols[s.symbols[i].next].id
	if g, ok := m.merges[pair(l, r)]; ok {
		s.push(candidate{g.rank, i, l, r, g.id})
	}
}

// before is the order of merges: by rank, then from left to right.
func (c candidate) before(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.pos < d.pos
}

// push and pop are a binary heap. container/heap would allocate for every candidate.
func (s *scratch) push(c candidate) {
	h := append(s.heap, c)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !c.before(h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = c
	s.heap = h
}

func (s *scratch) pop() candidate {
	h := s.heap
	top, last := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	s.heap = h
	for i := 0; len(h) > 0; {
		k := 2*i + 1
		if k >= len(h) {
			h[i] = last
			break
		}
		if k+1 < len(h) && h[k+1].before(h[k]) {
			k++
		}
		if !h[k].before(last) {
			h[i] = last
			break
		}
		h[i] = h[k]
		i = k
	}
	return top
}
