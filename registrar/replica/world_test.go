package replica

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp/ring"
	"rserpool/registrar/handlespace"
	"rserpool/registrar/replica/internal/fault"
)

// world is what tests know of all registrars of a ring and of their clients: who was
// promised what. Its checks are the promises.
type world struct {
	cfg    worldConfig
	nodes  map[ring.Member]*node // those that live
	serial uint32
	now    time.Time

	promises  []promise
	proposed  map[uint32]handlespace.Key // registrations, by serial
	refused   map[uint32]bool
	leaving   map[goner]bool // removals that somebody asked for
	states    map[at]handlespace.Digest
	reports   map[ring.ViewID]string
	foreign   map[handlespace.HomeID]bool // alive
	happened  map[string]int
	violation error
}

type worldConfig struct {
	faults fault.Set
	ack    Ack
	bounds bounds
	// tombstones is how many there may be; 0: enough. With few, registrars must know
	// the same; what they know then is not what was promised.
	tombstones int
}

// promise is an answer that went out.
type promise struct {
	key        handlespace.Key
	generation handlespace.Generation
	gone       bool // a deregistration
	nowhere    bool // of which nobody knows
	members    []ring.Node
}

type goner struct {
	key        handlespace.Key
	generation handlespace.Generation
}

// at is a place in the order of a view, where all members know the same.
type at struct {
	view ring.ViewID
	n    int
}

func newWorld(cfg worldConfig) *world {
	return &world{
		cfg: cfg, nodes: map[ring.Member]*node{}, proposed: map[uint32]handlespace.Key{}, refused: map[uint32]bool{},
		leaving: map[goner]bool{}, states: map[at]handlespace.Digest{}, reports: map[ring.ViewID]string{}, happened: map[string]int{},
		foreign: map[handlespace.HomeID]bool{{ID: 0xf0000001}: true, {ID: 0xf0000002}: true},
	}
}

func (w *world) fail(format string, args ...any) {
	if w.violation == nil {
		w.violation = fmt.Errorf(format, args...)
	}
}

const meetWait = 100 * time.Millisecond

// node is one registrar, as a ring's simulator drives it.
type node struct {
	w       *world
	self    ring.Member
	space   *handlespace.Space
	replica *Replica

	outbox [][]byte
	end    bool
	now    time.Time

	view      ring.View
	exchange  bool // of the view
	ended     bool // the view, or it needs no END
	endStable bool
	n         int // entries delivered in the synced view
	ready     Readiness
	token     uint64
	calls     map[uint64]*call
}

// call is a command that a client of a node waits for.
type call struct {
	key     handlespace.Key
	serial  uint32
	stamp   uint64 // the clock when it was proposed
	applied bool
	promise *promise
}

func (w *world) newNode(self ring.Member, alone bool, now time.Time) *node {
	n := &node{w: w, self: self, calls: map[uint64]*call{}, now: now}
	n.space = handlespace.New(handlespace.Config{
		Rand: rand.New(rand.NewPCG(1, uint64(self.ID))), RemovalFloor: 1, RemovalShare: 0.3, RemovalWindow: 100 * time.Millisecond,
		HoldBack: 50 * time.Millisecond, Tombstone: time.Hour, MaxTombstones: w.cfg.tombstones,
	})
	n.replica = New(Config{
		Space: n.space, Self: self, Ack: w.cfg.ack, Alone: alone, JoinWait: 100 * time.Millisecond,
		MeetWait: meetWait,
		Foreign:  func(h handlespace.HomeID) bool { return w.foreign[h] }, Faults: w.cfg.faults, bounds: w.cfg.bounds,
		version: version + uint8(self.ID%2), // neighbours among versions are one ring
	}, now)
	w.nodes[self] = n
	return n
}

// debug, if not nil, sees what happens to a node.
var debug func(*node, any)

// Handle implements ringtest.App.
func (n *node) Handle(e ring.Event, now time.Time) {
	if debug != nil {
		debug(n, e)
	}
	n.now, n.w.now = now, now
	switch e := e.(type) {
	case ring.Installed:
		n.end = false // that of the former view is void
		n.view, n.exchange, n.ended, n.endStable, n.n = e.View, e.Exchange, !e.Exchange, !e.Exchange, 0
	case ring.Ended:
		n.ended = true
	case ring.EndStable:
		n.endStable = true
	}
	n.replica.Handle(e, now)
	n.drain()
	switch e := e.(type) {
	case ring.Installed:
		n.same()
	case ring.Ended:
		n.w.happened["exchange"]++
		n.same()
	case ring.Delivered:
		if n.ended && e.View == n.view.ID {
			n.n += len(e.Entries)
			n.same()
		}
	}
	if n.ready.Negative && !n.ended {
		n.w.fail("%v would say before END that something does not exist", n.self)
	}
}

