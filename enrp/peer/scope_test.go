package peer

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

// scope is a set of machines that talk to each other over links that delay, break
// and lose, in virtual time.
type scope struct {
	t     *testing.T
	seed  uint64
	rand  *rand.Rand
	now   time.Time
	nodes map[param.RegistrarID]*node
	last  Link
	log   []string
	// events in the order of their times.
	events []event
	faults bool
	won    int // takeovers
}

type node struct {
	id    param.RegistrarID
	m     *Machine
	space *space
	dead  bool
	ends  map[Link]*end
}

// end is one end of a connection.
type end struct {
	to     *node
	link   Link // there
	free   time.Time
	broken bool
}

type event struct {
	at time.Time
	do func()
}

func newScope(t *testing.T, seed uint64, n int, change ...func(*Config)) *scope {
	s := &scope{t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1000, 0), nodes: make(map[param.RegistrarID]*node), faults: true}
	for i := range n {
		s.start(param.RegistrarID(i+1), i > 0, change...)
		s.run(20 * time.Second)
	}
	return s
}

// start starts a machine; with mentor, node 1 or another that lives is one.
func (s *scope) start(id param.RegistrarID, mentor bool, change ...func(*Config)) *node {
	n := &node{id: id, space: &space{elements: make(map[Key]Element)}, ends: make(map[Link]*end)}
	cfg := Config{Self: info(id), Table: n.space, Timers: Rsplib()}
	if mentor {
		cfg.Mentors = 1
	}
	for _, f := range change {
		f(&cfg)
	}
	s.nodes[id] = n
	n.m = New(cfg, s.now)
	s.act(n)
	return n
}

func (s *scope) living() []*node {
	var out []*node
	for _, id := range slices.Sorted(maps.Keys(s.nodes)) {
		if !s.nodes[id].dead {
			out = append(out, s.nodes[id])
		}
	}
	return out
}

func (s *scope) later(d time.Duration, do func()) {
	e := event{s.now.Add(d), do}
	i, _ := slices.BinarySearchFunc(s.events, e, func(x, y event) int {
		if x.at.After(y.at) {
			return 1
		}
		return -1 // behind those of the same time
	})
	s.events = slices.Insert(s.events, i, e)
}

// act does what a machine wants to have done.
func (s *scope) act(n *node) {
	for _, a := range n.m.Ready() {
		n.space.apply(a)
		switch a := a.(type) {
		case Send:
			s.send(n, a)
		case Dial:
			s.dial(n, a)
		case HangUp:
			s.cut(n, a.Link, true)
		case Changed:
			s.log = append(s.log, fmt.Sprintf("%v %v: %v is %v, %s", s.now.Sub(time.Unix(1000, 0)), n.id, a.Peer, a.State, a.Why))
		case TakeOver:
			s.log = append(s.log, fmt.Sprintf("%v %v: %v takes over %v", s.now.Sub(time.Unix(1000, 0)), n.id, a.Home, a.Target))
			if a.Home == n.id {
				s.won++
			}
		}
	}
}

func (s *scope) send(n *node, a Send) {
	e := n.ends[a.Link]
	if e == nil || e.broken {
		return
	}
	data := a.Octets
	if a.Message != nil {
		var err error
		if data, err = a.Message.Append(nil); err != nil {
			s.t.Fatal(err)
		}
	}
	// Messages of a link keep their order.
	delay := time.Duration(s.rand.IntN(20)) * time.Millisecond
	if at := s.now.Add(delay); e.free.After(at) {
		delay = e.free.Sub(s.now)
	}
	e.free = s.now.Add(delay)
	s.later(delay, func() {
		if e.to.dead || e.to.ends[e.link] == nil {
			return
		}
		m, _, err := enrp.Decode(data)
		if err != nil {
			s.t.Fatal(err)
		}
		e.to.m.Received(e.link, m, s.now)
		s.act(e.to)
	})
}

func (s *scope) dial(n *node, d Dial) {
	s.later(time.Duration(s.rand.IntN(20))*time.Millisecond, func() {
		if n.dead {
			return
		}
		var to *node
		if d.Mentor >= 0 {
			for _, other := range s.living() {
				if other != n && other.m.Serving() && to == nil {
					to = other
				}
			}
		} else {
			to = s.nodes[param.RegistrarID(d.To.Addrs[0].As4()[3])]
		}
		if to == nil || to.dead {
			n.m.DialFailed(d.ID, false, s.now)
			s.act(n)
			return
		}
		s.last += 2
		here, there := s.last, s.last+1
		n.ends[here] = &end{to: to, link: there}
		to.ends[there] = &end{to: n, link: here}
		n.m.LinkUp(d.ID, here, s.now)
		s.act(n)
	})
}

