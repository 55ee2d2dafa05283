package peer

import (
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

// arbitrating returns a machine that wants to take a over; b and c are peers, too.
// a is home to an element.
func arbitrating(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	r := started(t, change...)
	r.peer(toA, a)
	r.peer(toB, b)
	r.peer(toC, c)
	r.has(element("p", 1, a), element("p", 2, b), element("p", 3, own))
	r.take()
	r.lose(toA)
	r.collect()
	r.wantState(a, TakingOver)
	return r
}

func ack(id, target param.RegistrarID) *enrp.InitTakeoverAck {
	return &enrp.InitTakeoverAck{Servers: from(id), Target: target}
}

func wish(id, target param.RegistrarID) *enrp.InitTakeover {
	return &enrp.InitTakeover{Servers: from(id), Target: target}
}

func TestENRP_3_5_1_01_ENRP_3_5_1_02_ENRP_3_1_02_TakeoverBeginsWithAnAnnouncementToAll(t *testing.T) {
	r := arbitrating(t)
	got := r.messages(0)
	if len(of[*enrp.InitTakeover](got)) != 2 || got[0].to == got[1].to {
		t.Errorf("sent %s", show(got))
	}
	for _, m := range of[*enrp.InitTakeover](got) {
		if m.Sender != own || m.Target != a || m.Receiver != 0 {
			t.Errorf("%+v", m)
		}
	}
}

func TestENRP_3_5_1_03_TheTargetGetsACopy(t *testing.T) {
	r := homed(t)
	r.after(66 * time.Second)
	if m := only[*enrp.InitTakeover](r, r.messages(toA)); m.Target != a {
		t.Errorf("%+v", m)
	}
}

func TestENRP_3_5_1_04_ENRP_3_5_1_10_SM_PEER_08_AllAcknowledgementsAreWaitedFor(t *testing.T) {
	r := arbitrating(t)
	r.take()
	r.hear(toB, ack(b, a))
	r.hear(toB, ack(b, a)) // again
	none[*enrp.TakeoverServer](r, r.messages(0))
	r.wantHome("p", 1, a)
	r.hear(toC, ack(c, a))
	if got := of[*enrp.TakeoverServer](r.messages(0)); len(got) != 2 || got[0].Target != a || got[0].Receiver != 0 {
		t.Errorf("announced %+v", got)
	}
	r.wantHome("p", 1, own)
}

func TestENRP_3_5_1_10_WithoutOthersItWinsAtOnce(t *testing.T) {
	r := homed(t)
	r.lose(toA)
	if x := did[TakeOver](r); x.Target != a || x.Home != own {
		t.Errorf("%+v", x)
	}
}

func TestENRP_3_5_1_05_TheTargetSaysThatItIsAlive(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.peer(toB, b)
	r.hear(toB, wish(b, own))
	got := r.messages(0)
	none[*enrp.InitTakeoverAck](r, got)
	if len(got) != 2 || len(of[*enrp.Presence](got)) != 2 {
		t.Errorf("sent %s", show(got))
	}
}

func TestENRP_3_5_1_06_SM_PEER_05_PresenceOfTheTargetEndsTheTakeover(t *testing.T) {
	r := arbitrating(t)
	r.hear(toA, r.presence(a))
	r.wantState(a, Active)
	r.hear(toB, ack(b, a))
	r.hear(toC, ack(c, a))
	r.wantHome("p", 1, a)
	none[*enrp.TakeoverServer](r, r.messages(0))
}

func TestAMB_46_AnyMessageOfTheTargetEndsTheTakeover(t *testing.T) {
	r := arbitrating(t)
	r.hear(toA, &enrp.ListRequest{Servers: from(a)})
	r.wantState(a, Active)
}

func TestENRP_3_5_1_07_SM_PEER_06_TheSmallerIdentifierYields(t *testing.T) {
	r := arbitrating(t)
	r.take()
	r.hear(toB, wish(b, a)) // b is greater
	r.wantState(a, TakenOver)
	if m := only[*enrp.InitTakeoverAck](r, r.messages(0)); m.Target != a || m.Receiver != b {
		t.Errorf("%+v", m)
	}
	r.hear(toB, ack(b, a))
	r.hear(toC, ack(c, a))
	r.wantHome("p", 1, a)
}

func TestENRP_3_5_1_08_SM_PEER_07_AMB_41_TheGreaterIdentifierGoesOn(t *testing.T) {
	r := arbitrating(t)
	r.take()
	r.hear(toC, wish(c, a)) // c is smaller
	r.wantState(a, TakingOver)
	none[*enrp.InitTakeoverAck](r, r.messages(0))
	r.hear(toB, ack(b, a))
	r.hear(toC, ack(c, a))
	r.wantHome("p", 1, own)
}

func TestAMB_41_LowerIDWinsTakeover(t *testing.T) {
	r := arbitrating(t, lower)
	r.hear(toB, wish(b, a))
	r.wantState(a, TakingOver)
	r.hear(toC, wish(c, a))
	r.wantState(a, TakenOver)
}

func TestENRP_3_5_1_09_SM_PEER_10_AnUninvolvedRegistrarAcknowledges(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.peer(toB, b)
	r.hear(toB, wish(b, a))
	if m := only[*enrp.InitTakeoverAck](r, r.messages(toB)); m.Target != a {
		t.Errorf("%+v", m)
	}
	r.wantState(a, TakenOver)
	r.after(60 * time.Second) // not monitored
	for _, m := range of[*enrp.Presence](r.messages(toA)) {
		if m.ReplyRequired {
			t.Error("still asked")
		}
	}
}

func TestENRP_3_5_1_11_SM_PEER_09_AMB_42_WhoIsDeadIsNotWaitedFor(t *testing.T) {
	r := arbitrating(t)
	r.take()
	r.hear(toB, ack(b, a))
	r.after(5 * time.Second)
	got := r.messages(toC)
	only[*enrp.InitTakeover](r, got)
	if m := only[*enrp.Presence](r, got); !m.ReplyRequired {
		t.Errorf("%+v", m)
	}
	r.wantHome("p", 1, a)
	r.hear(toB, r.presence(b))
	r.after(5 * time.Second)
	r.wantHome("p", 1, own)
}

func TestAMB_42_WhoAnswersIsWaitedFor(t *testing.T) {
	r := arbitrating(t)
	r.hear(toB, ack(b, a))
	for range 10 {
		r.after(5 * time.Second)
		r.hear(toB, r.presence(b))
		r.hear(toC, r.presence(c))
		r.take()
	}
	r.wantState(a, TakingOver)
	r.wantHome("p", 1, a)
	r.hear(toC, ack(c, a))
	r.wantHome("p", 1, own)
}

func TestENRP_3_5_1_12_TakeoverOfAnUnknownTargetIsAcknowledged(t *testing.T) {
	r := started(t)
	r.peer(toB, b)
	r.hear(toB, wish(b, 0x99))
	if m := only[*enrp.InitTakeoverAck](r, r.messages(toB)); m.Target != 0x99 {
		t.Errorf("%+v", m)
	}
}

func TestENRP_3_5_1_13_UnwantedAcknowledgementsAreIgnored(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.peer(toB, b)
	r.hear(toB, ack(b, a))
	if got := r.take(); len(got) > 0 {
		t.Errorf("%+v", got)
	}
	r.wantState(a, Active)
}

func TestENRP_3_5_2_01_ENRP_3_5_2_02_ENRP_3_5_2_03_ENRP_3_5_2_08_TheWinnerAnnouncesThenDropsThenClaims(t *testing.T) {
	r := arbitrating(t)
	r.take()
	r.hear(toB, ack(b, a))
	r.hear(toC, ack(c, a))
	announced, claimed := -1, -1
	for i, x := range r.take() {
		switch x := x.(type) {
		case Send:
			if _, ok := x.Message.(*enrp.TakeoverServer); ok && announced < 0 {
				announced = i
			}
			if _, ok := x.Message.(*enrp.HandleUpdate); ok {
				t.Error("needless update")
			}
		case TakeOver:
			claimed = i
		}
	}
	if announced < 0 || claimed < announced {
		t.Errorf("announced %d, claimed %d", announced, claimed)
	}
	r.wantState(a, Gone)
	r.wantHome("p", 1, own)
	r.wantHome("p", 2, b) // of no other
	if !r.m.Won(a) {
		t.Error("not known as won")
	}
}

func TestENRP_3_5_2_04_ChecksumsFollowAtOnce(t *testing.T) {
	r := arbitrating(t)
	r.take()
	r.hear(toB, ack(b, a))
	r.hear(toC, ack(c, a))
	r.take()
	ask := r.presence(b)
	ask.ReplyRequired = true
	r.hear(toB, ask)
	want := param.Checksum{}
	want.Add("p", 1)
	want.Add("p", 3)
	if m := only[*enrp.Presence](r, r.messages(toB)); m.Checksum != want.Sum() {
		t.Errorf("checksum %#04x, want %#04x", m.Checksum, want.Sum())
	}
	if got := r.space.Checksum(a); got != 0xffff {
		t.Errorf("checksum of the target %#04x", got)
	}
}

func TestENRP_3_5_2_06_ENRP_3_5_2_07_AMB_43_SM_PEER_11_SM_PRE_14_TakeoverByAnother(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.peer(toB, b)
	r.has(element("p", 1, a), element("p", 2, c), element("p", 3, own))
	r.hear(toB, &enrp.TakeoverServer{Servers: from(b), Target: a})
	r.wantState(a, Gone)
	r.wantHome("p", 1, b)
	r.wantHome("p", 2, c)
	r.wantHome("p", 3, own)
}

func TestAMB_46_SM_PEER_12_ForgottenTargetsAreMonitoredAgain(t *testing.T) {
	r := homed(t)
	r.peer(toB, b)
	r.hear(toB, wish(b, a))
	r.hear(toA, r.presence(a))
	r.wantState(a, Active)
	r.hear(toB, wish(b, a))
	r.take()
	for range 2 { // b lives, and says nothing of it any more
		r.after(30 * time.Second)
		r.hear(toB, r.presence(b))
	}
	r.wantState(a, TakenOver)
	r.after(2 * time.Second)
	r.wantState(a, Suspect)
	r.after(5 * time.Second)
	r.wantState(a, TakingOver)
}

func TestAMB_47_WhoWasTakenOverAliveGivesUp(t *testing.T) {
	r := started(t)
	r.peer(toB, b)
	r.has(element("p", 1, own))
	r.hear(toB, &enrp.TakeoverServer{Servers: from(b), Target: own})
	r.wantHome("p", 1, b)
	r.after(0)
	if m := only[*enrp.Presence](r, r.messages(toB)); m.Checksum != 0xffff {
		t.Errorf("%+v", m)
	}
}

// In a cluster one member takes over.
func TestOnlyTheArbiterTakesOver(t *testing.T) {
	r := started(t)
	r.m.Arbitrate(false, r.now)
	r.peer(toA, a)
	r.has(element("p", 1, a))
	r.lose(toA)
	r.wantState(a, Dead)
	r.after(time.Hour)
	r.wantHome("p", 1, a)
	r.m.Arbitrate(true, r.now)
	r.collect()
	r.wantHome("p", 1, own)
}

func TestDeadPeersComeBack(t *testing.T) {
	r := started(t)
	r.m.Arbitrate(false, r.now)
	r.peer(toA, a)
	r.has(element("p", 1, a))
	r.lose(toA)
	r.hear(toB, r.presence(a))
	r.wantState(a, Active)
}

func TestNewArbiterLetsTheFormerOneGo(t *testing.T) {
	r := arbitrating(t)
	r.m.Arbitrate(false, r.now)
	r.wantState(a, Dead)
	r.hear(toB, ack(b, a))
	r.hear(toC, ack(c, a))
	r.wantHome("p", 1, a)
	r.m.Gone(a)
	r.wantState(a, Gone)
}

func TestTakeoversOfTheClusterAreAnnounced(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.m.Rehomed(b)
	if m := only[*enrp.TakeoverServer](r, r.messages(toA)); m.Target != b {
		t.Errorf("%+v", m)
	}
}

// Peers that have lost sight of a member of the cluster must not take it over.
func TestLivingMembersAreNotGivenAway(t *testing.T) {
	alive := true
	r := started(t, func(c *Config) {
		c.InCluster = func(id param.RegistrarID) bool { return id == 0x90 }
		c.Alive = func(param.RegistrarID) bool { return alive }
	})
	r.peer(toB, b)
	r.hear(toB, wish(b, 0x90))
	none[*enrp.InitTakeoverAck](r, r.messages(0))
	alive = false
	r.hear(toB, wish(b, 0x90))
	only[*enrp.InitTakeoverAck](r, r.messages(0))
}

func TestPeersThatJoinTheClusterAreNoneAnyMore(t *testing.T) {
	joined := false
	r := started(t, func(c *Config) { c.InCluster = func(id param.RegistrarID) bool { return joined && id == a } })
	r.peer(toA, a)
	joined = true
	r.m.Regroup(r.now)
	r.wantState(a, Gone)
}
