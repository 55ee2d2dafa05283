package peer

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

// Machine is one registrar's side of RFC 5353. See the package comment.
type Machine struct {
	cfg       Config
	self      param.RegistrarID
	peers     map[param.RegistrarID]*peer
	links     map[Link]*link
	dials     map[uint64]dialled
	mentors   []mentor
	start     start
	won       map[param.RegistrarID]bool
	arbiter   bool
	heartbeat time.Time // when the next one is due
	lastDial  uint64
	actions   []Action
	refused   int
}

// peer is a registrar that was heard of.
type peer struct {
	id        param.RegistrarID
	state     State
	transport param.Transport // where it can be reached; absent if not known
	link      Link
	dial      uint64    // under way
	added     time.Time // when it was first heard of
	heard     time.Time // peer_last_heard
	present   bool      // it has sent a presence
	answerBy  time.Time // to a presence that asked for a reply; zero: not asked
	until     time.Time // TakenOver: when it is monitored again
	takeover  *takeover // TakingOver
	sync      *download // of its elements
	audit     audit
}

// link is a connection.
type link struct {
	mentor  int // -1: of no mentor
	dialled bool
	tables  [2]position // of downloads by the other side: all, own elements
}

// dialled is for whom a connection is being set up.
type dialled struct {
	peer   param.RegistrarID // 0: a mentor
	mentor int
}

// New returns the machine of a registrar that just starts. It has something to do
// at once.
func New(cfg Config, now time.Time) *Machine {
	cfg = cfg.withDefaults()
	m := &Machine{
		cfg: cfg, self: cfg.Self.ID,
		peers:     make(map[param.RegistrarID]*peer),
		links:     make(map[Link]*link),
		dials:     make(map[uint64]dialled),
		mentors:   make([]mentor, cfg.Mentors),
		won:       make(map[param.RegistrarID]bool),
		arbiter:   true,
		heartbeat: now.Add(cfg.Timers.Heartbeat),
	}
	if cfg.Multicast {
		m.do(Multicast{m.presence(0, false)})
	}
	if m.start.phase = waiting; !cfg.Wait {
		m.begin(now)
	}
	return m
}

// Ready returns what is to be done, in order, and forgets it.
func (m *Machine) Ready() []Action {
	actions := m.actions
	m.actions = nil
	return actions
}

func (m *Machine) do(a Action) { m.actions = append(m.actions, a) }

// Arbitrate says whether this registrar takes dead peers over. In a cluster one
// member does. True at the start.
func (m *Machine) Arbitrate(on bool, now time.Time) {
	m.arbiter = on
	for _, p := range m.sorted() {
		switch {
		case on && p.state == Dead:
			m.dead(p, "this registrar arbitrates now", now)
		case !on && p.state == TakingOver:
			p.takeover = nil
			m.set(p, Dead, "another member of the cluster arbitrates")
		}
	}
}

// Received takes a message that came over a link.
func (m *Machine) Received(l Link, msg enrp.Message, now time.Time) {
	ids := msg.IDs()
	if ids.Sender == 0 || ids.Sender == m.self || ids.Receiver != 0 && ids.Receiver != m.self { // AMB-48
		m.refused++
		return
	}
	conn := m.links[l]
	if conn == nil {
		conn = &link{mentor: -1}
		m.links[l] = conn
	}
	if m.cfg.InCluster(ids.Sender) {
		// Members tell each other everything in other ways.
		m.refused++
		if conn.mentor >= 0 {
			m.mentorInCluster(conn.mentor, now)
		}
		return
	}
	p := m.meet(ids.Sender, l, conn, now)
	switch msg := msg.(type) {
	case *enrp.ListRequest:
		m.list(l, ids.Sender)
	case *enrp.HandleTableRequest:
		m.page(l, conn, msg, now)
	case *enrp.Presence:
		if p != nil {
			p.tells(msg)
		}
		if msg.ReplyRequired {
			m.send(l, m.presence(ids.Sender, false))
		}
	}
	if p == nil {
		return
	}
	switch msg := msg.(type) {
	case *enrp.Presence:
		if !msg.NoChecksum {
			m.compare(p, msg.Checksum, now)
		}
	case *enrp.ListResponse:
		m.listed(p, l, msg, now)
	case *enrp.HandleTableResponse:
		m.table(p, l, msg, now)
	case *enrp.HandleUpdate:
		m.update(p, msg)
	case *enrp.InitTakeover:
		m.initTakeover(p, l, msg.Target, now)
	case *enrp.InitTakeoverAck:
		m.acknowledged(p, msg.Target)
	case *enrp.TakeoverServer:
		m.takeoverServer(p, msg.Target, now)
	case *enrp.Error:
		m.failed(p, l, now)
	}
}

