package pooluser

import (
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport/framed"
)

// course leads a machine through elements of which each greets the session at once.
type course struct {
	t    *testing.T
	m    sessionMachine
	now  time.Time
	link linkKind
	id   param.PEID
	ups  int // elements that the session was up with
}

var withBeats = linkKind{control: true, beats: true, orderly: true}

func newCourse(t *testing.T, timers Timers, link linkKind) *course {
	c := &course{t: t, link: link, now: time.Unix(1000, 0), m: sessionMachine{
		pool: "p", timers: timers,
		current: func(_ param.PoolHandle, e param.PoolElement, _ time.Time) (param.PoolElement, bool) { return e, true },
		kept:    kept{on: true, store: true, limit: 256, octets: 1 << 20, ordered: true},
	}}
	c.m.open(c.now)
	if !c.up() {
		t.Fatal("not open")
	}
	return c
}

// up goes on until the session is up with another element, and reports whether it is.
func (c *course) up() bool {
	m := &c.m
	for range 10 {
		m.take()
		switch m.phase {
		case pausing:
			c.now = m.wake
			m.tick(c.now, time.Time{})
		case selecting:
			c.id = c.id%5 + 1
			m.selected(c.now, m.conn, param.PoolElement{ID: c.id}, nil)
		case connecting:
			m.connected(c.now, m.conn, c.link)
			m.kept.again(c.now)
			m.greeted(c.now, m.conn, nil)
		case up:
			c.ups++
			return true
		case ended:
			return false
		}
	}
	c.t.Fatalf("phase %d", m.phase)
	return false
}

// die lets the element fail, and goes on.
func (c *course) die() bool {
	c.m.lost(c.now, c.m.conn, framed.ErrCut)
	return c.up()
}

func (c *course) request(m Message) { c.m.kept.sent(c.m.kept.add(m, c.now)) }

func (c *course) answer(request uint64) {
	c.m.received(c.now, c.m.conn)
	c.m.kept.answered(request)
}

// live lets time pass in which the element answers heartbeats.
func (c *course) live(d time.Duration) {
	for until := c.now.Add(d); c.m.phase == up; c.m.take() {
		at, ok := c.m.deadline()
		if !ok || at.After(until) {
			c.now = until
			return
		}
		heard := c.now
		c.now = at
		c.m.tick(at, heard)
	}
}

// hang lets time pass until the session has given up an element that does nothing.
func (c *course) hang() bool {
	for c.m.phase == up {
		c.now, _ = c.m.deadline()
		c.m.tick(c.now, time.Time{})
		c.m.take()
	}
	c.m.tick(c.now, time.Time{}) // Total
	return c.up()
}

// wantEnd runs f until the session ends, which it is to do with the last of its tries.
func (c *course) wantEnd(f func() bool) {
	c.t.Helper()
	before := c.ups
	for f() {
		if c.ups-before > 3*c.m.timers.Tries {
			c.t.Fatalf("%d elements came to nothing one by one, and Tries is %d", c.ups-before, c.m.timers.Tries)
		}
	}
	if n := c.ups - before; n < c.m.timers.Tries-1 {
		c.t.Errorf("ended after %d further elements, Tries is %d", n, c.m.timers.Tries)
	}
}

// A request that kills its elements ends the session, whatever else they say before.
func TestRequestThatKillsIsCountedOn(t *testing.T) {
	for name, life := range map[string]func(c *course){
		"at once":                 func(c *course) {},
		"behind a cookie":         func(c *course) { c.m.gotCookie(c.now, c.m.conn, []byte("resumed")) },
		"behind a business card":  func(c *course) { c.m.gotCard(c.now, c.m.conn, "p", nil) },
		"behind a greeting":       func(c *course) { c.m.received(c.now, c.m.conn) },
		"a few heartbeats later":  func(c *course) { c.live(2 * c.m.timers.Silence) },
		"between others' answers": func(c *course) { c.request(Message{Request: 2}); c.answer(2) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCourse(t, Default, withBeats)
			c.m.kept.ordered = false
			c.request(Message{Request: 1})
			c.wantEnd(func() bool {
				c.now = c.now.Add(time.Millisecond)
				life(c)
				return c.die()
			})
		})
	}
	t.Run("behind others that are answered first", func(t *testing.T) {
		c := newCourse(t, Default, withBeats)
		for range 10 {
			c.request(Message{})
		}
		for range 9 { // one by one; the last one kills
			c.answer(0)
			if !c.die() {
				t.Fatal("ended although requests are answered")
			}
		}
		c.wantEnd(c.die)
	})
}

