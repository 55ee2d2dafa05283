package ringnet

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/transport"
	"rserpool/enrp/ring"
)

func TestJoinOrderAndLeave(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.start(1, 2, 3)
		took := c.waitWhole(5*time.Second, 1, 2, 3)
		t.Logf("joined within %s", took)
		last := uint64(0)
		for i := range 10 {
			for id := 1; id <= 3; id++ {
				last = c.propose(id, fmt.Sprint(i))
			}
		}
		c.same(30, 1, 2, 3)
		c.wait(time.Second, "all is stable", func() bool {
			return c.members[1].stableTo() == last && c.members[2].stableTo() == last && c.members[3].stableTo() == last
		})
		for id := 1; id <= 3; id++ {
			s := c.status(id)
			if len(s.Peers) != 2 {
				t.Errorf("member %d lists %+v", id, s.Peers)
			}
			for _, p := range s.Peers {
				if !p.Connected || p.Version != int(spoken.max) || p.SentMessages == 0 || p.ReceivedOctets == 0 || p.Since.IsZero() {
					t.Errorf("member %d: %+v", id, p)
				}
			}
			if len(s.Refused) > 0 {
				t.Errorf("member %d refused %v", id, s.Refused)
			}
		}
		// Who leaves is gone at once, and nobody takes it for dead.
		c.stop(2)
		took = c.waitWhole(300*time.Millisecond, 1, 3)
		t.Logf("without the one that left after %s", took)
		for _, id := range []int{1, 3} {
			m := c.members[id]
			m.mu.Lock()
			if cause := m.causes[len(m.causes)-1]; cause != ring.CauseLeave {
				t.Errorf("member %d has a new view because of %s", id, cause)
			}
			m.mu.Unlock()
		}
		c.stop(1)
		c.stop(3)
	})
}

// TestOneConnectionPerPair: whoever dialled, each pair ends with one connection, and
// both ends use the same.
func TestOneConnectionPerPair(t *testing.T) {
	inCluster(t, 5, func(t *testing.T, c *cluster) {
		c.start(1, 2, 3, 4, 5)
		c.waitWhole(10*time.Second, 1, 2, 3, 4, 5)
		time.Sleep(5 * ring.LAN().ProbeInterval) // the losers go
		synctest.Wait()
		dialled := make(map[[2]int]bool)
		for id := range c.members {
			s := c.status(id)
			for _, p := range s.Peers {
				dialled[[2]int{id, int(p.Member.ID)}] = p.Dialled
			}
			for member, m := range c.members[id].group.loop.net.members {
				if n := len(m.conns); n != 1 {
					t.Errorf("member %d has %d connections to %s", id, n, member)
				}
			}
		}
		for pair, d := range dialled {
			if d == dialled[[2]int{pair[1], pair[0]}] {
				t.Errorf("members %v: dialled by both or none of them: %v", pair, d)
			}
		}
		before := make(map[int][]uint64)
		for id := range c.members {
			for _, p := range c.status(id).Peers {
				before[id] = append(before[id], p.Connections)
			}
		}
		time.Sleep(time.Minute)
		for id := range c.members {
			var now []uint64
			for _, p := range c.status(id).Peers {
				now = append(now, p.Connections)
			}
			if !slices.Equal(now, before[id]) {
				t.Errorf("member %d: connections come and go without need: %v, %v", id, before[id], now)
			}
		}
	})
}

func TestKillAndRestart(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		c.propose(1, "before")
		c.same(1, 1, 2, 3)
		old := c.kill(2).group.Self().Member
		took := c.waitWhole(300*time.Millisecond, 1, 3)
		t.Logf("killed member out after %s", took)
		c.propose(3, "between")
		c.same(2, 1, 3)
		c.start(2)
		took = c.waitWhole(5*time.Second, 1, 2, 3)
		t.Logf("restarted member in after %s", took)
		if now := c.members[2].group.Self().Member; now.ID != old.ID || now.Incarnation <= old.Incarnation {
			t.Errorf("restarted as %s after %s", now, old)
		}
		c.propose(2, "after")
		c.same(3, 1, 3)
		c.wait(time.Second, "the new life delivers", func() bool { return slices.Equal(c.members[2].told(), []string{"2: after"}) })
	})
}

// TestCutOneWay: when a member can send to another but not hear it, the three end
// in a view that stays.
func TestCutOneWay(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		c.net.CutOneWay(name(1), name(2))
		time.Sleep(time.Minute)
		synctest.Wait()
		views := func() (ids []ring.ViewID) {
			for _, id := range c.ids() {
				m := c.members[id]
				m.mu.Lock()
				ids = append(ids, m.view.ID)
				m.mu.Unlock()
			}
			return ids
		}
		before := views()
		time.Sleep(time.Minute)
		synctest.Wait()
		if after := views(); !slices.Equal(after, before) {
			t.Errorf("views still change: %v, %v", before, after)
		}
		c.net.Heal(name(1), name(2))
		c.waitWhole(time.Minute, 1, 2, 3)
		c.propose(1, "x")
		c.wait(time.Second, "delivery", func() bool { return len(c.members[2].told()) == 1 })
	})
}