// cut breaks a connection; the side that did it knows.
func (s *scope) cut(n *node, l Link, byItself bool) {
	e := n.ends[l]
	if e == nil {
		return
	}
	e.broken = true
	delete(n.ends, l)
	if !byItself && !n.dead {
		n.m.LinkDown(l, s.now)
		s.act(n)
	}
	s.later(time.Duration(s.rand.IntN(20))*time.Millisecond, func() {
		if e.to.ends[e.link] != nil && !e.to.dead {
			delete(e.to.ends, e.link)
			e.to.m.LinkDown(e.link, s.now)
			s.act(e.to)
		}
	})
}

func (s *scope) kill(n *node) {
	s.log = append(s.log, fmt.Sprintf("%v kill %v", s.now.Sub(time.Unix(1000, 0)), n.id))
	n.dead = true
	for _, l := range slices.Sorted(maps.Keys(n.ends)) {
		s.cut(n, l, true)
	}
}

// run lets time pass.
func (s *scope) run(d time.Duration) {
	end := s.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 2_000_000 {
			s.fail("does not come to rest")
		}
		next := end
		var who *node
		for _, n := range s.living() {
			if at := n.m.Next(); at.Before(next) {
				next, who = at, n
			}
		}
		if len(s.events) > 0 && !s.events[0].at.After(next) {
			e := s.events[0]
			s.events = s.events[1:]
			s.now = maxTime(s.now, e.at)
			e.do()
			continue
		}
		if who == nil {
			s.now = end
			return
		}
		s.now = maxTime(s.now, next)
		who.m.Tick(s.now)
		s.act(who)
	}
}

func (s *scope) fail(format string, args ...any) {
	s.t.Helper()
	for _, line := range s.log[max(0, len(s.log)-60):] {
		s.t.Log(line)
	}
	s.t.Fatalf("seed %d: %s", s.seed, fmt.Sprintf(format, args...))
}

// change has a node register, re-register, or remove an element of its own.
func (s *scope) change(n *node) {
	k := Key{param.PoolHandle(fmt.Sprintf("pool%d", s.rand.IntN(3))), param.PEID(s.rand.IntN(20) + 1)}
	e, there := n.space.elements[k]
	switch {
	case !there || s.rand.IntN(3) > 0: // it registers here, wherever it was before
		e = element(k.Handle, k.ID, n.id)
		e.Life = param.Life(s.rand.IntN(1000) + 1)
		n.space.elements[k] = e
		n.m.Update(enrp.AddPE, e)
	default:
		delete(n.space.elements, k)
		n.m.Update(enrp.DelPE, e)
	}
	s.act(n)
}

func (s *scope) tables() map[param.RegistrarID]string {
	out := make(map[param.RegistrarID]string)
	for _, n := range s.living() {
		text := ""
		for _, e := range n.space.Elements(nil, 0, Key{}, 1000) {
			text += fmt.Sprintf("%s/%d@%v ", e.Handle, e.ID, e.Home)
		}
		out[n.id] = text
	}
	return out
}

// Whatever happens to connections and registrars: when it is over all know the same,
// and every home is alive.
func TestScopesConverge(t *testing.T) {
	takeovers := 0
	for seed := range uint64(150) {
		change := func(*Config) {}
		if seed%2 == 1 {
			change = lower
		}
		s := newScope(t, seed, 3+int(seed%3), change)
		for range 60 {
			alive := s.living()
			n := alive[s.rand.IntN(len(alive))]
			switch x := s.rand.IntN(40); {
			case x == 0 && len(alive) > 1:
				s.kill(n)
			case x == 1:
				s.start(param.RegistrarID(len(s.nodes)+1), true, change)
			case x < 5 && len(n.ends) > 0:
				links := slices.Sorted(maps.Keys(n.ends))
				s.cut(n, links[s.rand.IntN(len(links))], false)
			default:
				s.change(n)
			}
			s.run(time.Duration(s.rand.IntN(1500)) * time.Millisecond)
		}
		s.run(3 * time.Minute)
		takeovers += s.won
		tables := s.tables()
		first := ""
		for i, id := range slices.Sorted(maps.Keys(tables)) {
			if i == 0 {
				first = tables[id]
			}
			if tables[id] != first {
				s.fail("tables differ: %v", tables)
			}
			for _, home := range s.nodes[id].space.Homes() {
				if s.nodes[home].dead {
					s.fail("%v believes in %v, which is dead", id, home)
				}
			}
		}
	}
	if takeovers < 30 {
		t.Errorf("only %d takeovers", takeovers)
	}
}
