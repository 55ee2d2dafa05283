package ringnet

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/transport"
	"rserpool/enrp/ring"
)

// enemy is a host whose connections get past the hello, and then lie.
type enemy struct {
	c     *cluster
	conns []transport.Conn
}

func (c *cluster) enemy() *enemy {
	c.net.Host("stranger", "10.9.9.9")
	e := &enemy{c: c}
	c.t.Cleanup(func() {
		for _, conn := range e.conns {
			conn.Abort()
		}
	})
	return e
}

// besieged starts a ring of these members, and returns an enemy and the view.
func (c *cluster) besieged(ids ...int) (*enemy, ring.View) {
	c.t.Helper()
	e := c.enemy()
	c.start(ids...)
	c.waitWhole(5*time.Second, ids...)
	return e, c.status(ids[0]).View
}

func identity(id int) ring.Node {
	return ring.Node{Member: ring.Member{ID: ring.NodeID(id), Incarnation: 1}, Contact: "mem://10.9.9.9:1"}
}

// connect gets a connection to a member in somebody's name, and reads from it if it
// is told to.
func (e *enemy) connect(to int, as ring.Node, reads bool) transport.Conn {
	e.c.t.Helper()
	conn := e.c.stranger(to)
	e.conns = append(e.conns, conn)
	h := hello{versions: spoken, cluster: "blue", node: as}
	e.send(conn, appendFrame(nil, frameHello, h.append(nil)))
	buf := make([]byte, transport.MaxMessage)
	if m, err := conn.Receive(e.c.t.Context(), buf); err != nil || m.Data[0] != frameHello {
		e.c.t.Fatalf("no answer to hello: % x, %v", m.Data, err)
	}
	e.send(conn, appendFrame(nil, frameReady, nil))
	synctest.Wait()
	if reads {
		go func() {
			for {
				if _, err := conn.Receive(context.Background(), buf); err != nil {
					return
				}
			}
		}()
	}
	return conn
}

// send sends a frame, if the connection is still there.
func (e *enemy) send(conn transport.Conn, frame []byte) {
	_ = conn.Send(e.c.t.Context(), transport.Message{Data: frame})
}

func (e *enemy) say(conn transport.Conn, m ring.Message) {
	e.c.t.Helper()
	frames, err := appendMessage(nil, m)
	if err != nil {
		e.c.t.Fatal(err)
	}
	for _, m := range split(nil, frames) {
		e.send(conn, m.Data)
	}
}

// from is the header of what somebody says to a member.
func (e *enemy) from(as ring.Node, to int) ring.Header {
	return ring.Header{From: as, To: e.c.members[to].group.Self().Member}
}

// nobody lists members that are nowhere.
func nobody(from, n int) (nodes []ring.Node) {
	for i := range n {
		nodes = append(nodes, ring.Node{
			Member:  ring.Member{ID: ring.NodeID(from + i), Incarnation: 1},
			Contact: fmt.Sprintf("mem://10.8.%d.%d:9", (from+i)/250%250, 1+(from+i)%250),
		})
	}
	return nodes
}

// works fails unless the ring of these members orders something, and is as it was.
func (c *cluster) works(view ring.ViewID, ids ...int) {
	c.t.Helper()
	if !c.whole(ids...) || c.status(ids[0]).View.ID != view {
		c.t.Error("the ring broke")
	}
	before := len(c.members[ids[0]].told())
	c.propose(ids[0], "still here")
	c.same(before+1, ids...)
}

// Names of members that are nowhere, told by pings and as found outside, take the
// place of nobody: a member that joins has room, and what is dialled is bounded.
func TestNamesOfNobodyTakeNoRoom(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		e, view := c.besieged(1, 2)
		as := identity(99)
		conn := e.connect(1, as, true)
		limit := c.members[1].group.loop.net.limit()
		flood := func(round int) {
			first := 1000 + round*200
			e.say(conn, &ring.Ping{Header: e.from(as, 1), Nonce: 1, Candidates: nobody(first, 64)})
			e.send(conn, appendFrame(nil, frameOutside, appendOutside(nil, nobody(first+100, maxOutside))))
		}
		for round := range 100 {
			flood(round)
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if n := len(c.members[1].group.loop.net.members); n > limit {
			t.Errorf("%d members known, at most %d", n, limit)
		}
		c.works(view.ID, 1, 2)
		c.start(3)
		for round := range 2000 {
			flood(round)
			time.Sleep(time.Millisecond)
			if c.whole(1, 2, 3) {
				break
			}
		}
		if !c.whole(1, 2, 3) {
			t.Errorf("nobody can join: %v", c.status(3).View)
		}
	})
}

// As many members as may be known, all with connections, don't push a member of the
// view out; and one more is refused.
func TestManyNames(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		e, view := c.besieged(1, 2)
		limit := c.members[1].group.loop.net.limit()
		for id := range limit + 20 {
			e.connect(1, identity(100+id), true)
		}
		s := c.status(1)
		if len(s.Peers) != limit || s.Refused[refusedMany] != 21 {
			t.Errorf("%d members known, refused %v", len(s.Peers), s.Refused)
		}
		c.works(view.ID, 1, 2)
	})
}

