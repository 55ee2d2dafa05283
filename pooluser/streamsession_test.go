package pooluser_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/pooluser"
)

func (l *lab) openStream(r *pooluser.Resolver, cfg pooluser.StreamConfig) *pooluser.Stream {
	l.t.Helper()
	cfg.PPID = appPPID
	if cfg.Timers == (pooluser.Timers{}) {
		cfg.Timers = pooluser.Fast
	}
	st, err := r.OpenStream(l.t.Context(), pool, cfg)
	if err != nil {
		l.t.Fatalf("open: %v", err)
	}
	l.t.Cleanup(func() { _ = st.Close() })
	return st
}

// writeTo writes, and reads as much as is wanted.
func (l *lab) converse(st *pooluser.Stream, text, want string) {
	l.t.Helper()
	if _, err := io.WriteString(st, text); err != nil {
		l.t.Errorf("write: %v", err)
	}
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(st, buf); err != nil || string(buf) != want {
		l.t.Errorf("read %q, %v; want %q", buf, err, want)
	}
}

// plainPeer starts an element that echoes octets by TCP, and returns its connections.
func (l *lab) plainPeer(id param.PEID) <-chan net.Conn {
	l.t.Helper()
	conns := make(chan net.Conn, 10)
	l.scripted(id, func(c net.Conn) {
		conns <- c
		_, _ = io.Copy(c, c)
	})
	return conns
}

func TestPlainStream(t *testing.T) {
	for name, stop := range map[string]func(l *lab, c net.Conn){
		"reset":                   func(_ *lab, c net.Conn) { reset(c) },
		"end taken for a failure": func(l *lab, c net.Conn) { _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				home := l.registrar(home1)
				conns := l.plainPeer(1)
				l.plainPeer(2)
				l.setPool(pool, param.RoundRobin, 1, 2)
				st := l.openStream(l.sessionUser(), pooluser.StreamConfig{FailoverOnEOF: true})
				l.converse(st, "hello", "hello")
				if st.RemoteAddr().String() != "192.0.2.1:8000" || st.LocalAddr().String() == st.RemoteAddr().String() {
					t.Errorf("from %v to %v", st.LocalAddr(), st.RemoteAddr())
				}
				stop(l, <-conns)
				var failover *pooluser.FailoverError
				for range 3 {
					if _, err := st.Read(make([]byte, 1)); !errors.As(err, &failover) {
						t.Errorf("read: %v", err)
					}
					if n, err := st.Write([]byte("x")); n != 0 || !errors.As(err, &failover) {
						t.Errorf("write: %d, %v", n, err)
					}
				}
				if failover.From.ID != 1 || failover.To.ID != 2 || failover.Err == nil || !strings.Contains(failover.Error(), "0x00000002") {
					t.Errorf("failover %v", failover)
				}
				st.Continue()
				l.converse(st, "again", "again")
				l.wantReports(home, 1)
				if st.Cookie() != nil {
					t.Error("a cookie without a control channel")
				}
			})
		})
	}
}

func TestEndOfAPlainStream(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		conns := l.plainPeer(1)
		l.setPool(pool, param.RoundRobin, 1)
		st := l.openStream(l.sessionUser(), pooluser.StreamConfig{})
		c := <-conns
		l.converse(st, "hello", "hello")
		_, _ = io.WriteString(c, "bye")
		_ = c.Close()
		if all, err := io.ReadAll(st); err != nil || string(all) != "bye" {
			t.Errorf("read %q, %v", all, err)
		}
		if _, err := st.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v", err)
		}
		l.wantReports(home)
	})
}

func TestAnswerOnAPlainStream(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.plainPeer(1)
		l.plainPeer(2)
		l.setPool(pool, param.RoundRobin, 1, 2)
		st := l.openStream(l.sessionUser(), pooluser.StreamConfig{Answer: 200 * time.Millisecond})
		for range 3 {
			l.converse(st, "hello", "hello")
			l.converse(st, strings.Repeat("x", 50_000), "x") // in several pieces
			if _, err := io.CopyN(io.Discard, st, 50_000-1); err != nil {
				t.Error(err)
			}
		}
		sleep(time.Hour) // idle is no failure
		l.net.Freeze("192.0.2.1")
		if _, err := st.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		start := time.Now()
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, pooluser.ErrNoAnswer) || time.Since(start) > 201*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestStreamWithControl(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		st := l.openStream(r, pooluser.StreamConfig{Control: true})
		l.converse(st, "a", "a from 1")
		c := peers[0].last()
		peers[0].tell(c, &asap.Cookie{Cookie: []byte("so far")})
		peers[0].say(c, "the rest")
		synctest.Wait()
		peers[0].freeze()
		start := time.Now()
		buf := make([]byte, 100)
		n, err := st.Read(buf)
		if err != nil || string(buf[:n]) != "the rest" {
			t.Errorf("read %q, %v: what came before belongs to the old element", buf[:n], err)
		}
		var failover *pooluser.FailoverError
		if _, err := st.Read(buf); !errors.As(err, &failover) || !errors.Is(err, pooluser.ErrSilent) {
			t.Errorf("read: %v", err)
		}
		if took := time.Since(start); took > pooluser.Fast.Silence+pooluser.Fast.Heartbeat {
			t.Errorf("after %v", took)
		}
		peers[1].want(t, "echo so far")
		st.Continue()
		l.converse(st, "b", "b from 2")

		// What Read has not returned is gone when Write has told of the failover.
		peers[1].say(peers[1].last(), "unread")
		synctest.Wait()
		peers[1].kill()
		sleep(time.Second)
		if _, err := st.Write([]byte("x")); !errors.As(err, &failover) || failover.From.ID != 2 {
			t.Errorf("write: %v", err)
		}
		st.Continue()
		st.Continue()
		l.converse(st, "c", "c from 3")
		peers[2].want(t, "echo so far", "40 c")

		_ = peers[2].last().Close()
		if _, err := st.Read(buf); err != io.EOF {
			t.Errorf("after the orderly end: %v", err)
		}
	})
}

