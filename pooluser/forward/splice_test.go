package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// half makes a net.Pipe end that can end its direction alone, as TCP's can: an
// empty write, which a pipe carries, stands for the end.
type half struct {
	net.Conn
	failure error // of reads, once the pipe is closed
	reset   atomic.Bool
}

func (h *half) CloseWrite() error {
	_, err := h.Conn.Write(nil)
	return err
}

func (h *half) SetLinger(int) error {
	h.reset.Store(true)
	return nil
}

func (h *half) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	switch {
	case n == 0 && err == nil:
		return 0, io.EOF
	case err != nil && h.failure != nil:
		return 0, h.failure
	}
	return n, err
}

// wires are a splice and the two peers that it connects.
type wires struct {
	*splice
	user, server *half // the far ends
	near         [2]*half
	measured     []time.Duration
	unanswered   []error // what the measurements ended with
	result       chan outcome
}

// newWires starts a splice in a bubble; plain elements can't end a direction alone.
func newWires(t *testing.T, ctx context.Context, limit time.Duration, plain bool) *wires {
	user, client := net.Pipe()
	server, element := net.Pipe()
	w := &wires{user: &half{Conn: user}, server: &half{Conn: server}, result: make(chan outcome, 1)}
	w.near = [2]*half{{Conn: client}, {Conn: element}}
	w.splice = &splice{
		client: w.near[0], element: w.near[1], idle: limit, quiet: 5 * time.Second,
		fromClient: new(atomic.Uint64), toClient: new(atomic.Uint64),
		measure: func() func(error) {
			sent := time.Now()
			return func(err error) {
				w.measured, w.unanswered = append(w.measured, time.Since(sent)), append(w.unanswered, err)
			}
		},
	}
	if plain {
		w.element = element
	}
	go func() {
		o, _ := w.run(ctx)
		w.result <- o
	}()
	t.Cleanup(func() {
		user.Close()
		server.Close()
	})
	return w
}

func (w *wires) say(t *testing.T, from, to net.Conn, text string) {
	t.Helper()
	go func() { _, _ = from.Write([]byte(text)) }()
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(to, buf); err != nil || string(buf) != text {
		t.Fatalf("carried %q, %v, want %q", buf, err, text)
	}
}

// want checks how the connection ended, and whether the ends were reset.
func (w *wires) want(t *testing.T, o outcome, reset bool) {
	t.Helper()
	if got := <-w.result; got != o {
		t.Errorf("outcome %d, want %d", got, o)
	}
	for i, end := range w.near {
		if end.reset.Load() != reset {
			t.Errorf("end %d reset: %v, want %v", i, end.reset.Load(), reset)
		}
	}
}

func TestEachEndKnowsWhenTheOtherIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires(t, t.Context(), time.Minute, false)
		w.say(t, w.user, w.server, "question")
		time.Sleep(3 * time.Second)
		go w.user.CloseWrite()
		if _, err := w.server.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("server read %v, want the end", err)
		}
		w.say(t, w.server, w.user, "answer")
		go w.server.CloseWrite()
		if _, err := w.user.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("user read %v, want the end", err)
		}
		w.want(t, ended, false)
		if up, down := w.fromClient.Load(), w.toClient.Load(); up != 8 || down != 6 {
			t.Errorf("carried %d and %d octets", up, down)
		}
		if len(w.measured) != 1 || w.measured[0] != 3*time.Second || w.unanswered[0] != nil {
			t.Errorf("measured %v, %v, want 3 s once", w.measured, w.unanswered)
		}
	})
}

func TestAnIdleConnectionIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires(t, t.Context(), time.Minute, false)
		began := time.Now()
		for range 3 { // either way counts
			time.Sleep(50 * time.Second)
			w.say(t, w.user, w.server, "up")
			time.Sleep(50 * time.Second)
			w.say(t, w.server, w.user, "down")
		}
		w.want(t, idle, true)
		if took := time.Since(began); took != 360*time.Second {
			t.Errorf("ended after %v, want 6 m", took)
		}
	})
}

func TestWithoutIdleLimitAConnectionStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		w := newWires(t, ctx, -1, false)
		time.Sleep(1000 * time.Hour)
		w.say(t, w.user, w.server, "still there")
		cancel(errStopped)
		w.want(t, stopped, true)
	})
}

// SCTP has no half-closed state: the element can't be told that the client is done,
// and gets a little time to say the rest.
func TestElementThatCantBeToldOfTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires(t, t.Context(), time.Minute, true)
		w.say(t, w.user, w.server, "question")
		go w.user.CloseWrite()
		time.Sleep(4 * time.Second)
		w.say(t, w.server, w.user, "late answer")
		began := time.Now()
		if got := <-w.result; got != idle {
			t.Errorf("outcome %d", got)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("waited %v, want 5 s", took)
		}
	})
	t.Run("ItsEndIsTheEnd", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWires(t, t.Context(), time.Minute, true)
			w.say(t, w.server, w.user, "bye")
			w.server.Close()
			w.want(t, ended, false)
		})
	})
}

// Quiet begins with the client's end, however long nothing was carried before.
func TestElementAnswersAfterALateEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires(t, t.Context(), time.Minute, true)
		w.say(t, w.user, w.server, "question")
		time.Sleep(20 * time.Second)
		_ = w.user.CloseWrite()
		time.Sleep(4 * time.Second)
		w.say(t, w.server, w.user, "answer")
		if got := <-w.result; got != idle {
			t.Errorf("outcome %d", got)
		}
	})
}

func TestWhoWasLost(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		want outcome
		lose func(w *wires)
	}{
		{"Element", elementLost, func(w *wires) { w.server.Close() }},
		{"Client", clientLost, func(w *wires) { w.user.Close() }},
		{"ClientTalksOnToAnElementThatIsDone", clientLost, func(w *wires) {
			go w.server.CloseWrite()
			if _, err := w.user.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("user read %v", err)
			}
			synctest.Wait()
			w.server.Close()
			_, _ = w.user.Write([]byte("more"))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWires(t, t.Context(), time.Minute, false)
				w.say(t, w.server, w.user, "hello")
				w.near[0].failure, w.near[1].failure = broken, broken
				synctest.Wait()
				tt.lose(w)
				w.want(t, tt.want, true)
			})
		})
	}
}

// Whose fault it is that a request was not answered is told to the policy.
func TestWhoDidNotAnswer(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		want error
		lose func(w *wires)
	}{
		{"Element", broken, func(w *wires) { w.server.Close() }},
		{"Client", context.Canceled, func(w *wires) { w.user.Close() }},
		{"Nobody", errIdle, func(w *wires) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWires(t, t.Context(), time.Minute, false)
				w.near[0].failure, w.near[1].failure = broken, broken
				w.say(t, w.user, w.server, "question")
				synctest.Wait()
				tt.lose(w)
				<-w.result
				if len(w.unanswered) != 1 || !errors.Is(w.unanswered[0], tt.want) {
					t.Errorf("told %v, want %v once", w.unanswered, tt.want)
				}
			})
		})
	}
}

func TestStoppedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		w := newWires(t, ctx, time.Minute, false)
		w.say(t, w.user, w.server, "hello")
		_ = w.user.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := w.user.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("user read %v, want nothing", err)
		}
		cancel(errStopped)
		w.want(t, stopped, true)
	})
}
