package pooluser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// StreamConfig describes a Stream. The zero value is usable; a zero field means its
// default.
type StreamConfig struct {
	// Timers are Fast, Default, Patient or others. A zero field is that of
	// Default. Plain TCP has no heartbeats: an element that hangs, or whose
	// network is cut, is found by Answer alone.
	Timers Timers
	// Control uses the framing of docs/sessions.md over TCP, so that there are
	// cookies, business cards and heartbeats. The pool's elements must have it.
	// Default: the plain byte stream.
	Control bool
	// Answer, if set, gives an element up when nothing has come for so long
	// after something was written. Default: none.
	Answer time.Duration
	// Resume, if set, is called when another element is connected and has got
	// the cookie, before anything else goes to it; it brings the new element to
	// where Failover.Written and Failover.Received tell. Read and Write then go
	// on as if nothing had happened. Without it they return a *FailoverError.
	// A call that returned nil has done its work even if the element fails
	// before they do: the next call counts from there. It must not call Read,
	// Write or Close of the stream, which wait for it.
	Resume func(ctx context.Context, f *Failover) error
	// FailoverOnEOF takes the end of a plain stream, or of an SCTP association
	// without heartbeats, for a failure of the element: a process that is killed
	// ends them in the same way as one that has said all. Default: Read returns
	// io.EOF and the stream ends.
	FailoverOnEOF bool

	// Cookie is handed to the first element, as from an earlier stream.
	Cookie []byte
	// Key is for policies that have use for one; see WithKey.
	Key string
	// PPID is that of the data over SCTP and in the framing; not ASAP's (11).
	PPID uint32
	// SCTPHeartbeats is as in SessionConfig.
	SCTPHeartbeats bool
}

func (cfg StreamConfig) session() SessionConfig {
	return SessionConfig{
		Timers: cfg.Timers, Answer: cfg.Answer, OnFailover: cfg.Resume, Cookie: cfg.Cookie, Key: cfg.Key,
		PPID: cfg.PPID, SCTPHeartbeats: cfg.SCTPHeartbeats,
	}
}

// Validate names everything that is wrong with the configuration.
func (cfg StreamConfig) Validate() error { return cfg.session().Validate() }

// FailoverError tells that the element at the other end of a Stream has failed and
// another is connected, which knows nothing of the octets before but what a cookie has
// told it.
type FailoverError struct {
	Pool     param.PoolHandle
	From, To param.PoolElement
	// Tried are the elements that failed, From first.
	Tried []Attempt
	// Err is why From was given up.
	Err error
}

// Error says from where to where, and why.
func (e *FailoverError) Error() string {
	return fmt.Sprintf("pool %q: failed over from element %v to %v: %v", e.Pool, e.From.ID, e.To.ID, e.Err)
}

// Unwrap returns Err.
func (e *FailoverError) Unwrap() error { return e.Err }

// Stream is a session with a pool in the style of byte streams: a net.Conn. It never
// goes on with another element in mid-stream by itself: once the element has failed,
// Read (after what it still sent) and Write return a *FailoverError until Continue is
// called, then they are about the new element. With StreamConfig.Resume they go on by
// themselves, the application having seen to it that this makes sense.
//
// Octets are given to one element once: Write returns how many have left, or may have.
type Stream struct {
	s        *Session
	resumes  bool
	accepted uint64 // the connection that the application knows of; s.mu guards it and all below
	rest     []byte // of Read

	read, write transport.Deadline
}

var _ net.Conn = (*Stream)(nil)

// OpenStream begins a session with the pool, in the style of byte streams, over TCP or
// SCTP. ctx bounds the opening alone; its values go on to the hook and to the policy
// (WithKey). The error is a *DialError or that of Validate.
func (r *Resolver) OpenStream(ctx context.Context, pool param.PoolHandle, cfg StreamConfig) (*Stream, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("stream to pool %q: %w", pool, err)
	}
	s := r.newSession(ctx, pool, cfg.session())
	s.dial.plain = !cfg.Control
	s.machine.endOnEOF, s.machine.kept.stream = !cfg.FailoverOnEOF, true
	st := &Stream{s: s, resumes: cfg.Resume != nil}
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.accepted = s.first
	return st, nil
}

// Read reads what has come. Errors: a *FailoverError; a *DialError when no element was
// found; io.EOF when the element has ended the stream; os.ErrDeadlineExceeded;
// net.ErrClosed after Close.
func (st *Stream) Read(p []byte) (int, error) {
	n := 0
	err := st.read.Until(func(ctx context.Context) (err error) {
		n, err = st.receive(ctx, p)
		return err
	})
	return n, err
}