// counter is a service with a position: it sends the numbers from where it is told,
// and adds up those it gets.
func TestResumeHookGoesOnInMidStream(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		const total, before = 400_000, 100_000
		sent := make([]byte, total)
		for i := range sent {
			sent[i] = byte(i * 7)
		}
		for _, p := range peers {
			p.set(func() { p.mute = true })
		}
		var positions []uint64
		hook := func(ctx context.Context, f *pooluser.Failover) error {
			positions = append(positions, f.Written)
			return binary.Write(f, binary.BigEndian, f.Written) // where the rest begins
		}
		st := l.openStream(r, pooluser.StreamConfig{Control: true, Resume: hook})
		if _, err := st.Write(sent[:before]); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		peers[0].freeze() // in mid-stream, its buffer fills up
		if n, err := st.Write(sent[before:]); err != nil || n != total-before {
			t.Fatalf("%d of %d: %v", n, total-before, err)
		}
		synctest.Wait()
		peers[1].mu.Lock()
		defer peers[1].mu.Unlock()
		var got []byte
		for _, m := range peers[1].got {
			data, _ := strings.CutPrefix(m, "40 ")
			got = append(got, data...)
		}
		if len(positions) != 1 || len(got) < 8 {
			t.Fatalf("positions %v, %d octets", positions, len(got))
		}
		at := binary.BigEndian.Uint64(got)
		if at < before || at != positions[0] || string(got[8:]) != string(sent[at:]) {
			t.Errorf("told %d; %d octets follow, want %d", at, len(got)-8, total-int(at))
		}
	})
}

func TestResumeHookReads(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		hook := func(ctx context.Context, f *pooluser.Failover) error {
			if f.Received != uint64(len("a from 1")) || f.Written != 1 {
				t.Errorf("hears of %d read, %d written", f.Received, f.Written)
			}
			if _, err := io.WriteString(f, "ready?"); err != nil {
				return err
			}
			buf := make([]byte, 6)
			if _, err := io.ReadFull(f, buf); err != nil || string(buf) != "ready?" {
				t.Errorf("hook read %q, %v", buf, err)
			}
			return nil
		}
		st := l.openStream(r, pooluser.StreamConfig{Control: true, Resume: hook})
		l.converse(st, "a", "a from 1")
		peers[0].kill()
		sleep(time.Second)
		l.converse(st, "b", " from 2b from 2") // what the hook left comes first
		peers[1].want(t, "40 ready?", "40 b")
	})
}

// Who adds up what the hook is told where it returns nil knows where the stream is, whatever
// becomes of the element then.
func TestWhatTheHookIsTold(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		var asked []string
		for id := range param.PEID(4) {
			l.scripted(id+1, func(c net.Conn) {
				buf := make([]byte, 100)
				n, _ := c.Read(buf)
				asked = append(asked, string(buf[:n]))
				if id == 0 || id == 3 {
					_, _ = io.WriteString(c, "0123456789")
				}
				if id == 0 {
					time.Sleep(time.Second)
				}
				if id != 3 { // 2 and 3 fail before the hook has returned
					reset(c)
				}
			})
		}
		l.setPool(pool, param.RoundRobin, 1, 2, 3, 4)
		var written, received uint64
		var told []string
		st := l.openStream(l.sessionUser(), pooluser.StreamConfig{Resume: func(_ context.Context, f *pooluser.Failover) error {
			told = append(told, fmt.Sprint(f.Written, f.Received))
			w, r := written+f.Written, received+f.Received
			if _, err := fmt.Fprintf(f, "%d, from %d", w, r); err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond)
			if f.To.ID == 3 {
				return errors.New("not this one")
			}
			written, received = w, r
			return nil
		}})
		l.converse(st, "abc", "0123456789")
		l.converse(st, "", "0123456789")
		synctest.Wait()
		if want := []string{"abc", "3, from 10", "3, from 10", "3, from 10"}; !slices.Equal(asked, want) {
			t.Errorf("elements are asked to go on %q, want %q", asked, want)
		}
		if want := []string{"3 10", "0 0", "0 0"}; !slices.Equal(told, want) {
			t.Errorf("the hook is told %q, want %q", told, want)
		}
	})
}

