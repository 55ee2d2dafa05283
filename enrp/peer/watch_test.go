package peer

import (
	"net/netip"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

func TestENRP_3_4_1_01_ENRP_3_4_1_02_SM_PEER_01_AMB_73_AnyMessageOfAStrangerAddsAPeer(t *testing.T) {
	e := element("p", 1, a)
	for _, m := range []enrp.Message{
		&enrp.Presence{Servers: from(a)},
		&enrp.ListRequest{Servers: from(a)},
		&enrp.ListResponse{Servers: from(a)},
		&enrp.HandleTableRequest{Servers: from(a)},
		&enrp.HandleTableResponse{Servers: from(a)},
		&enrp.HandleUpdate{Servers: from(a), Handle: e.Handle, Element: e.PoolElement},
		&enrp.InitTakeover{Servers: from(a), Target: b},
		&enrp.InitTakeoverAck{Servers: from(a), Target: b},
		&enrp.TakeoverServer{Servers: from(a), Target: b},
		&enrp.Error{Servers: from(a)},
	} {
		r := started(t)
		r.hear(toA, m)
		r.wantState(a, Active)
		asked := 0
		for _, p := range of[*enrp.Presence](r.messages(toA)) {
			if p.ReplyRequired && p.Receiver == 0 {
				asked++
			}
		}
		if asked != 1 {
			t.Errorf("%v: asked for its presence %d times", m.Type(), asked)
		}
	}
}

func TestENRP_3_4_01_PeersAreListedWithTheirState(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.peer(toB, b)
	r.hear(toB, &enrp.InitTakeover{Servers: from(b), Target: a})
	got := r.m.Peers()
	if len(got) != 2 || got[0].ID != a || got[0].State != TakenOver || got[1].State != Active ||
		!got[0].Connected || !got[0].LastHeard.Equal(r.now.Add(-5*time.Second)) || got[0].Transport.Port != 9901 {
		t.Errorf("peers %+v", got)
	}
}

func TestENRP_2_1_03_ENRP_2_1_05_AnswerToAPresenceThatAsks(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.has(element("EchoPool", 0x11223344, own))
	ask := r.presence(a)
	ask.ReplyRequired = true
	r.hear(toA, ask)
	if p := only[*enrp.Presence](r, r.messages(toA)); p.ReplyRequired || p.Server.ID != own || p.Checksum != 0x4deb || p.Receiver != a {
		t.Errorf("answer %+v", p)
	}
}

func TestENRP_3_4_2_01_ENRP_3_4_2_02_ENRP_3_1_02_ENRP_3_6_01_HeartbeatsGoToAllPeers(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.peer(toB, b)
	r.after(30 * time.Second)
	r.take()
	for range 3 {
		for _, l := range []Link{toA, toB} {
			r.hear(l, r.presence(map[Link]param.RegistrarID{toA: a, toB: b}[l]))
		}
		r.after(30 * time.Second)
		got := r.messages(0)
		if len(got) != 2 || got[0].to == got[1].to {
			t.Fatalf("sent %s", show(got))
		}
		for _, p := range of[*enrp.Presence](got) {
			if p.ReplyRequired || p.NoChecksum || p.Checksum != 0xffff {
				t.Errorf("heartbeat %+v", p)
			}
		}
	}
}

func TestENRP_3_4_3_01_SM_PEER_02_AnyMessageIsASignOfLife(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	for range 5 {
		r.after(60 * time.Second)
		r.wantState(a, Active)
		r.hear(toA, &enrp.ListRequest{Servers: from(a)})
	}
	r.after(62 * time.Second)
	r.wantState(a, Suspect)
	r.hear(toA, &enrp.InitTakeoverAck{Servers: from(a), Target: b})
	r.wantState(a, Active)
	r.after(10 * time.Second)
	r.wantState(a, Active)
}

func TestENRP_3_4_3_02_SM_PEER_03_SilentPeerIsAsked(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.after(61*time.Second - 1)
	for _, p := range of[*enrp.Presence](r.messages(toA)) {
		if p.ReplyRequired {
			t.Fatal("asked too early")
		}
	}
	r.after(1)
	if p := only[*enrp.Presence](r, r.messages(toA)); !p.ReplyRequired || p.Receiver != a {
		t.Errorf("presence %+v", p)
	}
	r.wantState(a, Suspect)
}

func TestENRP_3_4_3_03_ENRP_3_4_3_04_SM_PEER_04_PeerThatDoesNotAnswerIsTakenOver(t *testing.T) {
	r := homed(t)
	r.peer(toB, b)
	r.hear(toB, r.presence(b))
	r.after(40 * time.Second)
	r.hear(toB, r.presence(b))
	r.after(21*time.Second + 5*time.Second - 6*time.Second)
	r.wantState(a, Suspect)
	none[*enrp.InitTakeover](r, r.messages(0))
	r.after(time.Second)
	r.wantState(a, TakingOver)
	if got := of[*enrp.InitTakeover](r.messages(0)); len(got) != 2 {
		t.Errorf("%d announcements", len(got))
	}
}

func TestENRP_3_4_3_03_PeerThatCantBeReachedIsDead(t *testing.T) {
	r := homed(t)
	r.lose(toA)
	r.wantState(a, Gone) // taken over: nobody else is there
	r.wantHome("p", 1, a)
	r.collect()
	r.wantHome("p", 1, own)
}

func TestLostLinkComesBack(t *testing.T) {
	r := homed(t)
	r.m.LinkDown(toA, r.now)
	d := r.dial()
	if d.Mentor != -1 || d.To.Port != 9901 {
		t.Errorf("dials %+v", d)
	}
	r.m.LinkUp(d.ID, toC, r.now)
	if p := only[*enrp.Presence](r, r.messages(toC)); !p.ReplyRequired {
		t.Errorf("presence %+v", p)
	}
	r.hear(toC, r.presence(a))
	r.wantState(a, Active)
	r.after(10 * time.Second)
	r.wantState(a, Active)
	r.wantHome("p", 1, a)
}

// What this machine lacks says nothing of the peer.
func TestOwnTroubleIsNobodysDeath(t *testing.T) {
	r := homed(t)
	r.m.LinkDown(toA, r.now)
	r.m.DialFailed(r.dial().ID, true, r.now)
	r.wantState(a, Active)
	r.after(30 * time.Second)
	if d := actions[Dial](r.take()); len(d) == 0 {
		t.Error("does not try again")
	}
}

// Tools read the table and vanish: nothing of them stays, no takeover begins.
func TestGuestsLeaveNothingBehind(t *testing.T) {
	for _, described := range []bool{true, false} {
		r := started(t)
		m := r.presence(a)
		if !described {
			m.Server = param.ServerInformation{}
		}
		r.hear(toA, m)
		r.hear(toA, &enrp.HandleTableRequest{Servers: from(a)})
		r.m.LinkDown(toA, r.now)
		r.collect()
		all := r.take()
		if described {
			r.m.DialFailed(actions[Dial](all)[0].ID, false, r.now)
			all = r.take()
		}
		r.wantState(a, Gone)
		none[*enrp.InitTakeover](r, r.sent(all, 0))
	}
}

func TestAMB_67_PresenceWithoutChecksumIsNotAudited(t *testing.T) {
	r := homed(t)
	m := r.presence(a)
	m.Checksum, m.NoChecksum = 0, true
	r.hear(toA, m)
	none[*enrp.HandleTableRequest](r, r.messages(0))
}

func TestAMB_48_WrongIdentifiersAreDropped(t *testing.T) {
	r := started(t)
	for _, s := range []enrp.Servers{{Sender: 0}, {Sender: own}, {Sender: a, Receiver: b}} {
		r.hear(toA, &enrp.ListRequest{Servers: s})
	}
	if got := r.take(); len(got) > 0 || r.m.Refused() != 3 {
		t.Errorf("%+v, %d refused", got, r.m.Refused())
	}
}

// The members of a cluster are no peers, whatever they say.
func TestMembersOfTheClusterAreNoPeers(t *testing.T) {
	r := started(t, func(c *Config) { c.InCluster = func(id param.RegistrarID) bool { return id == a } })
	r.hear(toA, r.presence(a))
	r.hear(toB, &enrp.TakeoverServer{Servers: from(b), Target: a})
	all := r.take()
	if len(r.sent(all, toA)) > 0 || r.state(a) != Gone || len(actions[TakeOver](all)) > 0 {
		t.Errorf("%+v", all)
	}
}

func TestPeersAreBounded(t *testing.T) {
	r := started(t, func(c *Config) { c.Limits.Peers = 1 })
	r.peer(toA, a)
	r.hear(toB, &enrp.ListRequest{Servers: from(b)})
	only[*enrp.ListResponse](r, r.messages(toB)) // served all the same
	r.wantState(b, Gone)
	if r.m.Refused() == 0 {
		t.Error("not counted")
	}
}

// AMB-22: one association per pair, that of the higher identifier.
func TestAMB_22_OneLinkPerPair(t *testing.T) {
	for _, id := range []param.RegistrarID{a, b} { // lower and higher than our own
		r := started(t)
		r.hear(toA, r.presence(id)) // it has dialled
		r.hear(toB, &enrp.Presence{Servers: from(c), Server: info(c)})
		r.take()
		r.m.hearsay(id, at(id), r.now)
		r.m.peers[id].link = 0 // both dial at once
		r.m.reach(r.m.peers[id])
		d := r.dial()
		r.m.LinkUp(d.ID, toC, r.now)
		r.m.peers[id].link = toC
		r.hear(toA, r.presence(id))
		r.hear(toC, r.presence(id))
		want := toA
		hangs := 0
		if own > id {
			want, hangs = toC, 1
		}
		if got := r.m.peers[id].link; got != want {
			t.Errorf("%v: link %d, want %d", id, got, want)
		}
		if got := actions[HangUp](r.take()); len(got) != hangs {
			t.Errorf("%v: hangs up %+v", id, got)
		}
	}
}

func TestAMB_21_MulticastOnlyWhenAsked(t *testing.T) {
	r := started(t)
	r.after(time.Minute)
	if got := actions[Multicast](r.take()); len(got) > 0 {
		t.Errorf("%+v", got)
	}
	r = start0(t, func(c *Config) { c.Multicast = true })
	if got := did[Multicast](r); got.Message.Receiver != 0 || got.Message.ReplyRequired || got.Message.Server.ID != own {
		t.Errorf("%+v", got.Message)
	}
	r.after(30 * time.Second)
	did[Multicast](r)
}

func TestMulticastPresenceMakesPeers(t *testing.T) {
	r := started(t)
	m := &enrp.Presence{Servers: enrp.Servers{Sender: a}, Server: info(a)}
	source := netip.MustParseAddr("192.0.2.99")
	r.m.Heard(m, source, r.now)
	d := r.dial()
	if d.To.Addrs[0] != source || len(d.To.Addrs) != 2 {
		t.Errorf("dials %+v", d)
	}
	r.m.LinkUp(d.ID, toA, r.now)
	if p := only[*enrp.Presence](r, r.messages(toA)); !p.ReplyRequired {
		t.Errorf("presence %+v", p)
	}
	r.m.Heard(&enrp.Presence{Servers: enrp.Servers{Sender: own}, Server: info(own)}, source, r.now)
	if got := r.take(); len(got) > 0 {
		t.Errorf("own presence: %+v", got)
	}
}

// A home that is known only from elements is looked after like a peer.
func TestHomesThatNobodyHasHeardOfAreTakenOver(t *testing.T) {
	r := started(t)
	r.has(element("p", 1, c))
	r.after(30*time.Second + 61*time.Second + 5*time.Second)
	r.wantHome("p", 1, own)
}

func TestRsplibTimersFindADeadPeerWithinTenSeconds(t *testing.T) {
	r := homed(t, func(c *Config) { c.Timers = Rsplib() })
	r.after(10*time.Second - 1)
	r.wantHome("p", 1, a)
	r.after(1)
	r.wantHome("p", 1, own)
}
