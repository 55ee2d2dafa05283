package mem

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

// streams returns the two ends of a stream from machine a to machine b.
func streams(t *testing.T, n *Network) (a, b net.Conn) {
	t.Helper()
	l, err := n.Host("b").ListenStream(t.Context(), "tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if a, err = n.Host("a").DialStream(t.Context(), "tcp", "b:80"); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestStreamsAreLikeOthersOfThePlatform(t *testing.T) {
	nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
		n := NewNetwork(1)
		n.Host("a")
		l, err := n.Host("b").ListenStream(t.Context(), "tcp", ":0")
		if err != nil {
			return nil, nil, nil, err
		}
		if a, err = n.Host("a").DialStream(t.Context(), "tcp", l.Addr().String()); err != nil {
			return nil, nil, nil, err
		}
		if b, err = l.Accept(); err != nil {
			return nil, nil, nil, err
		}
		return a, b, func() { _, _, _ = a.Close(), b.Close(), l.Close() }, nil
	})
}

// inStreams runs test with a stream from a to b, in virtual time.
func inStreams(t *testing.T, name string, test func(t *testing.T, n *Network, a, b net.Conn)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := NewNetwork(1)
			n.Host("a")
			n.Host("b")
			a, b := streams(t, n)
			test(t, n, a, b)
		})
	})
}

// after returns how long f takes, and its error.
func after(f func() error) (time.Duration, error) {
	start := time.Now()
	err := f()
	return time.Since(start), err
}

func read(c net.Conn) func() error {
	return func() error { _, err := c.Read(make([]byte, 100)); return err }
}

func TestStreamFaults(t *testing.T) {
	inStreams(t, "what waits for a slow reader is bounded and nothing is lost", func(t *testing.T, n *Network, a, b net.Conn) {
		sent := bytes.Repeat([]byte("0123456789abcdef"), n.Buffer/8)
		done := make(chan error, 1)
		go func() {
			_, err := a.Write(sent)
			done <- errors.Join(err, a.Close())
		}()
		synctest.Wait()
		if len(done) > 0 {
			t.Error("Write did not wait for the reader")
		}
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("read %d octets of %d, %v", len(got), len(sent), err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	inStreams(t, "kill", func(t *testing.T, n *Network, a, b net.Conn) {
		if _, err := b.Write([]byte("last")); err != nil {
			t.Fatal(err)
		}
		n.Kill("b")
		if got, err := io.ReadAll(a); string(got) != "last" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write: %v, want EPIPE", err)
		}
		if err := read(b)(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the dead process reads: %v", err)
		}
		if _, err := n.Host("a").DialStream(t.Context(), "tcp", "b:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v, want refused", err)
		}
	})
	inStreams(t, "freeze", func(t *testing.T, n *Network, a, b net.Conn) {
		n.Freeze("b")
		if _, err := a.Write([]byte("taken")); err != nil {
			t.Errorf("the machine does not take octets: %v", err)
		}
		if c, err := n.Host("a").DialStream(t.Context(), "tcp", "b:80"); err != nil {
			t.Errorf("the machine does not take connections: %v", err)
		} else if err := c.Close(); err != nil {
			t.Error(err)
		}
		go func() { _ = b.SetDeadline(time.Now().Add(time.Second)); _ = read(b)() }()
		_ = a.SetReadDeadline(time.Now().Add(time.Minute))
		if took, err := after(read(a)); took != time.Minute || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read after %v: %v", took, err)
		}
		n.Thaw("b")
	})
	inStreams(t, "what a frozen process closes is seen when it goes on", func(t *testing.T, n *Network, a, b net.Conn) {
		n.Freeze("b")
		_ = b.Close()
		time.AfterFunc(time.Second, func() { n.Thaw("b") })
		if took, err := after(read(a)); took != time.Second || err != io.EOF {
			t.Errorf("read after %v: %v", took, err)
		}
	})
	inStreams(t, "or is killed", func(t *testing.T, n *Network, a, b net.Conn) {
		n.Freeze("b")
		_ = b.Close()
		time.AfterFunc(time.Second, func() { n.Kill("b") })
		if took, err := after(read(a)); took != time.Second || err != io.EOF {
			t.Errorf("read after %v: %v", took, err)
		}
	})
	inStreams(t, "a deadline that has passed", func(t *testing.T, n *Network, a, b net.Conn) {
		done := make(chan error, 1)
		go func() { done <- read(a)() }()
		synctest.Wait()
		began := time.Now()
		_ = a.SetReadDeadline(began)
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != 0 {
			t.Errorf("read after %v: %v", time.Since(began), err)
		}
		if a.(*stream).read.timer != nil {
			t.Error("has a timer")
		}
	})
	inStreams(t, "cut and healed", func(t *testing.T, n *Network, a, b net.Conn) {
		n.Cut("a", "b")
		if _, err := b.Write([]byte("late")); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(n.FailureTime/2, func() { n.Heal("a", "b") })
		if took, err := after(read(a)); took != n.FailureTime/2 || err != nil {
			t.Errorf("read after %v: %v", took, err)
		}
	})
	inStreams(t, "cut for good", func(t *testing.T, n *Network, a, b net.Conn) {
		n.Cut("a", "b")
		var net net.Error
		if took, err := after(read(a)); took != n.FailureTime || !errors.Is(err, syscall.ETIMEDOUT) || !errors.As(err, &net) {
			t.Errorf("read after %v: %v", took, err)
		}
	})
	inStreams(t, "dial waits for a path", func(t *testing.T, n *Network, a, b net.Conn) {
		n.Unplug("b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if took, err := after(func() error { _, err := n.Host("a").DialStream(ctx, "tcp", "b:80"); return err }); took != time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial after %v: %v", took, err)
		}
	})
}

