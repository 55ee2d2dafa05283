package tcp

import (
	"context"
	"net"
	"sync"
	"syscall"

	"rserpool/asap/transport"
)

// attempt is one write that doesn't wait.
type attempt struct {
	raw  syscall.RawConn // nil before the first
	once func(fd uintptr) bool
	b    []byte
	n    int // written
	err  error
}

// TrySend implements transport.TrySender. There is none over TLS, which can't leave a
// write half done.
func (c *conn) TrySend(ctx context.Context, msgs ...transport.Message) (done bool, err error) {
	for _, m := range msgs {
		if err := checkFraming(m.Data); err != nil {
			return false, err
		}
	}
	whole, ok := joined(msgs)
	if !ok {
		for _, m := range msgs {
			whole = append(whole, m.Data...)
			whole = append(whole, make([]byte, padded(len(m.Data))-len(m.Data))...)
		}
	}
	c.left.mu.Lock()
	defer c.left.mu.Unlock()
	n := 0
	if len(c.left.octets) == 0 {
		if c.writing.Try() {
			n, err = c.tryWrite(ctx, whole)
			c.writing.End()
		}
	}
	c.left.octets = append(c.left.octets, whole[n:]...)
	return err == nil && len(c.left.octets) == 0, err
}

// tryWrite writes what the network takes at once.
func (c *conn) tryWrite(ctx context.Context, b []byte) (int, error) {
	if err := c.writes.Arm(ctx); err != nil {
		return len(b), err
	}
	n, err := c.try.write(c.tcp, b)
	if err != nil {
		return len(b), c.writeFailed(c.writes.Cause(ctx, err))
	}
	return n, nil
}

// rest is what TrySend left to Send.
type rest struct {
	mu     sync.Mutex
	octets []byte
	spare  []byte // of the one who is writing
}

// take returns all, to be sent.
func (r *rest) take() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.octets) == 0 {
		return nil
	}
	b := r.octets
	r.octets, r.spare = r.spare, nil
	return b
}

func (a *attempt) write(tcp *net.TCPConn, b []byte) (n int, err error) {
	if a.raw == nil {
		if a.raw, err = tcp.SyscallConn(); err != nil {
			return 0, err
		}
		a.once = func(fd uintptr) bool {
			a.n, a.err = tryWrite(fd, a.b)
			return true
		}
	}
	a.b = b
	err = a.raw.Write(a.once)
	a.b = nil
	if err != nil {
		return 0, err
	}
	return a.n, a.err
}

// maxRest is the size up to which the memory for what TrySend leaves is kept.
const maxRest = 256 << 10

// sendRest sends what TrySend left. The one who calls it is writing.
func (c *conn) sendRest(ctx context.Context) error {
	b := c.left.take()
	if len(b) == 0 {
		return nil
	}
	_, err := c.stream.Write(b)
	if cap(b) <= maxRest {
		c.left.spare = b[:0]
	}
	if err != nil {
		return c.writeFailed(c.writes.Cause(ctx, err))
	}
	return nil
}
