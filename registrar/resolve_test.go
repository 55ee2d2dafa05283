package registrar

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/registrar/handlespace"
)

func TestResolution(t *testing.T) {
	tests := []struct {
		name   string
		change []func(*Config)
		f      func(w *world)
	}{
		{"ASAP_3_3_15 ASAP_3_3_16 ASAP_2_2_6_06 ASAP_2_2_6_07 POL_4_1_1_01 all elements of a pool are listed", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			for id := range param.PEID(5) {
				pe.join(pool, pe.element(id+1))
			}
			m := pu.resolve(pool)
			got := ids(m.Elements)
			slices.Sort(got)
			if !slices.Equal(got, []param.PEID{1, 2, 3, 4, 5}) || m.Error != nil || m.Handle != pool {
				w.Errorf("answer %+v", m)
			}
		}},
		{"ASAP_3_3_14 ASAP_2_1_02 users ask over TCP as well", []func(*Config){overTCP}, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			if m := pu.resolve(pool); len(m.Elements) != 1 {
				w.Errorf("answer %+v", m)
			}
		}},
		{"ASAP_3_3_18 ASAP_2_2_6_04 an unknown handle is answered by cause 0x9 and nothing else", nil, func(w *world) {
			m := w.peer().resolve("abc")
			w.wantCauses(m.Error, param.CauseUnknownPoolHandle)
			if m.Handle != "abc" || m.Policy.Type != 0 || m.Elements != nil || m.AcceptUpdates {
				w.Errorf("answer %+v", m)
			}
		}},
		{"ASAP_3_3_17 AMB_56 the policy stands in the answer unless it is Round Robin, with neutral values", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			if m := pe.resolve(pool); m.Policy.Type != 0 {
				w.Errorf("policy %+v", m.Policy)
			}
			e := pe.element(1)
			e.Policy = param.Policy{Type: param.WeightedRoundRobin, Weight: 7}
			pe.join("weighted", e)
			m := pe.resolve("weighted")
			if want := (param.Policy{Type: param.WeightedRoundRobin, Weight: 1}); m.Policy != want {
				w.Errorf("policy %+v, want %+v", m.Policy, want)
			}
			if m.Elements[0].Policy.Weight != 7 {
				w.Errorf("the element's own policy is %+v", m.Elements[0].Policy)
			}
		}},
		{"AMB_25 answers to users leave the ASAP transport out", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			if m := pe.resolve(pool); !m.Elements[0].ASAP.IsZero() {
				w.Errorf("ASAP transport %+v", m.Elements[0].ASAP)
			}
		}},
		{"AMB_35 limits per policy, and as many as asked for", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			for id := range param.PEID(6) {
				pe.join(pool, pe.element(id+1))
				e := pe.element(id + 1)
				e.Policy = param.Policy{Type: param.WeightedRandom, Weight: 1}
				pe.join("weighted", e)
			}
			for _, tt := range []struct {
				handle param.PoolHandle
				items  uint32
				want   int
			}{{pool, 0, 6}, {"weighted", 0, 3}, {pool, 2, 2}, {"weighted", 5, 5}, {"weighted", allItems, 6}} {
				pu.say(&asap.HandleResolution{Handle: tt.handle, Items: tt.items})
				if m := one[*asap.HandleResolutionResponse](pu); len(m.Elements) != tt.want {
					w.Errorf("pool %s, %d items: %d elements, want %d", tt.handle, tt.items, len(m.Elements), tt.want)
				}
			}
		}},
		{"AMB_36 AMB_75 as many elements as fit a message", nil, func(w *world) {
			for id := range 2000 {
				e := w.host0().element(param.PEID(id + 1))
				w.apply(handlespace.Register{Handle: pool, Element: e, Now: time.Now()})
			}
			m := w.peer().resolve(pool)
			if n := len(m.Elements); n < 1000 || n >= 2000 {
				w.Errorf("%d elements", n)
			}
		}},
		{"ASAP_4_05 AMB_18 AMB_82 the last one that leaves takes the pool with it", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.say(&asap.Deregistration{Handle: pool, ID: 1})
			pe.take()
			w.wantCauses(pe.resolve(pool).Error, param.CauseUnknownPoolHandle)
		}},
		{"PAR_3_9_01 handles are octets", nil, func(w *world) {
			pe := w.peer()
			pe.join("a\x00b", pe.element(1))
			for _, h := range []param.PoolHandle{"a", "a\x00", "a\x00B"} {
				w.wantCauses(pe.resolve(h).Error, param.CauseUnknownPoolHandle)
			}
			if m := pe.resolve("a\x00b"); len(m.Elements) != 1 || m.Handle != "a\x00b" {
				w.Errorf("answer %+v", m)
			}
		}},
		{"ASAP_2_2_5_02 without S there is one answer and nothing more", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			pu.resolve(pool)
			pe.join(pool, pe.element(2))
			w.after(time.Second)
			pu.silence()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { inWorld(t, tt.f, tt.change...) })
	}
}