func TestStreamEnds(t *testing.T) {
	type tcp interface {
		CloseWrite() error
		SetLinger(int) error
	}
	inStreams(t, "one direction", func(t *testing.T, n *Network, a, b net.Conn) {
		if _, err := a.Write([]byte("all")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := a.(tcp).CloseWrite(); err != nil {
				t.Error(err)
			}
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after CloseWrite: %v", err)
		}
		if got, err := io.ReadAll(b); string(got) != "all" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if _, err := b.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		_ = b.Close()
		if got, err := io.ReadAll(a); string(got) != "answer" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
	})
	inStreams(t, "a reset", func(t *testing.T, n *Network, a, b net.Conn) {
		_, _ = a.Write([]byte("lost"))
		_ = a.(tcp).SetLinger(0)
		_ = a.Close()
		if _, err := io.ReadAll(b); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v, want a reset", err)
		}
		if a.(tcp).SetLinger(0) == nil || a.(tcp).CloseWrite() == nil {
			t.Error("a closed stream can be changed")
		}
	})
}

func TestStreamAddresses(t *testing.T) {
	n := NewNetwork(1)
	h := n.Host("a", "192.0.2.1")
	for _, address := range []string{"nowhere:80", "a", "a:99999", "192.0.2.2:80"} {
		if _, err := h.DialStream(t.Context(), "tcp", address); err == nil {
			t.Errorf("dial %q succeeds", address)
		}
		if _, err := h.ListenStream(t.Context(), "tcp", address); err == nil {
			t.Errorf("listen on %q succeeds", address)
		}
	}
	if _, err := h.DialStream(t.Context(), "udp", "a:80"); err == nil {
		t.Error("UDP is a stream")
	}
	l, err := h.ListenStream(t.Context(), "tcp4", "127.0.0.1:80")
	if err == nil {
		_ = l.Close()
		t.Error("listens on an address that the machine does not have")
	}
	if l, err = h.ListenStream(t.Context(), "tcp", ":0"); err != nil {
		t.Fatal(err)
	}
	if got := l.Addr().(*net.TCPAddr); got.IP.String() != "192.0.2.1" || got.Port == 0 {
		t.Errorf("listens on %v", got)
	}
	if _, err := h.ListenStream(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listener: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after Close: %v", err)
	}
}

func TestCrash(t *testing.T) {
	inStreams(t, "is silent, and what was on its way is lost", func(t *testing.T, n *Network, a, b net.Conn) {
		n.Delay("a", "b", time.Second, time.Second)
		if _, err := b.Write([]byte("lost")); err != nil {
			t.Fatal(err)
		}
		n.Crash("b")
		if took, err := after(read(a)); took != n.FailureTime || !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("read after %v: %v", took, err)
		}
		if err := read(b)(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the dead process reads: %v", err)
		}
	})
	inStreams(t, "and after the restart connections from before stay so", func(t *testing.T, n *Network, a, b net.Conn) {
		n.Crash("b")
		dialed := make(chan error, 1)
		go func() {
			c, err := n.Host("a").DialStream(t.Context(), "tcp", "b:80")
			if err == nil {
				err = c.Close()
			}
			dialed <- err
		}()
		synctest.Wait()
		if len(dialed) > 0 {
			t.Errorf("dial to a machine without power: %v", <-dialed)
		}
		start := time.Now()
		l, err := n.Host("b").ListenStream(t.Context(), "tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := <-dialed; err != nil || time.Since(start) != 0 {
			t.Errorf("dial after %v: %v", time.Since(start), err)
		}
		if took, err := after(read(a)); took != n.FailureTime || !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("read after %v: %v", took, err)
		}
	})
}
