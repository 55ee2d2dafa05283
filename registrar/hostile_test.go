package registrar

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// claiming is an association whose peer says that it has another address too.
type claiming struct {
	transport.Conn
	claimed netip.AddrPort
}

func (c claiming) RemoteAddrs() []netip.AddrPort { return append(c.Conn.RemoteAddrs(), c.claimed) }

// TestClaimedAddresses shows that the addresses that an association's peer claims
// besides its primary one, and may not have, give it no power over others.
func TestClaimedAddresses(t *testing.T) {
	liar := netip.MustParseAddr("192.0.2.66")
	const victim = "192.0.2.1"
	inWorld(t, func(w *world) {
		pe, bad := w.peer(victim), w.peer(liar.String())
		pe.join(pool, pe.element(1))

		bad.say(&asap.Deregistration{Handle: pool, ID: 1})
		w.wantCauses(one[*asap.DeregistrationResponse](bad).Error, param.CauseSecurity)
		w.wantStored(pool, 1, true)

		w.wantCauses(bad.register(pool, bad.element(1)).Error, param.CauseNonUniquePEID)

		bad.say(&asap.EndpointKeepAliveAck{Handle: pool, ID: 1})
		if n := testutil.ToFloat64(w.r.metrics.keepAlives.WithLabelValues("stray")); n != 1 {
			t.Errorf("%v stray acknowledgements", n)
		}
		pe.leave()
		bad.acks[pool] = []param.PEID{1}
		for range 60 {
			bad.say(&asap.EndpointKeepAliveAck{Handle: pool, ID: 1})
			w.after(100 * time.Millisecond)
		}
		w.wantStored(pool, 1, false)
	}, hook(hooked{accept: func(c transport.Conn) transport.Conn {
		if c.RemoteAddrs()[0].Addr() == liar {
			return claiming{c, netip.AddrPortFrom(netip.MustParseAddr(victim), 50000)}
		}
		return c
	}}))
}

func TestClientOf(t *testing.T) {
	for _, tt := range []struct {
		a, b   string
		prefix int
		same   bool
	}{
		{"192.0.2.1", "192.0.2.2", 64, false},
		{"2001:db8::1", "2001:db8::2:3:4:5", 64, true},
		{"2001:db8::1", "2001:db8:0:1::1", 64, false},
		{"2001:db8::1", "2001:db8::2", 128, false},
		{"2001:db8::1", "2001:db8:0:1::1", 56, true},
		// All hosts of a link share this prefix.
		{"fe80::1%eth0", "fe80::2%eth0", 64, false},
	} {
		a, b := clientOf(netip.MustParseAddr(tt.a), tt.prefix), clientOf(netip.MustParseAddr(tt.b), tt.prefix)
		if (a == b) != tt.same {
			t.Errorf("%s and %s with %d bits: %s and %s", tt.a, tt.b, tt.prefix, a, b)
		}
	}
}

// TestOneHostWithManyAddresses shows that the addresses that an IPv6 host can
// choose from count as one client everywhere.
func TestOneHostWithManyAddresses(t *testing.T) {
	inWorld(t, func(w *world) {
		pe := w.peer("2001:db8:1::1")
		for id := range param.PEID(3) {
			pe.join(pool, pe.element(id+1))
		}
		for n := range 8 {
			pu := w.peer(fmt.Sprintf("2001:db8::%x", n+1))
			if n >= 6 {
				if !pu.closed() {
					t.Errorf("connection %d not refused", n)
				}
				continue
			}
			pu.say(&asap.EndpointUnreachable{Handle: pool, ID: 1})
			switch m := pu.register(param.PoolHandle(fmt.Sprint(n)), pu.element(1)); {
			case n < 2 && m.Reject, n >= 2 && !m.Reject:
				t.Errorf("registration %d: rejected %v", n, m.Reject)
			}
		}
		if r := w.stored(pool, 1); r == nil || r.Reports != 1 {
			t.Errorf("after reports from one network: %+v", r)
		}
	}, limits(func(l *Limits) { l.ConnectionsPerAddress, l.PoolsPerClient = 6, 2 }))
}

