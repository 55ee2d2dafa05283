package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// outcome is how a connection ended.
type outcome int

const (
	ended outcome = iota
	refused
	clientLost
	elementLost
	idle
	stopped
	outcomes
)

// Causes of an end.
var (
	errStopped = errors.New("stopped")
	errIdle    = errors.New("nothing to carry")
	errOver    = errors.New("the element has ended the connection")
)

// lostError is the failure of one end of a connection.
type lostError struct {
	end  outcome
	what string
	err  error
}

func (e *lostError) Error() string { return e.what + ": " + e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// splice carries octets between two connections. run owns its two goroutines.
type splice struct {
	client, element      net.Conn
	idle, quiet          time.Duration
	fromClient, toClient *atomic.Uint64
	measure              func() (done func(error))

	began    time.Time
	last     atomic.Int64  // when something was carried, in nanoseconds since began
	hushed   chan struct{} // closed when the client has ended its direction and the element can't know
	answered atomic.Bool   // the element has ended its direction

	measuring sync.Mutex
	asked     bool
	done      func(error) // tells what became of the first request
}

// run carries until both ends are done or something fails, and closes both. The
// ends are reset unless each knows from the other that it was done.
func (s *splice) run(ctx context.Context) (outcome, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s.began, s.hushed = time.Now(), make(chan struct{})
	over := make(chan struct{})
	var left atomic.Int32
	left.Store(2)
	for _, direction := range []func() error{s.up, s.down} {
		go func() {
			if err := direction(); err != nil {
				end(err)
			}
			if left.Add(-1) == 0 {
				close(over)
			}
		}()
	}
	s.watch(ctx, end, over)
	if ctx.Err() != nil {
		s.cut(context.Cause(ctx))
	}
	<-over
	cause := context.Cause(ctx)
	_ = s.client.Close() // what failed is in cause
	_ = s.element.Close()
	outcome, err := s.outcome(cause)
	switch outcome {
	case clientLost, stopped:
		s.answer(context.Canceled)
	default:
		s.answer(err)
	}
	return outcome, err
}

// watch waits until both directions are over, ctx ends, or too long nothing was
// carried.
func (s *splice) watch(ctx context.Context, end context.CancelCauseFunc, over <-chan struct{}) {
	limit, hushed := s.idle, s.hushed
	for {
		var timeout <-chan time.Time
		if limit > 0 {
			left := limit - (time.Since(s.began) - time.Duration(s.last.Load()))
			if left <= 0 {
				end(fmt.Errorf("%w for %v", errIdle, limit))
				return
			}
			timeout = time.After(left)
		}
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-hushed:
			hushed = nil
			if limit <= 0 || limit > s.quiet {
				limit = s.quiet
			}
		case <-timeout:
		}
	}
}

// cut makes both directions end. Where the element has ended the connection in
// order, so does the client's.
func (s *splice) cut(cause error) {
	if errors.Is(cause, errOver) {
		_ = s.client.Close()
		_ = s.element.Close()
		return
	}
	abort(s.client)
	abort(s.element)
}

func (s *splice) outcome(cause error) (outcome, error) {
	lost, isLost := errors.AsType[*lostError](cause)
	switch {
	case cause == nil || errors.Is(cause, errOver):
		return ended, nil
	case isLost && lost.end == elementLost && s.answered.Load():
		return clientLost, cause // it goes on talking to an element that is done
	case isLost:
		return lost.end, cause
	case errors.Is(cause, errIdle):
		return idle, cause
	}
	return stopped, cause
}

// up carries from the client to the element.
func (s *splice) up() error {
	err := s.move(s.element, s.client, elementLost, clientLost, s.fromClient, s.ask)
	if err != nil {
		return err
	}
	if half, ok := s.element.(halfCloser); ok {
		return lost(elementLost, "end the direction to the element", half.CloseWrite())
	}
	s.touch() // quiet begins
	close(s.hushed)
	return nil
}

// down carries from the element to the client.
func (s *splice) down() error {
	err := s.move(s.client, s.element, clientLost, elementLost, s.toClient, func() { s.answer(nil) })
	if err != nil {
		return err
	}
	s.answered.Store(true)
	if _, ok := s.element.(halfCloser); !ok {
		return errOver
	}
	if half, ok := s.client.(halfCloser); ok {
		return lost(clientLost, "end the direction to the client", half.CloseWrite())
	}
	return errOver
}

type halfCloser interface{ CloseWrite() error }

func lost(end outcome, what string, err error) error {
	if err == nil {
		return nil
	}
	return &lostError{end, what, err}
}

// chunk is what is read at a time.
const chunk = 32 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// move carries from one end to the other until the first is done.
func (s *splice) move(to, from net.Conn, toLost, fromLost outcome, octets *atomic.Uint64, carried func()) error {
	buf := chunks.Get().(*[chunk]byte)
	defer chunks.Put(buf)
	for {
		n, err := from.Read(buf[:])
		if n > 0 {
			s.touch()
			carried()
			written, err := to.Write(buf[:n])
			octets.Add(uint64(written))
			s.touch()
			if err != nil {
				return lost(toLost, "write", err)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return lost(fromLost, "read", err)
		}
	}
}

func (s *splice) touch() { s.last.Store(int64(time.Since(s.began))) }

// ask begins to measure the time to the first answer.
func (s *splice) ask() {
	s.measuring.Lock()
	defer s.measuring.Unlock()
	if !s.asked && s.measure != nil {
		s.asked, s.done = true, s.measure()
	}
}

// answer ends that; err is why there was none.
func (s *splice) answer(err error) {
	s.measuring.Lock()
	defer s.measuring.Unlock()
	if s.done != nil {
		s.done(err)
		s.done = nil
	}
}

// abort closes a connection so that its peer gets an error and no end, where the
// transport can say so: TCP resets, a Unix socket can't.
func abort(c net.Conn) {
	if tcp, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0) // fails if the connection has already
	}
	_ = c.Close()
}
