package ringnet

import (
	"errors"
	"slices"
	"testing"

	"rserpool/enrp/ring"
)

func newQueue(l ring.Limits) *queue {
	q := new(queue)
	q.init(l)
	return q
}

func TestQueueNumbersAndBounds(t *testing.T) {
	q := newQueue(ring.Limits{QueueProposals: 4, QueueOctets: 10, Payload: 8})
	put := func(n int, wantNumber uint64, wantErr error) {
		t.Helper()
		if number, err := q.put(make([]byte, n)); !errors.Is(err, wantErr) || err == nil && number != wantNumber {
			t.Errorf("put %d octets: number %d, %v; want %d, %v", n, number, err, wantNumber, wantErr)
		}
	}
	put(9, 0, ring.ErrTooLong)
	put(4, 1, nil)
	if err := q.lock("l", true); err != nil {
		t.Error(err)
	}
	put(6, 2, nil)
	put(1, 0, ring.ErrFull)
	put(0, 3, nil)
	put(0, 0, ring.ErrFull)
	q.end(ring.ViewID{Counter: 1}) // always has room
	taken := q.take(nil)
	var kinds []requestKind
	for _, r := range taken {
		kinds = append(kinds, r.kind)
	}
	if want := []requestKind{propose, lock, propose, propose, endExchange}; !slices.Equal(kinds, want) {
		t.Errorf("the owner gets %v, want %v", kinds, want)
	}
	put(0, 0, ring.ErrFull) // the machine has nothing yet
	select {
	case <-q.room:
		t.Error("room although there is none")
	default:
	}
	q.moved(5, 10)
	select {
	case <-q.room:
	default:
		t.Error("nobody hears that there is room again")
	}
	put(8, 4, nil)
	put(8, 0, ring.ErrFull)
	q.close()
	put(0, 0, ring.ErrLeft)
	if err := q.lock("l", false); !errors.Is(err, ring.ErrLeft) {
		t.Errorf("unlock after the end: %v", err)
	}
}

// TestQueueLetsAPatientOwnerSleep: an owner that will look by itself is not woken for
// one request, but for many, and when it won't look any more.
func TestQueueLetsAPatientOwnerSleep(t *testing.T) {
	q := newQueue(ring.Limits{})
	put := func(n int) (woken bool) {
		t.Helper()
		for range n {
			if _, err := q.put(nil); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-q.wake:
			return true
		default:
			return false
		}
	}
	if !put(1) {
		t.Error("not woken")
	}
	q.take(nil)
	q.expect(true)
	if put(manyRequests - 1) {
		t.Error("woken although it will look by itself")
	}
	if !put(1) {
		t.Error("not woken for many")
	}
	q.take(nil)
	put(1)
	q.expect(false)
	if !put(0) {
		t.Error("not woken for what has come when it won't look any more")
	}
}

// TestQueueTakesOneOfAnySize: a payload beyond the bound of the queue goes when it
// is alone, else it never would.
func TestQueueTakesOneOfAnySize(t *testing.T) {
	q := newQueue(ring.Limits{QueueProposals: 4, QueueOctets: 10, Payload: 100})
	if _, err := q.put(make([]byte, 50)); err != nil {
		t.Error(err)
	}
	if _, err := q.put(nil); !errors.Is(err, ring.ErrFull) {
		t.Errorf("behind it: %v", err)
	}
}
