package ringnet

import (
	"sync"

	"rserpool/enrp/ring"
)

// request is something that callers want to have ordered, in the order of the
// calls.
type request struct {
	kind    requestKind
	payload []byte
	name    string      // of a lock
	view    ring.ViewID // whose exchange ends
}

type requestKind uint8

const (
	propose requestKind = iota
	endExchange
	lock
	unlock
)

// queue takes requests from any goroutine and numbers proposals as the machine
// will. It is bounded as the machine's own queue is, to which the owner moves
// what has room there.
type queue struct {
	maxCount, maxOctets, maxPayload int

	wake chan struct{} // for the owner: there is something
	room chan struct{}

	mu       sync.Mutex
	requests []request
	count    int // of requests that the machine does not have
	octets   int
	last     uint64 // number of the last proposal
	full     bool   // somebody was refused and waits for room
	patient  bool   // the owner will look by itself, soon
	closed   bool
}

func (q *queue) init(l ring.Limits) {
	l = l.WithDefaults()
	q.maxCount, q.maxOctets, q.maxPayload = l.QueueProposals, l.QueueOctets, l.Payload
	q.wake, q.room = make(chan struct{}, 1), make(chan struct{}, 1)
}

func (q *queue) put(payload []byte) (uint64, error) {
	if len(payload) > q.maxPayload {
		return 0, ring.ErrTooLong
	}
	return q.add(request{kind: propose, payload: payload})
}

func (q *queue) lock(name string, take bool) error {
	if len(name) > ring.MaxLockName {
		return ring.ErrTooLong
	}
	kind := unlock
	if take {
		kind = lock
	}
	_, err := q.add(request{kind: kind, name: name})
	return err
}

// end has no bound of its own: there is one for each view.
func (q *queue) end(view ring.ViewID) {
	q.mu.Lock()
	if !q.closed {
		q.requests = append(q.requests, request{kind: endExchange, view: view})
		q.count++
	}
	q.mu.Unlock()
	q.signal()
}

func (q *queue) add(r request) (uint64, error) {
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return 0, ring.ErrLeft
	case q.count > 0 && (q.count >= q.maxCount || q.octets+len(r.payload) > q.maxOctets):
		q.full = true
		q.mu.Unlock()
		return 0, ring.ErrFull
	}
	q.requests = append(q.requests, r)
	q.count++
	q.octets += len(r.payload)
	if r.kind == propose {
		q.last++
	}
	number := q.last
	wake := len(q.requests) == 1 && !q.patient || len(q.requests) == manyRequests
	q.mu.Unlock()
	if wake {
		q.signal()
	}
	return number, nil
}

// manyRequests is how many wait at most while the owner has something else to do.
const manyRequests = 64

// expect says whether the owner will look by itself soon, so that it need not be woken
// for each request.
func (q *queue) expect(patient bool) {
	q.mu.Lock()
	wake := q.patient && !patient && len(q.requests) > 0
	q.patient = patient
	q.mu.Unlock()
	if wake {
		q.signal()
	}
}

// some reports whether there is anything for the owner to take.
func (q *queue) some() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.requests) > 0
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take gives the owner what has come, in exchange for an empty slice.
func (q *queue) take(empty []request) []request {
	q.mu.Lock()
	taken := q.requests
	q.requests = empty[:0]
	q.mu.Unlock()
	return taken
}

// moved says that the machine has so much more, and makes known that there is
// room when half of the queue is free.
func (q *queue) moved(count, octets int) {
	q.mu.Lock()
	q.count -= count
	q.octets -= octets
	tell := q.full && q.count <= q.maxCount/2 && q.octets <= q.maxOctets/2
	if tell {
		q.full = false
	}
	q.mu.Unlock()
	if tell {
		select {
		case q.room <- struct{}{}:
		default:
		}
	}
}

func (q *queue) waiting() (count, octets int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count, q.octets
}

// close refuses what comes from now on.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
}
