package poolelement

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
	"rserpool/asap/transport/transporttest"
)

// echoStream answers each octet by itself.
func echoStream(_ context.Context, s *StreamSession) error {
	_, err := io.Copy(s, s)
	return err
}

func TestPlainStreams(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				s := w.serveStreams(network, nil, echoStream)
				reg, _ := expect[*asap.Registration](t, w.a)
				if reg.Element.User.Use != param.DataOnly {
					t.Error("registered with a control channel")
				}
				u := w.dialStream(network)
				text := bytes.Repeat([]byte("hello "), 10000)
				go func() {
					for part := range bytesChunk(text, 5000) {
						u.Write(part)
					}
				}()
				got := make([]byte, len(text))
				if _, err := io.ReadFull(u, got); err != nil || !bytes.Equal(got, text) {
					t.Errorf("echo differs, %v", err)
				}
				u.Close()
				synctest.Wait()
				if got := s.server.Stats(); got.Finished != 1 || got.Failed != 0 || got.Sessions != 0 {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// bytesChunk cuts b into pieces of n octets.
func bytesChunk(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			part := b[:min(n, len(b))]
			if b = b[len(part):]; !yield(part) {
				return
			}
		}
	}
}

func TestStreamsWithControlResume(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		w.serveStreams(network, func(c *ServeConfig) {
			c.Control = true
			c.Cookies = sealer(t, pool)
		}, func(ctx context.Context, s *StreamSession) error {
			buf := make([]byte, 4)
			for {
				if _, err := io.ReadFull(s, buf); err != nil {
					return nil
				}
				if err := s.SaveState(ctx, append(s.State(), buf...)); err != nil {
					return err
				}
				if _, err := s.Write(s.State()); err != nil {
					return err
				}
			}
		})
		reg, _ := expect[*asap.Registration](t, w.a)
		if control := reg.Element.User.Use == param.DataAndControl; control != (network == transport.SCTP) {
			t.Errorf("registered with control channel: %v", control)
		}
		u := w.dial(network)
		u.send("on")
		u.send("e-two-")
		expectASAP[*asap.Cookie](u)
		u.expect("one-")
		kept := expectASAP[*asap.Cookie](u).Cookie
		u.expect("one-two-")
		u.conn.Abort()
		again := w.dial(network)
		again.sendASAP(&asap.CookieEcho{Cookie: kept})
		again.send("more")
		expectASAP[*asap.Cookie](again)
		again.expect("one-two-more")
	})
}

func TestStreamDeadlines(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		type result struct {
			after time.Duration
			err   error
		}
		results := make(chan result, 3)
		w.serveStreams(network, func(c *ServeConfig) { c.Control = true }, func(_ context.Context, s *StreamSession) error {
			read := func() {
				began := time.Now()
				_, err := s.Read(make([]byte, 10))
				results <- result{time.Since(began), err}
			}
			s.SetReadDeadline(time.Now().Add(time.Second))
			read()
			s.SetReadDeadline(time.Time{})
			read()
			s.SetDeadline(time.Now().Add(-time.Second))
			read()
			return nil
		})
		u := w.dial(network)
		if got := <-results; !errors.Is(got.err, os.ErrDeadlineExceeded) || got.after != time.Second {
			t.Errorf("with a deadline: %+v", got)
		}
		time.Sleep(time.Minute)
		u.send("late")
		if got := <-results; got.err != nil || got.after != time.Minute {
			t.Errorf("without: %+v", got)
		}
		if got := <-results; !errors.Is(got.err, os.ErrDeadlineExceeded) || got.after != 0 {
			t.Errorf("past: %+v", got)
		}
	})
}

func TestStreamsOfPlainTCPAreDrained(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.serveStreams(transport.TCP, func(c *ServeConfig) { c.DrainTimeout = time.Second }, echoStream)
		u := w.dialStream(transport.TCP)
		began := time.Now()
		s.end()
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("it took %v", d)
		}
		if _, err := u.Read(make([]byte, 1)); err == nil {
			t.Error("the connection goes on")
		}
	})
}

// tapped is a byte stream whose octets somebody listens to.
type tapped struct {
	net.Conn
	mu   *sync.Mutex
	seen *bytes.Buffer
}

func (c tapped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.Write(p[:n])
	return n, err
}

