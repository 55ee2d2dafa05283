package pooluser

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport/framed"
)

// world plays everything around a machine: elements that may be dead, full, hung or
// slow, a resolver that may know nobody, and an application. It checks what the machine
// may never do.
type world struct {
	t     *testing.T
	rand  *rand.Rand
	now   time.Time
	start time.Time
	m     sessionMachine
	log   []string

	dead, hung, full map[param.PEID]bool
	elements         []param.PEID

	halted     bool // between doHalt and doUp
	linked     bool
	peer       param.PEID
	heard      time.Time
	pending    []event // what is on its way to the machine
	newest     string  // cookie
	began      time.Time
	tries      []time.Time // doConnects of this failover
	failing    bool
	asked      map[param.PEID]int // attempts that were not reported
	end        error
	greetings  int
	heartbeats int
}

type event struct {
	at time.Time
	f  func()
}

func newWorld(t *testing.T, seed uint64, elements int) *world {
	w := &world{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0),
		dead: map[param.PEID]bool{}, hung: map[param.PEID]bool{}, full: map[param.PEID]bool{}, asked: map[param.PEID]int{},
	}
	w.start = w.now
	for i := range elements {
		w.elements = append(w.elements, param.PEID(i+1))
	}
	timers := []Timers{Fast, Default, Patient}[w.rand.IntN(3)]
	timers.Tries = 2 + w.rand.IntN(10)
	w.m = sessionMachine{
		pool: "p", timers: timers, current: func(_ param.PoolHandle, e param.PoolElement, _ time.Time) (param.PoolElement, bool) { return e, true },
		kept: kept{on: true, ordered: true},
	}
	if w.rand.IntN(2) == 0 {
		w.m.answer = timers.Silence
	}
	return w
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	from := max(0, len(w.log)-40)
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.log[from:], "\n"))
}

func (w *world) note(format string, args ...any) {
	if len(w.log) > 200 {
		w.log = append(w.log[:0], w.log[100:]...)
	}
	w.log = append(w.log, fmt.Sprintf("%8v ", w.now.Sub(w.start))+fmt.Sprintf(format, args...))
}

func (w *world) later(d time.Duration, f func()) {
	w.pending = append(w.pending, event{w.now.Add(d), f})
}

// some is a random time up to d.
func (w *world) some(d time.Duration) time.Duration {
	return time.Duration(w.rand.Int64N(int64(d) + 1))
}

// act carries out what the machine wants.
func (w *world) act() {
	for actions := w.m.take(); len(actions) > 0; actions = w.m.take() {
		for _, a := range actions {
			w.perform(a)
		}
	}
}

func (w *world) perform(a action) {
	if w.end != nil {
		w.fatalf("%T after the end", a)
	}
	w.note("%T", a)
	switch a := a.(type) {
	case doSelect:
		w.later(w.some(5*time.Millisecond), func() {
			if len(w.elements) == 0 {
				w.m.selected(w.now, a.conn, param.PoolElement{}, ErrUnknownPool)
				return
			}
			w.m.selected(w.now, a.conn, param.PoolElement{ID: w.elements[w.rand.IntN(len(w.elements))]}, nil)
		})
	case doConnect:
		w.connect(a)
	case doGreet:
		w.greet(a)
	case doCancel:
	case doDrop:
		w.linked = false
	case doAvoid:
		if !a.report {
			break
		}
		if w.asked[a.element.ID]--; w.asked[a.element.ID] < 0 {
			w.fatalf("element %v is reported twice", a.element.ID)
		}
	case doResolve:
	case doBeat:
		if !w.linked {
			w.fatalf("a heartbeat without connection")
		}
		w.heartbeats++
		w.later(0, func() {
			if w.linked && !w.hung[w.peer] && !w.dead[w.peer] {
				w.heard = w.now
			}
		})
	case doUp:
		if !w.linked {
			w.fatalf("messages go without connection")
		}
		w.halted = false
	case doHalt:
		w.halted = true
	case doNotify:
		w.notify(a.n)
	case doEnd:
		w.end = a.err
		if w.linked {
			w.fatalf("the session ends and leaves its connection")
		}
	default:
		w.fatalf("action %T", a)
	}
}