// Elements that accept and then hang, or drop the session, come to an end, too.
func TestElementsThatServeNobodyAreCountedOn(t *testing.T) {
	t.Run("hung", func(t *testing.T) {
		c := newCourse(t, Fast, withBeats)
		c.wantEnd(c.hang)
	})
	t.Run("hung, without heartbeats", func(t *testing.T) {
		c := newCourse(t, Fast, linkKind{})
		c.m.answer = 2 * Fast.Silence
		c.wantEnd(func() bool {
			c.m.kept.forget() // it is not sent again
			c.request(Message{})
			return c.hang()
		})
	})
	t.Run("alive, but without answers", func(t *testing.T) {
		c := newCourse(t, Fast, withBeats)
		c.m.answer = 2 * c.m.long()
		c.request(Message{})
		c.wantEnd(func() bool {
			c.live(c.m.answer)
			return c.up()
		})
	})
	t.Run("a cookie and the end", func(t *testing.T) {
		c := newCourse(t, Fast, withBeats)
		c.wantEnd(func() bool {
			c.m.gotCookie(c.now, c.m.conn, []byte("state"))
			return c.die()
		})
	})
}

// Sessions for which elements do their work go on, however often these are replaced.
func TestSessionsThatAreServedGoOn(t *testing.T) {
	for name, c := range map[string]struct {
		link  linkKind
		begin func(c *course)
		day   func(c *course)
	}{
		"nothing to do": {link: withBeats, day: func(c *course) { c.live(time.Hour) }},
		"nothing to do, without heartbeats": {
			day: func(c *course) { c.live(time.Hour) },
		},
		"one-way messages and cookies": {link: withBeats, day: func(c *course) {
			for range 10 {
				c.live(time.Minute)
				c.m.gotCookie(c.now, c.m.conn, []byte("state"))
			}
		}},
		"a backlog that does not get shorter": {
			link: withBeats,
			begin: func(c *course) {
				for range 200 {
					c.request(Message{})
				}
			},
			day: func(c *course) {
				c.now = c.now.Add(time.Second)
				c.answer(0)
				c.request(Message{})
			},
		},
		"a long poll among others": {
			link:  withBeats,
			begin: func(c *course) { c.m.kept.ordered = false; c.request(Message{Request: 1}) },
			day: func(c *course) {
				c.live(time.Hour)
				c.request(Message{Request: 2})
				c.answer(2)
			},
		},
		"a long poll alone": {
			link:  withBeats,
			begin: func(c *course) { c.request(Message{}) },
			day:   func(c *course) { c.live(time.Hour) },
		},
		"a long poll, and elements that drain": {
			link:  withBeats,
			begin: func(c *course) { c.request(Message{}) },
			day: func(c *course) {
				c.live(2 * Default.Silence)
				c.m.gotError(c.now, c.m.conn, &PeerError{Causes: param.OperationError{{Code: param.CauseLackOfResources}}})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			course := newCourse(t, Default, c.link)
			if c.begin != nil {
				c.begin(course)
			}
			for day := range 100 {
				c.day(course)
				if !course.die() {
					t.Fatalf("the session ended at failover %d", day)
				}
				if n := len(course.m.attempts); n > 1 {
					t.Fatalf("failover %d is told of %d elements", day, n)
				}
			}
		})
	}
}

// A quiet connection is no long failover: when its element has to be given up after an hour,
// Total counts from then.
func TestQuietConnectionIsNoLongFailover(t *testing.T) {
	c := newCourse(t, Default, linkKind{})
	c.m.answer = 2 * time.Second
	c.live(time.Hour)
	c.request(Message{})
	if !c.hang() {
		t.Error("the first request without an answer ended the session")
	}
}