// TestNotices shows that peers can't fill the log.
func TestNotices(t *testing.T) {
	var n notice
	var lines []string
	say := func(args ...any) { lines = append(lines, fmt.Sprint(args...)) }
	for range 1000 {
		n.log(say, "rejected", epoch)
	}
	if len(lines) != noticeBurst {
		t.Errorf("%d lines at once", len(lines))
	}
	lines = nil
	for range 1000 {
		n.log(say, "rejected", at(time.Second))
	}
	if want := "rejected (800 more of these were not logged)"; len(lines) != noticeRate || lines[0] != want {
		t.Errorf("%d lines a second later, the first %q", len(lines), lines[0])
	}
	if s := handleText(param.PoolHandle(strings.Repeat("x", 5000))); len(s) > 100 {
		t.Errorf("a long handle is logged in %d octets", len(s))
	}
}

// TestSlowUsers shows that who reads slowly loses nothing but time, and takes no
// memory meanwhile.
func TestSlowUsers(t *testing.T) {
	t.Run("many requests at once from a subscriber", func(t *testing.T) {
		inWorld(t, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			pu.subscribe(pool)
			w.net.Freeze("host2")
			const n = 100
			var msgs []transport.Message
			for range n {
				q, err := (&asap.HandleResolution{Handle: pool, SendUpdates: true}).Append(nil)
				if err != nil {
					t.Fatal(err)
				}
				msgs = append(msgs, transport.Message{Data: q, PPID: transport.PPIDASAP})
			}
			w.after(time.Millisecond)
			go pu.conn.Send(pu.ctx, msgs...)
			w.after(2 * time.Second)
			w.net.Thaw("host2")
			w.after(2 * time.Second)
			if got := len(pu.heard()); got != n || pu.closed() {
				t.Errorf("%d answers, closed %v", got, pu.closed())
			}
		}, limits(func(l *Limits) { l.SendQueue = 16 }))
	})
	t.Run("a slow subscriber gets the latest state when it reads", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.net.Buffer = 128
			pe, pu := w.peer(), w.peer()
			pe.calm = true
			pe.join(pool, pe.element(1))
			pu.subscribe(pool)
			w.net.Freeze("host2")
			var last uint16
			for n := range uint16(40) {
				e := pe.element(1)
				last = 1000 + n
				e.User.Port = last
				pe.join(pool, e)
				w.after(200 * time.Millisecond)
			}
			w.net.Thaw("host2")
			w.after(time.Second)
			got := pu.heard()
			if len(got) == 0 || len(got) > 8 {
				t.Fatalf("%d updates", len(got))
			}
			m, ok := got[len(got)-1].(*asap.HandleResolutionResponse)
			if !ok || !m.AcceptUpdates || m.Elements[0].User.Port != last {
				t.Errorf("last update %+v", m)
			}
		})
	})
	t.Run("many subscribers are told in batches", func(t *testing.T) {
		inWorld(t, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			var users []*peer
			for range 3*updateBatch + 1 {
				pu := w.peer()
				pu.subscribe(pool)
				users = append(users, pu)
			}
			pe.join(pool, pe.element(2))
			w.after(100 * time.Millisecond)
			for _, pu := range users {
				if m := one[*asap.HandleResolutionResponse](pu); len(m.Elements) != 2 {
					t.Fatalf("update %+v", m)
				}
			}
			if len(w.r.owner.updates.due) != 0 {
				t.Error("updates left over")
			}
			left := make(chan int, 1)
			w.r.post(func(now time.Time) {
				u := w.r.owner.updates
				u.changed(pool, now)
				u.tick(now)
				left <- len(u.due)
			})
			if n := <-left; n != 2*updateBatch+1 {
				t.Errorf("%d left after one batch", n)
			}
		})
	})
	t.Run("an element that never reads is cut off when its queue is full", func(t *testing.T) {
		inWorld(t, func(w *world) {
			w.net.Buffer = 128
			pe := w.peer()
			for id := range param.PEID(60) { // to be told that they have expired
				e := pe.element(id + 1)
				e.Life = 20
				pe.join(pool, e)
			}
			w.net.Freeze("host1")
			w.after(time.Minute)
			if testutil.ToFloat64(w.r.metrics.drops.WithLabelValues("send")) == 0 {
				t.Error("not cut off")
			}
		}, limits(func(l *Limits) { l.SendQueue = 4 }), timers(func(t *Timers) {
			t.Write, t.KeepAlive.Timeout = time.Hour, time.Hour
		}))
	})
}