func (w *world) connect(a doConnect) {
	timers := w.m.timers
	if n := len(w.tries); n > 0 && w.now.Sub(w.tries[n-1]) < 0 {
		w.fatalf("attempts out of order")
	}
	w.tries = append(w.tries, w.now)
	w.asked[a.element.ID]++
	if w.linked {
		w.fatalf("a second connection")
	}
	id := a.element.ID
	switch {
	case w.hung[id]: // nothing
	case w.dead[id]:
		w.later(w.some(time.Millisecond), func() { w.m.connectFailed(w.now, a.conn, errors.New("refused")) })
	default:
		w.later(w.some(timers.Connect/2), func() {
			if w.m.conn != a.conn || w.m.phase != connecting {
				return
			}
			w.linked, w.peer, w.heard = true, id, w.now
			w.m.connected(w.now, a.conn, linkKind{control: true, beats: true, orderly: true})
			if w.full[id] {
				w.later(w.some(time.Millisecond), func() {
					w.m.gotError(w.now, a.conn, &PeerError{Causes: param.OperationError{{Code: param.CauseLackOfResources}}})
					w.m.lost(w.now, a.conn, io.EOF)
				})
			}
		})
	}
}

func (w *world) greet(a doGreet) {
	w.greetings++
	if string(a.cookie) != w.newest {
		w.fatalf("cookie %q, the newest is %q", a.cookie, w.newest)
	}
	if (a.report != nil) != w.m.opened {
		w.fatalf("hook called: %v, opened before: %v", a.report != nil, w.m.opened)
	}
	if a.report != nil && (a.report.To.ID != w.peer || len(a.report.Tried) == 0 || a.report.Cause == nil) {
		w.fatalf("the hook hears of %+v", a.report)
	}
	if w.hung[w.peer] || w.dead[w.peer] {
		return
	}
	w.later(w.some(w.m.timers.Heartbeat), func() { w.m.greeted(w.now, a.conn, nil) })
}

func (w *world) notify(n Notification) {
	switch n.Kind {
	case FailoverBegun:
		if w.failing || n.Err == nil {
			w.fatalf("%+v while one goes on: %v", n, w.failing)
		}
		w.failing, w.began, w.tries = true, w.now, nil
	case FailedOver:
		if !w.failing || n.Element.ID != w.peer {
			w.fatalf("%+v, failing %v", n, w.failing)
		}
		w.failing = false
	}
}

// check looks for what may never be.
func (w *world) check() {
	m := &w.m
	if len(m.attempts) > m.timers.Tries+2*int(m.timers.Total/m.timers.Pace) {
		w.fatalf("%d attempts", len(m.attempts))
	}
	if m.phase == up && m.broken == nil && w.halted {
		w.fatalf("up, and nothing goes")
	}
	if _, ok := m.deadline(); !ok && m.phase != ended && m.phase != up {
		w.fatalf("nothing will wake phase %d", m.phase)
	}
	if w.failing && w.now.Sub(m.began) > m.timers.Total {
		w.fatalf("a failover for %v", w.now.Sub(m.began))
	}
	if m.phase == up && w.hung[w.peer] && w.now.Sub(w.heard) > m.timers.Silence {
		w.fatalf("element %v has been silent for %v", w.peer, w.now.Sub(w.heard))
	}
	for i := 1; i < len(w.tries); i++ {
		if d := w.tries[i].Sub(w.tries[i-1]); d < m.timers.Pace-5*time.Millisecond { // selection takes up to 5 ms of it
			w.fatalf("two attempts within %v", d)
		}
	}
}

