package registrar

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/enrp"
)

// vectorPE is the element of the vectors: EchoPool, 0x11223344 at 192.0.2.1.
const vectorPE param.PEID = 0x11223344

// TestOddAndHostileMessages plays the messages of the conformance reference's
// section 5.2 that go to a registrar's ASAP endpoint.
func TestOddAndHostileMessages(t *testing.T) {
	const (
		nothing  = "nothing"
		accepted = "accepted"
		rejected = "rejected with 0x3"
		answered = "resolution answered"
	)
	for _, tt := range []struct {
		name, hex, want string
		report          param.CauseCode // of an ASAP_ERROR; 0: none
	}{
		{"N01 PAR_3_01 unknown parameter, drop", "010000400009000c4563686f506f6f6c000a002811223344000000000000012c000400100007000000010008c000020100080008000000010011000800000001", nothing, 0},
		{"N02 PAR_3_02 unknown parameter, drop and report", "010000400009000c4563686f506f6f6c000a002811223344000000000000012c000400100007000000010008c000020100080008000000014011000800000001", nothing, param.CauseUnrecognizedParameter},
		{"N03 PAR_3_03 unknown parameter, skip", "010000400009000c4563686f506f6f6c000a002811223344000000000000012c000400100007000000010008c000020100080008000000018011000800000001", accepted, 0},
		{"N04 PAR_3_04 ASAP_2_2_14_01 unknown parameter, skip and report", "010000400009000c4563686f506f6f6c000a002811223344000000000000012c000400100007000000010008c00002010008000800000001c011000800000001", accepted, param.CauseUnrecognizedParameter},
		{"N05 PAR_4_01 unknown message, drop", "20000004", nothing, 0},
		{"N06 PAR_4_02 ASAP_2_2_14_02 unknown message, drop and report", "45000004", nothing, param.CauseUnrecognizedMessage},
		{"N07 AMB_12 unknown message, reserved", "c5000004", nothing, 0},
		{"N08 PAR_4_03 undefined flags", "01ff00380009000c4563686f506f6f6c000a002811223344000000000000012c000400100007000000010008c00002010008000800000001", accepted, 0},
		{"N09 PAR_3_08 odd padding", "0500000b00090007616263aa", answered, 0},
		{"N10 AMB_03 length with padding", "0500000c0009000761626300", answered, 0},
		{"N11 PAR_3_09 parameter length under 4", "0500000800090003", nothing, 0},
		{"N12 parameter beyond the message", "0500000c0009004061626364", nothing, 0},
		{"N13 AMB_14 transport without address", "010000300009000c4563686f506f6f6c000a002011223344000000000000012c00040008000700000008000800000001", rejected, 0},
		{"N14 two user transports", "010000480009000c4563686f506f6f6c000a003811223344000000000000012c000400100007000000010008c0000201000500100007000000010008c00002010008000800000001", rejected, 0},
		{"N15 policy type 0", "010000380009000c4563686f506f6f6c000a002811223344000000000000012c000400100007000000010008c00002010008000800000000", rejected, 0},
		{"N16 short policy", "010000380009000c4563686f506f6f6c000a002811223344000000000000012c000400100007000000010008c00002010008000800000002", rejected, 0},
		{"N17 transport use 2", "010000380009000c4563686f506f6f6c000a002811223344000000000000012c000400100007000200010008c00002010008000800000001", rejected, 0},
		{"N18 identifier 0", "010000380009000c4563686f506f6f6c000a002800000000000000000000012c000400100007000000010008c00002010008000800000001", rejected, 0},
		{"N19 life -2", "010000380009000c4563686f506f6f6c000a00281122334400000000fffffffe000400100007000000010008c00002010008000800000001", rejected, 0},
		{"N23 ASAP_2_2_14_03 AMB_15 an error with an unknown cause", "0e00000c000c000877770004", nothing, 0},
		{"V01 a registration", "010000380009000c4563686f506f6f6c000a002811223344000000000000012c000400100007000000010008c00002010008000800000001", accepted, 0},
		{"V07 a response", "060000140009000761626300000c000800090004", nothing, 0},
		{"V09 a keep-alive", "070100140a0a0a0a0009000c4563686f506f6f6c", nothing, 0},
		{"V12 an announcement", "0a0000080a0a0a0a", nothing, 0},
		{"V13 a cookie", "0b00000d000d00090102030405000000", nothing, 0},
		{"empty pool handle", "0500000800090004", answered, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				pe := w.peer("192.0.2.1")
				pe.sayHex(tt.hex)
				got := pe.heard()
				if tt.report != 0 {
					if len(got) == 0 {
						t.Fatal("no report")
					}
					report, ok := got[len(got)-1].(*asap.Error)
					if !ok {
						t.Fatalf("last came %+v, want an error", got[len(got)-1])
					}
					w.wantCauses(report.Causes, tt.report)
					got = got[:len(got)-1]
				}
				if tt.want == nothing {
					if len(got) != 0 {
						t.Errorf("answered %+v", got[0])
					}
				} else if len(got) != 1 {
					t.Fatalf("%d answers", len(got))
				} else {
					switch m := got[0].(type) {
					case *asap.RegistrationResponse:
						if m.Reject != (tt.want == rejected) || m.Handle != pool {
							t.Errorf("answer %+v", m)
						}
						if m.Reject {
							w.wantCauses(m.Error, param.CauseInvalidValues)
						}
					case *asap.HandleResolutionResponse:
						if tt.want != answered {
							t.Errorf("answer %+v", m)
						}
					default:
						t.Errorf("answer %+v", m)
					}
				}
				w.wantStored(pool, vectorPE, tt.want == accepted)
				// It has cost nothing but itself.
				if pe.closed() {
					t.Error("connection closed")
				}
				pe.join("other", pe.element(9))
			})
		})
	}
}

