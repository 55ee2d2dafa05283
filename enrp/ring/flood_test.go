package ring

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// liar makes messages of all types, whose fields are now and then true.
type liar struct {
	r     *rand.Rand
	c     *cluster
	nodes []Node
}

func (l *liar) node() Node {
	if l.r.IntN(20) == 0 {
		return Node{Member{NodeID(l.r.Uint32()), Incarnation(l.r.Uint64())}, "?"}
	}
	return l.nodes[l.r.IntN(len(l.nodes))]
}

func (l *liar) list() []Node {
	list := make([]Node, l.r.IntN(6))
	for i := range list {
		list[i] = l.node()
	}
	return list
}

func (l *liar) about(n uint64) uint64 {
	switch l.r.IntN(8) {
	case 0:
		return l.r.Uint64()
	case 1:
		return math.MaxUint64 - l.r.Uint64N(3)
	case 2:
		return 0
	case 3, 4:
		return n + l.r.Uint64N(4)
	}
	return n
}

func (l *liar) viewID(n *node) ViewID {
	switch l.r.IntN(4) {
	case 0:
		return ViewID{l.about(n.promised.Counter), l.node().Member}
	case 1:
		return ViewID{n.promised.Counter + 1, l.node().Member}
	case 2:
		return n.promised
	}
	return n.view.ID
}

func (l *liar) view(n *node) View {
	v := View{ID: l.viewID(n), Members: l.list()}
	if l.r.IntN(2) == 0 {
		v.Members = n.view.Members
	}
	if l.r.IntN(2) == 0 && len(v.Members) > 0 {
		v.ID.Coordinator = v.Members[0].Member
	}
	return v
}

func (l *liar) copied(n *node) Copy {
	c := Copy{View: l.viewID(n), Hop: l.about(n.accepted + uint64(len(n.view.Members))), Seq: l.about(n.seq), Rush: l.about(n.hop), Yield: l.about(n.hop)}
	if l.r.IntN(4) == 0 {
		c.Install = &Install{View: l.view(n), Cause: Cause(l.r.IntN(8)), Exchange: l.r.IntN(2) == 0}
		for _, m := range c.Install.View.Members {
			c.Install.Origins = append(c.Install.Origins, Origin{m.Member, l.viewID(n), l.viewID(n), l.node().Member})
		}
	}
	seq := n.seq
	for range l.r.IntN(4) {
		r := Run{Seq: l.about(seq + 1), Count: 1, Origin: c.View, From: l.node().Member, Proposal: l.about(9), Kind: Kind(l.r.IntN(int(kinds) + 1))}
		r.Data = payloads([]string{"", "lock", string(appendClaim(nil, "lock", Fence{l.r.Uint64(), 1}))}[l.r.IntN(3)])
		if r.OriginSeq = r.Seq; l.r.IntN(4) == 0 {
			r.Origin, r.OriginSeq = l.viewID(n), l.about(seq+1)
		}
		if l.r.IntN(6) == 0 {
			r.Omitted, r.Data = true, nil
			r.Count = l.about(1)
		}
		c.Runs = append(c.Runs, r)
		seq = r.last()
	}
	if l.r.IntN(2) == 0 {
		c.Seq = seq
	}
	return c
}

// message makes one for a member.
func (l *liar) message(n *node) Message {
	h := Header{From: l.node(), To: n.self.Member}
	var nonce, proof uint64
	if n.ask != nil {
		nonce = n.ask.nonce
	} else if n.probe != nil {
		nonce = n.probe.nonce
	}
	if known := n.answers[h.From.Member]; len(known) > 0 {
		proof = known[len(known)-1].answer
	}
	switch l.r.IntN(10) {
	case 0:
		return &Ping{h, l.about(1), l.list()}
	case 1:
		p := &Pong{Header: h, Nonce: nonce, Answer: l.about(1), View: l.view(n), Hop: l.about(n.hop), Age: time.Duration(l.r.Int64N(math.MaxInt64)),
			State: State(l.r.IntN(9)), Promised: l.viewID(n), HoldOff: time.Duration(l.r.Int64N(1<<40) * l.r.Int64N(2))}
		for range l.r.IntN(6) {
			p.Heard = append(p.Heard, l.node().Member)
		}
		return p
	case 2:
		return &Hear{h}
	case 3:
		return &Call{h, l.view(n), Cause(l.r.IntN(8)), l.viewID(n), l.about(n.hop), proof}
	case 4:
		p := &Promise{Header: h, View: l.viewID(n), Installed: l.viewID(n), Synced: l.viewID(n), With: l.node().Member, Delivered: l.about(n.seq)}
		if n.call != nil {
			p.View = n.call.view.ID
		}
		if l.r.IntN(2) == 0 {
			c := l.copied(n)
			p.Copy = &c
		}
		return p
	case 5:
		r := &Refuse{h, l.viewID(n), Reason(l.r.IntN(9)), l.viewID(n)}
		if n.call != nil {
			r.View = n.call.view.ID
		}
		return r
	case 6:
		return &Token{h, l.copied(n)}
	case 7:
		return &TokenAck{h, l.viewID(n), l.about(n.hop)}
	case 8:
		return &Want{h, l.viewID(n), l.about(n.hop)}
	}
	if l.r.IntN(10) > 0 {
		return &Hear{h}
	}
	return &Leave{h, l.viewID(n)}
}

// Whatever liars tell, in their own name or a member's, nobody falls over; and after
// them the members are one ring again, in which what is proposed is ordered.
func TestFloodOfLies(t *testing.T) {
	const rings, lies = 40, 2000
	for seed := range uint64(rings) {
		c := newCluster(t)
		c.size = int(seed%2) * 3
		for _, id := range []NodeID{1, 2, 3} {
			c.start(id, 1)
		}
		c.join(1, 2, 3)
		l := &liar{r: rand.New(rand.NewPCG(seed, 1)), c: c, nodes: []Node{mallory, {Member{98, 1}, "oscar"}}}
		for _, id := range c.ids() {
			l.nodes = append(l.nodes, c.nodes[id].self)
		}
		for i := range lies {
			n := c.nodes[NodeID(1+l.r.IntN(3))]
			msg := l.message(n)
			b, err := Append(nil, msg)
			if err != nil {
				t.Fatal(err)
			}
			if msg, err = Decode(b); err == nil { // not all can be sent
				n.Step(msg, c.now)
				c.collect(n)
			}
			switch i % 50 {
			case 0:
				if err := n.Lock("lock", c.now); err != nil {
					t.Fatal(err)
				}
				c.collect(n)
			case 1:
				c.propose(n.self.ID, "x")
			case 2:
				c.run(time.Duration(l.r.IntN(100)) * time.Millisecond)
			}
			for _, n := range c.nodes {
				n.events = n.events[:0]
			}
		}
		for _, id := range c.ids() {
			n := c.nodes[id]
			if len(n.heard) > 2*maxMembers || len(n.answers) > 2*maxMembers || len(n.outside) > n.limits.Outside || len(n.steady) > maxMembers || len(n.vain) > 2*maxMembers {
				t.Fatalf("seed %d: member %d remembers too much", seed, id)
			}
		}
		c.until(3*time.Minute, "one ring", c.together(1, 2, 3))
		first := c.nodes[1].own.reported
		number := c.propose(1, "y")
		c.until(10*time.Second, "ordered", func() bool { return c.nodes[1].stableUp() == number && number > first })
	}
}