// step goes to whatever is next: an event, or the machine's deadline.
func (w *world) step(until time.Time) bool {
	next, at := -1, until
	if d, ok := w.m.deadline(); ok && d.Before(at) {
		at = d
	}
	for i, e := range w.pending {
		if e.at.Before(at) || next == -1 && e.at.Equal(at) {
			next, at = i, e.at
		}
	}
	if at.After(w.now) {
		w.now = at
	}
	switch {
	case next >= 0:
		f := w.pending[next].f
		w.pending = slices.Delete(w.pending, next, next+1)
		f()
	case at.Equal(until):
		return false
	default:
		heard := time.Time{}
		if w.linked {
			heard = w.heard
		}
		w.m.tick(w.now, heard)
	}
	w.act()
	w.check()
	return w.end == nil
}

func (w *world) run(d time.Duration) {
	until := w.now.Add(d)
	for steps := 0; w.step(until); steps++ {
		if steps > 200_000 {
			w.fatalf("no end in sight")
		}
	}
}

// strike does something to the world.
func (w *world) strike() {
	id := param.PEID(1 + w.rand.IntN(5))
	conn := w.m.conn
	switch w.rand.IntN(10) {
	case 0:
		w.dead[id] = true
		w.note("kill %v", id)
		if w.linked && w.peer == id {
			w.later(w.some(time.Millisecond), func() { w.m.lost(w.now, conn, framed.ErrCut) })
		}
	case 1:
		w.hung[id] = true
		w.note("hang %v", id)
	case 2:
		w.full[id] = true
		w.note("fill %v", id)
	case 3, 4:
		w.dead[id], w.hung[id], w.full[id] = false, false, false
		w.note("heal %v", id)
	case 5, 6:
		if w.linked && !w.dead[w.peer] && !w.hung[w.peer] {
			cookie := fmt.Sprint("cookie ", w.rand.IntN(1000))
			w.m.gotCookie(w.now, conn, []byte(cookie))
			if w.m.phase == up || w.m.phase == greeting {
				w.newest = cookie
			}
		}
	case 7:
		if w.linked && !w.dead[w.peer] && !w.hung[w.peer] {
			w.m.gotCard(w.now, conn, "p", []param.PoolElement{{ID: param.PEID(1 + w.rand.IntN(5))}, {ID: param.PEID(1 + w.rand.IntN(5))}})
		}
	case 8:
		w.m.cannotSend(w.now, conn, errors.New("broken pipe"), unreachable)
	case 9:
		w.m.forced(w.now, errors.New("wrong answer"))
	}
	w.act()
	w.check()
}

// Under any sequence of faults the machine keeps its promises; when these end it is
// up with an element that is well, or has ended with an error that says why.
func TestMachineUnderFaults(t *testing.T) {
	const schedules = 300
	for seed := range uint64(schedules) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, seed, 5)
			w.m.open(w.now)
			w.act()
			for range 40 {
				if w.end != nil {
					break
				}
				w.strike()
				w.run(w.some(w.m.timers.Silence))
			}
			clear(w.dead)
			clear(w.hung)
			clear(w.full)
			w.note("all is well again")
			if w.end == nil && w.linked {
				w.heard = w.now
			}
			w.run(w.m.timers.Total + time.Minute)
			switch {
			case w.end == nil && (w.m.phase != up || !w.linked || w.failing):
				w.fatalf("phase %d at the end", w.m.phase)
			case w.end != nil:
				var failure *DialError
				if !errors.As(w.end, &failure) || len(failure.Attempts) == 0 {
					w.fatalf("ended with %v", w.end)
				}
			}
		})
	}
}

func TestMachineWithoutElements(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.m.open(w.now)
	w.act()
	w.run(w.m.timers.Connect)
	w.elements = nil
	w.m.lost(w.now, w.m.conn, framed.ErrCut)
	w.act()
	w.run(w.m.timers.Total * 2)
	if !errors.Is(w.end, ErrUnknownPool) || !errors.Is(w.end, ErrFailoverTime) {
		t.Errorf("ended with %v", w.end)
	}
}