func TestDeregistrationThatIsMalformedIsAnswered(t *testing.T) {
	t.Run("ASAP_3_2_13 ASAP_3_2_15 AMB_14", func(t *testing.T) {
		inWorld(t, func(w *world) {
			pe := w.peer()
			pe.sayHex("0200001000090004" + "000e000811223344")
			m := one[*asap.DeregistrationResponse](pe)
			w.wantCauses(m.Error, param.CauseInvalidValues)
		})
	})
}

// TestBadInput shows that each way to make the registrar spend something has its
// bound.
func TestBadInput(t *testing.T) {
	tests := []struct {
		name   string
		change []func(*Config)
		f      func(w *world)
	}{
		{"a message over the size limit costs its connection", []func(*Config){limits(func(l *Limits) { l.MessageSize = 1024 })}, func(w *world) {
			pe := w.peer()
			pe.say(&asap.HandleResolution{Handle: param.PoolHandle(strings.Repeat("x", 2000))})
			if !pe.closed() || w.exceeded("message_size") != 1 {
				w.Errorf("closed %v, counted %d", pe.closed(), w.exceeded("message_size"))
			}
			w.peer().resolve(pool)
		}},
		{"a registration with many addresses is refused", []func(*Config){limits(func(l *Limits) { l.MessageSize = transport.MaxMessage })}, func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.User.Type = param.TypeSCTPTransport
			for range 5000 {
				e.User.Addrs = append(e.User.Addrs, e.User.Addrs[0])
			}
			m := pe.register(pool, e)
			if !m.Reject {
				w.Error("accepted")
			}
			w.wantCauses(m.Error, param.CauseLackOfResources)
		}},
		{"a user that never reads is cut off after the write time-out", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			q, err := (&asap.HandleResolution{Handle: pool}).Append(nil)
			if err != nil {
				w.Fatal(err)
			}
			c, err := w.net.Host("flood", "192.0.2.50").Dial(context.Background(), nil, []netip.AddrPort{asapAddr}, transport.Options{})
			if err != nil {
				w.Fatal(err)
			}
			defer c.Abort()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			for err == nil { // until the registrar takes no more, and then cuts
				err = c.Send(ctx, transport.Message{Data: q, PPID: transport.PPIDASAP})
			}
			if ctx.Err() != nil {
				w.Error("never cut off")
			}
			w.after(time.Millisecond)
			if n := w.r.census.len(); n != 1 {
				w.Errorf("%d connections", n)
			}
		}},
		{"a subscriber that never reads is cut off after the write time-out", nil, func(w *world) {
			w.net.Buffer = 128
			pe, pu := w.peer(), w.peer()
			pe.calm = true
			pe.join(pool, pe.element(1))
			pu.subscribe(pool)
			w.net.Freeze("host2")
			for n := range 80 {
				e := pe.element(1)
				e.User.Port = uint16(1000 + n)
				pe.join(pool, e)
				w.after(200 * time.Millisecond)
			}
			if n := w.r.census.len(); n != 1 {
				w.Errorf("%d connections", n)
			}
			if w.r.owner.subscriptions.total != 0 || len(w.r.owner.updates.due) != 0 {
				w.Error("subscription left over")
			}
		}},
		{"silent connections are closed, those of elements and subscribers not", nil, func(w *world) {
			pe, pu, idle := w.peer(), w.peer(), w.peer()
			e := pe.element(1)
			e.Life = param.InfiniteLife
			pe.join(pool, e)
			pu.subscribe(pool)
			w.after(9 * time.Minute)
			if idle.closed() {
				w.Error("closed too early")
			}
			w.after(11 * time.Minute)
			if !idle.closed() || pe.closed() || pu.closed() {
				w.Errorf("idle closed %v, element %v, subscriber %v", idle.closed(), pe.closed(), pu.closed())
			}
		}},
		{"so is that of an element without keep-alives, until it is gone", []func(*Config){timers(func(t *Timers) { t.KeepAlive.Interval = 24 * time.Hour })}, func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.Life = param.InfiniteLife
			pe.join(pool, e)
			w.after(time.Hour)
			if pe.closed() {
				w.Error("closed while registered")
			}
			pe.say(&asap.Deregistration{Handle: pool, ID: 1})
			pe.take()
			w.after(20 * time.Minute)
			if !pe.closed() || len(w.r.owner.elements) != 0 {
				w.Errorf("closed %v, %d elements attended", pe.closed(), len(w.r.owner.elements))
			}
		}},
		{"connections in all and per address", []func(*Config){limits(func(l *Limits) { l.Connections, l.ConnectionsPerAddress = 4, 2 })}, func(w *world) {
			a := w.peer()
			b, c := a.sibling(50001), a.sibling(50002)
			if a.closed() || b.closed() || !c.closed() || w.exceeded("connections_per_address") != 1 {
				w.Error("limit per address not kept")
			}
			d, e, f := w.peer(), w.peer(), w.peer()
			if d.closed() || e.closed() || !f.closed() || w.exceeded("connections") != 1 {
				w.Error("limit in all not kept")
			}
			a.conn.Close()
			w.after(time.Millisecond)
			if g := w.peer(); g.closed() {
				w.Error("no room after one has gone")
			}
		}},
		{"a client's pools", []func(*Config){limits(func(l *Limits) { l.PoolsPerClient = 3 })}, func(w *world) {
			pe, other := w.peer(), w.peer()
			for n := range 3 {
				pe.join(param.PoolHandle(fmt.Sprint("pool", n)), pe.element(1))
			}
			m := pe.register("one more", pe.element(1))
			w.wantCauses(m.Error, param.CauseLackOfResources)
			other.join("one more", other.element(1))
			pe.say(&asap.Deregistration{Handle: "pool0", ID: 1})
			pe.take()
			pe.join("another", pe.element(1))
		}},
		{"a client's elements", []func(*Config){limits(func(l *Limits) { l.ElementsPerClient = 3 })}, func(w *world) {
			pe, other := w.peer(), w.peer()
			for n := range param.PEID(3) {
				pe.join(pool, pe.element(n+1))
			}
			m := pe.register(pool, pe.element(4))
			w.wantCauses(m.Error, param.CauseLackOfResources)
			if w.exceeded("elements_per_client") != 1 {
				w.Error("not counted")
			}
			pe.join(pool, pe.element(1)) // again
			other.join(pool, other.element(4))
			pe.say(&asap.Deregistration{Handle: pool, ID: 1})
			pe.take()
			pe.join(pool, pe.element(5))
		}},
		{"elements and pools in all", []func(*Config){limits(func(l *Limits) { l.Elements, l.Pools = 3, 2 })}, func(w *world) {
			pe := w.peer()
			pe.join("a", pe.element(1))
			pe.join("b", pe.element(1))
			w.wantCauses(pe.register("c", pe.element(1)).Error, param.CauseLackOfResources)
			pe.join("a", pe.element(2))
			w.wantCauses(pe.register("a", pe.element(3)).Error, param.CauseLackOfResources)
		}},
		{"the length of handles", []func(*Config){limits(func(l *Limits) { l.HandleLength = 8 })}, func(w *world) {
			pe := w.peer()
			pe.join("12345678", pe.element(1))
			w.wantCauses(pe.register("123456789", pe.element(1)).Error, param.CauseInvalidValues)
		}},
		{"reports per reporter", []func(*Config){limits(func(l *Limits) { l.ReportRate, l.ReportBurst = 1, 5 })}, func(w *world) {
			pe, pu, other := w.peer(), w.peer(), w.peer()
			for id := range param.PEID(10) {
				pe.join(pool, pe.element(id+1))
			}
			for id := range param.PEID(10) {
				pu.say(&asap.EndpointUnreachable{Handle: pool, ID: id + 1})
			}
			if n := len(pe.take()); n != 5 || w.exceeded("report_rate") != 5 {
				w.Errorf("%d keep-alives, %d counted", n, w.exceeded("report_rate"))
			}
			other.say(&asap.EndpointUnreachable{Handle: pool, ID: 10})
			if n := len(pe.take()); n != 1 {
				w.Errorf("%d keep-alives for another reporter", n)
			}
		}},
		{"octets at random never cost more than their connection", nil, func(w *world) {
			pe := w.peer()
			pe.join("safe", pe.element(1))
			vectors := []string{
				"010000380009000c4563686f506f6f6c000a002811223344000000000000012c000400100007000000010008c00002010008000800000001",
				"0500000c0009000761626300", "090000180009000c4563686f506f6f6c000e000811223344",
			}
			for _, v := range vectors {
				data, err := hex.DecodeString(v)
				if err != nil {
					w.Fatal(err)
				}
				for i := range data {
					for _, x := range []byte{0x01, 0x80, 0xff} {
						data[i] ^= x
						// The registrar may have cut the connection.
						_ = pe.conn.Send(pe.ctx, transport.Message{Data: data, PPID: pe.ppid})
						data[i] ^= x
					}
				}
			}
			w.after(time.Second)
			w.wantStored("safe", 1, true)
			w.peer().resolve("safe")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { inWorld(t, tt.f, tt.change...) })
	}
}