// TestLateHopIsSentOverANewConnection: a token that vanished comes over another
// connection, and nobody is left out.
func TestLateHopIsSentOverANewConnection(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		time.Sleep(3 * ring.LAN().ProbeInterval)
		connections := func() (n uint64) {
			for id := range c.members {
				for _, p := range c.status(id).Peers {
					n += p.Connections
				}
			}
			return n
		}
		before := connections()
		view := c.status(1).View.ID
		c.net.DropNext(func(data []byte) bool {
			if data[0] != frameWhole {
				return false
			}
			msg, err := ring.Decode(bytes.Clone(data[headerLen:]))
			if err != nil { // padding
				msg, err = ring.Decode(bytes.Clone(data[headerLen:frameEnd(data)]))
			}
			_, token := msg.(*ring.Token)
			return err == nil && token
		})
		c.propose(1, "x")
		c.same(1, 1, 2, 3)
		time.Sleep(time.Second)
		if after := connections(); after <= before {
			t.Errorf("%d connections, %d before the token was lost", after, before)
		}
		if now := c.status(1).View.ID; now != view {
			t.Errorf("the view is %s, was %s", now, view)
		}
	})
}

func frameEnd(data []byte) int { return int(data[2])<<8 | int(data[3]) }

// TestBackPressure: a queue that nobody empties is full, and says when it has room.
func TestBackPressure(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		c.change = func(_ int, cfg *Config) { cfg.Limits = ring.Limits{QueueProposals: 10, QueueOctets: 10_000} }
		c.start(1, 2)
		c.waitWhole(5*time.Second, 1, 2)
		m := c.members[1]
		held := make(chan struct{})
		c.members[2].mu.Lock()
		c.members[2].pause = func() { <-held }
		c.members[2].mu.Unlock()
		sent := 0
		for ; ; sent++ {
			_, err := m.group.Propose(fmt.Append(nil, sent))
			synctest.Wait()
			if errors.Is(err, ring.ErrFull) {
				break
			}
			if err != nil || sent > 1000 {
				t.Fatalf("after %d proposals: %v", sent, err)
			}
		}
		select {
		case <-m.group.Room():
			t.Error("room in a full queue")
		default:
		}
		close(held)
		c.members[2].mu.Lock()
		c.members[2].pause = nil
		c.members[2].mu.Unlock()
		select {
		case <-m.group.Room():
		case <-time.After(time.Second):
			t.Error("nobody says that there is room again")
		}
		c.same(sent, 1, 2)
		for i, text := range m.told() {
			if text != fmt.Sprintf("1: %d", i) {
				t.Errorf("message %d is %q", i, text)
			}
		}
		if _, err := m.group.Propose(make([]byte, ring.MaxPayload+1)); !errors.Is(err, ring.ErrTooLong) {
			t.Errorf("a long payload: %v", err)
		}
	})
}

// TestLongMessages: payloads up to the limit travel, and nobody is lost over it.
func TestLongMessages(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		view := c.status(1).View.ID
		for id := 1; id <= 3; id++ {
			c.propose(id, strings.Repeat(fmt.Sprint(id), ring.MaxPayload), "short")
		}
		c.same(6, 1, 2, 3)
		if now := c.status(1).View.ID; now != view {
			t.Errorf("the view is %s, was %s", now, view)
		}
	})
}

// TestIdle: a ring without traffic sends next to nothing, and who has something to
// say is heard at once.
func TestIdle(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		time.Sleep(time.Minute)
		sent := func(id int) (n uint64) {
			for _, p := range c.status(id).Peers {
				n += p.SentMessages
			}
			return n
		}
		// Over TCP two messages, a token and its acknowledgement, take three packets, as does
		// a question for the clock.
		questions := func(id int) (n uint64) {
			synctest.Wait()
			for _, m := range c.members[id].group.loop.net.members {
				for _, conn := range m.conns {
					n += conn.clock.stamp
				}
			}
			return n
		}
		packets := func(id int) uint64 {
			asked := questions(id) // before status, which has the loop go on after that
			return sent(id)*3/2 + asked*3
		}
		before := map[int]uint64{1: packets(1), 2: packets(2), 3: packets(3)}
		const watched = 10 * time.Minute
		time.Sleep(watched)
		for id := 1; id <= 3; id++ {
			rate := float64(packets(id)-before[id]) / watched.Seconds()
			t.Logf("member %d sends %.2f packets per second", id, rate)
			if rate > 4 {
				t.Errorf("member %d sends %.2f packets per second, want at most 4", id, rate)
			}
		}
		c.propose(2, "wake up")
		took := c.wait(10*time.Millisecond, "delivery", func() bool { return len(c.members[3].told()) == 1 })
		t.Logf("delivered elsewhere after %s", took)
	})
}

