package ringtest

import "time"

// event is something that will happen: a call of do, a life's timer, or a message's
// arrival.
type event struct {
	at      time.Duration
	seq     uint64
	do      func()
	life    *life
	message message
}

// eventQueue is a heap by time, in order of insertion at the same time.
type eventQueue struct {
	events []event
	seq    uint64
}

func (q *eventQueue) before(i, j int) bool {
	a, b := &q.events[i], &q.events[j]
	return a.at < b.at || a.at == b.at && a.seq < b.seq
}

func (q *eventQueue) push(e event) {
	q.seq++
	e.seq = q.seq
	q.events = append(q.events, e)
	for i := len(q.events) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.before(i, up) {
			break
		}
		q.events[i], q.events[up] = q.events[up], q.events[i]
		i = up
	}
}

func (q *eventQueue) pop() event {
	first := q.events[0]
	n := len(q.events) - 1
	q.events[0] = q.events[n]
	q.events[n] = event{}
	q.events = q.events[:n]
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < n; c++ {
			if q.before(c, least) {
				least = c
			}
		}
		if least == i {
			return first
		}
		q.events[i], q.events[least] = q.events[least], q.events[i]
		i = least
	}
}