func TestRsplibPreset(t *testing.T) {
	tests := []struct {
		name string
		f    func(w *world)
	}{
		{"lives are milliseconds", func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.Life = 90000
			pe.join(pool, e)
			pe.calm = true
			w.after(89 * time.Second)
			w.wantStored(pool, 1, true)
			w.after(time.Second)
			w.wantStored(pool, 1, false)
			pe.silence() // nothing unsolicited but keep-alives
		}},
		{"no warnings", func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.Life, e.User.Type = 90000, param.TypeSCTPTransport
			e.User.Addrs = append(e.User.Addrs, asapAddr.Addr())
			pe.join(pool, e)
		}},
		{"the policy stands in every positive answer, and three elements", func(w *world) {
			pe := w.peer()
			for id := range param.PEID(5) {
				e := pe.element(id + 1)
				e.Life = 90000
				pe.join(pool, e)
			}
			m := pe.resolve(pool)
			if m.Policy.Type != param.RoundRobin || len(m.Elements) != 3 {
				w.Errorf("answer %+v", m)
			}
		}},
		{"at most 128 elements", func(w *world) {
			pe := w.peer()
			for id := range param.PEID(200) {
				e := pe.element(id + 1)
				e.Life = 90000
				pe.join(pool, e)
			}
			pe.say(&asap.HandleResolution{Handle: pool, Items: allItems})
			if m := one[*asap.HandleResolutionResponse](pe); len(m.Elements) != 128 {
				w.Errorf("%d elements", len(m.Elements))
			}
		}},
		{"handles of at most 32 octets", func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.Life = 90000
			pe.join(param.PoolHandle(strings.Repeat("x", 32)), e)
			if !pe.register(param.PoolHandle(strings.Repeat("x", 33)), e).Reject {
				w.Error("33 octets accepted")
			}
		}},
		{"answers come in the order of requests", func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.Life = 90000
			for range 20 {
				pe.sendOn(pe.conn, &asap.Registration{Handle: pool, Element: e})
				pe.sendOn(pe.conn, &asap.HandleResolution{Handle: pool})
				pe.sendOn(pe.conn, &asap.Deregistration{Handle: pool, ID: 1})
				pe.sendOn(pe.conn, &asap.HandleResolution{Handle: pool})
			}
			got := pe.heard()
			if len(got) != 80 {
				w.Fatalf("%d answers", len(got))
			}
			for i, m := range got {
				want := []asap.MessageType{asap.TypeRegistrationResponse, asap.TypeHandleResolutionResponse,
					asap.TypeDeregistrationResponse, asap.TypeHandleResolutionResponse}[i%4]
				if m.Type() != want {
					w.Fatalf("answer %d is %v, want %v", i, m.Type(), want)
				}
				if r, ok := m.(*asap.HandleResolutionResponse); ok && (r.Error != nil) != (i%4 == 3) {
					w.Fatalf("answer %d: %+v", i, r)
				}
			}
		}},
		{"lives in the handle table are milliseconds", func(w *world) {
			pe, tool := w.peer(), w.tool()
			e := pe.element(1)
			e.Life = 90000
			pe.join(pool, e)
			tool.say(&enrp.HandleTableRequest{Servers: enrp.Servers{Sender: toolID}})
			if m := oneENRP[*enrp.HandleTableResponse](tool); m.Pools[0].Elements[0].Life != 90000 {
				w.Errorf("life %v", m.Pools[0].Elements[0].Life)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { inWorld(t, tt.f, asRsplib) })
	}
}
