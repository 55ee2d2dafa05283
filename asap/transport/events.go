package transport

import "sync"

// eventBuffer is how many events wait for a reader before the oldest goes.
const eventBuffer = 16

// EventQueue is the channel behind Conn.Events: bounded, never blocking the
// sender, the oldest event dropped when it is full. Methods may be called
// concurrently.
type EventQueue struct {
	mu sync.Mutex // one sender at a time, so that Put's loop ends
	ch chan Event
}

// NewEventQueue returns an empty queue.
func NewEventQueue() *EventQueue { return &EventQueue{ch: make(chan Event, eventBuffer)} }

// C returns the channel to read from.
func (q *EventQueue) C() <-chan Event { return q.ch }

// Put adds e.
func (q *EventQueue) Put(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		select {
		case q.ch <- e:
			return
		default:
		}
		select {
		case <-q.ch:
		default:
		}
	}
}