// A tick that comes late tells that this process was stopped: elements get another
// chance to give a sign of life.
func TestMachineThatWasStopped(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.m.answer = 0
	w.m.timers = Fast
	w.m.open(w.now)
	w.act()
	w.run(time.Second)
	if w.m.phase != up || w.heartbeats == 0 {
		t.Fatalf("phase %d, %d heartbeats", w.m.phase, w.heartbeats)
	}
	w.now = w.now.Add(time.Hour)
	w.m.tick(w.now, w.heard)
	w.act()
	if w.m.phase != up {
		t.Error("the element is blamed for an hour of ours")
	}
	w.hung[1], w.heard = true, w.now
	w.run(Fast.Silence + Fast.Heartbeat)
	if w.m.phase == up && w.peer == 1 && w.linked {
		t.Error("the element hangs, and nobody notices")
	}
}

// That holds from the first moment, for elements without heartbeats, and while connecting; and
// afterwards elements are given up as ever.
func TestMachineThatWasStoppedBlamesNobody(t *testing.T) {
	for name, c := range map[string]struct {
		link  linkKind
		begin func(c *course)
	}{
		"with a new element": {link: withBeats},
		"right after a request": {link: withBeats, begin: func(c *course) {
			c.request(Message{})
		}},
		"right after a request, without heartbeats": {begin: func(c *course) {
			c.live(time.Minute)
			c.request(Message{})
		}},
		"while connecting": {link: withBeats, begin: func(c *course) {
			c.m.lost(c.now, c.m.conn, framed.ErrCut)
			c.now = c.m.wake
			c.m.tick(c.now, time.Time{})
			c.m.selected(c.now, c.m.conn, param.PoolElement{ID: 2}, nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			course := newCourse(t, Default, c.link)
			course.m.answer = 2 * time.Second
			if c.begin != nil {
				c.begin(course)
			}
			course.m.take()
			phase, conn := course.m.phase, course.m.conn
			course.now = course.now.Add(Default.Total - time.Second) // stopped
			course.m.tick(course.now, time.Time{})
			if course.m.phase != phase || course.m.conn != conn {
				t.Errorf("phase %d after %d: given up after a stop of ours", course.m.phase, phase)
			}
			course.request(Message{})
			before := course.now
			for course.m.conn == conn && course.m.phase == phase {
				course.now, _ = course.m.deadline()
				course.m.tick(course.now, time.Time{})
			}
			if took := course.now.Sub(before); took > 2*time.Second {
				t.Errorf("then it took %v to give up who does nothing", took)
			}
		})
	}
}

func TestMachineStaleReports(t *testing.T) {
	w := newWorld(t, 1, 2)
	w.m.timers = Fast
	w.m.open(w.now)
	w.act()
	w.run(time.Second)
	conn := w.m.conn
	w.m.lost(w.now, conn, framed.ErrCut)
	w.act()
	w.run(time.Second)
	if w.m.phase != up || w.m.conn == conn {
		t.Fatalf("phase %d, connection %d", w.m.phase, w.m.conn)
	}
	before := w.m.phase
	w.m.lost(w.now, conn, framed.ErrCut)
	w.m.connectFailed(w.now, conn, errors.New("late"))
	w.m.connected(w.now, conn, linkKind{})
	w.m.greeted(w.now, conn, errors.New("late"))
	w.m.selected(w.now, conn, param.PoolElement{}, errors.New("late"))
	w.m.cannotSend(w.now, conn, errors.New("late"), unreachable)
	w.m.gotCookie(w.now, conn, []byte("late"))
	w.m.gotError(w.now, conn, &PeerError{})
	if actions := w.m.take(); w.m.phase != before || len(actions) != 0 || w.m.cookie != nil {
		t.Errorf("late reports of an old connection lead to %v", actions)
	}
	w.m.close(net.ErrClosed)
	w.act()
	w.m.close(net.ErrClosed)
	if w.end == nil || len(w.m.take()) != 0 {
		t.Error("closed twice")
	}
}
