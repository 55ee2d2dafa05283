package replica

import (
	"cmp"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"rserpool/enrp/ring"
	"rserpool/registrar/replica/internal/fault"
)

// order is a ring without messages: it does by decree what members of a real one
// agree upon, with the same freedom. Groups of members have a common log, which each
// delivers at its own pace.
type order struct {
	rng     *rand.Rand
	w       *world
	now     time.Time
	counter uint64
	members []*member // that live
	lives   map[ring.NodeID]ring.Incarnation
}

type member struct {
	*node
	group  *group
	at     int // delivered of the group's log
	synced ring.ViewID
	own    uint64   // number of the latest proposal in a log
	queue  [][]byte // proposals that are in none
	carry  uint64   // number of the latest own one delivered in a former view
	told   uint64   // reported stable
	ends   bool     // EndStable is reported
	apart  bool     // it says in each view that it was left out
}

type group struct {
	view     ring.View
	exchange bool
	log      []logged
	end      int // place behind END in the log, 0: not there
}

type logged struct {
	from   *member
	number uint64
	data   []byte // nil: END
}

func newOrder(seed uint64, w *world) *order {
	return &order{
		rng: rand.New(rand.NewPCG(seed, 5)), w: w, now: time.Unix(1_000_000_000, 0), lives: map[ring.NodeID]ring.Incarnation{},
	}
}

func (o *order) start(id ring.NodeID, alone bool) *member {
	o.lives[id]++
	self := ring.Member{ID: id, Incarnation: o.lives[id]}
	m := &member{node: o.w.newNode(self, alone, o.now)}
	o.members = append(o.members, m)
	o.install(ring.CauseStart, m)
	return m
}

func (o *order) crash(m *member) {
	o.members = slices.DeleteFunc(o.members, func(n *member) bool { return n == m })
	delete(o.w.nodes, m.self)
}

// install makes a view of these members, the first one its coordinator.
func (o *order) install(cause ring.Cause, members ...*member) {
	// Those that come from one view deliver what one of them has.
	for _, m := range members {
		if m.group == nil {
			continue
		}
		most := m.at
		for _, n := range members {
			if n.group == m.group {
				most = max(most, n.at)
			}
		}
		o.deliver(m, most)
	}
	o.counter++
	g := &group{view: ring.View{ID: ring.ViewID{Counter: o.counter, Coordinator: members[0].self}}}
	event := ring.Installed{Cause: cause}
	for _, m := range members {
		g.view.Members = append(g.view.Members, ring.Node{Member: m.self})
		var before ring.ViewID
		if m.group != nil {
			before = m.group.view.ID
		}
		event.Origins = append(event.Origins, ring.Origin{Member: m.self, Installed: before, Synced: m.synced})
		g.exchange = g.exchange || m.group == nil || m.group != members[0].group || m.synced != before
	}
	event.View, event.Exchange = g.view, g.exchange
	for _, m := range members {
		e := event
		if m.group != nil {
			for _, n := range m.group.view.Members {
				if !g.view.Has(n.Member) {
					e.Left = append(e.Left, n)
				}
			}
		}
		e.LeftOut = m.apart
		m.group, m.at, m.carry, m.ends = g, 0, m.own, false
		if !g.exchange {
			m.synced = g.view.ID
		}
		m.Handle(e, o.now)
		o.pump(m)
	}
}

// pump takes what a member wants ordered.
func (o *order) pump(m *member) {
	proposals, end := m.Outbox(o.now)
	m.queue = append(m.queue, proposals...)
	if end {
		o.deliver(m, len(m.group.log))
		m.group.log = append(m.group.log, logged{from: m})
		m.group.end = len(m.group.log)
		o.deliver(m, len(m.group.log))
	}
}

// put has a member order up to n of its proposals: it has the token.
func (o *order) put(m *member, n int) {
	n = min(n, len(m.queue))
	o.deliver(m, len(m.group.log))
	for range n {
		m.own++
		m.group.log = append(m.group.log, logged{m, m.own, m.queue[0]})
		m.queue = m.queue[1:]
	}
	o.deliver(m, len(m.group.log))
}

// deliver brings a member up to a place in the log.
func (o *order) deliver(m *member, to int) {
	g := m.group
	for m.at < to {
		e := g.log[m.at]
		m.at++
		if e.data == nil {
			m.synced = g.view.ID
			m.Handle(ring.Ended{View: g.view.ID}, o.now)
		} else {
			m.Handle(ring.Delivered{View: g.view.ID, Entries: []ring.Entry{{From: e.from.self, Proposal: e.number, Payload: e.data}}}, o.now)
		}
		if m.group != g {
			panic("view changed while delivering")
		}
	}
}

// stable tells a member what all have.
func (o *order) stable(m *member) {
	least, held := m.at, len(m.group.view.Members)
	for _, n := range o.members {
		if n.group == m.group {
			least, held = min(least, n.at), held-1
		}
	}
	if held > 0 {
		return // by a member that crashed or went elsewhere
	}
	if m.group.exchange {
		if m.group.end == 0 || least < m.group.end {
			return
		}
		if !m.ends {
			m.ends = true
			m.Handle(ring.EndStable{View: m.group.view.ID}, o.now)
		}
	}
	number := m.carry
	for _, e := range m.group.log[:least] {
		if e.from == m && e.data != nil {
			number = max(number, e.number)
		}
	}
	if number > m.told {
		m.told = number
		m.Handle(ring.Stable{Proposal: number}, o.now)
	}
	o.pump(m)
}

func (o *order) pick() *member { return o.members[o.rng.IntN(len(o.members))] }

