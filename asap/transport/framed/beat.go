package framed

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// beatLen is the length of a heartbeat and of its answer: a number, and the
	// highest bit in the answer.
	beatLen        = 8
	answer  uint64 = 1 << 63
	// goodbyeLen is the length of the word that tells an orderly end over other
	// transports, which have no empty messages.
	goodbyeLen = 4
)

// beats are the heartbeats of a connection. They are written by a goroutine that
// exists only while there is one to write, at most one at a time, so that nobody
// waits for a peer that does not read; of those not written yet only the newest
// counts.
type beats struct {
	// write writes heartbeats with these numbers.
	write func(numbers []uint64) error

	born  time.Time
	heard atomic.Int64 // after born, in ns

	mu       sync.Mutex
	number   uint64 // of the last one asked for
	ask      uint64 // to write, 0 for none
	reply    uint64 // to write, 0 for none
	waiting  map[uint64]chan struct{}
	writing  bool
	stopped  bool
	finished chan struct{}
	work     sync.WaitGroup
}

func newBeats(write func([]uint64) error) *beats {
	return &beats{write: write, born: time.Now(), finished: make(chan struct{})}
}

func (b *beats) hear() { b.heard.Store(int64(time.Since(b.born))) }

// Heard returns when something last came from the peer: any octet, over a byte
// stream, else any message.
func (b *beats) Heard() time.Time { return b.born.Add(time.Duration(b.heard.Load())) }

// Beat sends a heartbeat and does not wait. The answer, like everything that the
// peer sends, moves Heard, provided that somebody here is in Receive, and somebody
// there.
func (b *beats) Beat() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beat()
}

func (b *beats) beat() {
	b.number++
	b.ask = b.number
	b.start()
}

// Ping sends a heartbeat and waits for its answer. Errors: ctx's cause, and
// net.ErrClosed.
func (b *beats) Ping(ctx context.Context) error {
	answered := make(chan struct{})
	b.mu.Lock()
	if b.waiting == nil {
		b.waiting = map[uint64]chan struct{}{}
	}
	b.beat()
	number := b.number
	b.waiting[number] = answered
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.waiting, number)
	}()
	select {
	case <-answered:
		return nil
	case <-b.finished:
		return net.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// came takes in a heartbeat or an answer.
func (b *beats) came(data []byte) {
	n := binary.BigEndian.Uint64(data)
	b.mu.Lock()
	defer b.mu.Unlock()
	if n&answer == 0 {
		b.reply = n | answer
		b.start()
		return
	}
	for number, answered := range b.waiting {
		if number <= n&^answer { // one that a newer took the place of, too
			close(answered)
			delete(b.waiting, number)
		}
	}
}

func (b *beats) start() {
	if b.writing || b.stopped {
		return
	}
	b.writing = true
	b.work.Go(b.run)
}

func (b *beats) run() {
	for {
		b.mu.Lock()
		var numbers []uint64
		if b.reply != 0 {
			numbers = append(numbers, b.reply)
		}
		if b.ask != 0 {
			numbers = append(numbers, b.ask)
		}
		b.reply, b.ask = 0, 0
		if len(numbers) == 0 || b.stopped {
			b.writing = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		if err := b.write(numbers); err != nil {
			b.stop() // the connection is lost, which Receive tells
		}
	}
}

// stop makes no more of them.
func (b *beats) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stopped {
		b.stopped = true
		close(b.finished)
	}
}

// wait waits for the goroutine, after stop and the end of the connection.
func (b *beats) wait() { b.work.Wait() }

func appendBeat(dst []byte, number uint64) []byte {
	return appendFrame(dst, PPIDHeartbeat, binary.BigEndian.AppendUint64(nil, number))
}
