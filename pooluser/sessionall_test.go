package pooluser_test

import (
	"errors"
	"testing"

	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/transport"
	"rserpool/pooluser"
)

func TestASAP_6_5_5_04_SendToAll(t *testing.T) {
	inSession(t, 4, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		cfg := pooluser.SessionConfig{Timers: pooluser.Fast, PPID: appPPID}
		news := pooluser.Message{Data: []byte("news")}
		if err := r.SendToAll(t.Context(), pool, cfg, news, 3); err != nil {
			t.Error(err)
		}
		for i, p := range peers {
			if i == 2 {
				p.want(t) // the sender itself
				continue
			}
			p.want(t, "40 news", "end EOF")
		}
		peers[0].kill()
		peers[1].freeze()
		err := r.SendToAll(t.Context(), pool, cfg, news)
		var failure *pooluser.DialError
		if !errors.As(err, &failure) || len(failure.Attempts) != 2 {
			t.Errorf("two of four are gone: %v", err)
		}
		peers[2].want(t, "40 news", "end EOF")
		peers[3].want(t, "40 news", "end EOF")
		l.wantReports(home, 1, 2)
		for name, bad := range map[string]pooluser.SessionConfig{"configuration": {Keep: -1}} {
			if err := r.SendToAll(t.Context(), pool, bad, news); err == nil {
				t.Errorf("bad %s was taken", name)
			}
		}
		if err := r.SendToAll(t.Context(), pool, cfg, pooluser.Message{PPID: transport.PPIDASAP}); err == nil {
			t.Error("ASAP's PPID was taken")
		}
		if err := r.SendToAll(t.Context(), "nowhere", cfg, news); !errors.Is(err, pooluser.ErrUnknownPool) {
			t.Errorf("unknown pool: %v", err)
		}
	})
}

func TestASAP_6_5_4_01_NoFailoverForAnAddress(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		peers[1].kill()
		conn, err := r.DialTo(t.Context(), pool, element(2))
		var failure *pooluser.DialError
		if !errors.As(err, &failure) || len(failure.Attempts) != 1 || failure.Attempts[0].Element.ID != 2 {
			t.Errorf("connected to %v, %v", conn, err)
		}
		for _, p := range []*peer{peers[0], peers[2]} {
			p.want(t)
			if len(p.conns) != 0 {
				t.Errorf("element %v has a connection", p.id)
			}
		}
	})
}