// host0 is a peer without connection, for its addresses.
func (w *world) host0() *peer {
	if w.hosts == 0 {
		w.host()
	}
	return w.peers[0]
}

// apply changes the handlespace directly, as the loop would.
func (w *world) apply(cmd handlespace.Command) []handlespace.Event {
	w.Helper()
	events, err := w.r.Submit(context.Background(), cmd)
	if err != nil {
		w.Fatal(err)
	}
	return events
}

// subscribe asks for a pool with S and returns the answer.
func (p *peer) subscribe(handle param.PoolHandle) *asap.HandleResolutionResponse {
	p.w.Helper()
	p.say(&asap.HandleResolution{SendUpdates: true, Handle: handle})
	return one[*asap.HandleResolutionResponse](p)
}

func TestUpdates(t *testing.T) {
	tests := []struct {
		name   string
		change []func(*Config)
		f      func(w *world)
	}{
		{"ASAP_2_2_5_01 ASAP_2_2_6_01 changes are sent, coalesced within 100 ms", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			if m := pu.subscribe(pool); !m.AcceptUpdates || len(m.Elements) != 1 {
				w.Errorf("answer %+v", m)
			}
			pe.join(pool, pe.element(2))
			pe.join(pool, pe.element(3))
			w.after(100 * time.Millisecond)
			if m := one[*asap.HandleResolutionResponse](pu); !m.AcceptUpdates || len(m.Elements) != 3 {
				w.Errorf("update %+v", m)
			}
		}},
		{"new policy values are changes, a mere repetition is none", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			e := pe.element(1)
			e.Policy = param.Policy{Type: param.LeastUsed, Load: 1}
			pe.join(pool, e)
			pu.subscribe(pool)
			pe.join(pool, e)
			w.after(time.Second)
			pu.silence()
			e.Policy.Load = 2
			pe.join(pool, e)
			w.after(time.Second)
			if m := one[*asap.HandleResolutionResponse](pu); m.Elements[0].Policy.Load != 2 {
				w.Errorf("update %+v", m)
			}
		}},
		{"a suspect that registers again as it was is a change", []func(*Config){limits(func(l *Limits) { l.RemovalFloor, l.RemovalShare = 1, 0.1 })}, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.calm = true
			for id := range param.PEID(3) {
				pe.join(pool, pe.element(id+1))
			}
			pe.answerFor(pool, 3)
			w.after(50 * time.Second)
			suspect := pe.element(2)
			if w.stored(pool, 2) == nil {
				suspect = pe.element(1)
			}
			pe.take()
			if m := pu.subscribe(pool); len(m.Elements) != 1 {
				w.Fatalf("answer %+v", m)
			}
			pe.join(pool, suspect)
			w.after(time.Second)
			if m := one[*asap.HandleResolutionResponse](pu); len(m.Elements) != 2 {
				w.Errorf("update %+v", m)
			}
		}},
		{"ASAP_2_2_5_05 a negative answer subscribes nobody", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			if m := pu.subscribe(pool); m.AcceptUpdates {
				w.Errorf("answer %+v", m)
			}
			pe.join(pool, pe.element(1))
			w.after(time.Second)
			pu.silence()
		}},
		{"AMB_54 the end of the pool is told by a last negative answer", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			pu.subscribe(pool)
			pe.say(&asap.Deregistration{Handle: pool, ID: 1})
			w.after(time.Second)
			m := one[*asap.HandleResolutionResponse](pu)
			w.wantCauses(m.Error, param.CauseUnknownPoolHandle)
			pe.take()
			pe.join(pool, pe.element(1))
			w.after(time.Second)
			pu.silence()
		}},
		{"AMB_54 a request without S ends it", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			pu.subscribe(pool)
			if m := pu.resolve(pool); m.AcceptUpdates {
				w.Errorf("answer %+v", m)
			}
			pe.join(pool, pe.element(2))
			w.after(time.Second)
			pu.silence()
		}},
		{"ASAP_2_2_5_06 it ends with the connection, and another one has none", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			pu.subscribe(pool)
			pu.conn.Close()
			again := pu.sibling(50001)
			pe.join(pool, pe.element(2))
			w.after(time.Second)
			again.silence()
			if w.r.owner.subscriptions.total != 0 {
				w.Error("subscription left over")
			}
		}},
		{"ASAP_2_2_6_01 A=0 beyond the limits", []func(*Config){limits(func(l *Limits) {
			l.Subscriptions, l.SubscriptionsPerConnection = 3, 2
		})}, func(w *world) {
			pe, pu, other := w.peer(), w.peer(), w.peer()
			for i, want := range []bool{true, true, false} {
				h := param.PoolHandle(fmt.Sprint("pool", i))
				pe.join(h, pe.element(1))
				if m := pu.subscribe(h); m.AcceptUpdates != want || len(m.Elements) != 1 {
					w.Errorf("pool %d: answer %+v", i, m)
				}
			}
			for i, want := range []bool{true, false} {
				if m := other.subscribe(param.PoolHandle(fmt.Sprint("pool", i))); m.AcceptUpdates != want {
					w.Errorf("second user, pool %d: answer %+v", i, m)
				}
			}
			if w.exceeded("subscriptions") != 1 || w.exceeded("subscriptions_per_connection") != 1 {
				w.Error("limits not counted")
			}
		}},
		{"ASAP_2_2_5_04 rsplib's users get no updates", []func(*Config){asRsplib}, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			if m := pu.subscribe(pool); m.AcceptUpdates {
				w.Errorf("answer %+v", m)
			}
			pe.join(pool, pe.element(2))
			w.after(time.Second)
			pu.silence()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { inWorld(t, tt.f, tt.change...) })
	}
}