// Heard takes a presence that came by multicast from an address. It is never
// answered there (AMB-15).
func (m *Machine) Heard(msg *enrp.Presence, from netip.Addr, now time.Time) {
	id := msg.Sender
	if id == 0 || id == m.self || m.cfg.InCluster(id) || msg.Server.ID != id || msg.Server.Transport.IsZero() {
		return
	}
	if p := m.peers[id]; p != nil {
		m.alive(p, now)
		p.present = true
		m.reach(p)
		return
	}
	t := msg.Server.Transport
	if !slices.Contains(t.Addrs, from) {
		t.Addrs = append([]netip.Addr{from}, t.Addrs...)
	}
	m.hearsay(id, t, now)
}

// LinkUp says that a dial has succeeded. The link may be one that was there before,
// with the same registrar.
func (m *Machine) LinkUp(dial uint64, l Link, now time.Time) {
	d, ok := m.dials[dial]
	delete(m.dials, dial)
	conn := m.links[l]
	if conn == nil {
		conn = &link{mentor: -1, dialled: true}
	}
	if ok && d.peer == 0 {
		conn.mentor = d.mentor
		m.links[l] = conn
		m.mentorUp(d.mentor, l, now)
		return
	}
	p := m.peers[d.peer]
	if p != nil {
		p.dial = 0
	}
	if p == nil || p.link != 0 { // gone, or it came first
		if m.links[l] == nil {
			m.do(HangUp{l})
		}
		return
	}
	m.links[l] = conn
	p.link = l
	m.ask(p, now)
	if p.state == TakingOver {
		m.send(l, m.initiate(p.id))
	}
	for _, other := range m.sorted() {
		if other.state == TakingOver && other.takeover.awaited[p.id] {
			m.send(l, m.initiate(other.id))
		}
	}
}

// DialFailed says that a dial has failed: with ours, for want of something that
// this machine lacks, which says nothing of the peer.
func (m *Machine) DialFailed(dial uint64, ours bool, now time.Time) {
	d, ok := m.dials[dial]
	delete(m.dials, dial)
	if !ok {
		return
	}
	if d.peer == 0 {
		m.mentorFailed(d.mentor, dial, now)
		return
	}
	p := m.peers[d.peer]
	if p == nil || p.dial != dial {
		return
	}
	p.dial = 0
	switch {
	case ours, p.link != 0, !p.monitored():
	case p.present:
		m.dead(p, "it can't be reached", now) // a send failure
	case !m.owns(p.id):
		m.drop(p, "it can't be reached")
	}
}

// LinkDown says that a connection has ended.
func (m *Machine) LinkDown(l Link, now time.Time) {
	conn := m.links[l]
	if conn == nil {
		return
	}
	delete(m.links, l)
	for _, p := range m.sorted() {
		if p.link != l {
			continue
		}
		p.link = 0
		p.sync = nil
		if !p.monitored() {
			continue
		}
		m.reach(p)
		if p.dial == 0 && !m.owns(p.id) {
			// A tool that read the table, most likely: nothing can be sent to
			// it, and it leaves nothing behind.
			m.drop(p, "it has left")
		}
	}
	if conn.mentor >= 0 {
		m.mentorDown(conn.mentor, l, now)
	}
}

