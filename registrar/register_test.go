package registrar

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

func TestRegistration(t *testing.T) {
	tests := []struct {
		name   string
		change []func(*Config)
		f      func(w *world)
	}{
		{"ASAP_3_1_24 ASAP_3_1_36 ASAP_2_2_3_01 ASAP_2_2_3_02 SM_PRE_01 unknown handle creates the pool", nil, func(w *world) {
			pe := w.peer()
			m := pe.register(pool, pe.element(1))
			if m.Reject || m.Error != nil || m.Handle != pool || m.ID != 1 {
				w.Errorf("answer %+v", m)
			}
			if info, ok := w.r.space.Pool(pool); !ok || info.Elements != 1 {
				w.Errorf("pool %+v, %v", info, ok)
			}
		}},
		{"ASAP_3_1_25 ASAP_3_1_27 ASAP_3_1_37 SM_PRE_02 PAR_3_12_4_01 first element sets policy, transport and use", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			other := pe.element(2)
			other.Policy = param.Policy{Type: param.LeastUsed}
			other.User.Type, other.User.Use = param.TypeSCTPTransport, param.DataAndControl
			m := pe.register(pool, other)
			if !m.Reject {
				w.Error("not rejected")
			}
			w.wantCauses(m.Error, param.CauseInconsistentPolicy, param.CauseInconsistentTransport, param.CauseInconsistentControl)
			w.wantStored(pool, 2, false)
		}},
		{"ASAP_3_1_26 a new element that fits is added", nil, func(w *world) {
			pe, other := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			other.join(pool, other.element(2))
			if got := ids(w.peer().resolve(pool).Elements); !slices.Equal(got, []param.PEID{1, 2}) {
				w.Errorf("pool holds %v", got)
			}
		}},
		{"ASAP_3_1_28 ASAP_3_1_30 SM_PRE_03 the same identifier registers again and replaces", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			again := pe.element(1)
			again.Life, again.User.Port = 60, 8
			pe.join(pool, again)
			if info, _ := w.r.space.Pool(pool); info.Elements != 1 {
				w.Errorf("%d elements", info.Elements)
			}
			if e := w.stored(pool, 1).Element(); e.Life != 60 || e.User.Port != 8 {
				w.Errorf("stored %+v", e)
			}
		}},
		{"ASAP_3_1_29 ASAP_3_1_31 AMB_29 the only member is checked as well, and stays as it was", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			before := w.stored(pool, 1)
			again := pe.element(1)
			again.Policy.Type = param.Random
			m := pe.register(pool, again)
			if !m.Reject {
				w.Error("not rejected")
			}
			w.wantCauses(m.Error, param.CauseInconsistentPolicy)
			if w.stored(pool, 1) != before {
				w.Error("entry changed")
			}
		}},
		{"ASAP_3_1_32 ENRP_1_1_01 the registrar becomes home, whatever the element says", nil, func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.Home = toolID
			pe.join(pool, e)
			if home := w.stored(pool, 1).Element().Home; home != ownID {
				w.Errorf("home %v", home)
			}
		}},
		{"ASAP_3_1_33 ASAP_3_1_12 the ASAP transport is where the registration came from", nil, func(w *world) {
			pe := w.peer("192.0.2.1", "198.51.100.1")
			e := pe.element(1)
			e.ASAP = param.Transport{Type: param.TypeSCTPTransport, Port: 9, Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}
			pe.join(pool, e)
			got := w.stored(pool, 1).Element().ASAP
			want := param.Transport{Type: param.TypeSCTPTransport, Port: 50000, Addrs: []netip.Addr{pe.addrs[0].Addr(), pe.addrs[1].Addr()}}
			if !sameTransport(got, want) {
				w.Errorf("ASAP transport %+v, want %+v", got, want)
			}
		}},
		{"over TCP the element names its control port and the connection its address", []func(*Config){overTCP}, func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.ASAP = param.Transport{Type: param.TypeTCPTransport, Port: 4000, Addrs: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}
			pe.join(pool, e)
			got := w.stored(pool, 1).Element().ASAP
			want := param.Transport{Type: param.TypeTCPTransport, Port: 4000, Addrs: []netip.Addr{pe.addrs[0].Addr()}}
			if !sameTransport(got, want) {
				w.Errorf("ASAP transport %+v, want %+v", got, want)
			}
		}},
		{"ASAP_2_1_01 to the letter of the RFC a registration over TCP changes nothing", []func(*Config){overTCP, func(c *Config) { c.Strict = true }}, func(w *world) {
			pe := w.peer()
			pe.say(&asap.Registration{Handle: pool, Element: pe.element(1)})
			pe.silence()
			w.wantStored(pool, 1, false)
			if !pe.closed() {
				w.Error("connection goes on")
			}
		}},
		{"ASAP_2_2_1_04 ASAP_3_1_34 AMB_26 foreign addresses are dropped with a warning, or all refused", nil, func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.User.Type = param.TypeSCTPTransport
			foreign := netip.MustParseAddr("203.0.113.9")
			e.User.Addrs = append(e.User.Addrs, foreign)
			m := pe.register(pool, e)
			if m.Reject {
				w.Error("rejected")
			}
			w.wantCauses(m.Error, param.CauseInvalidValues)
			if got := w.stored(pool, 1).Element().User.Addrs; !slices.Equal(got, pe.addrsOnly()) {
				w.Errorf("stored %v", got)
			}
			e.ID, e.User.Addrs = 2, []netip.Addr{foreign}
			m = pe.register(pool, e)
			if !m.Reject {
				w.Error("accepted")
			}
			w.wantCauses(m.Error, param.CauseInvalidValues)
			w.wantStored(pool, 2, false)
		}},
		{"AMB_69 the warning quotes the transport as stored", nil, func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.User.Type = param.TypeSCTPTransport
			e.User.Addrs = append(e.User.Addrs, netip.MustParseAddr("203.0.113.9"))
			m := pe.register(pool, e)
			want := param.TransportCause(param.CauseInvalidValues, w.stored(pool, 1).Element().User)
			if len(m.Error) != 1 || string(m.Error[0].Data) != string(want.Data) {
				w.Errorf("warning %x, want %x", m.Error, want.Data)
			}
		}},
		{"foreign addresses are accepted if so configured, loopback ones not", []func(*Config){func(c *Config) { c.ForeignAddresses = true }}, func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.User.Addrs = []netip.Addr{netip.MustParseAddr("203.0.113.9")}
			pe.join(pool, e)
			e.User.Addrs = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
			if !pe.register(pool, e).Reject {
				w.Error("loopback of another machine accepted")
			}
		}},
		{"loopback addresses are taken from loopback only", nil, func(w *world) {
			near, far := w.peer("127.0.0.1"), w.peer("192.0.2.7")
			e := near.element(1)
			e.User.Addrs = []netip.Addr{netip.MustParseAddr("127.0.0.9")}
			near.join(pool, e)
			e.ID, e.User.Addrs = 2, []netip.Addr{netip.MustParseAddr("127.0.0.1")}
			if !far.register(pool, e).Reject {
				w.Error("accepted from elsewhere")
			}
		}},
		{"ASAP_3_1_35 every registration gets one answer", nil, func(w *world) {
			pe := w.peer()
			bad := pe.element(2)
			bad.Life = 0
			for range 3 {
				pe.sendOn(pe.conn, &asap.Registration{Handle: pool, Element: pe.element(1)})
				pe.sendOn(pe.conn, &asap.Registration{Handle: pool, Element: bad})
			}
			if n := len(pe.heard()); n != 6 {
				w.Errorf("%d answers", n)
			}
		}},
		{"ASAP_3_1_40 ASAP_2_2_4_01 SM_PRE_06 AMB_87 a life that passes removes the element, which is told", nil, func(w *world) {
			pe := w.peer()
			pe.calm = true
			pe.join(pool, pe.element(1))
			w.after(299 * time.Second)
			w.wantStored(pool, 1, true)
			w.after(time.Second)
			w.wantStored(pool, 1, false)
			if m := one[*asap.DeregistrationResponse](pe); m.Handle != pool || m.ID != 1 || m.Error != nil {
				w.Errorf("told %+v", m)
			}
		}},
		{"PAR_3_10_04 AMB_10 -1 never expires, 0 and other negative lives are refused", nil, func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.Life = param.InfiniteLife
			pe.join(pool, e)
			for _, life := range []param.Life{0, -2} {
				e.ID, e.Life = 2, life
				m := pe.register(pool, e)
				if !m.Reject {
					w.Errorf("life %d accepted", life)
				}
				w.wantCauses(m.Error, param.CauseInvalidValues)
			}
			w.after(1000 * time.Hour)
			w.wantStored(pool, 1, true)
		}},
		{"ASAP_3_1_40 registering again restarts the life", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			w.after(200 * time.Second)
			pe.take()
			pe.join(pool, pe.element(1))
			w.after(200 * time.Second)
			w.wantStored(pool, 1, true)
		}},
		{"PAR_3_12_5_01 causes of registrations go to registering elements, unknown handles to those who resolve", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			e := pe.element(2)
			e.Policy.Type = param.Random
			for _, c := range pe.register(pool, e).Error {
				if c.Code != param.CauseInconsistentPolicy {
					w.Errorf("cause %v", c.Code)
				}
			}
			pe.say(&asap.Deregistration{Handle: "none", ID: 1})
			if m := one[*asap.DeregistrationResponse](pe); m.Error != nil {
				w.Errorf("causes %v", m.Error)
			}
			pe.say(&asap.EndpointUnreachable{Handle: "none", ID: 1})
			pe.silence()
			w.wantCauses(pe.resolve("none").Error, param.CauseUnknownPoolHandle)
		}},
		{"AMB_27 identifier 0 is refused", nil, func(w *world) {
			pe := w.peer()
			m := pe.register(pool, pe.element(0))
			if !m.Reject {
				w.Error("accepted")
			}
			w.wantCauses(m.Error, param.CauseInvalidValues)
		}},
		{"AMB_09 an identifier in use by a living element elsewhere is refused, one that moved is taken", nil, func(w *world) {
			pe, other := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			m := other.register(pool, other.element(1))
			if !m.Reject {
				w.Error("accepted")
			}
			w.wantCauses(m.Error, param.CauseNonUniquePEID)
			pe.listener.Close()
			pe.conn.Close()
			w.after(time.Millisecond)
			other.join(pool, other.element(1))
			if got := w.stored(pool, 1).Element().User.Addrs; !slices.Equal(got, other.addrsOnly()) {
				w.Errorf("stored %v", got)
			}
		}},
		{"AMB_09 the same host on another association registers again", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			again := pe.sibling(50001)
			again.join(pool, again.element(1))
		}},
		{"AMB_55 POL_7_1_01 a policy that is not known creates no pool", nil, func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.Policy = param.Policy{Type: 0x80001234, Data: "abcd"}
			m := pe.register(pool, e)
			if !m.Reject {
				w.Error("accepted")
			}
			w.wantCauses(m.Error, param.CauseInvalidValues)
		}},
		{"AMB_88 the handlespace is changed before the answer goes out", nil, func(w *world) {
			pe := w.peer()
			pe.sendOn(pe.conn, &asap.Registration{Handle: pool, Element: pe.element(1)})
			pe.sendOn(pe.conn, &asap.HandleResolution{Handle: pool})
			got := pe.heard()
			if len(got) != 2 {
				w.Fatalf("got %v", got)
			}
			if _, ok := got[0].(*asap.RegistrationResponse); !ok {
				w.Errorf("first %T", got[0])
			}
			if m, ok := got[1].(*asap.HandleResolutionResponse); !ok || len(m.Elements) != 1 {
				w.Errorf("then %+v", got[1])
			}
		}},
		{"ASAP_5_01 ASAP_5_02 answers carry PPID 11, requests need 11 or 0", nil, func(w *world) {
			pe := w.peer()
			pe.ppid = 0
			pe.join(pool, pe.element(1))
			pe.ppid = 33
			pe.say(&asap.HandleResolution{Handle: pool})
			pe.silence()
		}},
		{"AMB_83 ENRP on the ASAP port is told by its PPID", nil, func(w *world) {
			pe := w.peer()
			pe.ppid = transport.PPIDENRP
			pe.say(&asap.HandleResolution{Handle: pool}) // as ENRP: LIST_REQUEST of bad length or sender
			pe.silence()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { inWorld(t, tt.f, tt.change...) })
	}
}

