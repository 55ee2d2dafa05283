package framed

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"

	"rserpool/asap/transport"
)

// Assoc is a connection of another transport, which has messages and payload
// protocol identifiers by itself, with the heartbeats of this package: messages of
// eight octets with PPIDHeartbeat. It answers them in Receive, and Finish and Close tell
// the peer of an orderly end by a message of four octets with the same PPID if the peer
// has shown that it has this, too. Nothing else about the connection changes, and
// nothing is sent unless the peer, or Beat or Ping, begins.
type Assoc struct {
	transport.Conn
	*beats
	next    func(ctx context.Context) (transport.Message, error)
	ours    atomic.Bool    // the peer has heartbeats, too
	goodbye atomic.Bool    // and said that it ends
	told    transport.Once // that we do
}

var _ transport.Nexter = (*Assoc)(nil)

// Over returns conn with heartbeats. It owns conn from now on.
func Over(conn transport.Conn) *Assoc {
	a := &Assoc{Conn: conn, next: transport.Receiver(conn)}
	a.beats = newBeats(a.writeBeats)
	return a
}

// Receive implements transport.Conn.
func (a *Assoc) Receive(ctx context.Context, buf []byte) (transport.Message, error) {
	for {
		m, err := a.Conn.Receive(ctx, buf)
		if over, err := a.take(m, err); over {
			return m, err
		}
	}
}

// Next implements transport.Nexter.
func (a *Assoc) Next(ctx context.Context) (transport.Message, error) {
	for {
		m, err := a.next(ctx)
		if over, err := a.take(m, err); over {
			return m, err
		}
	}
}

// take looks at what was received, and tells whether it is for the caller.
func (a *Assoc) take(m transport.Message, err error) (bool, error) {
	if err != nil {
		return true, err
	}
	a.hear()
	switch {
	case m.PPID != PPIDHeartbeat:
		return true, nil
	case len(m.Data) == beatLen:
		a.ours.Store(true)
		a.came(m.Data)
	case len(m.Data) == goodbyeLen:
		a.goodbye.Store(true)
		return true, io.EOF
	}
	return false, nil
}

// Send implements transport.Conn.
func (a *Assoc) Send(ctx context.Context, msgs ...transport.Message) error {
	for _, m := range msgs {
		if m.PPID == PPIDHeartbeat {
			return fmt.Errorf("send: %w: %w", ErrNotSent, ErrReserved)
		}
	}
	return a.Conn.Send(ctx, msgs...)
}

// Flush implements transport.Flusher where the connection does; elsewhere messages are in
// one order and it does nothing.
func (a *Assoc) Flush(ctx context.Context) error {
	if c, ok := a.Conn.(transport.Flusher); ok {
		return c.Flush(ctx)
	}
	return nil
}

// writeBeats sends on stream 0, where the control channel is.
func (a *Assoc) writeBeats(numbers []uint64) error {
	msgs := make([]transport.Message, len(numbers))
	for i, n := range numbers {
		msgs[i] = transport.Message{Data: binary.BigEndian.AppendUint64(nil, n), PPID: PPIDHeartbeat}
	}
	return a.Conn.Send(context.Background(), msgs...)
}

// Orderly reports whether the peer said that it ends. SCTP alone does not tell: the
// kernel shuts the associations of a process down that was killed.
func (a *Assoc) Orderly() bool { return a.goodbye.Load() }

// Finish does what Conn.Finish does where the peer has heartbeats. Otherwise it begins the
// connection's own orderly end (CloseWrite), as SCTP has it. It reports whether there is
// either.
func (a *Assoc) Finish(ctx context.Context) bool {
	if a.ours.Load() {
		a.stop()
		a.told.Do(ctx, func() {
			_ = a.Conn.Send(ctx, transport.Message{Data: make([]byte, goodbyeLen), PPID: PPIDHeartbeat}) // as a courtesy
		})
		return true
	}
	half, ok := a.Conn.(interface{ CloseWrite() error })
	if !ok {
		return false
	}
	a.stop()
	return half.CloseWrite() == nil
}

// Close implements transport.Conn.
func (a *Assoc) Close() error {
	a.stop()
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeWait)
	defer cancel()
	a.Finish(ctx)
	err := a.Conn.Close()
	a.wait()
	return err
}

// Abort implements transport.Conn.
func (a *Assoc) Abort() error {
	a.stop()
	err := a.Conn.Abort()
	a.wait()
	return err
}
