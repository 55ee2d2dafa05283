package ringnet

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/transport"
	"rserpool/enrp/ring"
)

func TestOtherClusterAndVersionAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name, reason, text string
		change             func(id int, cfg *Config)
		adjust             func(id int, g *Group)
	}{
		{
			name: "cluster", reason: refusedCluster, text: `in \"red\"`,
			change: func(id int, cfg *Config) {
				if id == 2 {
					cfg.Cluster = "red"
				}
			},
		},
		{
			name: "version", reason: refusedVersion, text: fmt.Sprintf("speaks versions %d to %d", spoken.max+1, spoken.max+2),
			adjust: func(id int, g *Group) {
				if id == 2 {
					g.versions = versionRange{spoken.max + 1, spoken.max + 2}
				}
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inCluster(t, 2, func(t *testing.T, c *cluster) {
				c.change, c.adjust = tt.change, tt.adjust
				c.start(1, 2)
				time.Sleep(10 * time.Second)
				refused := uint64(0)
				for id := range c.members {
					s := c.status(id)
					if len(s.View.Members) != 1 {
						t.Errorf("member %d is in %v", id, s.View)
					}
					if s.Refused[tt.reason]+s.Refused[refusedByPeer] == 0 {
						t.Errorf("member %d refused %v, nothing because of %s", id, s.Refused, tt.reason)
					}
					refused += s.Refused[tt.reason]
					if !c.members[id].log.has(tt.text) {
						t.Errorf("the log of member %d does not say that one %s", id, tt.text)
					}
				}
				if refused == 0 {
					t.Error("nobody counted it")
				}
			})
		})
	}
}

// One that can't be reached is told of once, and again when it is for another reason: a
// peer that comes later may have certificates, or none.
func TestWhyAPeerIsNotReachedIsSaid(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		c.start(1)
		said := func(text string, want int) {
			t.Helper()
			time.Sleep(2 * logPause)
			if got := c.members[1].log.count(text); got != want {
				t.Errorf("%q is said %d times, not %d", text, got, want)
			}
		}
		said("peer not reached yet", 1)
		l, err := c.net.Host(name(2)).Listen(t.Context(), []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(address4(2)), port)}, transport.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var closer sync.WaitGroup
		closer.Go(func() {
			for {
				conn, err := l.Accept(t.Context())
				if err != nil {
					return
				}
				_ = conn.Close()
			}
		})
		said("only the other side has certificates", 1)
		said("peer not reached yet", 2)
		if p := c.status(1).Peers; len(p) != 1 || !strings.Contains(p[0].LastError, "certificates") {
			t.Errorf("status: %+v", p)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		closer.Wait()
		said("peer not reached yet", 3)
	})
}

// TestAdjacentVersionsWorkTogether: members of the version before, of this one and of
// the next are one ring; each two speak the highest version that both know.
func TestAdjacentVersionsWorkTogether(t *testing.T) {
	inCluster(t, 4, func(t *testing.T, c *cluster) {
		highest := map[int]version{1: spoken.max - 1, 2: spoken.max, 3: spoken.max + 1, 4: spoken.max}
		c.adjust = func(id int, g *Group) { g.versions = versionRange{spoken.min, highest[id]} }
		c.start(1, 2, 3, 4)
		c.waitWhole(5*time.Second, 1, 2, 3, 4)
		c.works(c.status(1).View.ID, 1, 2, 3, 4)
		time.Sleep(time.Second) // they look at each other's clocks now and then
		for id := range c.members {
			for _, p := range c.status(id).Peers {
				if want := min(highest[id], highest[int(p.Member.ID)]); p.Version != int(want) {
					t.Errorf("member %d speaks version %d with %s, want %d", id, p.Version, p.Member, want)
				}
				if got, want := !p.Skew.At.IsZero(), p.Version >= int(clockVersion); got != want {
					t.Errorf("member %d knows the clock of %s: %v, speaking version %d", id, p.Member, got, p.Version)
				}
				if len(c.status(id).Refused) > 0 {
					t.Errorf("member %d refused %v", id, c.status(id).Refused)
				}
			}
		}
	})
}

