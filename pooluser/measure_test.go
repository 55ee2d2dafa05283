package pooluser_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/pooluser"
	"rserpool/selection"
)

// meter is a policy that notes what it is told of requests.
type meter struct {
	selection.Picker
	mu    sync.Mutex
	notes []string
}

func (m *meter) note(what string, id param.PEID, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes = append(m.notes, fmt.Sprintf("%s %d %v", what, id, took))
}

func (m *meter) Sent(id param.PEID, _ time.Time) { m.note("sent", id, 0) }
func (m *meter) Answered(id param.PEID, took time.Duration, _ time.Time) {
	m.note("answered", id, took)
}

func (m *meter) Unanswered(id param.PEID, took time.Duration, failed bool, _ time.Time) {
	what := "given up"
	if failed {
		what = "failed"
	}
	m.note(what, id, took)
}

func (m *meter) want(t *testing.T, want ...string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Equal(m.notes, want) {
		t.Errorf("the policy was told %q, want %q", m.notes, want)
	}
	m.notes = nil
}

// metered returns a session user that selects in turn, by a policy that measures.
func (l *lab) metered() (*pooluser.Resolver, *meter) {
	m := &meter{Picker: selection.PickInOrder(nil)}
	return l.user(func(c *pooluser.Config) {
		c.DialStream = l.net.Host(userAt).DialStream
		c.Pick = func(param.PoolHandle, param.PolicyType) func(*rand.Rand) selection.Picker {
			return func(*rand.Rand) selection.Picker { return m }
		}
	}), m
}

func TestSessionsMeasureTheirRequests(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, _ *hunttest.Registrar, peers []*peer, _ *pooluser.Resolver) {
		r, m := l.metered()
		s := l.openSession(r, pooluser.SessionConfig{Delivery: pooluser.AtLeastOnce})
		l.sendTo(s, "a")
		l.wantNext(s, "a from 1")
		m.want(t, "sent 1 0s", "answered 1 0s")

		peers[0].set(func() { peers[0].mute = true })
		l.sendTo(s, "b")
		sleep(50 * time.Millisecond)
		peers[0].kill()
		l.wantNext(s, "b from 2")
		m.want(t, "sent 1 0s", "failed 1 50ms", "sent 2 0s", "answered 2 0s")

		peers[1].set(func() { peers[1].mute = true })
		l.sendTo(s, "c")
		sleep(70 * time.Millisecond)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		m.want(t, "sent 2 0s", "given up 2 70ms")
	})
}

// An element that is given up for no reason given has not answered.
func TestMeasuresOfAForcedFailover(t *testing.T) {
	inSession(t, 2, func(t *testing.T, l *lab, _ *hunttest.Registrar, peers []*peer, _ *pooluser.Resolver) {
		r, m := l.metered()
		s := l.openSession(r, pooluser.SessionConfig{Delivery: pooluser.AtLeastOnce, Notifications: true})
		peers[0].set(func() { peers[0].mute = true })
		l.sendTo(s, "a")
		s.Failover(nil)
		l.wantNext(s, "[failover begun 1: the application gives the element up]", "[failed over 2]", "a from 2")
		m.want(t, "sent 1 0s", "failed 1 0s", "sent 2 0s", "answered 2 0s")
	})
}

// Where the application has not said that messages are requests there is nothing to
// measure.
func TestSessionsWithoutRequestsMeasureNothing(t *testing.T) {
	inSession(t, 1, func(t *testing.T, l *lab, _ *hunttest.Registrar, _ []*peer, _ *pooluser.Resolver) {
		r, m := l.metered()
		s := l.openSession(r, pooluser.SessionConfig{})
		l.sendTo(s, "a")
		l.wantNext(s, "a from 1")
		m.want(t)
	})
}
