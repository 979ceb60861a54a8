package kv

import (
	"errors"
	"strings"
	"sync"
	"testing"
)

// note is an attachment that counts its open forks.
type note struct {
	open *int
	mu   *sync.Mutex
	text string
	err  error
}

func newNote(text string) *note { n := 1; return &note{open: &n, mu: new(sync.Mutex), text: text} }

func (n *note) Fork() Attachment {
	n.mu.Lock()
	defer n.mu.Unlock()
	*n.open++
	f := *n
	return &f
}

func (n *note) Bytes() int64 { return int64(len(n.text)) }

func (n *note) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	*n.open--
	return n.err
}

func TestAttachments(t *testing.T) {
	c, err := NewContext(geo, 1, NewAllocator(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v := NewView(c)
	a := AttachmentKey{Owner: "graph", Layer: 1, KVHead: 2}
	b := AttachmentKey{Owner: "graph", Layer: 1, KVHead: 2, Name: "other"}
	if v.Attachment(a) != nil || v.AttachmentBytes() != 0 {
		t.Error("an attachment in an empty view")
	}
	first, second, other := newNote("first"), newNote("2nd"), newNote("other one")
	for _, x := range []struct {
		k AttachmentKey
		n *note
	}{{a, first}, {a, first}, {a, second}, {b, other}} {
		if err := v.Attach(x.k, x.n); err != nil {
			t.Fatal(err)
		}
	}
	if *first.open != 0 || *second.open != 1 || v.Attachment(a) != Attachment(second) || v.Attachment(b) != Attachment(other) {
		t.Errorf("first %d open, second %d", *first.open, *second.open)
	}
	if n := v.AttachmentBytes(); n != int64(len("2nd"+"other one")) {
		t.Errorf("%d bytes", n)
	}
	// Forks are taken by several requests at once and closed by each.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			f := v.Fork(c)
			f.Attachment(a).(*note).text = "changed"
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if second.text != "2nd" || *second.open != 1 {
		t.Errorf("the view's own: %q, %d open", second.text, *second.open)
	}
	second.err = errors.New("stuck")
	err = v.Close()
	if err == nil || !strings.Contains(err.Error(), `close the index object "" of graph, layer 1, KV head 2: stuck`) {
		t.Error(err)
	}
	if *second.open != 0 || *other.open != 0 {
		t.Error("not closed")
	}
}