func TestSendQueue(t *testing.T) {
	var q sendQueue
	for n, want := range []struct{ start, ok bool }{{true, true}, {false, true}, {false, true}, {false, false}} {
		if start, ok := q.put(transport.Message{Data: make([]byte, 10)}, 3, 100); start != want.start || ok != want.ok {
			t.Errorf("message %d: start %v, ok %v", n, start, ok)
		}
	}
	if items := q.take(); len(items) != 3 || !q.busy() {
		t.Errorf("took %d", len(items))
	}
	if items := q.take(); items != nil || q.busy() {
		t.Errorf("took %d more", len(items))
	}
	for n, want := range []bool{true, true, false} { // a single one may be longer than all
		if _, ok := q.put(transport.Message{Data: make([]byte, []int{200, 0, 1}[n])}, 3, 200); ok != want {
			t.Errorf("message %d: ok %v", n, ok)
		}
	}
}

// TestLongHandlesAreKeptOnce shows that what many connections and elements refer
// to is one copy of a pool's handle, as handles may be long.
func TestLongHandlesAreKeptOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		long := param.PoolHandle(strings.Repeat("x", 10000))
		pe := w.peer()
		before := heap()
		for id := range param.PEID(200) {
			if m := pe.register(long, pe.element(id+1)); m.Reject {
				t.Fatal(m.Error)
			}
		}
		for n := range 100 {
			for k := range 20 { // pools that don't exist
				pe.say(&asap.HandleResolution{Handle: long[:7000+20*n+k]})
			}
			pe.take()
		}
		pe.subscribe(long)
		if grown := heap() - before; grown > 1<<20 {
			t.Errorf("%d octets for a handle of %d", grown, len(long))
		}
	})
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestElementSize(t *testing.T) {
	inWorld(t, func(w *world) {
		pe := w.peer()
		e := pe.element(1)
		e.User = param.Transport{Type: param.TypeOpaqueTransport, Opaque: make([]byte, 900)}
		pe.join(pool, e)
		e.User.Opaque = make([]byte, 1000)
		w.wantCauses(pe.register(pool, e).Error, param.CauseLackOfResources)
		if got := len(w.stored(pool, 1).Element().User.Opaque); got != 900 {
			t.Errorf("stored %d octets", got)
		}
	}, limits(func(l *Limits) { l.ElementSize = 960 }))
}

// TestFeedKeepsChanges shows that what changes nothing does not push changes out of
// what watchers can still read.
func TestFeedKeepsChanges(t *testing.T) {
	inWorld(t, func(w *world) {
		pe := w.peer()
		pe.join(pool, pe.element(1))
		last := w.r.feed.Last()
		pe.say(&asap.Registration{Handle: pool, Element: param.PoolElement{ID: 2, Life: 300, User: pe.element(1).User, Policy: param.Policy{Type: param.Random}}})
		pe.say(&asap.Deregistration{Handle: pool, ID: 3})
		w.peer().say(&asap.EndpointUnreachable{Handle: pool, ID: 1})
		if n := w.r.feed.Last() - last; n != 0 {
			t.Errorf("%d entries for nothing", n)
		}
		pe.say(&asap.Deregistration{Handle: pool, ID: 1})
		if n := w.r.feed.Last() - last; n != 1 {
			t.Errorf("%d entries for a deregistration", n)
		}
	})
}

