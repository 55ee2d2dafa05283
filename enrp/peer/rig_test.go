package peer

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

const (
	own param.RegistrarID = 0x50
	a   param.RegistrarID = 0x30
	b   param.RegistrarID = 0x70
	c   param.RegistrarID = 0x40
)

// The links of the peers that a test plays.
const (
	toA Link = iota + 1
	toB
	toC
)

// space is a handlespace, in the simplest way.
type space struct {
	elements map[Key]Element
	busy     bool
}

func (s *space) Checksum(home param.RegistrarID) uint16 {
	var sum param.Checksum
	for k, e := range s.elements {
		if e.Home == home {
			sum.Add(k.Handle, k.ID)
		}
	}
	return sum.Sum()
}

func (s *space) Elements(dst []Element, home param.RegistrarID, after Key, max int) []Element {
	for _, k := range slices.SortedFunc(maps.Keys(s.elements), compareKeys) {
		if e := s.elements[k]; max > 0 && compareKeys(k, after) > 0 && (home == 0 || e.Home == home) {
			dst = append(dst, e)
			max--
		}
	}
	return dst
}

func compareKeys(x, y Key) int {
	return cmp.Or(cmp.Compare(x.Handle, y.Handle), cmp.Compare(x.ID, y.ID))
}

func (s *space) Homes() []param.RegistrarID {
	var out []param.RegistrarID
	for _, e := range s.elements {
		out = append(out, e.Home)
	}
	return out
}

func (s *space) Settled(param.RegistrarID) bool { return !s.busy }

// apply does what an action asks for.
func (s *space) apply(action Action) {
	switch x := action.(type) {
	case Import:
		s.elements[x.Element.Key()] = x.Element
	case Forget:
		if e := s.elements[x.Key]; x.Home == 0 || e.Home == x.Home {
			delete(s.elements, x.Key)
		}
	case TakeOver:
		for k, e := range s.elements {
			if e.Home == x.Target {
				e.Home = x.Home
				s.elements[k] = e
			}
		}
	}
}

func info(id param.RegistrarID) param.ServerInformation {
	return param.ServerInformation{ID: id, Transport: at(id)}
}

// at is where a registrar is reached.
func at(id param.RegistrarID) param.Transport {
	return param.Transport{Type: param.TypeSCTPTransport, Port: 9901, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(id)})}}
}

