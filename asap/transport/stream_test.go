package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is one end of a pair that carries messages.
type pipe struct {
	out, in chan Message
	closed  chan struct{}
}

func newPipe() (a, b pipe) {
	x, y, closed := make(chan Message, 100), make(chan Message, 100), make(chan struct{})
	return pipe{x, y, closed}, pipe{y, x, closed}
}

func (p pipe) Next(ctx context.Context) (Message, error) {
	select {
	case m := <-p.in:
		return m, nil
	default:
	}
	select {
	case m := <-p.in:
		return m, nil
	case <-p.closed:
		return Message{}, io.EOF
	case <-ctx.Done():
		return Message{}, context.Cause(ctx)
	}
}

func (p pipe) Send(ctx context.Context, msgs ...Message) error {
	for _, m := range msgs {
		m.Data = bytes.Clone(m.Data)
		select {
		case p.out <- m:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (p pipe) Close() error                 { close(p.closed); return nil }
func (p pipe) Network() string              { return Mem }
func (p pipe) LocalAddrs() []netip.AddrPort { return nil }
func (p pipe) RemoteAddrs() []netip.AddrPort {
	return []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7")}
}

func TestStreamHasNoMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPipe()
		s := NewStream(a, 7)
		text := bytes.Repeat([]byte("octets"), 10000)
		if n, err := s.Write(text); n != len(text) || err != nil {
			t.Errorf("wrote %d of %d octets: %v", n, len(text), err)
		}
		var got []byte
		for len(got) < len(text) {
			m, err := b.Next(t.Context())
			if err != nil || m.PPID != 7 || len(m.Data) > StreamChunk {
				t.Fatalf("%d octets with PPID %d, %v", len(m.Data), m.PPID, err)
			}
			got = append(got, m.Data...)
		}
		if !bytes.Equal(got, text) {
			t.Error("other octets came")
		}
		for _, part := range []string{"ab", "", "cdef"} {
			b.out <- Message{Data: []byte(part)}
		}
		got = make([]byte, 6)
		for i := 0; i < len(got); i += 3 {
			if _, err := io.ReadFull(s, got[i:i+3]); err != nil {
				t.Error(err)
			}
		}
		if string(got) != "abcdef" {
			t.Errorf("read %q", got)
		}
		if local, remote := s.LocalAddr(), s.RemoteAddr(); local.String() != "" || remote.String() != "192.0.2.1:7" || remote.Network() != Mem {
			t.Errorf("from %v to %v", local, remote)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := s.Read(got); err != io.EOF {
			t.Errorf("at the end %v", err)
		}
	})
}

func TestWritesToAStreamAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = 150 * StreamChunk // more than there is room for
		a, b := newPipe()
		from, to := NewStream(a, 7), NewStream(b, 7)
		written := make(chan error, 2)
		for _, text := range []string{"a", "b"} {
			go func() {
				_, err := from.Write(bytes.Repeat([]byte(text), each))
				written <- err
			}()
		}
		synctest.Wait()
		got := make([]byte, 2*each)
		if _, err := io.ReadFull(to, got); err != nil {
			t.Error(err)
		}
		for _, half := range [][]byte{got[:each], got[each:]} {
			if !bytes.Equal(half, bytes.Repeat(half[:1], each)) {
				t.Error("one Write lies within the other")
			}
		}
		for range 2 {
			if err := <-written; err != nil {
				t.Error(err)
			}
		}
	})
}

// One Read, or Write, waits for another no longer than until the deadline.
func TestStreamDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newPipe()
		s := NewStream(a, 7)
		for name, f := range map[string]func() error{
			"read":  func() error { _, err := s.Read(make([]byte, 1)); return err },
			"write": func() error { _, err := s.Write(make([]byte, 101*StreamChunk)); return err },
		} {
			began := time.Now()
			_ = s.SetDeadline(began.Add(time.Second))
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() {
					var timeout net.Error
					if err := f(); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(began) != time.Second {
						t.Errorf("%s: %v after %v", name, err, time.Since(began))
					}
				})
			}
			both.Wait()
		}
	})
}
