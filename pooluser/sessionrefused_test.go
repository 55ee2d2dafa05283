package pooluser_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
	"rserpool/pooluser"
)

// kernelHost refuses what the kernel's SCTP refuses: empty messages.
type kernelHost struct{ sctpHost }

func (h kernelHost) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	conn, err := h.sctpHost.Dial(ctx, local, remote, opt)
	if err != nil {
		return nil, err
	}
	return kernelConn{conn}, nil
}

type kernelConn struct{ transport.Conn }

func (c kernelConn) Send(ctx context.Context, msgs ...transport.Message) error {
	for _, m := range msgs {
		if len(m.Data) == 0 {
			return os.NewSyscallError("sendmsg", syscall.EINVAL)
		}
	}
	return c.Conn.Send(ctx, msgs...)
}

func (l *lab) kernelUser() *pooluser.Resolver {
	return l.user(func(c *pooluser.Config) {
		c.DialStream = l.net.Host(userAt).DialStream
		c.Networks = transport.NewNetworks(l.net.Host(userAt), kernelHost{sctpHost{l.net.Host(userAt)}})
	})
}

// What a transport does not take says nothing about the element, which goes on to serve.
func TestMessagesThatTheTransportRefuses(t *testing.T) {
	for _, delivery := range []pooluser.Delivery{pooluser.AtMostOnce, pooluser.AtLeastOnce} {
		inLab(t, func(t *testing.T, l *lab) {
			home := l.registrar(home1)
			p := l.sctpPeer(1, param.DataAndControl)
			l.sctpPeer(2, param.DataAndControl)
			var hook []error
			s := l.openSession(l.kernelUser(), pooluser.SessionConfig{MaxMessage: 1 << 20, Delivery: delivery, OnFailover: func(ctx context.Context, f *pooluser.Failover) error {
				hook = append(hook, f.Send(ctx, pooluser.Message{}))
				return nil
			}})
			refused := func() {
				t.Helper()
				if err := s.Send(t.Context(), pooluser.Message{Data: make([]byte, 70000)}); !errors.Is(err, transport.ErrTooLong) {
					t.Errorf("70000 octets over SCTP: %v", err)
				}
				if err := s.Send(t.Context(), pooluser.Message{}); !errors.Is(err, syscall.EINVAL) {
					t.Errorf("an empty message: %v", err)
				}
			}
			refused()
			sleep(10 * time.Second)
			l.sendTo(s, "x")
			l.wantNext(s, "x from 1")
			l.wantReports(home)
			refused()
			p.kill()
			l.sendTo(s, "y") // what was refused is not sent again
			l.wantNext(s, "y from 2")
			l.wantReports(home, 1)
			if len(hook) != 1 || !errors.Is(hook[0], syscall.EINVAL) {
				t.Errorf("the hook's empty message: %v", hook)
			}
		})
	}
}

// A request that goes over TCP but not over SCTP waits for another element that it can go to.
func TestKeptMessagesThatTheTransportRefuses(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.scripted(1, inFrames(dies))
		l.scripted(3, inFrames(func(c *framed.Conn) {
			if m, err := c.Next(context.Background()); err == nil && len(m.Data) == 0 {
				say(c, "well")
			}
		}))
		l.setPool(pool, param.RoundRobin, 1, 2, 3)
		l.pools[pool].Elements[1].User.Type = param.TypeSCTPTransport
		defer l.listenSCTP(2).Close()
		s := l.openSession(l.kernelUser(), pooluser.SessionConfig{Delivery: pooluser.AtLeastOnce})
		l.sendTo(s, "")
		l.wantNext(s, "well")
		l.wantReports(home, 1)
	})
}

func TestSendToAllRefusesBeforeItBlames(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.peers(1)
		e := element(2)
		e.User.Type = param.TypeSCTPTransport
		l.pools[pool].Elements = append(l.pools[pool].Elements, e)
		r := l.kernelUser()
		defer l.listenSCTP(2).Close()
		var failure *pooluser.DialError
		err := r.SendToAll(t.Context(), pool, pooluser.SessionConfig{}, pooluser.Message{Data: make([]byte, 1<<16+1)})
		if !errors.Is(err, transport.ErrTooLong) || errors.As(err, &failure) {
			t.Errorf("a message above MaxMessage: %v", err)
		}
		for _, m := range []pooluser.Message{{Data: make([]byte, 70000)}, {}} {
			err := r.SendToAll(t.Context(), pool, pooluser.SessionConfig{MaxMessage: 1 << 20}, m)
			if !errors.As(err, &failure) || len(failure.Attempts) != 1 || failure.Attempts[0].Element.ID != 2 {
				t.Errorf("a message of %d octets that SCTP does not take: %v", len(m.Data), err)
			}
		}
		l.wantReports(home)
	})
}