// TestAdmission shows what is refused even where foreign addresses are accepted.
func TestAdmission(t *testing.T) {
	from := origin{transport.SCTP, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:5000"), netip.MustParseAddrPort("198.51.100.1:5000")}}
	local := origin{transport.SCTP, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5000")}}
	for _, tt := range []struct {
		name    string
		from    origin
		foreign bool
		addrs   string
		want    string // what is left; none: refused
		cause   param.CauseCode
	}{
		{"own", from, false, "192.0.2.1 198.51.100.1", "192.0.2.1 198.51.100.1", 0},
		{"one foreign", from, false, "192.0.2.1 203.0.113.1", "192.0.2.1", 0},
		{"foreign ones accepted", from, true, "203.0.113.1", "203.0.113.1", 0},
		{"unspecified", from, true, "0.0.0.0 ::", "", param.CauseInvalidValues},
		{"multicast", from, true, "224.0.0.1 ff02::1", "", param.CauseInvalidValues},
		{"loopback from elsewhere", from, true, "127.0.0.1 ::1", "", param.CauseInvalidValues},
		{"loopback", local, false, "127.0.0.1 127.0.0.2 192.0.2.1", "127.0.0.1 127.0.0.2", 0},
		{"as many as allowed", from, true, "203.0.113.1 203.0.113.2 203.0.113.3", "203.0.113.1 203.0.113.2 203.0.113.3", 0},
		{"too many", from, true, "203.0.113.1 203.0.113.2 203.0.113.3 203.0.113.4", "", param.CauseLackOfResources},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := param.PoolElement{ID: 1, Life: 300, Home: 7, User: param.Transport{Type: param.TypeSCTPTransport, Port: 7}}
			for text := range strings.FieldsSeq(tt.addrs) {
				e.User.Addrs = append(e.User.Addrs, netip.MustParseAddr(text))
			}
			a := admission{self: ownID, addresses: 3, handleLength: 8, foreignAddresses: tt.foreign}
			got, _, refused := a.admit("12345678", e, tt.from)
			if tt.cause != 0 {
				if len(refused) != 1 || refused[0].Code != tt.cause {
					t.Errorf("refused: %v", refused)
				}
				return
			}
			var left []string
			for _, addr := range got.User.Addrs {
				left = append(left, addr.String())
			}
			if refused != nil || strings.Join(left, " ") != tt.want || got.Home != ownID || !slices.Equal(got.ASAP.Addrs, tt.from.addrs()) || got.ASAP.Port != 5000 {
				t.Errorf("admitted %+v, refused %v", got, refused)
			}
		})
	}
}

// TestLabelsOfPoolsThatComeLater shows that to ask for a pool before it exists does
// not deprive it of its metrics.
func TestLabelsOfPoolsThatComeLater(t *testing.T) {
	inWorld(t, func(w *world) {
		pe := w.peer()
		pe.resolve("other handle")
		pe.resolve(pool)
		pe.join(pool, pe.element(1))
		pe.resolve(pool)
		if n := testutil.ToFloat64(w.r.metrics.resolutions.WithLabelValues(string(pool), "Round Robin", resultAccepted)); n != 1 {
			t.Errorf("%v resolutions", n)
		}
	})
}

// TestOpenFiles shows that the registrar keeps files for itself where it may not
// have many.
func TestOpenFiles(t *testing.T) {
	r, err := New(Config{Networks: transport.NewNetworks()})
	if err != nil {
		t.Fatal(err)
	}
	for files, want := range map[int]int{100000: 100000 - 2*256 - 32, 1000: 750, 40: 30, 1: 1} {
		if r.files = files; r.room() != want {
			t.Errorf("%d files: room for %d connections, want %d", files, r.room(), want)
		}
	}
}
