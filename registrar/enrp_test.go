package registrar

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/enrp"
	"rserpool/registrar/handlespace"
)

var fromTool = enrp.Servers{Sender: toolID}

// table downloads the handle table and returns its elements, by page.
func (p *peer) table(own bool) [][]string {
	p.w.Helper()
	var pages [][]string
	for {
		p.say(&enrp.HandleTableRequest{Servers: fromTool, OwnOnly: own})
		m := oneENRP[*enrp.HandleTableResponse](p)
		if m.Reject || m.Sender != ownID || m.Receiver != toolID {
			p.w.Fatalf("answer %+v", m)
		}
		var page []string
		for _, pool := range m.Pools {
			if len(pool.Elements) == 0 {
				p.w.Errorf("pool %q without elements", pool.Handle)
			}
			for _, e := range pool.Elements {
				if e.Home != ownID {
					p.w.Errorf("home %v", e.Home)
				}
				page = append(page, fmt.Sprintf("%s/%d", pool.Handle, e.ID))
			}
		}
		pages = append(pages, page)
		if !m.More {
			return pages
		}
	}
}

func TestHandleTable(t *testing.T) {
	small := limits(func(l *Limits) { l.TablePage = 1400 })
	tests := []struct {
		name   string
		change []func(*Config)
		f      func(w *world)
	}{
		{"ENRP_2_3_02 AMB_40 an empty handlespace is an empty table", nil, func(w *world) {
			if got := w.tool().table(false); len(got) != 1 || len(got[0]) != 0 {
				w.Errorf("table %v", got)
			}
		}},
		{"ENRP_3_2_3_02 ENRP_3_2_3_03 ENRP_3_2_3_04 ENRP_2_3_03 AMB_39 pages, in order, each element once", []func(*Config){small}, func(w *world) {
			pe := w.peer()
			var want []string
			for _, h := range []param.PoolHandle{"a", "b", "c"} {
				for id := range param.PEID(30) {
					pe.join(h, pe.element(id+1))
					want = append(want, fmt.Sprintf("%s/%d", h, id+1))
				}
			}
			tool := w.tool()
			for _, own := range []bool{false, true, false} { // and from the start again
				pages := tool.table(own)
				if len(pages) < 3 {
					w.Errorf("own %v: %d pages", own, len(pages))
				}
				if got := slices.Concat(pages...); !slices.Equal(got, want) {
					w.Errorf("own %v: got %v", own, got)
				}
			}
		}},
		{"ENRP_2_2_01 ENRP_3_6_3_03 W=1 asks for own elements only", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			foreign := pe.element(2)
			foreign.Home = toolID
			w.apply(handlespace.Register{Handle: pool, Element: foreign, Now: time.Now()})
			tool := w.tool()
			if got := tool.table(true); !slices.Equal(got[0], []string{"EchoPool/1"}) {
				w.Errorf("table %v", got)
			}
		}},
		{"ENRP_3_2_3_14 the position is forgotten after 5 s", []func(*Config){small}, func(w *world) {
			pe, tool := w.peer(), w.tool()
			for id := range param.PEID(60) {
				pe.join(pool, pe.element(id+1))
			}
			ask := func() param.PEID {
				tool.say(&enrp.HandleTableRequest{Servers: fromTool})
				return oneENRP[*enrp.HandleTableResponse](tool).Pools[0].Elements[0].ID
			}
			if first := ask(); first != 1 {
				w.Errorf("starts at %v", first)
			}
			if second := ask(); second == 1 {
				w.Error("did not go on")
			}
			w.after(6 * time.Second)
			if third := ask(); third != 1 {
				w.Errorf("after the pause goes on at %v", third)
			}
		}},
		{"elements in the table carry their ASAP transport", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			pe.join(pool, pe.element(1))
			tool.say(&enrp.HandleTableRequest{Servers: fromTool})
			e := oneENRP[*enrp.HandleTableResponse](tool).Pools[0].Elements[0]
			if e.ASAP.Port != 50000 || e.ASAP.Type != param.TypeSCTPTransport {
				w.Errorf("ASAP transport %+v", e.ASAP)
			}
		}},
		{"ENRP_2_1_03 ENRP_2_1_05 ENRP_3_6_1_02 PAR_3_11_01 PAR_3_15_01 presence is answered with checksum and server information", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			pe.join(pool, pe.element(vectorPE))
			tool.say(&enrp.Presence{Servers: fromTool, ReplyRequired: true, Checksum: 0xffff})
			m := oneENRP[*enrp.Presence](tool)
			if m.ReplyRequired || m.Checksum != 0x4deb || m.Sender != ownID || m.Receiver != toolID {
				w.Errorf("answer %+v", m)
			}
			if m.Server.ID != ownID || m.Server.Transport.Port != enrpAddr.Port() || m.Server.Transport.Addrs[0] != enrpAddr.Addr() {
				w.Errorf("server information %+v", m.Server)
			}
			tool.say(&enrp.Presence{Servers: fromTool, Checksum: 0xffff})
			if n := len(tool.take()); n != 0 {
				w.Errorf("%d answers where none was asked for", n)
			}
		}},
		{"ENRP_3_6_2_01 ENRP_3_6_2_02 ENRP_3_6_2_03 ENRP_3_6_2_04 the checksum follows each change of own elements", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			check := func(want uint16) {
				w.Helper()
				tool.say(&enrp.Presence{Servers: fromTool, ReplyRequired: true, Checksum: 0xffff})
				if m := oneENRP[*enrp.Presence](tool); m.Checksum != want {
					w.Errorf("checksum %#04x, want %#04x", m.Checksum, want)
				}
			}
			check(0xffff)
			pe.join(pool, pe.element(0x11223344))
			check(0x4deb)
			pe.join(pool, pe.element(0xdeadbeef))
			check(0x429f)
			pe.join("abc", pe.element(1))
			check(0x7e3b)
			foreign := pe.element(2)
			foreign.Home = toolID + 1
			w.apply(handlespace.Register{Handle: pool, Element: foreign, Now: time.Now()})
			check(0x7e3b)
			pe.say(&asap.Deregistration{Handle: "abc", ID: 1})
			check(0x429f)
		}},
		{"ASAP_3_1_39 ASAP_3_2_17 what is refused, or changes nothing, is told to nobody", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			pe.register(pool, pe.element(0))
			pe.say(&asap.Deregistration{Handle: pool, ID: 1})
			w.after(time.Second)
			if n := len(tool.take()); n != 0 {
				w.Errorf("%d messages", n)
			}
		}},
		{"ENRP_3_2_2_2_03 AMB_49 the list names neither the asker nor the asked", nil, func(w *world) {
			tool := w.tool()
			tool.say(&enrp.ListRequest{Servers: fromTool})
			if m := oneENRP[*enrp.ListResponse](tool); m.Reject || len(m.Peers) != 0 {
				w.Errorf("answer %+v", m)
			}
		}},
		{"ENRP_2_1_01 AMB_48 N22 wrong identifiers are dropped, 0 for the receiver is fine", nil, func(w *world) {
			tool := w.tool()
			for _, s := range []enrp.Servers{{Sender: 0}, {Sender: ownID}, {Sender: toolID, Receiver: 0x0c0c0c0c}} {
				tool.say(&enrp.ListRequest{Servers: s})
				if n := len(tool.take()); n != 0 {
					w.Errorf("%+v: %d answers", s, n)
				}
			}
			tool.sayHex("010000120000000000000000000f0006ffff0000")
			tool.say(&enrp.ListRequest{Servers: enrp.Servers{Sender: toolID, Receiver: ownID}})
			oneENRP[*enrp.ListResponse](tool)
		}},
		{"ENRP_2_4_01 N21 an update with an unknown action changes nothing", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			pe.join(pool, pe.element(1))
			tool.take()
			tool.sayHex("040000540a0a0a0b00000000000200000009000c4563686f506f6f6c000a0038112233440a0a0a0a0000012c000400100007000000010008c00002010008000800000001000400101389000000010008c0000201")
			w.wantStored(pool, 1, true)
			w.wantStored(pool, vectorPE, false)
			if n := len(tool.take()); n != 0 {
				w.Errorf("%d answers", n)
			}
		}},
		{"ENRP_3_7_01 ENRP_3_7_02 ENRP_2_10_01 what is unknown is reported by an ENRP error", nil, func(w *world) {
			tool := w.tool()
			tool.sayHex("4500000c0b0b0b0b00000000")
			m := oneENRP[*enrp.Error](tool)
			w.wantCauses(m.Causes, param.CauseUnrecognizedMessage)
			if m.Sender != ownID || m.Receiver != toolID {
				w.Errorf("answer %+v", m)
			}
			tool.sayHex("0f00000c0b0b0b0b00000000")
			tool.sayHex("0a0000140b0b0b0b00000000000c000877770004")
			if n := len(tool.take()); n != 0 {
				w.Errorf("%d answers", n)
			}
		}},
		{"ENRP_3_1_01 AMB_83 ENRP messages are told by their PPID on the ASAP port as well", nil, func(w *world) {
			pe := w.peer()
			pe.ppid = transport.PPIDENRP
			pe.say(&enrp.ListRequest{Servers: fromTool})
			oneENRP[*enrp.ListResponse](pe)
		}},
		{"over TCP the port decides", []func(*Config){overTCP}, func(w *world) {
			tool := w.tool()
			tool.say(&enrp.ListRequest{Servers: fromTool})
			oneENRP[*enrp.ListResponse](tool)
			pu := w.peer()
			pu.resolve(pool)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { inWorld(t, tt.f, tt.change...) })
	}
}
