package registrar

import (
	"sync"

	"rserpool/asap/transport"
)

// sendQueue holds the messages that wait for one peer. Whoever finds it idle
// starts the goroutine that empties it; that ends when the queue is empty, so an
// idle peer has none.
type sendQueue struct {
	mu      sync.Mutex
	items   []transport.Message
	octets  int
	running bool
	closed  bool
}

// put adds a message. start says that nobody empties the queue: the caller has
// to start somebody. ok is false when the queue is full.
func (q *sendQueue) put(m transport.Message, items, octets int) (start, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false, true
	}
	if len(q.items) > 0 && (len(q.items) >= items || q.octets+len(m.Data) > octets) {
		return false, false
	}
	q.items = append(q.items, m)
	q.octets += len(m.Data)
	start = !q.running
	q.running = true
	return start, true
}

// take returns all that waits; nothing ends the goroutine that empties.
func (q *sendQueue) take() []transport.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items, q.octets = nil, 0
	if len(items) == 0 {
		q.running = false
	}
	return items
}

// roomy reports whether at most half of so many items wait.
func (q *sendQueue) roomy(items int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) <= items/2
}

// busy reports whether something waits or is being sent.
func (q *sendQueue) busy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running
}

// close drops what waits and everything that comes later.
func (q *sendQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.items, q.octets = nil, 0
}