// groups returns the members by group.
func (o *order) groups() [][]*member {
	var out [][]*member
	for _, m := range o.members {
		i := slices.IndexFunc(out, func(g []*member) bool { return g[0].group == m.group })
		if i < 0 {
			out = append(out, nil)
			i = len(out) - 1
		}
		out[i] = append(out[i], m)
	}
	return out
}

// step does something.
func (o *order) step(size int) {
	if o.rng.IntN(4) == 0 {
		o.now = o.now.Add(time.Duration(o.rng.IntN(20)) * time.Millisecond)
	}
	m := o.pick()
	switch o.rng.IntN(40) {
	case 0: // a group loses some
		g := pickOne(o, o.groups())
		o.shuffle(g)
		o.install(ring.CauseNoAck, g[:1+o.rng.IntN(len(g))]...)
	case 1, 2: // groups meet
		gs := o.groups()
		o.shuffleGroups(gs)
		var all []*member
		for _, g := range gs[:min(len(gs), 1+o.rng.IntN(3))] {
			all = append(all, g...)
		}
		o.install(ring.CauseMerge, all...)
	case 3:
		if len(o.members) > 1 && o.rng.IntN(2) == 0 {
			o.crash(m)
		}
	case 4:
		if id := ring.NodeID(1 + o.rng.IntN(size)); !slices.ContainsFunc(o.members, func(m *member) bool { return m.self.ID == id }) {
			o.start(id, false)
		}
	case 5, 6, 7, 8, 9, 10, 11, 12:
		m.Act(o.rng, o.now)
		o.pump(m)
	case 13, 14, 15, 16, 17, 18, 19, 20:
		o.put(m, 1+o.rng.IntN(4))
		o.pump(m)
	case 21, 22, 23, 24, 25, 26:
		o.stable(m)
	default:
		o.deliver(m, min(m.at+1+o.rng.IntN(3), len(m.group.log)))
		o.pump(m)
	}
}

func pickOne[T any](o *order, from []T) T { return from[o.rng.IntN(len(from))] }

func (o *order) shuffle(g []*member) {
	o.rng.Shuffle(len(g), func(i, j int) { g[i], g[j] = g[j], g[i] })
}

func (o *order) shuffleGroups(gs [][]*member) {
	o.rng.Shuffle(len(gs), func(i, j int) { gs[i], gs[j] = gs[j], gs[i] })
}

// settle brings all that live together and has them finish.
func (o *order) settle() error {
	o.now = o.now.Add(time.Second)
	all := slices.Clone(o.members)
	o.shuffle(all)
	o.install(ring.CauseMerge, all...)
	for range 2000 {
		quiet := true
		for _, m := range o.members {
			o.pump(m)
			o.put(m, len(m.queue))
			o.pump(m)
			quiet = quiet && len(m.queue) == 0
		}
		for _, m := range o.members {
			o.deliver(m, len(m.group.log))
		}
		for _, m := range o.members {
			o.stable(m)
			quiet = quiet && m.settled() && len(m.queue) == 0
		}
		o.now = o.now.Add(10 * time.Millisecond)
		if o.w.violation != nil || quiet {
			break
		}
	}
	var nodes []*node
	slices.SortFunc(o.members, func(a, b *member) int { return cmp.Compare(a.self.ID, b.self.ID) })
	for _, m := range o.members {
		if !m.settled() {
			o.w.fail("%v does not settle: %+v, %+v", m.self, m.replica.Stats(), m.homeless())
		}
		nodes = append(nodes, m.node)
	}
	return o.w.final(nodes)
}

// story runs a random one.
func story(seed uint64, cfg worldConfig) (*world, error) {
	w := newWorld(cfg)
	o := newOrder(seed, w)
	size := 2 + o.rng.IntN(4)
	for i := range size {
		o.start(ring.NodeID(i+1), false)
	}
	for range 300 {
		o.step(size)
		if w.violation != nil {
			return w, w.violation
		}
	}
	return w, o.settle()
}

// configOf varies acknowledgement, and how much is done at once.
func configOf(seed uint64, faults fault.Set) worldConfig {
	cfg := worldConfig{faults: faults, ack: []Ack{{}, {MinMembers: 2}, {}, {Local: true}}[seed%4]}
	if seed%3 == 0 {
		cfg.bounds = bounds{chunk: 300, window: 2, scan: 5, merge: 2}
	}
	if seed%5 == 0 { // promises are checked with the others
		cfg.tombstones = 2
	}
	return cfg
}

// TestOrderedStories tells random ones. In the environment: SEEDS, how many.
func TestOrderedStories(t *testing.T) {
	happened := map[string]int{}
	var mu sync.Mutex
	n := seeds(t, 2500)
	each(n, func(seed uint64) bool {
		w, err := story(seed, configOf(seed, 0))
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		for k, n := range w.happened {
			happened[k] += n
		}
		return err == nil
	})
	if t.Log(n, happened); t.Failed() {
		return
	}
	for _, what := range []string{"exchange", "conflict", "answered", "Registered", "Removed", "Adopted", "Rehomed", "Confirmed", "Suspected"} {
		if uint64(happened[what]) < n/8 {
			t.Errorf("%s: only %d", what, happened[what])
		}
	}
}

// TestOneStory tells the story of the SEED in the environment line by line.
func TestOneStory(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		t.Skip("no SEED in the environment")
	}
	debug = func(n *node, what any) {
		if text, ok := what.(string); ok {
			t.Log(n.self, text)
			return
		}
		t.Logf("%v %T %+v", n.self, what, what)
	}
	defer func() { debug = nil }()
	if _, err := story(seed, configOf(seed, 0)); err != nil {
		t.Error(err)
	}
}