// Alone reports whether Update would have no effect: there are no peers, and nothing is
// being asked for.
func (m *Machine) Alone() bool { return len(m.peers) == 0 && m.start.load == nil }

// Update announces that an element that this registrar is home to, or that it has
// removed, has changed (section 3.3).
func (m *Machine) Update(action enrp.UpdateAction, e Element) {
	m.touch(e.Key())
	if len(m.peers) == 0 {
		return
	}
	if action == enrp.AddPE {
		e.Home = m.self
	}
	msg := &enrp.HandleUpdate{Servers: m.to(0), Action: action, Handle: e.Handle, Element: e.PoolElement}
	m.cast(msg)
}

// Rehomed announces that the elements of a registrar have been taken over by this
// one or its cluster (section 3.5.2).
func (m *Machine) Rehomed(target param.RegistrarID) {
	m.cast(&enrp.TakeoverServer{Servers: m.to(0), Target: target})
	if p := m.peers[target]; p != nil {
		m.drop(p, "its elements were taken over")
	}
}

// Gone says that another member of the cluster has taken a registrar over.
func (m *Machine) Gone(target param.RegistrarID) {
	if p := m.peers[target]; p != nil && !p.monitored() {
		m.drop(p, "its elements were taken over")
	}
}

// Regroup says that other registrars belong to the cluster than before: who does
// is no peer any more.
func (m *Machine) Regroup(now time.Time) {
	for _, p := range m.sorted() {
		if !m.cfg.InCluster(p.id) {
			continue
		}
		for i := range m.mentors {
			if m.mentors[i].id == p.id {
				m.mentorInCluster(i, now)
			}
		}
		m.drop(p, "it is of this registrar's cluster")
	}
}

// Won reports whether this registrar has won the takeover of another one whose
// elements have not got their new home yet.
func (m *Machine) Won(id param.RegistrarID) bool { return m.won[id] }

// Refused returns how many messages were dropped for their identifiers, or because
// there were too many peers.
func (m *Machine) Refused() int { return m.refused }

// Info describes a peer.
type Info struct {
	ID        param.RegistrarID
	State     State
	Transport param.Transport // absent if not known
	Connected bool
	LastHeard time.Time
	// Syncing: its elements are being fetched.
	Syncing bool
}

// Peers describes all peers, by identifier.
func (m *Machine) Peers() []Info {
	out := make([]Info, 0, len(m.peers))
	for _, p := range m.sorted() {
		out = append(out, Info{p.id, p.state, p.transport, p.link != 0, p.heard, p.sync != nil})
	}
	return out
}

// sorted returns the peers in one order, so that the same input has the same
// output.
func (m *Machine) sorted() []*peer {
	return slices.SortedFunc(maps.Values(m.peers), func(a, b *peer) int { return cmp.Compare(a.id, b.id) })
}

func (m *Machine) to(id param.RegistrarID) enrp.Servers {
	return enrp.Servers{Sender: m.self, Receiver: id}
}

func (m *Machine) send(l Link, msg enrp.Message) {
	if l != 0 {
		m.do(Send{Link: l, Message: msg})
	}
}

// cast sends a message to all peers, one copy each (ENRP-3.1-02).
func (m *Machine) cast(msg enrp.Message) {
	for _, p := range m.sorted() {
		m.send(p.link, msg)
	}
}

// presence is what this registrar says of itself.
func (m *Machine) presence(to param.RegistrarID, ask bool) *enrp.Presence {
	return &enrp.Presence{
		Servers: m.to(to), ReplyRequired: ask,
		Checksum: m.cfg.Table.Checksum(m.self), Server: m.cfg.Self,
	}
}

// owns reports whether a registrar is home to an element.
func (m *Machine) owns(id param.RegistrarID) bool {
	return len(m.cfg.Table.Elements(nil, id, Key{}, 1)) > 0
}

func (m *Machine) set(p *peer, s State, why string) {
	if p.state != s {
		p.state = s
		m.do(Changed{p.id, s, why})
	}
}