// One member has few connections, whatever it dials.
func TestManyConnectionsOfOneMember(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		e, view := c.besieged(1, 2)
		for range 50 {
			e.connect(1, identity(99), true)
		}
		synctest.Wait()
		if n := len(c.members[1].group.loop.net.members[identity(99).Member].conns); n > maxConns {
			t.Errorf("%d connections", n)
		}
		if n := c.status(1).Refused[refusedFlood]; n < 50-maxConns {
			t.Errorf("%d refused", n)
		}
		c.works(view.ID, 1, 2)
	})
}

// Where a member is reached nobody else says.
func TestForgedContact(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		e, _ := c.besieged(1, 2)
		as, two := identity(99), c.members[2].group.Self()
		truth := two.Contact
		two.Contact = as.Contact
		conn := e.connect(1, as, true)
		e.say(conn, &ring.Ping{Header: e.from(as, 1), Nonce: 1, Candidates: []ring.Node{two}})
		e.send(conn, appendFrame(nil, frameOutside, appendOutside(nil, []ring.Node{two})))
		time.Sleep(100 * time.Millisecond)
		if got := c.members[1].group.loop.net.members[two.Member].node.Contact; got != truth {
			t.Errorf("member 2 is at %s, not %s", got, truth)
		}
	})
}

// Long messages of many strangers, that never end, hold a bounded amount of memory
// for a bounded time, and don't keep the ring's own messages from it.
func TestHalfMessages(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		e, view := c.besieged(1, 2, 3)
		memory := func() int64 { return strangersMemory - c.members[1].group.memory.left.Load() }
		begin := binary.BigEndian.AppendUint32(nil, ring.MaxMessage)
		begin = appendFrame(nil, frameBegin, append(begin, make([]byte, frameLen-beginLen)...))
		more := appendFrame(nil, frameContinue, make([]byte, frameLen-headerLen))
		const strangers = 30
		for id := range strangers {
			conn := e.connect(1, identity(100+id), true)
			e.send(conn, begin)
			for range 100 {
				e.send(conn, more)
			}
			synctest.Wait()
			if n := memory(); n < 0 || n > strangersMemory {
				t.Fatalf("%d octets held", n)
			}
		}
		c.works(view.ID, 1, 2, 3)
		long := string(make([]byte, ring.MaxPayload))
		c.propose(2, long)
		c.same(2, 1, 2, 3)
		s := c.status(1)
		if s.Refused[refusedMemory] == 0 || memory() < strangersMemory/2 {
			t.Errorf("refused %v, %d octets held", s.Refused, memory())
		}
		time.Sleep(strangersTime)
		synctest.Wait()
		if s = c.status(1); s.Refused[refusedSlow]+s.Refused[refusedMemory] != strangers || memory() != 0 {
			t.Errorf("refused %v, %d octets held", s.Refused, memory())
		}
		c.works(view.ID, 1, 2, 3)
	})
}

// Strangers that ask and never read don't fill a member's memory.
func TestDeafStrangers(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		c.change = func(_ int, cfg *Config) { cfg.SendQueue = 64 << 10 }
		e, view := c.besieged(1, 2)
		as := identity(99)
		conn := e.connect(1, as, false)
		for i := range 50_000 {
			e.say(conn, &ring.Ping{Header: e.from(as, 1), Nonce: uint64(i)})
		}
		time.Sleep(100 * time.Millisecond)
		m := c.members[1].group.loop.net.members[as.Member]
		if m == nil || len(m.conns) == 0 {
			t.Fatal("no connection")
		}
		last := m.conns[0]
		last.mu.Lock()
		queued := len(last.queued)
		last.mu.Unlock()
		if queued > 64<<10/strangersShare+4096 || last.counts.dropped.Load() == 0 {
			t.Errorf("%d octets queued, %d messages dropped", queued, last.counts.dropped.Load())
		}
		c.works(view.ID, 1, 2)
	})
}

// A storm of calls, wants and tokens from outside changes nothing.
func TestStormFromOutside(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		e, v := c.besieged(1, 2)
		as := identity(99)
		conn, h := e.connect(1, as, true), e.from(as, 1)
		forged := ring.View{ID: ring.ViewID{Counter: v.ID.Counter + 1, Coordinator: as.Member}, Members: append([]ring.Node{as}, v.Members...)}
		for i := range uint64(5000) {
			e.say(conn, &ring.Call{Header: h, View: forged, Cause: ring.CauseMerge, Proof: i})
			e.say(conn, &ring.Want{Header: h, View: v.ID, Hop: i})
			e.say(conn, &ring.Token{Header: h, Copy: ring.Copy{View: v.ID, Hop: i}})
			e.say(conn, &ring.Promise{Header: h, View: v.ID, Installed: v.ID})
			e.say(conn, &ring.Refuse{Header: h, View: v.ID, Promised: forged.ID})
			e.say(conn, &ring.Pong{Header: h, Nonce: i, View: v, Promised: forged.ID})
			e.say(conn, &ring.Leave{Header: h, View: v.ID})
		}
		time.Sleep(5 * time.Second)
		c.works(v.ID, 1, 2)
		s := c.status(1)
		for _, reason := range []string{"want of another view", "token for another member", "late promise", "late refusal", "forged view"} {
			if s.Counters.Dropped[reason] == 0 {
				t.Errorf("nothing counted as %q: %v", reason, s.Counters.Dropped)
			}
		}
		if s.Counters.Refused[ring.RefusedProof.String()] == 0 {
			t.Errorf("refused: %v", s.Counters.Refused)
		}
	})
}