func (st *Stream) receive(ctx context.Context, p []byte) (int, error) {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(st.rest) == 0 {
		switch {
		case len(s.inbox) > 0 && st.knows(s.inbox[0].conn):
			st.rest = s.pop().Data
			continue
		case len(s.inbox) > 0 || s.failover != nil && !st.knows(s.failedOver) && (s.open || s.err == io.EOF):
			return 0, s.failover
		case s.ended:
			return 0, s.err
		}
		if err := s.await(ctx, &s.readable); err != nil {
			return 0, err
		}
	}
	n := copy(p, st.rest)
	st.rest = st.rest[n:]
	return n, nil
}

// knows tells whether the application knows that it has to do with this connection.
func (st *Stream) knows(conn uint64) bool { return st.resumes || st.accepted == conn }

// Write writes to the element of the moment; errors as for Read.
func (st *Stream) Write(p []byte) (int, error) {
	sent := 0
	err := st.write.Until(func(ctx context.Context) error {
		if err := st.s.sending.Take(ctx); err != nil {
			return err
		}
		defer st.s.sending.End()
		for sent < len(p) {
			n, err := st.send(ctx, p[sent:min(len(p), sent+transport.StreamChunk)])
			if sent += n; err != nil {
				return err
			}
		}
		return nil
	})
	return sent, err
}

// send sends octets, none if the connection fails before.
func (st *Stream) send(ctx context.Context, p []byte) (int, error) {
	s := st.s
	t, err := s.admit(ctx, &Message{Data: p}, func(conn uint64) error {
		if !st.knows(conn) {
			return s.failover
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	n, err := t.link.send(ctx, transport.Message{Data: p})
	if err == nil {
		n = len(p)
	}
	s.mu.Lock()
	s.written += uint64(n)
	s.mu.Unlock()
	again, err := s.settle(ctx, t, n, err)
	if again || errors.Is(err, ErrUncertain) {
		err = nil
	}
	return n, err
}

// Continue tells that the application knows of the failover: Read and Write are about
// the element of the moment from now on. What the one before had sent and Read has not
// returned is gone.
func (st *Stream) Continue() {
	s := st.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failover == nil || st.accepted == s.failedOver {
		return
	}
	st.accepted, st.rest = s.failedOver, nil
	for len(s.inbox) > 0 && s.inbox[0].conn < st.accepted {
		s.pop()
	}
	s.readable.fire()
}

// Close ends the stream in an orderly way. Hooks must not call it.
func (st *Stream) Close() error {
	err := st.s.Close()
	st.read.Set(time.Time{})
	st.write.Set(time.Time{})
	return err
}

// Pool returns the pool's handle.
func (st *Stream) Pool() param.PoolHandle { return st.s.Pool() }

// Element returns the element of the moment, and false while there is none.
func (st *Stream) Element() (param.PoolElement, bool) { return st.s.Element() }

// Cookie returns the newest cookie, nil if there is none.
func (st *Stream) Cookie() []byte { return st.s.Cookie() }

// Failover gives the element up; see Session.Failover.
func (st *Stream) Failover(cause error) { st.s.Failover(cause) }

// LocalAddr returns the address at this end of the present connection; while there is
// none, the pool's name stands for it.
func (st *Stream) LocalAddr() net.Addr {
	local, _ := st.addrs()
	return local
}

// RemoteAddr is LocalAddr for the other end.
func (st *Stream) RemoteAddr() net.Addr {
	_, remote := st.addrs()
	return remote
}

func (st *Stream) addrs() (local, remote net.Addr) {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.s.link == nil {
		return poolAddr(st.s.machine.pool), poolAddr(st.s.machine.pool)
	}
	return st.s.link.addrs()
}

// poolAddr is the net.Addr of a pool.
type poolAddr param.PoolHandle

func (poolAddr) Network() string  { return "rserpool" }
func (a poolAddr) String() string { return string(a) }

// SetDeadline implements net.Conn. A Write that is interrupted in the middle ends the
// connection, which is a failure like others, but not reported as the element's.
func (st *Stream) SetDeadline(t time.Time) error {
	return errors.Join(st.SetReadDeadline(t), st.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (st *Stream) SetReadDeadline(t time.Time) error { return st.setDeadline(&st.read, t) }

// SetWriteDeadline implements net.Conn.
func (st *Stream) SetWriteDeadline(t time.Time) error { return st.setDeadline(&st.write, t) }

func (st *Stream) setDeadline(d *transport.Deadline, t time.Time) error {
	st.s.mu.Lock()
	ended, err := st.s.ended, st.s.err
	st.s.mu.Unlock()
	if ended && !errors.Is(err, io.EOF) {
		return net.ErrClosed
	}
	d.Set(t)
	return nil
}