func TestTHR_2_16_01_CookiesAreNotSeenOverTLS(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cert, trusted := transporttest.Certificate(t, "work.test")
		secured := make(chan bool, 1)
		w.serve(transport.TCP, func(c *ServeConfig) {
			c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		}, func(ctx context.Context, s *Session) error {
			_, ok := s.TLS()
			secured <- ok
			if err := s.SaveState(ctx, []byte("the state in clear")); err != nil {
				return err
			}
			return echo(ctx, s)
		})
		socket, err := w.net.Host("b").DialStream(context.Background(), "tcp", userAddr)
		if err != nil {
			t.Fatal(err)
		}
		wire := tapped{socket, new(sync.Mutex), new(bytes.Buffer)}
		conn, err := framed.Client(context.Background(), tls.Client(wire, &tls.Config{RootCAs: trusted, ServerName: "work.test"}), framed.Options{})
		if err != nil {
			t.Fatal(err)
		}
		u := &user{t, conn}
		defer u.conn.Close()
		kept := expectASAP[*asap.Cookie](u).Cookie
		if !bytes.Contains(kept, []byte("the state in clear")) {
			t.Error("the cookie has not the state")
		}
		u.sendASAP(&asap.CookieEcho{Cookie: kept})
		u.send("hello")
		u.expect("hello")
		wire.mu.Lock()
		defer wire.mu.Unlock()
		if bytes.Contains(wire.seen.Bytes(), []byte("the state")) || !<-secured {
			t.Error("the cookie was seen on the wire")
		}
	})
}

func TestPlainStreamsOverTLS(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cert, trusted := transporttest.Certificate(t, "work.test")
		s := w.serveStreams(transport.TCP, func(c *ServeConfig) {
			c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		}, echoStream)
		u := tls.Client(w.dialStream(transport.TCP), &tls.Config{RootCAs: trusted, ServerName: "work.test"})
		u.Write([]byte("hello"))
		got := make([]byte, 5)
		if _, err := io.ReadFull(u, got); err != nil || string(got) != "hello" {
			t.Errorf("%q, %v", got, err)
		}
		u.Close()
		w.dialStream(transport.TCP) // says nothing
		time.Sleep(defaultHandshake + time.Second)
		if got := s.server.Stats(); got.Sessions != 0 || got.Opened != 2 || got.Failed != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// At the drain's end TLS takes its time with users that don't read. They are not waited
// for one after the other, and not by the server.
func TestDrainOfPlainStreamsOverTLS(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		const users = 4
		cert, trusted := transporttest.Certificate(t, "work.test")
		s := w.serveStreams(transport.TCP, func(c *ServeConfig) {
			c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			c.DrainTimeout = time.Second
		}, func(_ context.Context, s *StreamSession) error {
			_ = s.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			if _, err := s.Write(make([]byte, 1<<20)); err == nil {
				t.Error("1 MiB to a user that does not read")
			}
			_, err := s.Read(make([]byte, 1))
			return err
		})
		for range users {
			u := tls.Client(w.dialStream(transport.TCP), &tls.Config{RootCAs: trusted, ServerName: "work.test"})
			if err := u.Handshake(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		began := time.Now()
		s.end()
		if took, most := time.Since(began), 7*time.Second; took > most {
			t.Errorf("took %v, at most %v", took, most)
		}
	})
}

// What TLS returns after an interrupted write looks as if its deadline had come again.
func TestWritesAfterADeadlineOverTLSSayWhyTheyFail(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		cert, trusted := transporttest.Certificate(t, "work.test")
		errs := make(chan error, 2)
		w.serveStreams(transport.TCP, func(c *ServeConfig) {
			c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		}, func(_ context.Context, s *StreamSession) error {
			for _, deadline := range []time.Time{time.Now().Add(time.Second), {}} {
				_ = s.SetWriteDeadline(deadline)
				_, err := s.Write(make([]byte, 1<<20))
				errs <- err
			}
			return nil
		})
		u := tls.Client(w.dialStream(transport.TCP), &tls.Config{RootCAs: trusted, ServerName: "work.test"})
		if err := u.Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("to a user that does not read: %v", err)
		}
		if err := <-errs; !errors.Is(err, transport.ErrInterruptedTLS) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("without a deadline: %v", err)
		}
	})
}

// A net.Conn may be read by several goroutines. While one of them waits for the user the
// handler does not hang, though another has ended.
func TestAStreamWithTwoReaders(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		s := w.serveStreams(network, func(c *ServeConfig) { c.HandlerLimit = time.Second }, func(_ context.Context, s *StreamSession) error {
			var all sync.WaitGroup
			for range 2 {
				all.Go(func() {
					for got := make([]byte, 1); got[0] != 'x'; {
						if _, err := s.Read(got); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			return nil
		})
		u := w.dialStream(network)
		for _, text := range []string{strings.Repeat(".", 200), "x", "x"} {
			synctest.Wait() // both read
			if _, err := u.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if got := s.server.Stats(); got.Overdue != 0 || got.Finished != 1 {
			t.Errorf("%+v", got)
		}
	})
}