// same checks that all members know the same at the same place.
func (n *node) same() {
	if !n.ended {
		return
	}
	here := at{n.view.ID, n.n}
	mine := n.space.Digest()
	if known, ok := n.w.states[here]; ok && known != mine {
		n.w.fail("%v knows something else than others after %d entries of %v:\n%s", n.self, n.n, here.view, n.dump())
	}
	n.w.states[here] = mine
	if debug != nil {
		debug(n, fmt.Sprintf("after %d entries of %v:\n%s", here.n, here.view, n.dump()))
	}
}

func (n *node) dump() string {
	var b strings.Builder
	for c := (handlespace.Cursor{}); !c.Done; {
		n.space.Scan(&c, func(item handlespace.Item) bool {
			switch {
			case item.Record != nil:
				r := *item.Record
				fmt.Fprintf(&b, "  %q/%d %+v home %v confirmed %v suspect %v held %v reports %d life %v at %v weight %d\n", r.Handle, r.ID, r.Generation,
					r.Home(), r.Confirmed, r.Suspect, r.Held().UnixMilli(), r.Reports, r.Element().Life, r.Refreshed.UnixMilli(), r.Element().Policy.Weight)
			case item.Tombstone != nil:
				fmt.Fprintf(&b, "  %q/%d gone %+v until %v\n", item.Tombstone.Key.Handle, item.Tombstone.Key.ID, item.Tombstone.Generation, item.Tombstone.Until.UnixMilli())
			default:
				fmt.Fprintf(&b, "  %+v\n", *item.Pool)
			}
			return true
		})
	}
	return b.String()
}

// Outbox implements ringtest.App.
func (n *node) Outbox(now time.Time) ([][]byte, bool) {
	n.now, n.w.now = now, now
	n.replica.Tick(now)
	n.drain()
	proposals, end := n.outbox, n.end
	n.outbox, n.end = nil, false
	return proposals, end
}

// Next implements ringtest.App.
func (n *node) Next() time.Time { return n.replica.Next() }

func (n *node) drain() {
	for {
		out, ok := n.replica.Ready()
		if !ok {
			return
		}
		for _, e := range out.Events {
			n.event(e)
		}
		n.outbox = append(n.outbox, out.Proposals...)
		n.end = n.end || out.End
	}
}

func (n *node) event(e Event) {
	if debug != nil {
		debug(n, e)
	}
	switch e := e.(type) {
	case Readiness:
		n.ready = e
	case Merged:
		n.w.happened["merged"]++
		report := fmt.Sprint(e)
		if other := n.w.reports[e.View.ID]; other != "" && other != report {
			n.w.fail("%v reports %s, others %s", n.self, report, other)
		}
		n.w.reports[e.View.ID] = report
		if len(e.Sides) > 1 && len(e.Entries) > 0 {
			n.w.happened["conflict"]++
		}
	case Applied:
		n.applied(&e)
	case Answer:
		c := n.calls[e.Token]
		switch {
		case c == nil:
			n.w.fail("%v answers %d, which nobody asked or which is settled", n.self, e.Token)
			return
		case !c.applied:
			n.w.fail("%v answers %d before it was applied", n.self, e.Token)
		}
		delete(n.calls, e.Token)
		n.answered(c)
	case Refused:
		c := n.calls[e.Token]
		if c == nil || c.applied {
			n.w.fail("%v refuses %d, which was applied or is settled", n.self, e.Token)
			return
		}
		delete(n.calls, e.Token)
		n.w.refused[c.serial] = true
		n.w.happened["refused"]++
	}
}