// stranger dials a member from a machine of its own.
func (c *cluster) stranger(to int) transport.Conn {
	c.t.Helper()
	h := c.net.Host("stranger")
	conn, err := transport.NewNetworks(h).Dial(c.t.Context(), nil, endpoint(to), transport.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	return conn
}

// TestFlood: silent and talkative strangers are thrown out, and hinder neither the
// ring nor one who joins.
func TestFlood(t *testing.T) {
	inCluster(t, 4, func(t *testing.T, c *cluster) {
		c.net.Host("stranger", "10.9.9.9")
		c.change = func(_ int, cfg *Config) { cfg.MaxUnidentified = 8 }
		c.start(1, 2, 3)
		c.waitWhole(5*time.Second, 1, 2, 3)
		var conns []transport.Conn
		say := func(data []byte) {
			h := c.net.Host("stranger")
			conn, err := transport.NewNetworks(h).Dial(t.Context(), nil, endpoint(1), transport.Options{})
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
			if data != nil {
				_ = conn.Send(t.Context(), transport.Message{Data: data}) // it may be closed already
				synctest.Wait()
			}
		}
		h := hello{versions: spoken, cluster: "blue", node: ring.Node{Member: ring.Member{ID: 99, Incarnation: 1}}}
		for range 50 {
			say(nil)
			say([]byte("GET / HTTP/1.1\r\n\r\n"))
			say(bytes.Repeat([]byte{0xff}, 60_000))
			say(appendFrame(nil, frameHello, []byte("RING")))
			say(appendFrame(nil, frameHello, h.append(nil))[:20])
			say(appendFrame(nil, frameReady, nil))
		}
		for range 20 {
			say(nil)
		}
		c.start(4)
		c.waitWhole(5*time.Second, 1, 2, 3, 4)
		s := c.status(1)
		if s.Refused[refusedFlood] == 0 || s.Refused[refusedGarbage] < 100 {
			t.Errorf("refused: %v", s.Refused)
		}
		if s.Unidentified > 8 {
			t.Errorf("%d connections without a hello", s.Unidentified)
		}
		time.Sleep(defaultHelloTimeout + time.Second)
		s = c.status(1)
		if s.Refused[refusedSilent] == 0 || s.Unidentified > 0 {
			t.Errorf("silent strangers stay: %d, refused %v", s.Unidentified, s.Refused)
		}
		if !c.members[1].log.has("reason=garbage") {
			t.Error("nothing in the log")
		}
		c.propose(1, "still here")
		c.same(1, 1, 2, 3, 4)
		for _, conn := range conns {
			conn.Abort()
		}
	})
}

// TestMembersThatTalkNonsense: after a good hello, frames and messages are checked
// too.
func TestMembersThatTalkNonsense(t *testing.T) {
	inCluster(t, 2, func(t *testing.T, c *cluster) {
		c.net.Host("stranger", "10.9.9.9")
		c.start(1, 2)
		c.waitWhole(5*time.Second, 1, 2)
		self := ring.Member{ID: 99, Incarnation: 1}
		good := func(m ring.Message) []byte {
			b, err := appendMessage(nil, m)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		to := c.members[1].group.Self().Member
		tests := []struct {
			name   string
			data   []byte
			reason string
			closed bool
		}{
			{"a frame that is none", []byte{1, 0, 0, 8, 0, 0, 0, 0}, refusedGarbage, true},
			{"a message that is none", framed(nil, []byte("nonsense")), refusedMessage, true},
			{"a message of four gigaoctets", append(appendFrame(nil, frameBegin, append([]byte{0xff, 0xff, 0xff, 0xff}, make([]byte, frameLen-beginLen)...)), 0)[:frameLen], refusedGarbage, true},
			{"a message in another's name", good(&ring.Leave{Header: ring.Header{From: c.members[2].group.Self(), To: to}, View: c.status(1).View.ID}), refusedMessage, false},
		}
		for _, tt := range tests {
			before := c.status(1).Refused[tt.reason]
			conn := c.stranger(1)
			h := hello{versions: spoken, cluster: "blue", node: ring.Node{Member: self, Contact: "mem://10.9.9.9:1"}}
			send := func(data []byte) {
				if err := conn.Send(t.Context(), transport.Message{Data: data}); err != nil {
					t.Fatal(err)
				}
			}
			send(appendFrame(nil, frameHello, h.append(nil)))
			if m, err := conn.Receive(t.Context(), make([]byte, maxHello)); err != nil || m.Data[0] != frameHello {
				t.Fatalf("%s: the answer to hello: % x, %v", tt.name, m.Data, err)
			}
			send(appendFrame(nil, frameReady, nil))
			send(tt.data)
			c.wait(time.Second, tt.name+" is refused", func() bool { return c.status(1).Refused[tt.reason] > before })
			if tt.closed {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				buf, err := make([]byte, transport.MaxMessage), error(nil)
				for err == nil {
					_, err = conn.Receive(ctx, buf)
				}
				if ctx.Err() != nil {
					t.Errorf("%s: the connection stays", tt.name)
				}
				cancel()
			}
			conn.Abort()
			time.Sleep(10 * time.Millisecond)
		}
		if !c.whole(1, 2) {
			t.Error("the ring broke")
		}
		c.propose(1, "still here")
		c.same(1, 1, 2)
	})
}

// TestSameIdentifierTwice: a second process with the identifier of a member is
// reported, and stays out.
func TestSameIdentifierTwice(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, c *cluster) {
		c.change = func(id int, cfg *Config) {
			if id == 3 {
				cfg.ID = 2
			}
		}
		c.start(1, 2)
		c.waitWhole(5*time.Second, 1, 2)
		c.start(3)
		clashed := func(id int) bool {
			m := c.members[id]
			m.mu.Lock()
			defer m.mu.Unlock()
			return len(m.clashes) > 0
		}
		c.wait(10*time.Second, "the clash is reported", func() bool { return clashed(2) })
		time.Sleep(10 * time.Second)
		if !c.whole(1, 2) {
			t.Error("the ring broke")
		}
	})
}
