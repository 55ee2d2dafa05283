package pooluser_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
	"rserpool/asap/transport/transporttest"
	"rserpool/pooluser"
)

// framedListener is the element's socket for sessions by TCP.
func (l *lab) framedListener(id param.PEID) transport.Listener {
	l.t.Helper()
	name := address(id).String()
	socket, err := l.net.Host(name).ListenStream(l.t.Context(), "tcp", fmt.Sprintf("%s:%d", name, service))
	if err != nil {
		l.t.Fatal(err)
	}
	return framed.NewListener(socket, framed.Options{})
}

// What was sent before Close arrives although the element is in the middle of sending
// more than anybody takes.
func TestCloseLosesNothingOfWhatWasSent(t *testing.T) {
	for name, c := range map[string]struct {
		listen func(l *lab) transport.Listener
		of     param.Type
	}{
		"TCP":  {func(l *lab) transport.Listener { return l.framedListener(1) }, param.TypeTCPTransport},
		"SCTP": {func(l *lab) transport.Listener { return over{l.listenSCTP(1)} }, param.TypeSCTPTransport},
	} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(t *testing.T, l *lab) {
				l.registrar(home1)
				l.setPool(pool, param.RoundRobin, 1)
				l.pools[pool].Elements[0].User.Type = c.of
				l.pools[pool].Elements[0].User.Use = param.DataAndControl
				listener := c.listen(l)
				defer listener.Close()
				got := make(chan string, 1)
				go func() {
					conn, err := listener.Accept(t.Context())
					if err != nil {
						got <- err.Error()
						return
					}
					defer conn.Close()
					if a, ok := conn.(*framed.Assoc); ok {
						go a.Beat() // shows the user that it has heartbeats
					}
					for i := 0; i < 200 && err == nil; i++ {
						err = conn.Send(t.Context(), transport.Message{Data: make([]byte, 10000), PPID: appPPID})
					}
					if err != nil {
						got <- err.Error()
						return
					}
					m, err := conn.Receive(t.Context(), make([]byte, 100))
					got <- fmt.Sprintf("%s %v", m.Data, err)
				}()
				s := l.openSession(l.sessionUser(), pooluser.SessionConfig{Timers: pooluser.Patient, SCTPHeartbeats: true})
				time.Sleep(100 * time.Millisecond) // the element can't send more
				if err := s.Send(t.Context(), pooluser.Message{Data: []byte("last words"), OneWay: true}); err != nil {
					t.Error(err)
				}
				start := time.Now()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				if want, got := "last words <nil>", <-got; got != want {
					t.Errorf("the element got %q, want %q", got, want)
				}
				if took := time.Since(start); took > 100*time.Millisecond {
					t.Errorf("Close took %v although the element ended", took)
				}
			})
		})
	}
}

// Close waits for an element that does not end, but not for long.
func TestCloseIsBounded(t *testing.T) {
	for timers, most := range map[pooluser.Timers]time.Duration{
		pooluser.Fast: pooluser.Fast.Connect, pooluser.Patient: time.Second,
	} {
		inSession(t, 1, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
			s := l.openSession(r, pooluser.SessionConfig{Timers: timers})
			peers[0].freeze()
			start := time.Now()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took != most {
				t.Errorf("Close took %v, want %v", took, most)
			}
		})
	}
}

// TLS would wait for room to say goodbye.
func TestCloseOfAStreamOverTLSIsBounded(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		l.net.Buffer = 16 << 10
		cert, trusted := transporttest.Certificate(t, "element")
		l.scripted(1, func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake() // and does not read on
		})
		r := l.securedUser(trusted)
		st := l.openStream(r, pooluser.StreamConfig{Timers: pooluser.Default})
		sleep(time.Second)
		l.net.Freeze("192.0.2.1")
		for range l.net.Buffer / 23 { // records of 23 octets: no room for another
			if _, err := st.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("Close took %v", took)
		}
	})
}

// TLS can't go on after a write that a deadline has interrupted. The stream goes on with
// another element, and none is to blame.
func TestDeadlinesOfStreamsOverTLS(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1, 2)
		cert, trusted := transporttest.Certificate(t, "element")
		for id := param.PEID(1); id <= 2; id++ {
			name := address(id).String()
			socket, err := l.net.Host(name).ListenStream(t.Context(), "tcp", fmt.Sprintf("%s:%d", name, service))
			if err != nil {
				t.Fatal(err)
			}
			defer socket.Close()
			go func() {
				for {
					conn, err := tls.NewListener(socket, &tls.Config{Certificates: []tls.Certificate{cert}}).Accept()
					if err != nil {
						return
					}
					go func() {
						defer conn.Close()
						_ = conn.(*tls.Conn).Handshake()
						<-t.Context().Done() // it does not read
					}()
				}
			}()
		}
		r := l.securedUser(trusted)
		st := l.openStream(r, pooluser.StreamConfig{Timers: pooluser.Default})
		_ = st.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := st.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("to an element that does not read: %v", err)
		}
		_ = st.SetWriteDeadline(time.Time{})
		var failover *pooluser.FailoverError
		if _, err := st.Write([]byte("x")); !errors.As(err, &failover) || !errors.Is(err, transport.ErrInterruptedTLS) {
			t.Errorf("after the deadline: %v", err)
		}
		st.Continue()
		if _, err := st.Write([]byte("x")); err != nil {
			t.Errorf("to the next element: %v", err)
		}
		l.wantReports(home)
	})
}

// securedUser makes a user that reaches elements over TLS.
func (l *lab) securedUser(trusted *x509.CertPool) *pooluser.Resolver {
	return l.user(func(c *pooluser.Config) {
		c.DialStream = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := l.net.Host(userAt).DialStream(ctx, network, address)
			if err != nil {
				return nil, err
			}
			secured := tls.Client(conn, &tls.Config{RootCAs: trusted, ServerName: "element"})
			return secured, secured.HandshakeContext(ctx)
		}
	})
}