func (n *node) applied(e *Applied) {
	c := n.calls[e.Token]
	if c != nil {
		if c.applied {
			n.w.fail("%v applies %d twice", n.self, e.Token)
		}
		c.applied = true
	}
	for _, event := range e.Events {
		n.w.happened[strings.TrimPrefix(fmt.Sprintf("%T", event), "handlespace.")]++
		var r *handlespace.Record
		switch event := event.(type) {
		case handlespace.Registered:
			r = event.Record
		case handlespace.Adopted:
			r = event.Record
		case handlespace.Confirmed:
			r = event.Record
		case handlespace.Removed:
			if event.Cause == handlespace.Deregistered && c != nil {
				c.promise = &promise{key: event.Record.Key(), generation: event.Generation, gone: true}
			}
			continue
		case handlespace.Absent:
			// What was registered before is gone, whether that is remembered here or not.
			if c == nil {
				continue
			}
			c.promise = &promise{key: c.key, generation: event.Generation, gone: true}
			if event.Generation.IsZero() {
				c.promise.generation, c.promise.nowhere = handlespace.Generation{Content: c.stamp, Stamp: c.stamp}, true
			}
			continue
		default:
			continue
		}
		serial := r.Element().Policy.Weight
		if key, ok := n.w.proposed[serial]; !ok || key != r.Key() {
			n.w.fail("%v stores %+v, which nobody registered", n.self, r)
		}
		if n.w.refused[serial] {
			n.w.fail("%v stores a registration that was refused: %+v", n.self, r)
		}
		if c != nil {
			c.promise = &promise{key: r.Key(), generation: r.Generation}
		}
	}
}

// answered checks promise 1: what is acknowledged is known at all members of the view.
func (n *node) answered(c *call) {
	n.w.happened["answered"]++
	if c.promise == nil {
		return
	}
	if n.w.cfg.ack.Local || n.w.cfg.tombstones > 0 {
		return
	}
	p := *c.promise
	p.members = n.view.Members
	if !n.endStable {
		n.w.fail("%v answers before END is stable in %v", n.self, n.view.ID)
	}
	if len(p.members) < n.w.cfg.ack.MinMembers {
		n.w.fail("%v answers in a view of %d", n.self, len(p.members))
	}
	for _, m := range p.members {
		if other := n.w.nodes[m.Member]; other != nil {
			n.w.keeps(other, &p)
		}
	}
	n.w.promises = append(n.w.promises, p)
}

// keeps checks that a registrar knows what was promised, or what came later.
func (w *world) keeps(n *node, p *promise) {
	item, ok := n.space.Find(p.key)
	known := item.Generation()
	switch c := known.Compare(p.generation); {
	case !ok && p.nowhere:
	case !ok || c < 0:
		w.fail("%v of %v does not know the acknowledged %+v, but %+v", n.self, n.view.ID, *p, known)
	case c == 0 && p.gone && item.Record != nil:
		w.fail("%v of %v has %+v, which was removed", n.self, n.view.ID, *p)
	case item.Tombstone != nil && !p.gone && c == 0 && !w.leaving[goner{p.key, p.generation}]:
		w.fail("%v of %v removed %+v for no reason", n.self, n.view.ID, *p)
	}
}

// Act implements ringtest.Actor: something that a client or the registrar itself may ask for.
func (n *node) Act(r *rand.Rand, now time.Time) {
	n.now, n.w.now = now, now
	if !n.ready.Serve {
		return
	}
	for range 1 + r.IntN(3) {
		n.act(r, now)
	}
	n.drain()
}

func (n *node) propose(cmd handlespace.Command, key handlespace.Key, serial uint32) {
	n.token++
	n.calls[n.token] = &call{key: key, serial: serial, stamp: uint64(n.now.UnixMicro())}
	n.replica.Propose(n.token, cmd, n.now)
}

func (n *node) remove(r *handlespace.Record, cause handlespace.RemovalCause) {
	n.w.leaving[goner{r.Key(), r.Generation}] = true
	n.replica.Propose(0, handlespace.Remove{Handle: r.Handle, ID: r.ID, Generation: r.Generation, Cause: cause, Now: n.now}, n.now)
}

func (n *node) act(r *rand.Rand, now time.Time) {
	key := handlespace.Key{Handle: param.PoolHandle(fmt.Sprint("pool", r.IntN(3))), ID: param.PEID(1 + r.IntN(6))}
	known := n.space.Get(key.Handle, key.ID)
	switch r.IntN(16) {
	default:
		n.register(key, now)
	case 6, 7:
		n.propose(handlespace.Deregister{
			Handle: key.Handle, ID: key.ID, Raiser: param.RegistrarID(n.self.ID), Incarnation: uint64(n.self.Incarnation), Now: now,
		}, key, 0)
	case 8:
		if known != nil {
			n.remove(known, handlespace.Unreachable)
		}
	case 9: // a removal that comes too late
		if known != nil {
			n.register(key, now)
			n.remove(known, handlespace.Expired)
		}
	case 10, 11:
		for _, e := range n.space.Owned(nil, param.RegistrarID(n.self.ID), handlespace.Key{}, 100) {
			if e.Home() == homeOf(n.self) && !e.Confirmed {
				n.replica.Propose(0, handlespace.Confirm{Handle: e.Handle, ID: e.ID, Generation: e.Generation, Home: e.Home(), Now: now}, now)
				break
			}
		}
	case 12:
		n.importOne(r, key, now)
	case 13:
		if known != nil {
			n.replica.Propose(0, handlespace.Report{Handle: key.Handle, ID: key.ID, Generation: known.Generation, Reporter: fmt.Sprint(r.IntN(3)), Now: now}, now)
			n.replica.Propose(0, handlespace.Alive{Handle: key.Handle, ID: key.ID, Generation: known.Generation, Now: now}, now)
		}
	}
}

