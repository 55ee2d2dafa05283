package ring

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// cluster wires machines by hand: messages arrive in the order in which they were
// sent, without delay, unless cut says no; time moves only in run.
type cluster struct {
	t      *testing.T
	now    time.Time
	nodes  map[NodeID]*node
	wire   []Envelope
	cut    func(from, to NodeID, m Message) bool
	sent   map[string]int
	limits Limits
	faults fault.Set
	size   int
	lone   bool // nobody is found by itself
}

type node struct {
	*Machine
	events  []Event
	persist Durable
	dead    bool
	// ends: End is called for each exchange that this member coordinates, but in
	// its first view.
	ends bool
}

func newCluster(t *testing.T, ids ...NodeID) *cluster {
	c := &cluster{t: t, now: time.Unix(1000, 0), nodes: map[NodeID]*node{}, sent: map[string]int{}}
	for _, id := range ids {
		c.start(id, 1)
	}
	return c
}

func (c *cluster) start(id NodeID, life Incarnation) *node {
	c.t.Helper()
	cfg := Config{
		Self:   Node{Member: Member{id, life}, Contact: fmt.Sprintf("node-%d", id)},
		Timers: LAN(), Limits: c.limits, Faults: c.faults, Size: c.size,
		Rand: rand.New(rand.NewPCG(uint64(id), uint64(life))),
	}
	if old := c.nodes[id]; old != nil {
		cfg.Durable = old.persist
	}
	m, err := New(cfg, c.now)
	if err != nil {
		c.t.Fatal(err)
	}
	n := &node{Machine: m, ends: true}
	c.nodes[id] = n
	c.collect(n)
	return n
}

func (c *cluster) ids() []NodeID {
	var ids []NodeID
	for id := range c.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// collect takes a machine's output.
func (c *cluster) collect(n *node) {
	for {
		out, any := n.Ready()
		if !any {
			return
		}
		if out.Persist != nil {
			n.persist = *out.Persist
		}
		end := false
		for _, e := range out.Events {
			if d, ok := e.(Delivered); ok {
				d.Entries = slices.Clone(d.Entries)
				e = d
			}
			if in, ok := e.(Installed); ok {
				end = in.Exchange && in.Cause != CauseStart && n.ends && in.View.ID.Coordinator == n.self.Member
			}
			n.events = append(n.events, e)
		}
		c.wire = append(c.wire, out.Messages...)
		if end {
			if err := n.End(c.now); err != nil {
				c.t.Error(err)
			}
		}
	}
}

// settle delivers messages until there are none.
func (c *cluster) settle() {
	for steps := 0; len(c.wire) > 0; steps++ {
		if steps > 100_000 {
			c.t.Fatal("messages without end")
		}
		e := c.wire[0]
		c.wire = c.wire[1:]
		from := e.Message.Head().From.ID
		c.sent[fmt.Sprintf("%T", e.Message)]++
		if c.cut != nil && c.cut(from, e.To.ID, e.Message) {
			continue
		}
		b, err := Append(nil, e.Message)
		if err != nil {
			c.t.Fatal(err)
		}
		msg, err := Decode(b)
		if err != nil {
			c.t.Fatal(err)
		}
		if n := c.nodes[e.To.ID]; n != nil && !n.dead {
			n.Step(msg, c.now)
			c.collect(n)
		}
	}
}

// run lets time pass, deadline by deadline.
func (c *cluster) run(d time.Duration) {
	end := c.now.Add(d)
	c.meet()
	c.settle()
	for {
		next := end
		for _, id := range c.ids() {
			if n := c.nodes[id]; !n.dead {
				if at := n.Next(); !at.IsZero() && at.Before(next) {
					next = at
				}
			}
		}
		if next.After(c.now) {
			c.now = next
		}
		for _, id := range c.ids() {
			if n := c.nodes[id]; !n.dead {
				n.Tick(c.now)
				c.collect(n)
			}
		}
		c.settle()
		if !c.now.Before(end) {
			return
		}
	}
}

// meet tells all of all others.
func (c *cluster) meet() {
	if c.lone {
		return
	}
	for _, a := range c.ids() {
		for _, b := range c.ids() {
			if n := c.nodes[a]; a != b && !n.dead && !c.nodes[b].dead {
				n.Found(c.nodes[b].self, c.now)
				c.collect(n)
			}
		}
	}
}

// until runs until a condition holds, for at most d.
func (c *cluster) until(d time.Duration, what string, cond func() bool) {
	c.t.Helper()
	for waited := time.Duration(0); !cond(); waited += 5 * time.Millisecond {
		if waited > d {
			for _, id := range c.ids() {
				s := c.nodes[id].Status()
				c.t.Logf("%d: %v promised %v in %v hop %d seq %d queue %d", id, s.State, c.nodes[id].promised, memberIDs(s.View), s.Hop, s.Seq, s.Queue)
			}
			c.t.Fatalf("not %s within %v", what, d)
		}
		c.run(5 * time.Millisecond)
	}
}

// together reports whether the members have the same view of just them, and its
// exchange has ended.
func (c *cluster) together(ids ...NodeID) func() bool {
	return func() bool {
		for _, id := range ids {
			n := c.nodes[id]
			if n.view.ID != c.nodes[ids[0]].view.ID || len(n.view.Members) != len(ids) || n.synced != n.view.ID || n.away() {
				return false
			}
		}
		return true
	}
}

func (c *cluster) join(ids ...NodeID) {
	c.t.Helper()
	c.until(5*time.Second, fmt.Sprintf("together: %v", ids), c.together(ids...))
	c.run(10 * time.Millisecond)
}

func (c *cluster) propose(id NodeID, payload string) uint64 {
	c.t.Helper()
	n := c.nodes[id]
	number, err := n.Propose([]byte(payload), c.now)
	if err != nil {
		c.t.Fatal(err)
	}
	c.collect(n)
	return number
}

func memberIDs(v View) []NodeID {
	var ids []NodeID
	for _, n := range v.Members {
		ids = append(ids, n.ID)
	}
	return ids
}

// delivered lists the payloads that a member delivered, in order.
func (n *node) delivered() []string {
	var list []string
	for _, e := range n.events {
		if d, ok := e.(Delivered); ok {
			for _, entry := range d.Entries {
				list = append(list, string(entry.Payload))
			}
		}
	}
	return list
}

// stableUp is the last own proposal that was reported stable.
func (n *node) stableUp() uint64 {
	var last uint64
	for _, e := range n.events {
		if s, ok := e.(Stable); ok {
			last = s.Proposal
		}
	}
	return last
}

func eventsOf[E Event](n *node) []E {
	var list []E
	for _, e := range n.events {
		if e, ok := e.(E); ok {
			list = append(list, e)
		}
	}
	return list
}