func (p *peer) addrsOnly() []netip.Addr { return origin{remote: p.addrs}.addrs() }

func TestDeregistration(t *testing.T) {
	tests := []struct {
		name string
		f    func(w *world)
	}{
		{"ASAP_3_2_10 ASAP_3_2_11 ASAP_3_2_14 ASAP_2_2_4_02 SM_PRE_04 a granted one removes element and pool", func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.say(&asap.Deregistration{Handle: pool, ID: 1})
			if m := one[*asap.DeregistrationResponse](pe); m.Error != nil || m.Handle != pool || m.ID != 1 {
				w.Errorf("answer %+v", m)
			}
			if _, ok := w.r.space.Pool(pool); ok {
				w.Error("the empty pool stays")
			}
		}},
		{"ASAP_3_2_12 SM_PRE_05 what is not there is granted", func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			for _, m := range []*asap.Deregistration{{Handle: pool, ID: 2}, {Handle: "no such pool", ID: 1}, {Handle: pool, ID: 0}} {
				pe.say(m)
				if a := one[*asap.DeregistrationResponse](pe); a.Error != nil || a.ID != m.ID || a.Handle != m.Handle {
					w.Errorf("answer %+v", a)
				}
			}
			w.wantStored(pool, 1, true)
		}},
		{"ASAP_2_2_2_02 ASAP_3_2_13 ASAP_3_2_15 ASAP_3_2_17 AMB_28 of another element is refused", func(w *world) {
			pe, other := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			other.say(&asap.Deregistration{Handle: pool, ID: 1})
			w.wantCauses(one[*asap.DeregistrationResponse](other).Error, param.CauseSecurity)
			w.wantStored(pool, 1, true)
			pe.silence()
		}},
		{"AMB_28 from the element's host on another association is granted", func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			again := pe.sibling(50001)
			again.say(&asap.Deregistration{Handle: pool, ID: 1})
			if m := one[*asap.DeregistrationResponse](again); m.Error != nil {
				w.Errorf("answer %+v", m)
			}
			w.wantStored(pool, 1, false)
		}},
		{"REQ_2_7_01 a deregistered element's association goes on", func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.say(&asap.Deregistration{Handle: pool, ID: 1})
			pe.take()
			w.after(time.Minute)
			pe.silence()
			if pe.closed() {
				w.Error("connection closed")
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { inWorld(t, tt.f) })
	}
}