// burst is a connection that has all requests ready, so that answers are
// collected.
type burst struct {
	transport.Conn
	requests [][]byte
	sends    int
	answers  int
}

func (b *burst) Network() string { return transport.TCP }

func (b *burst) Receive(ctx context.Context, buf []byte) (transport.Message, error) {
	if len(b.requests) == 0 {
		return transport.Message{}, context.Canceled
	}
	n := copy(buf, b.requests[0])
	b.requests = b.requests[1:]
	return transport.Message{Data: buf[:n]}, nil
}

func (b *burst) Buffered() bool { return len(b.requests) > 0 }

func (b *burst) Send(_ context.Context, msgs ...transport.Message) error {
	b.sends++
	b.answers += len(msgs)
	return nil
}

func TestAnswersAreCollected(t *testing.T) {
	inWorld(t, func(w *world) {
		pe := w.peer()
		pe.join(pool, pe.element(1))
		q, err := (&asap.HandleResolution{Handle: pool}).Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		b := &burst{Conn: pe.conn}
		for range 100 {
			b.requests = append(b.requests, q)
		}
		c := w.r.newConn(b, protoASAP)
		w.r.census.enterDialled(c)
		w.r.start(c)
		synctest.Wait()
		if b.answers != 100 || b.sends != 1 {
			t.Errorf("%d answers in %d sends", b.answers, b.sends)
		}
	})
}

func TestResolutionAllocatesNothingOnceWarm(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector sync.Pool throws things away at random")
	}
	for _, handle := range []param.PoolHandle{pool, "weighted", "no such pool"} {
		t.Run(string(handle), func(t *testing.T) {
			inWorld(t, func(w *world) {
				pe := w.peer()
				for id := range param.PEID(10) {
					pe.join(pool, pe.element(id+1))
					e := pe.element(id + 1)
					e.Policy = param.Policy{Type: param.WeightedRandom, Weight: uint32(id)}
					pe.join("weighted", e)
				}
				q, err := (&asap.HandleResolution{Handle: handle}).Append(nil)
				if err != nil {
					t.Fatal(err)
				}
				c := w.r.newConn(&burst{Conn: pe.conn}, protoASAP)
				c.decoder = asap.NewDecoder(param.Limits{}, 0)
				m := transport.Message{Data: q}
				allocs := testing.AllocsPerRun(1000, func() {
					for range 4 {
						c.handle(m)
					}
					c.flush()
				})
				if allocs != 0 {
					t.Errorf("%v allocations for 4 resolutions and a send", allocs)
				}
			})
		})
	}
}

// BenchmarkResolution measures what a reader does for one handle resolution,
// without the network.
func BenchmarkResolution(b *testing.B) {
	for _, size := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := benchmarked(b, size, pool)
			c, q := asking(b, r, asap.HandleResolution{Handle: pool})
			b.ReportAllocs()
			for b.Loop() {
				c.handle(q)
				c.flush()
			}
		})
	}
}

// benchmarked returns a registrar with pools of so many elements, without its
// goroutines.
func benchmarked(b *testing.B, size int, pools ...param.PoolHandle) *Registrar {
	b.Helper()
	r, err := New(Config{Networks: transport.NewNetworks()})
	if err != nil {
		b.Fatal(err)
	}
	r.ctx = b.Context()
	for _, p := range pools {
		for id := range size {
			r.space.Apply(handlespace.Register{Handle: p, Now: time.Now(), Element: param.PoolElement{
				ID: param.PEID(id + 1), Life: 300, Policy: param.Policy{Type: param.RoundRobin},
				User: param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: []netip.Addr{asapAddr.Addr()}},
			}})
		}
	}
	return r
}

// asking returns a connection to r, and a request on it.
func asking(b *testing.B, r *Registrar, q asap.HandleResolution) (*conn, transport.Message) {
	b.Helper()
	data, err := q.Append(nil)
	if err != nil {
		b.Fatal(err)
	}
	c := r.newConn(sink{}, protoASAP)
	c.decoder = asap.NewDecoder(param.Limits{}, 0)
	return c, transport.Message{Data: data}
}

// sink is a connection that takes everything.
type sink struct{ transport.Conn }

func (sink) Network() string                                  { return transport.TCP }
func (sink) RemoteAddrs() []netip.AddrPort                    { return []netip.AddrPort{asapAddr} }
func (sink) Send(context.Context, ...transport.Message) error { return nil }
