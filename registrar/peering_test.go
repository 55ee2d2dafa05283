package registrar

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/enrp"
	"rserpool/registrar/handlespace"
)

// update is a handle update of the tool.
func (p *peer) update(action enrp.UpdateAction, e param.PoolElement) {
	p.w.Helper()
	if e.ASAP.IsZero() {
		e.ASAP = param.Transport{Type: param.TypeSCTPTransport, Port: 50000, Addrs: e.User.Addrs}
	}
	p.say(&enrp.HandleUpdate{Servers: fromTool, Action: action, Handle: pool, Element: e})
}

// updates returns the handle updates among what came.
func (p *peer) updates() []*enrp.HandleUpdate {
	p.w.Helper()
	var out []*enrp.HandleUpdate
	for _, m := range p.heardENRP() {
		if m, ok := m.(*enrp.HandleUpdate); ok {
			out = append(out, m)
		}
	}
	return out
}

// Registrars that know no ASAP over TCP are told an element's transport as SCTP, and
// others as it is.
func TestElementsOverTCPAsTold(t *testing.T) {
	at := func(kind param.Type) param.Transport {
		return param.Transport{Type: kind, Port: 50000, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	}
	tcp, sctp := at(param.TypeTCPTransport), at(param.TypeSCTPTransport)
	for _, tt := range []struct {
		compat          Compat
		registrar, from param.Transport
		want            param.Transport
	}{
		{CompatNone, sctp, tcp, tcp}, {CompatNone, tcp, param.Transport{}, tcp}, {CompatNone, tcp, sctp, sctp},
		{CompatRsplib, sctp, tcp, sctp}, {CompatRsplib, tcp, param.Transport{}, sctp}, {CompatRsplib, tcp, sctp, sctp},
	} {
		table := peerTable{r: &Registrar{cfg: Config{Compat: tt.compat}, asap: tt.registrar}}
		space := handlespace.New(handlespace.Config{})
		space.Apply(handlespace.Register{Handle: "p", Element: param.PoolElement{
			ID: 1, Life: 300, ASAP: tt.from, User: tcp, Policy: param.Policy{Type: param.RoundRobin},
		}, Now: time.Now()})
		r := space.Get("p", 1)
		if got := table.element(r); !sameTransport(got.ASAP, tt.want) || !sameTransport(got.User, tcp) || !sameTransport(r.Element().ASAP, tt.from) {
			t.Errorf("%+v is told as %+v", tt, got)
		}
	}
}

func TestPeeringOfARegistrar(t *testing.T) {
	tests := []struct {
		name   string
		change []func(*Config)
		f      func(w *world)
	}{
		{"ENRP_3_3_1_01 ENRP_3_3_1_02 ASAP_3_1_38 SM_PRE_01 SM_PRE_03 registrations are announced", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			for range 2 { // and re-registrations
				pe.join(pool, pe.element(1))
				got := tool.updates()
				if len(got) != 1 || got[0].Action != enrp.AddPE || got[0].Element.Home != ownID || got[0].Element.ASAP.Port != 50000 ||
					got[0].Sender != ownID || got[0].Receiver != 0 {
					w.Fatalf("%+v", got)
				}
			}
		}},
		{"ENRP_3_3_2_01 ENRP_3_3_2_02 ASAP_3_2_16 SM_PRE_04 deregistrations are announced", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			pe.join(pool, pe.element(1))
			tool.take()
			pe.say(&asap.Deregistration{Handle: pool, ID: 1})
			if got := tool.updates(); len(got) != 1 || got[0].Action != enrp.DelPE || got[0].Element.User.Port != 7 {
				w.Errorf("%+v", got)
			}
		}},
		{"ENRP_3_3_2_01 SM_PRE_06 expiry is announced", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			e := pe.element(1)
			e.Life = 20
			pe.join(pool, e)
			tool.take()
			w.after(21 * time.Second)
			if got := tool.updates(); len(got) != 1 || got[0].Action != enrp.DelPE {
				w.Errorf("%+v", got)
			}
		}},
		{"ENRP_3_3_2_01 SM_PRE_09 the death of an element is announced", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			pe.join(pool, pe.element(1))
			tool.take()
			pe.leave()
			w.after(10 * time.Second)
			if got := tool.updates(); len(got) != 1 || got[0].Action != enrp.DelPE {
				w.Errorf("%+v", got)
			}
		}},
		{"ENRP_3_3_1_04 ENRP_3_3_2_05 ENRP_3_2_3_07 pools come and go with elements of peers", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			e := pe.element(7)
			e.Home, e.Policy = toolID, param.Policy{Type: param.WeightedRandom, Weight: 3}
			tool.update(enrp.AddPE, e)
			if info, ok := w.r.space.Pool(pool); !ok || info.Policy != param.WeightedRandom {
				w.Errorf("pool %+v", info)
			}
			if got := ids(pe.resolve(pool).Elements); !slices.Equal(got, []param.PEID{7}) {
				w.Errorf("resolved %v", got)
			}
			tool.update(enrp.DelPE, e)
			if _, ok := w.r.space.Pool(pool); ok {
				w.Error("the pool is still there")
			}
		}},
		{"ENRP_3_3_1_05 AMB_38 elements of peers are stored unchecked", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			pe.join(pool, pe.element(1))
			e := pe.element(2)
			e.Home, e.Policy, e.User.Type = toolID, param.Policy{Type: param.Random}, param.TypeUDPTransport
			tool.update(enrp.AddPE, e)
			if r := w.stored(pool, 2); r == nil || r.Element().Policy.Type != param.Random || r.Element().User.Type != param.TypeUDPTransport {
				w.Errorf("stored %+v", r)
			}
		}},
		{"AMB_55 a policy that is not known is kept and resolved", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			e := pe.element(2)
			e.Home, e.Policy = toolID, param.Policy{Type: 0xb7777777, Data: "data"}
			tool.update(enrp.AddPE, e)
			if got := pe.resolve(pool); len(got.Elements) != 1 || got.Elements[0].Policy != e.Policy {
				w.Errorf("resolved %+v", got)
			}
		}},
		{"ENRP_3_3_1_07 SM_PRE_10 an own element that has another home is given up", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			e := pe.element(1)
			e.Life = 60
			pe.join(pool, e)
			e.Home = toolID
			tool.update(enrp.AddPE, e)
			if got := w.stored(pool, 1).Element().Home; got != toolID {
				w.Fatalf("home %v", got)
			}
			pe.take()
			for range 4 { // neither keep-alives nor expiry
				w.after(20 * time.Second)
				tool.say(&enrp.ListRequest{Servers: fromTool})
			}
			pe.silence()
			w.wantStored(pool, 1, true)
		}},
		{"AMB_76 elements of peers don't expire here", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			e := pe.element(1)
			e.Life, e.Home = 20, toolID
			tool.update(enrp.AddPE, e)
			w.after(50 * time.Second)
			w.wantStored(pool, 1, true)
		}},
		{"SM_PRE_15 AMB_77 an own element that a peer removes is asked, and comes back", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			pe.join(pool, pe.element(1))
			e := w.stored(pool, 1).Element()
			tool.take()
			pe.answerFor(pool)
			pe.take()
			tool.update(enrp.DelPE, e)
			w.wantStored(pool, 1, false)
			if m := one[*asap.EndpointKeepAlive](pe); m.Home || m.Handle != pool {
				w.Errorf("%+v", m)
			}
			if n := len(tool.updates()); n != 0 {
				w.Errorf("%d updates before it answers", n)
			}
			pe.say(&asap.EndpointKeepAliveAck{Handle: pool, ID: 1})
			w.wantStored(pool, 1, true)
			if got := tool.updates(); len(got) != 1 || got[0].Action != enrp.AddPE || got[0].Element.Home != ownID {
				w.Errorf("%+v", got)
			}
			// It is watched as before.
			pe.leave()
			w.after(10 * time.Second)
			w.wantStored(pool, 1, false)
		}},
		{"SM_PRE_15 one that does not answer stays away", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			pe.join(pool, pe.element(1))
			e := w.stored(pool, 1).Element()
			pe.answerFor(pool)
			tool.update(enrp.DelPE, e)
			w.after(10 * time.Second)
			pe.say(&asap.EndpointKeepAliveAck{Handle: pool, ID: 1}) // too late
			w.wantStored(pool, 1, false)
		}},
		{"AMB_77 an element of a peer that is deregistered here is announced as removed", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			e := pe.element(1)
			e.Home = toolID
			tool.update(enrp.AddPE, e)
			pe.say(&asap.Deregistration{Handle: pool, ID: 1})
			w.wantStored(pool, 1, false)
			if got := tool.updates(); len(got) != 1 || got[0].Action != enrp.DelPE {
				w.Errorf("%+v", got)
			}
		}},
		{"AMB_47 a registrar that was taken over alive gives its elements up", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			pe.join(pool, pe.element(1))
			tool.take()
			tool.say(&enrp.TakeoverServer{Servers: fromTool, Target: ownID})
			if got := w.stored(pool, 1).Element().Home; got != toolID {
				w.Errorf("home %v", got)
			}
			said := false
			for _, m := range tool.heardENRP() {
				if m, ok := m.(*enrp.Presence); ok {
					said = m.Checksum == 0xffff
				}
			}
			if !said {
				w.Error("does not say that it has none any more")
			}
		}},
		{"ENRP_3_6_1_05 ENRP_3_6_3_02 ENRP_3_6_3_06 an audit brings a peer's elements in line", nil, func(w *world) {
			pe, tool := w.peer(), w.tool()
			e := pe.element(1)
			e.Home = toolID
			tool.update(enrp.AddPE, e)
			tool.take()
			tool.say(&enrp.Presence{Servers: fromTool, Checksum: 0x1234})
			if m := oneENRP[*enrp.HandleTableRequest](tool); !m.OwnOnly {
				w.Errorf("%+v", m)
			}
			e.ID, e.ASAP = 2, param.Transport{Type: param.TypeSCTPTransport, Port: 50000, Addrs: e.User.Addrs}
			tool.say(&enrp.HandleTableResponse{Servers: fromTool, Pools: []enrp.Pool{{Handle: pool, Elements: []param.PoolElement{e}}}})
			w.wantStored(pool, 1, false)
			w.wantStored(pool, 2, true)
			if n := len(tool.updates()); n != 0 {
				w.Errorf("%d updates", n)
			}
		}},
		{"LivesInMilliseconds lives of peers are milliseconds both ways", []func(*Config){asRsplib}, func(w *world) {
			pe, tool := w.peer(), w.tool()
			e := pe.element(1)
			e.Home, e.Life = toolID, 90000
			tool.update(enrp.AddPE, e)
			if got := w.stored(pool, 1).Element().Life; got != 90 {
				w.Errorf("life %v", got)
			}
			e = pe.element(2)
			e.Life = 60000
			pe.join(pool, e)
			if got := tool.updates(); len(got) != 1 || got[0].Element.Life != 60000 {
				w.Errorf("%+v", got)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { inWorld(t, tt.f, tt.change...) })
	}
}
