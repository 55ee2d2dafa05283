package pooluser_test

import (
	"testing"
	"time"

	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/pooluser"
)

// movedTo is an element that was started again at another address.
func movedTo(id, at param.PEID) param.PoolElement {
	e := element(id)
	e.User = element(at).User
	return e
}

// restart puts the element into the pool at the address of another, in place of its own.
func (l *lab) restart(id, at param.PEID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer := *l.pools[pool]
	answer.Elements = nil
	for _, e := range l.pools[pool].Elements {
		if e.ID == id {
			e = movedTo(id, at)
		}
		answer.Elements = append(answer.Elements, e)
	}
	l.pools[pool] = &answer
}

// An element that was started again is another one: the failure of its former life is
// none of its own.
func TestElementsThatMovedAreNotBlamedForTheirFormerLife(t *testing.T) {
	inSession(t, 1, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		again := &peer{l: l, id: 9, name: address(9).String()}
		again.start()
		s := l.openSession(r, pooluser.SessionConfig{})
		l.sendTo(s, "a")
		l.wantNext(s, "a from 1")
		sleep(time.Second)
		l.restart(1, 9)
		if _, err := r.Renew(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		peers[0].kill()
		l.sendTo(s, "b")
		l.wantNext(s, "b from 9")
		if took := time.Since(start); took > 0 {
			t.Errorf("went on after %v", took)
		}
		l.wantReports(home)
	})
}

func TestDialFindsElementsThatMoved(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab) {
		home := l.registrar(home1)
		l.setPool(pool, param.RoundRobin, 1)
		r := l.user(nil)
		l.wantAnswer(r, 1)
		l.restart(1, 9)
		l.fail(1, true)
		start := time.Now()
		if got := l.dialOK(r); got != 1 { // at the old address, and then at the new one
			t.Errorf("connected to %v", got)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("connected after %v", took)
		}
		l.wantReports(home, 1)
		conn, err := r.Dial(t.Context(), pool)
		if err != nil {
			t.Fatal(err)
		}
		l.restart(1, 8)
		sleep(time.Second)
		if _, err := r.Renew(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
		if err := conn.Failed(t.Context()); err != nil {
			t.Error(err)
		}
		l.wantReports(home, 1)
	})
}

// The newest word on an element's addresses counts, not that of a business card.
func TestCardsOfElementsThatMoved(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, home *hunttest.Registrar, peers []*peer, r *pooluser.Resolver) {
		again := &peer{l: l, id: 9, name: address(9).String()}
		again.start()
		s := l.openSession(r, pooluser.SessionConfig{Timers: pooluser.Default})
		peers[0].card(pool, 2)
		sleep(time.Second)
		l.restart(2, 9)
		if _, err := r.Renew(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
		peers[0].kill()
		l.sendTo(s, "x")
		l.wantNext(s, "x from 9")
		peers[1].want(t)
		l.wantReports(home, 1)
	})
}