// A hook that fails is told the same at the next element.
func TestHookThatFailsIsToldTheSame(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		var told []string
		st := l.openStream(r, pooluser.StreamConfig{Control: true, Resume: func(_ context.Context, f *pooluser.Failover) error {
			told = append(told, fmt.Sprint(f.Written, f.Received))
			if f.To.ID == 2 {
				return errors.New("not this one")
			}
			return nil
		}})
		l.converse(st, "a", "a from 1")
		peers[0].kill()
		sleep(time.Second)
		l.converse(st, "bc", "bc from 3")
		peers[2].kill()
		sleep(time.Second)
		synctest.Wait()
		if want := []string{"1 8", "1 8", "2 9"}; !slices.Equal(told[:min(len(told), 3)], want) {
			t.Errorf("the hook is told %q, want %q", told, want)
		}
	})
}

// A hook that goes on after its element has failed leaves nothing to the next one.
func TestHookOfAnElementThatFailed(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		hook := func(ctx context.Context, f *pooluser.Failover) error {
			if f.To.ID == 3 {
				sleep(50 * time.Millisecond)
				return nil
			}
			if _, err := io.WriteString(f, "hook"); err != nil {
				return err
			}
			if _, err := io.ReadFull(f, make([]byte, 2)); err != nil {
				t.Errorf("hook reads: %v", err)
			}
			peers[1].kill()
			<-ctx.Done()
			sleep(2 * pooluser.Fast.Pace) // the next one is connected
			return nil
		}
		st := l.openStream(r, pooluser.StreamConfig{Control: true, Resume: hook})
		l.converse(st, "a", "a from 1")
		peers[0].kill()
		sleep(time.Second)
		l.converse(st, "b", "b from 3")
	})
}

func TestStreamOverSCTP(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		p1, p2 := l.sctpPeer(1, param.DataAndControl), l.sctpPeer(2, param.DataAndControl)
		p1.cookie = true
		st := l.openStream(l.sessionUser(), pooluser.StreamConfig{FailoverOnEOF: true})
		l.converse(st, "a", "a from 1")
		synctest.Wait() // for the cookie
		p1.kill()
		var failover *pooluser.FailoverError
		if _, err := st.Read(make([]byte, 1)); !errors.As(err, &failover) {
			t.Errorf("read: %v", err)
		}
		st.Continue()
		l.converse(st, "b", "b from 2")
		p2.want(t, "echo a at 1", "40 b")
	})
}

func TestStreamDeadlines(t *testing.T) {
	inSession(t, 1, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		st := l.openStream(r, pooluser.StreamConfig{Control: true})
		_ = st.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		_ = st.SetDeadline(time.Time{})
		l.converse(st, "a", "a from 1")
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		if err := st.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("deadline after close: %v", err)
		}
		if _, err := st.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after close: %v", err)
		}
		if st.RemoteAddr().String() != string(pool) || st.RemoteAddr().Network() != "rserpool" {
			t.Errorf("address %v", st.RemoteAddr())
		}
		if _, err := r.OpenStream(t.Context(), pool, pooluser.StreamConfig{PPID: 11}); err == nil {
			t.Error("ASAP's PPID was taken")
		}
	})
}

// A write that a deadline interrupts ends the connection to an element that may only be slow.
func TestWriteDeadlineBlamesNobody(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.plainPeer(1)
		l.plainPeer(2)
		l.setPool(pool, param.RoundRobin, 1, 2)
		st := l.openStream(l.sessionUser(), pooluser.StreamConfig{})
		l.net.Freeze(address(1).String())
		if _, err := st.Write(make([]byte, 1000)); err != nil { // the deadline is to find a part of what is written at a time
			t.Error(err)
		}
		_ = st.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := st.Write(make([]byte, 1<<20)); n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v", n, err)
		}
		sleep(10 * time.Second)
		l.wantReports(home)
		if e, ok := st.Element(); !ok || e.ID != 2 {
			t.Errorf("element %v, %v", e.ID, ok)
		}
	})
}

// Programs that bound idle times move the deadlines of both directions with each read,
// while another goroutine may be writing.
func TestDeadlineMovedDuringAWrite(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		peers[0].set(func() { peers[0].mute = true })
		st := l.openStream(r, pooluser.StreamConfig{Control: true, Timers: pooluser.Patient})
		peers[0].freeze()
		time.AfterFunc(time.Second, func() { _ = st.SetDeadline(time.Now().Add(time.Minute)) })
		time.AfterFunc(2*time.Second, func() { l.net.Thaw(peers[0].name) })
		if n, err := st.Write(make([]byte, 400_000)); n != 400_000 || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		if e, ok := st.Element(); !ok || e.ID != 1 {
			t.Errorf("goes on with element %v, %v", e.ID, ok)
		}
	})
}