func element(handle param.PoolHandle, id param.PEID, home param.RegistrarID) Element {
	where := param.Transport{Type: param.TypeSCTPTransport, Port: 7, Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.1")}}
	return Element{handle, param.PoolElement{
		ID: id, Home: home, Life: 300, User: where, ASAP: where, Policy: param.Policy{Type: param.RoundRobin},
	}}
}

// rig is a machine whose peers a test plays.
type rig struct {
	*testing.T
	m     *Machine
	space *space
	now   time.Time
	out   []Action // since the last take
}

// start returns a machine that has just started.
func start0(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{T: t, now: time.Unix(1000, 0), space: &space{elements: make(map[Key]Element)}}
	cfg := Config{Self: info(own), Table: r.space}
	for _, f := range change {
		f(&cfg)
	}
	if err := cfg.Timers.WithDefaults().Validate(); err != nil {
		t.Fatal(err)
	}
	r.m = New(cfg, r.now)
	r.collect()
	return r
}

// started returns a machine that serves.
func started(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := start0(t, change...)
	r.take()
	return r
}

// homed returns a machine that serves, whose peer a is home to an element.
func homed(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := started(t, change...)
	r.peer(toA, a)
	r.has(element("p", 1, a))
	return r
}

func mentors(n int) func(*Config) { return func(c *Config) { c.Mentors = n } }

func lower(c *Config) { c.LowerIDWinsTakeover = true }

func (r *rig) collect() {
	for _, action := range r.m.Ready() {
		r.space.apply(action)
		r.out = append(r.out, action)
	}
}

// lose ends a link, and nobody can be reached to make another.
func (r *rig) lose(l Link) {
	r.Helper()
	r.m.LinkDown(l, r.now)
	r.m.DialFailed(r.dial().ID, false, r.now)
}

// take returns what the machine has asked for since the last call.
func (r *rig) take() []Action {
	r.collect()
	out := r.out
	r.out = nil
	return out
}

// hear passes a message to the machine.
func (r *rig) hear(l Link, m enrp.Message) {
	r.m.Received(l, m, r.now)
	r.collect()
}

// after lets time pass, with all that becomes due.
func (r *rig) after(d time.Duration) {
	end := r.now.Add(d)
	for n := 0; !r.m.Next().After(end); n++ {
		if n > 10000 {
			r.Fatal("there is always something due")
		}
		r.now = maxTime(r.now, r.m.Next())
		r.m.Tick(r.now)
		r.collect()
	}
	r.now = end
}

func maxTime(x, y time.Time) time.Time {
	if x.After(y) {
		return x
	}
	return y
}

// sent is a message that went to a peer.
type sent struct {
	to Link
	m  enrp.Message
}

// messages returns what was sent since the last take, to one link or to all for 0.
func (r *rig) messages(to Link) []sent { r.Helper(); return r.sent(r.take(), to) }

func (r *rig) sent(actions []Action, to Link) []sent {
	r.Helper()
	var out []sent
	for _, action := range actions {
		s, ok := action.(Send)
		if !ok || to != 0 && s.Link != to {
			continue
		}
		data := s.Octets
		if s.Message != nil {
			var err error
			if data, err = s.Message.Append(nil); err != nil {
				r.Fatalf("%+v: %v", s.Message, err)
			}
		}
		m, _, err := enrp.Decode(data)
		if err != nil {
			r.Fatal(err)
		}
		if m.IDs().Sender != own {
			r.Errorf("%T from %v", m, m.IDs().Sender)
		}
		out = append(out, sent{s.Link, m})
	}
	return out
}

// of returns the messages of one type among them.
func of[T enrp.Message](all []sent) []T {
	var out []T
	for _, s := range all {
		if m, ok := s.m.(T); ok {
			out = append(out, m)
		}
	}
	return out
}

// only returns the only message of a type among them.
func only[T enrp.Message](r *rig, all []sent) T {
	r.Helper()
	got := of[T](all)
	if len(got) != 1 {
		var want T
		r.Fatalf("%d messages of type %T among %s, want one", len(got), want, show(all))
	}
	return got[0]
}

func none[T enrp.Message](r *rig, all []sent) {
	r.Helper()
	if got := of[T](all); len(got) > 0 {
		r.Errorf("unexpected %T among %s", got[0], show(all))
	}
}

func show(all []sent) string {
	var out []string
	for _, s := range all {
		out = append(out, fmt.Sprintf("%d: %v", s.to, s.m.Type()))
	}
	return fmt.Sprint(out)
}

// actions returns those of one type.
func actions[T Action](all []Action) []T {
	var out []T
	for _, x := range all {
		if x, ok := x.(T); ok {
			out = append(out, x)
		}
	}
	return out
}

// did returns the only action of a type since the last take.
func did[T Action](r *rig) T {
	r.Helper()
	all := r.take()
	got := actions[T](all)
	if len(got) != 1 {
		r.Fatalf("%d actions of type %T among %+v, want one", len(got), *new(T), all)
	}
	return got[0]
}

func from(id param.RegistrarID) enrp.Servers { return enrp.Servers{Sender: id, Receiver: own} }

// presence is that of a peer, over the elements that the machine knows of it.
func (r *rig) presence(id param.RegistrarID) *enrp.Presence {
	return &enrp.Presence{Servers: from(id), Checksum: r.space.Checksum(id), Server: info(id)}
}

// peer lets a registrar become a peer and stay for a while.
func (r *rig) peer(l Link, id param.RegistrarID) {
	r.Helper()
	r.hear(l, r.presence(id))
	r.after(r.m.cfg.Timers.NoResponse)
	r.hear(l, r.presence(id))
	r.take()
}

// has puts elements into the handlespace.
func (r *rig) has(elements ...Element) {
	for _, e := range elements {
		r.space.elements[e.Key()] = e
	}
}

// home is the home of an element; 0: it is not there.
func (r *rig) home(handle param.PoolHandle, id param.PEID) param.RegistrarID {
	return r.space.elements[Key{handle, id}].Home
}

func (r *rig) wantHome(handle param.PoolHandle, id param.PEID, want param.RegistrarID) {
	r.Helper()
	if got := r.home(handle, id); got != want {
		r.Errorf("home of %s/%d is %v, want %v", handle, id, got, want)
	}
}

// state is that of a peer.
func (r *rig) state(id param.RegistrarID) State {
	for _, p := range r.m.Peers() {
		if p.ID == id {
			return p.State
		}
	}
	return Gone
}

func (r *rig) wantState(id param.RegistrarID, want State) {
	r.Helper()
	if got := r.state(id); got != want {
		r.Errorf("%v is %v, want %v", id, got, want)
	}
}

func (r *rig) wantServing(want bool) {
	r.Helper()
	if r.m.Serving() != want {
		r.Errorf("serving %v, want %v", r.m.Serving(), want)
	}
}

// dial returns the only connection asked for since the last take.
func (r *rig) dial() Dial { r.Helper(); return did[Dial](r) }

// keys lists elements.
func keys(pools []enrp.Pool) []string {
	var out []string
	for _, p := range pools {
		for _, e := range p.Elements {
			out = append(out, fmt.Sprintf("%s/%d", p.Handle, e.ID))
		}
	}
	return out
}
