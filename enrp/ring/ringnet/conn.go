package ringnet

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/transport"
	"rserpool/enrp/ring"
)

// A buffer is kept although less is needed up to keptBuffer octets, a larger one
// for keptFor times.
const (
	keptBuffer = 256 << 10
	keptFor    = 256
)

// stucker is a transport.Conn that can tell why nothing comes back. See the method
// of that name in asap/transport/tcp.
type stucker interface {
	Stuck(since time.Duration) bool
}

// conn is an established connection to a member.
type conn struct {
	transport.Conn
	node    ring.Node // at the other end
	dialled bool      // by us
	version version
	since   time.Time
	retired time.Time // when another took its place; zero: none did. The owner's.
	inView  atomic.Bool

	try  transport.TrySender // nil: the network has none
	wake chan struct{}

	mu      sync.Mutex
	queued  []byte // frames
	writing []byte // what the writer writes, or an empty slice to write to next
	busy    bool   // the writer is at it
	ended   bool
	// oversized is how many times in a row the buffers were too large.
	oversized int

	clock question // of this side; mu guards it

	msgs []transport.Message // scratch of the one who sends

	counts traffic
}

// traffic counts what went over a connection.
type traffic struct {
	sentOctets, sentMessages, receivedOctets, receivedMessages, dropped atomic.Uint64
}

func newConn(c transport.Conn, h hello, v version, dialled bool, now time.Time) *conn {
	try, _ := c.(transport.TrySender)
	return &conn{Conn: c, node: h.node, dialled: dialled, version: v, since: now, try: try, wake: make(chan struct{}, 1)}
}

// lower reports whether the member with the lower identifier dialled.
func (c *conn) lower(self ring.Member) bool {
	return c.dialled == (self.Compare(c.node.Member) < 0)
}

// put encodes a message into the queue; false: there was no room.
func (c *conn) put(m ring.Message, bound int) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queued) > bound || c.ended {
		c.counts.dropped.Add(1)
		return false, nil
	}
	var err error
	if c.queued, err = appendMessage(c.queued, m); err != nil {
		return false, err
	}
	c.counts.sentMessages.Add(1)
	return true, nil
}

// appendMessage appends a message in frames; with an error b is as before.
func appendMessage(b []byte, m ring.Message) ([]byte, error) {
	start := len(b)
	framed, err := ring.Append(append(b, make([]byte, reserved)...), m)
	if err != nil {
		return b, err
	}
	return cut(framed, start), nil
}

// putFrames queues what was encoded before there was a connection.
func (c *conn) putFrames(frames []byte, messages uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queued = append(c.queued, frames...)
	c.counts.sentMessages.Add(messages)
}

// flush sends what is queued: at once if that goes without waiting, else by the
// writer.
func (c *conn) flush(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queued) == 0 || c.busy || c.ended {
		return
	}
	if c.try != nil {
		c.counts.sentOctets.Add(uint64(len(c.queued)))
		c.msgs = split(c.msgs[:0], c.queued)
		done, err := c.try.TrySend(ctx, c.msgs...)
		c.queued = c.reuse(c.queued)
		if done || err != nil {
			return // the reader learns of a connection that failed
		}
	}
	c.busy = true
	c.signal()
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// reuse returns b empty, or nothing when it has been much too large for a while.
func (c *conn) reuse(b []byte) []byte {
	if cap(b) <= keptBuffer || len(b) >= cap(b)/4 {
		c.oversized = 0
		return b[:0]
	}
	if c.oversized++; c.oversized < keptFor {
		return b[:0]
	}
	c.oversized = 0
	return nil
}

// write is the writer: it sends what flush could not.
func (c *conn) write(ctx context.Context) {
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		for {
			c.mu.Lock()
			if c.ended {
				c.mu.Unlock()
				return
			}
			c.queued, c.writing = c.reuse(c.writing), c.queued
			c.mu.Unlock()
			c.msgs = split(c.msgs[:0], c.writing)
			if err := c.Send(ctx, c.msgs...); err != nil {
				// The reader learns of it.
				_ = c.Abort()
				return
			}
			c.counts.sentOctets.Add(uint64(len(c.writing)))
			c.mu.Lock()
			idle := len(c.queued) == 0
			if idle {
				c.busy = false
			}
			c.mu.Unlock()
			if idle {
				break
			}
		}
	}
}

func (c *conn) remote() string { return remote(c.Conn) }

func (c *conn) fields() logrus.Fields {
	return logrus.Fields{"member": c.node.Member.String(), "remote": c.remote(), "dialled": c.dialled}
}

// idle reports whether everything was sent.
func (c *conn) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.busy && len(c.queued) == 0 || c.ended
}

// end closes the connection and ends the writer; abort also throws away what is
// on its way.
func (c *conn) end(abort bool) {
	c.mu.Lock()
	c.ended = true
	c.signal()
	c.mu.Unlock()
	if abort {
		_ = c.Abort() // there is nobody to tell
	} else {
		_ = c.Close()
	}
}

// received is a message for the machine.
type received struct {
	from *conn
	msg  ring.Message
}

// frames returns what puts the messages of a connection together.
func (g *Group) frames(c *conn) *frameReader {
	return &frameReader{
		conn: c, buf: make([]byte, frameLen), max: ring.MaxMessage,
		aside: func(kind byte, body []byte) (bool, error) {
			switch kind {
			case frameOutside:
				return true, g.heardOf(body)
			case frameClock:
				return true, g.heardClock(c, body)
			}
			return false, nil
		},
		memory: &g.memory, stranger: func() bool { return !c.inView.Load() },
	}
}

// read takes what arrives to the machine until the connection ends, and tells why, or
// until it is relieved.
func (g *Group) read(c *conn, frames *frameReader) {
	h := &holder{standIn: func() { g.workers.Go(func() { g.read(c, frames) }) }}
	for !h.relieved {
		if err := g.receive(c, frames); err != nil {
			frames.release()
			_ = g.post(func(now time.Time) { g.loop.net.ended(c, err, now) }) // fails only when the group ends
			return
		}
		g.serve(h)
	}
}

// receive puts the next message into the inbox.
func (g *Group) receive(c *conn, frames *frameReader) error {
	data, err := frames.message(g.ctx)
	if err != nil {
		return err
	}
	c.counts.receivedOctets.Add(uint64(len(data)))
	c.counts.receivedMessages.Add(1)
	msg, err := ring.Decode(data)
	if err != nil {
		// A member that speaks nonsense is as good as none.
		return errors.Join(&refusal{refusedMessage, "message that can't be decoded"}, err)
	}
	select {
	case g.inbox <- received{c, msg}: // nearly always, and cheaper alone
	default:
		select {
		case g.inbox <- received{c, msg}:
		case <-g.ctx.Done():
			return context.Cause(g.ctx)
		}
	}
	frames.release()
	return nil
}
