package kv

import (
	"errors"
	"fmt"
	"sync"
)

// Attachment is an index object that belongs to a view: a graph, inverted
// lists, whatever a search strategy built over the view's tokens.
//
// An attachment is written by the one request that uses its view. Fork may be
// called by several goroutines at once, but not during a write.
type Attachment interface {
	// Fork returns the object for a fork of the view. Both read what was
	// there before and neither sees what the other writes from then on. It
	// copies no bulk memory.
	Fork() Attachment
	// Bytes returns the memory that the object reaches, whether forks share
	// it or not.
	Bytes() int64
	// Close gives up the object's hold on its memory, which goes back when no
	// fork holds it either. The object must not be used afterwards.
	Close() error
}

// AttachmentKey names an attachment within its view.
type AttachmentKey struct {
	Owner         string // the strategy that made it
	Layer, KVHead int
	Name          string // among the owner's objects of that head; may be empty
}

// attachments are a view's index objects. Builds of several heads add to them
// at the same time.
type attachments struct {
	mu sync.RWMutex
	m  map[AttachmentKey]Attachment
}

// Attach gives the object to the view, which closes it with itself. An object
// that the key named before is closed. It is safe for concurrent use.
func (v *View) Attach(key AttachmentKey, a Attachment) error {
	v.objects.mu.Lock()
	old := v.objects.m[key]
	if v.objects.m == nil {
		v.objects.m = map[AttachmentKey]Attachment{}
	}
	v.objects.m[key] = a
	v.objects.mu.Unlock()
	if old == nil || old == a {
		return nil
	}
	return closeAttachment(key, old)
}

// Attachment returns the object of that name, nil when there is none. It is
// the view's: it must not be closed. It is safe for concurrent use.
func (v *View) Attachment(key AttachmentKey) Attachment {
	v.objects.mu.RLock()
	defer v.objects.mu.RUnlock()
	return v.objects.m[key]
}

// AttachmentBytes returns the memory that the view's index objects reach.
func (v *View) AttachmentBytes() int64 {
	v.objects.mu.RLock()
	defer v.objects.mu.RUnlock()
	var n int64
	for _, a := range v.objects.m {
		n += a.Bytes()
	}
	return n
}

// fork fills an empty set with forks of o's objects.
func (o *attachments) fork(into *attachments) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if len(o.m) == 0 {
		return
	}
	into.m = make(map[AttachmentKey]Attachment, len(o.m))
	for k, a := range o.m {
		into.m[k] = a.Fork()
	}
}

// Close closes the view's index objects. Its context stays open. Closing
// twice does nothing.
func (v *View) Close() error {
	v.objects.mu.Lock()
	m := v.objects.m
	v.objects.m = nil
	v.objects.mu.Unlock()
	var errs []error
	for k, a := range m {
		errs = append(errs, closeAttachment(k, a))
	}
	return errors.Join(errs...)
}

func closeAttachment(k AttachmentKey, a Attachment) error {
	if err := a.Close(); err != nil {
		return fmt.Errorf("close the index object %q of %s, layer %d, KV head %d: %w", k.Name, k.Owner, k.Layer, k.KVHead, err)
	}
	return nil
}