// TestNames: members are found by a name that has all their addresses.
func TestNames(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.net.Alias("ring.example", name(1), name(2))
		c.change = func(_ int, cfg *Config) {
			cfg.Peers = []transport.Endpoint{{Network: transport.Mem, Hosts: []string{"ring.example"}, Port: port}}
		}
		c.start(1, 2)
		c.waitWhole(5*time.Second, 1, 2)
		// The name gets another address.
		c.kill(1)
		c.waitWhole(time.Second, 2)
		c.net.Alias("ring.example", name(2), name(3))
		c.start(3)
		c.waitWhole(5*time.Second, 2, 3)
		c.wait(20*time.Second, "the old address is forgotten", func() bool {
			return !slices.ContainsFunc(c.status(2).Peers, func(p PeerStatus) bool { return strings.Contains(p.Addr, address4(1)) })
		})
	})
}

// TestAddressesAreLearned: it is enough that a newcomer knows one member.
func TestAddressesAreLearned(t *testing.T) {
	inCluster(t, 4, func(t *testing.T, c *cluster) {
		c.change = func(id int, cfg *Config) {
			cfg.Peers = nil
			if id > 1 {
				cfg.Peers = []transport.Endpoint{endpoint(id - 1)}
			}
		}
		c.start(1, 2, 3, 4)
		c.waitWhole(20*time.Second, 1, 2, 3, 4)
	})
}

// TestShortCut: a link that fails for less than HopTimeout costs nobody the place in
// the view.
func TestShortCut(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		view := c.status(1).View.ID
		for i := range 10 {
			for _, other := range []int{1, 3} {
				c.net.Cut(name(2), name(other))
			}
			c.propose(1, fmt.Sprint(i))
			time.Sleep(ring.LAN().HopTimeout * 3 / 4)
			for _, other := range []int{1, 3} {
				c.net.Heal(name(2), name(other))
			}
			c.same(i+1, 1, 2, 3)
		}
		if now := c.status(1).View.ID; now != view {
			t.Errorf("the view is %s, was %s", now, view)
		}
	})
}

// TestFrozenMember: one that stops for less than HopTimeout stays in the view.
func TestFrozenMember(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		view := c.status(1).View.ID
		c.net.Freeze(name(2))
		c.propose(1, "x")
		time.Sleep(ring.LAN().HopTimeout / 2)
		c.net.Thaw(name(2))
		c.same(1, 1, 2, 3)
		if now := c.status(1).View.ID; now != view {
			t.Errorf("the view is %s, was %s", now, view)
		}
	})
}

func TestConfigNamesAllProblems(t *testing.T) {
	_, err := New(Config{
		Cluster: strings.Repeat("x", maxCluster+1), Size: 3, SendQueue: -1,
		Peers:     []transport.Endpoint{{Network: transport.Mem, Hosts: []string{"h"}}},
		Advertise: []transport.Endpoint{{Network: transport.Mem, Hosts: []string{""}, Port: 1}},
		Timers:    ring.Timers{HopRetry: 1},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"cluster name of 65", "identifier", "networks", "listen", "handler", "folder", "SendQueue", "peer mem://h:0 has no port", "no host", "HopTimeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %q in %q", want, err)
		}
	}
}

func TestBeforeStartAndAfterStop(t *testing.T) {
	inCluster(t, 1, func(t *testing.T, c *cluster) {
		m := &testMember{id: 1}
		g, err := New(Config{
			Cluster: "blue", ID: 1, Networks: transport.NewNetworks(c.net.Host(name(1))),
			Listen: []transport.Endpoint{endpoint(1)}, Handler: m,
		})
		if err != nil {
			t.Fatal(err)
		}
		m.group = g
		if _, err := g.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("status before the start: %v", err)
		}
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := g.Start(t.Context()); err == nil {
			t.Error("started twice")
		}
		if self := g.Self(); self.ID != 1 || self.Incarnation == 0 || self.Contact != "mem://10.0.0.1:9901" {
			t.Errorf("self is %+v", self)
		}
		if addrs := g.Addrs(); len(addrs) != 1 || addrs[0].Port() != port {
			t.Errorf("listens on %v", addrs)
		}
		if n, err := g.Propose([]byte("alone")); n != 1 || err != nil {
			t.Errorf("propose: %d, %v", n, err)
		}
		c.wait(time.Second, "delivery", func() bool { return m.stableTo() == 1 })
		for range 2 {
			if err := g.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if _, err := g.Propose(nil); !errors.Is(err, ring.ErrLeft) {
			t.Errorf("propose after the end: %v", err)
		}
		if _, err := g.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
			t.Errorf("status after the end: %v", err)
		}
		if err := g.Err(); err != nil {
			t.Error(err)
		}
	})
}
