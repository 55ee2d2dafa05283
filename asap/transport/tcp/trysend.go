package tcp

import (
	"context"
	"net"
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

// TrySend is Send without waiting for the network: what it does not take at once
// is kept, done is false then, and the next call of Send, with or without
// messages, sends that first. While another goroutine is in Send, TrySend waits
// for it. There is none over TLS, which can't leave a write half done.
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
	c.writing <- struct{}{}
	defer func() { <-c.writing }()
	n := 0
	if len(c.rest) == 0 {
		if err := c.writes.Arm(ctx); err != nil {
			return false, err
		}
		if n, err = c.try.write(c.tcp, whole); err != nil {
			return false, c.writeFailed(c.writes.Cause(ctx, err))
		}
	}
	c.rest = append(c.rest, whole[n:]...)
	return len(c.rest) == 0, nil
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
	if len(c.rest) == 0 {
		return nil
	}
	_, err := c.stream.Write(c.rest)
	if c.rest = c.rest[:0]; cap(c.rest) > maxRest {
		c.rest = nil
	}
	if err != nil {
		return c.writeFailed(c.writes.Cause(ctx, err))
	}
	return nil
}