func (n *node) element(key handlespace.Key, home param.RegistrarID) (param.PoolElement, uint32) {
	n.w.serial++
	n.w.proposed[n.w.serial] = key
	return param.PoolElement{
		ID: key.ID, Home: home, Life: []param.Life{param.InfiniteLife, 60_000, 300_000}[n.w.serial%3],
		User:   param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(key.ID)})}},
		Policy: param.Policy{Type: param.WeightedRandom, Weight: n.w.serial},
	}, n.w.serial
}

func (n *node) register(key handlespace.Key, now time.Time) {
	e, serial := n.element(key, param.RegistrarID(n.self.ID))
	n.propose(handlespace.Register{
		Handle: key.Handle, Element: e, Raiser: e.Home, Incarnation: uint64(n.self.Incarnation), Now: now, Owner: string(key.Handle),
	}, key, serial)
}

func (n *node) importOne(r *rand.Rand, key handlespace.Key, now time.Time) {
	for _, home := range []handlespace.HomeID{{ID: 0xf0000001}, {ID: 0xf0000002}} {
		if !n.w.foreign[home] || r.IntN(2) == 0 {
			continue
		}
		switch r.IntN(8) {
		case 0:
			n.w.foreign[home] = false
			for _, other := range n.w.nodes {
				other.replica.ForeignDied(home, now)
				other.drain()
			}
		case 1:
			n.replica.Propose(0, handlespace.Forget{Handle: key.Handle, ID: key.ID, Home: home.ID, Raiser: home.ID, Now: now}, now)
			if e := n.space.Get(key.Handle, key.ID); e != nil {
				n.w.leaving[goner{key, e.Generation}] = true
			}
		default:
			e, serial := n.element(key, home.ID)
			n.propose(handlespace.Import{Handle: key.Handle, Element: e, Now: now}, key, serial)
		}
		return
	}
}

// settled reports whether the replica has nothing left to do.
func (n *node) settled() bool {
	s := n.replica.Stats()
	return !s.Exchanging && s.Queued+s.Waiting+s.Unstable == 0 && n.homeless() == nil
}

// homeless returns an element whose home is no member and no living registrar
// outside, nil if there is none.
func (n *node) homeless() *handlespace.Record {
	for _, pool := range n.space.Pools(nil, "", 1000) {
		for _, r := range n.space.Elements(nil, pool.Handle, 0, 1000) {
			if home := r.Home(); home.Incarnation == 0 && !n.w.foreign[home] || home.Incarnation != 0 && !n.view.Has(memberOf(home)) {
				return r
			}
		}
	}
	return nil
}

// final checks the end of a story, when all that live are in one settled view.
func (w *world) final(nodes []*node) error {
	first := nodes[0]
	for _, n := range nodes {
		if n.space.Digest() != first.space.Digest() || n.dump() != first.dump() || n.space.Marks() != first.space.Marks() {
			w.fail("%v and %v differ:\n%s%s", first.self, n.self, first.dump(), n.dump())
		}
		if r := n.homeless(); r != nil {
			w.fail("%v: home %v of %q/%v is gone", n.self, r.Home(), r.Handle, r.ID)
		}
		if !n.ready.Serve || !n.ready.Negative {
			w.fail("%v is not ready: %+v", n.self, n.ready)
		}
		for _, c := range n.calls {
			if len(n.view.Members) >= w.cfg.ack.MinMembers {
				w.fail("%v never answered %+v", n.self, *c)
			}
		}
	}
	for i := range w.promises {
		p := &w.promises[i]
		// Whoever was in the view and lives has it, and so by now everybody.
		if slices.ContainsFunc(p.members, func(m ring.Node) bool { return w.nodes[m.Member] != nil }) {
			w.keeps(first, p)
		}
	}
	return w.violation
}
