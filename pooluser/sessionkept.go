package pooluser

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"
)

// kept are the requests of a session that have not been answered, in the order of
// their sending.
type kept struct {
	on      bool // requests are counted
	store   bool // and their messages kept
	limit   int  // of store
	octets  int  // of store
	ordered bool // each message answers the oldest
	stream  bool // whatever comes answers all that was written
	// measure tells the policy of a request to the element of the moment; nil if
	// it does not want to know.
	measure func() (done func(error))

	list []keptRequest
	size int // octets in list
	last uint64
}

type keptRequest struct {
	seq uint64
	// sent tells that Send has done with it: if not, it will say itself what
	// became of it.
	sent bool
	at   time.Time
	m    Message
	done func(error) // of measure, until it is called
}

func (r *keptRequest) begin(measure func() func(error)) {
	if measure != nil {
		r.done = measure()
	}
}

func (r *keptRequest) end(err error) {
	if r.done != nil {
		r.done(err)
		r.done = nil
	}
}

// full tells that there is no room for a message of n octets.
func (k *kept) full(n int) bool {
	return k.store && len(k.list) > 0 && (len(k.list) >= k.limit || k.size+n > k.octets)
}

// add counts a request that is about to be sent and returns its number; 0 if it is
// not counted.
func (k *kept) add(m Message, now time.Time) uint64 {
	if !k.on || m.OneWay || !k.ordered && m.Request == 0 || k.stream && len(k.list) > 0 {
		return 0
	}
	if k.store {
		m.Data = bytes.Clone(m.Data)
		k.size += len(m.Data)
	} else {
		m.Data = nil
	}
	k.last++
	k.list = append(k.list, keptRequest{seq: k.last, at: now, m: m})
	k.list[len(k.list)-1].begin(k.measure)
	return k.last
}

// find returns where the request is, -1 if it is not there any more.
func (k *kept) find(seq uint64) int {
	i, found := slices.BinarySearchFunc(k.list, seq, func(r keptRequest, seq uint64) int { return cmp.Compare(r.seq, seq) })
	if !found {
		return -1
	}
	return i
}

// sent tells that a request was sent.
func (k *kept) sent(seq uint64) {
	if i := k.find(seq); i >= 0 {
		k.list[i].sent = true
	}
}

// remove forgets a request.
func (k *kept) remove(seq uint64) {
	if i := k.find(seq); i >= 0 {
		k.delete(i, context.Canceled)
	}
}

func (k *kept) delete(i int, err error) {
	k.list[i].end(err)
	if k.store {
		k.size -= len(k.list[i].m.Data)
	}
	if k.list = slices.Delete(k.list, i, i+1); len(k.list) == 0 {
		k.list = nil
	}
}

// answered forgets the request that a message answers: the one with this number, the
// oldest where messages answer in order.
func (k *kept) answered(request uint64) {
	switch {
	case len(k.list) == 0:
	case k.ordered:
		k.delete(0, nil)
	case request != 0:
		if i := slices.IndexFunc(k.list, func(r keptRequest) bool { return r.m.Request == request }); i >= 0 {
			k.delete(i, nil)
		}
	}
}

// messages returns the requests, if their messages are kept.
func (k *kept) messages() []Message {
	if !k.store {
		return nil
	}
	var out []Message
	for _, r := range k.list {
		out = append(out, r.m)
	}
	return out
}

// again notes that all are sent anew.
func (k *kept) again(now time.Time) {
	for i := range k.list {
		k.list[i].at = now
		k.list[i].begin(k.measure)
	}
}

// unanswered tells the policy that the element of the moment does not answer what it
// has got, and why.
func (k *kept) unanswered(err error) {
	for i := range k.list {
		k.list[i].end(err)
	}
	k.measure = nil
}

// forget forgets all that were sent: their answers will not come.
func (k *kept) forget() {
	k.list = slices.DeleteFunc(k.list, func(r keptRequest) bool { return r.sent })
	k.size = 0
	if k.store {
		for _, r := range k.list {
			k.size += len(r.m.Data)
		}
	}
}

// first returns the number of the oldest, 0 if there is none.
func (k *kept) first() uint64 {
	if len(k.list) == 0 {
		return 0
	}
	return k.list[0].seq
}

// oldest returns when the oldest was sent.
func (k *kept) oldest() (time.Time, bool) {
	if len(k.list) == 0 {
		return time.Time{}, false
	}
	return k.list[0].at, true
}
