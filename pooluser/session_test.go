package pooluser_test

import (
	"testing"

	"rserpool/asap/hunt/hunttest"
	"rserpool/pooluser"
)

func TestSessionSurvivesAKill(t *testing.T) {
	inSession(t, 3, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		peers[0].cookie = true
		s := l.openSession(r, pooluser.SessionConfig{Notifications: true})
		l.sendTo(s, "a")
		l.wantNext(s, "a from 1", "[cookie received 1]")
		peers[0].kill()
		l.wantNext(s, "[failover begun 1: connection cut off]", "[failed over 2]")
		l.sendTo(s, "b")
		l.wantNext(s, "b from 2")
		peers[1].want(t, "echo a at 1", "40 b")
		l.wantReports(home, 1)
	})
}
