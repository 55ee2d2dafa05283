package peer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

func update(action enrp.UpdateAction, id param.RegistrarID, e Element) *enrp.HandleUpdate {
	return &enrp.HandleUpdate{Servers: enrp.Servers{Sender: id}, Action: action, Handle: e.Handle, Element: e.PoolElement}
}

func TestENRP_3_3_1_01_ENRP_3_3_1_02_ENRP_3_3_1_03_AMB_78_OwnElementsAreAnnouncedToAll(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.peer(toB, b)
	e := element("p", 1, own)
	r.m.Update(enrp.AddPE, e)
	got := r.messages(0)
	if len(got) != 2 || got[0].to == got[1].to {
		t.Fatalf("sent %s", show(got))
	}
	for _, m := range of[*enrp.HandleUpdate](got) {
		if m.Action != enrp.AddPE || m.Sender != own || m.Receiver != 0 || m.Handle != "p" || m.Element.ID != 1 ||
			m.Element.Home != own || m.Element.ASAP.IsZero() || m.Element.User.Port != 7 || m.Element.Life != 300 {
			t.Errorf("%+v", m)
		}
	}
}

func TestENRP_3_3_2_01_ENRP_3_3_2_02_ENRP_3_3_2_03_RemovalsAreAnnouncedToAll(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.m.Update(enrp.DelPE, element("p", 1, own))
	if m := only[*enrp.HandleUpdate](r, r.messages(toA)); m.Action != enrp.DelPE || m.Sender != own || m.Receiver != 0 ||
		m.Handle != "p" || m.Element.ID != 1 || m.Element.User.Port != 7 || m.Element.ASAP.IsZero() {
		t.Errorf("%+v", m)
	}
}

func TestENRP_3_3_1_04_ENRP_3_3_1_05_ENRP_3_3_1_06_SM_PRE_11_ElementsOfPeersAreStored(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.hear(toA, update(enrp.AddPE, a, element("new", 1, a)))
	r.wantHome("new", 1, a)
	odd := element("new", 2, a)
	odd.Policy = param.Policy{Type: param.WeightedRandom, Weight: 3} // AMB-38
	r.hear(toA, update(enrp.AddPE, a, odd))
	r.wantHome("new", 2, a)
	again := element("new", 1, b)
	again.Life = 77
	r.hear(toA, update(enrp.AddPE, a, again))
	r.wantHome("new", 1, b)
	if got := r.space.elements[Key{"new", 1}].Life; got != 77 {
		t.Errorf("life %v", got)
	}
}

func TestENRP_3_3_1_07_SM_PRE_10_AnotherHomeTakesAnOwnElement(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.has(element("p", 1, own))
	r.hear(toA, update(enrp.AddPE, a, element("p", 1, a)))
	r.wantHome("p", 1, a)
}

func TestENRP_3_3_1_08_UpdatesAreNotForwarded(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.peer(toB, b)
	r.hear(toA, update(enrp.AddPE, a, element("p", 1, a)))
	r.hear(toA, update(enrp.DelPE, a, element("p", 1, a)))
	if got := r.messages(0); len(got) > 0 {
		t.Errorf("sent %s", show(got))
	}
}

func TestENRP_3_3_2_04_ENRP_3_3_2_05_ENRP_3_3_2_06_SM_PRE_12_ElementsOfPeersAreRemoved(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.has(element("p", 1, a), element("p", 2, a))
	r.hear(toA, update(enrp.DelPE, a, element("p", 1, a)))
	r.hear(toA, update(enrp.DelPE, a, element("q", 9, a)))
	r.wantHome("p", 1, 0)
	r.wantHome("p", 2, a)
	none[*enrp.Error](r, r.messages(0))
}

func TestAMB_74_HomeZeroIsTheSender(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.hear(toA, update(enrp.AddPE, a, element("p", 1, 0)))
	r.wantHome("p", 1, a)
}

// Nobody tells a registrar what it is home to itself.
func TestNobodyAddsOwnElements(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.hear(toA, update(enrp.AddPE, a, element("p", 1, own)))
	r.wantHome("p", 1, 0)
}

func TestENRP_3_6_1_01_ENRP_3_6_1_03_ENRP_3_6_1_04_EqualChecksumsCauseNothing(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.has(element("p", 1, a), element("p", 2, b), element("p", 3, own))
	r.hear(toA, r.presence(a))
	if got := r.take(); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

// syncing returns a machine that has asked a for its elements. It knows p/1 and p/2
// of a.
func syncing(t *testing.T) *rig {
	t.Helper()
	r := started(t)
	r.peer(toA, a)
	r.has(element("p", 1, a), element("p", 2, a), element("p", 3, b), element("p", 4, own))
	m := r.presence(a)
	m.Checksum++
	r.hear(toA, m)
	ask := only[*enrp.HandleTableRequest](r, r.messages(0))
	if !ask.OwnOnly || ask.Receiver != a {
		t.Fatalf("%+v", ask)
	}
	return r
}

func TestENRP_3_6_1_05_ENRP_3_6_3_01_ENRP_3_6_3_02_SM_PEER_13_DifferentChecksumsStartAResynchronisation(t *testing.T) {
	r := syncing(t)
	if d := r.m.peers[a].sync; len(d.marked) != 2 || !d.marked[Key{"p", 1}] || !d.marked[Key{"p", 2}] {
		t.Errorf("marked %v", d.marked)
	}
	// One at a time.
	m := r.presence(a)
	m.Checksum += 2
	r.hear(toA, m)
	none[*enrp.HandleTableRequest](r, r.messages(0))
}

func TestENRP_3_6_3_04_ENRP_3_6_3_05_ENRP_3_6_3_06_ListedElementsStayTheOthersGo(t *testing.T) {
	r := syncing(t)
	again := element("p", 1, a)
	again.Life = 77
	r.hear(toA, table(false, again, element("new", 1, a)))
	all := r.take()
	if got := r.sent(all, 0); len(got) > 0 {
		t.Errorf("sent %s", show(got)) // no DEL_PE
	}
	r.wantHome("p", 1, a)
	r.wantHome("p", 2, 0)
	r.wantHome("new", 1, a)
	r.wantHome("p", 3, b)
	r.wantHome("p", 4, own)
	if got := r.space.elements[Key{"p", 1}].Life; got != 77 {
		t.Errorf("life %v", got)
	}
}

func TestENRP_3_6_3_06_ENRP_3_6_3_07_NothingGoesBeforeTheLastPart(t *testing.T) {
	r := syncing(t)
	r.hear(toA, table(true, element("new", 1, a)))
	r.wantHome("p", 1, a)
	r.wantHome("p", 2, a)
	if m := only[*enrp.HandleTableRequest](r, r.messages(toA)); !m.OwnOnly {
		t.Errorf("%+v", m)
	}
	r.hear(toA, table(false, element("p", 2, a)))
	r.wantHome("p", 1, 0)
	r.wantHome("p", 2, a)
	r.wantHome("new", 1, a)
}

func TestENRP_3_6_3_07_ENRP_3_6_3_08_AfterARefusalNothingGoes(t *testing.T) {
	r := syncing(t)
	r.hear(toA, &enrp.HandleTableResponse{Servers: from(a), Reject: true})
	r.hear(toA, table(false)) // not asked for any more
	r.wantHome("p", 1, a)
	r.wantHome("p", 2, a)
}

func TestENRP_3_6_3_08_AfterATimeOutNothingGoes(t *testing.T) {
	r := syncing(t)
	r.hear(toA, table(true, element("p", 1, a)))
	r.after(5 * time.Second)
	r.hear(toA, table(false))
	r.wantHome("p", 2, a)
}

func TestENRP_3_6_3_09_AMB_68_UpdatesDuringAResynchronisationWin(t *testing.T) {
	r := syncing(t)
	r.hear(toA, update(enrp.AddPE, a, element("p", 2, a)))
	r.hear(toA, update(enrp.DelPE, a, element("p", 1, a)))
	r.m.Update(enrp.AddPE, element("p", 5, own))
	r.has(element("p", 5, own))
	r.hear(toA, table(false, element("p", 1, a), element("p", 5, a)))
	r.wantHome("p", 2, a)
	r.wantHome("p", 1, 0)
	r.wantHome("p", 5, own)
}

// A checksum that stays wrong whatever is done must not cost a table per heartbeat.
func TestHopelessAuditsAreRepeatedMoreAndMoreRarely(t *testing.T) {
	r := syncing(t)
	sum := r.space.Checksum(a) + 1
	asked := 0
	for range 600 {
		r.hear(toA, table(false, element("p", 1, a), element("p", 2, a)))
		r.after(time.Second)
		m := r.presence(a)
		m.Checksum = sum
		r.hear(toA, m)
		asked += len(of[*enrp.HandleTableRequest](r.messages(toA)))
	}
	if asked < 4 || asked > 8 {
		t.Errorf("asked %d times in 10 minutes", asked)
	}
	// Another value is looked at at once.
	m := r.presence(a)
	m.Checksum = sum + 1
	r.hear(toA, m)
	only[*enrp.HandleTableRequest](r, r.messages(toA))
}

func TestChecksumsAreNotComparedWhileChangesAreUnderWay(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.space.busy = true
	m := r.presence(a)
	m.Checksum++
	r.hear(toA, m)
	none[*enrp.HandleTableRequest](r, r.messages(0))
}

func TestENRP_3_6_3_07_AnErrorEndsAResynchronisation(t *testing.T) {
	r := syncing(t)
	r.hear(toA, &enrp.Error{Servers: from(a)})
	r.hear(toA, table(false))
	r.wantHome("p", 1, a)
}

func TestENRP_3_2_2_2_03_AMB_49_TheListNamesThePeersButTheAsker(t *testing.T) {
	r := started(t)
	r.peer(toA, a)
	r.peer(toB, b)
	r.hear(toA, &enrp.ListRequest{Servers: from(a)})
	m := only[*enrp.ListResponse](r, r.messages(toA))
	if m.Reject || len(m.Peers) != 1 || m.Peers[0].ID != b || m.Peers[0].Transport.Port != 9901 {
		t.Errorf("%+v", m)
	}
}

func TestENRP_2_2_01_ENRP_2_3_03_ENRP_3_2_3_02_ENRP_3_2_3_03_ENRP_3_2_3_04_TheTableGoesOutInParts(t *testing.T) {
	r := started(t, func(c *Config) { c.Limits.Page = 1400 })
	r.peer(toA, a)
	var all, mine []string
	for i := range param.PEID(120) {
		home := []param.RegistrarID{own, a, b}[i%3]
		e := element(param.PoolHandle(fmt.Sprintf("p%d", i/40)), i+1, home)
		r.has(e)
		name := fmt.Sprintf("%s/%d", e.Handle, e.ID)
		all = append(all, name)
		if home == own {
			mine = append(mine, name)
		}
	}
	read := func(ownOnly bool) (got []string, parts int) {
		for {
			r.hear(toA, &enrp.HandleTableRequest{Servers: from(a), OwnOnly: ownOnly})
			m := only[*enrp.HandleTableResponse](r, r.messages(toA))
			got = append(got, keys(m.Pools)...)
			if parts++; !m.More {
				return got, parts
			}
		}
	}
	for range 2 { // and again from the start
		if got, parts := read(false); !slices.Equal(got, all) || parts < 5 {
			t.Errorf("%d parts: %v", parts, got)
		}
		if got, parts := read(true); !slices.Equal(got, mine) || parts < 2 {
			t.Errorf("own: %d parts: %v", parts, got)
		}
	}
}

func TestENRP_3_2_3_14_AMB_39_ThePositionIsForgotten(t *testing.T) {
	r := started(t, func(c *Config) { c.Limits.Page = 1400 })
	for i := range param.PEID(60) {
		r.has(element("p", i+1, own))
	}
	first := func(l Link, id param.RegistrarID) param.PEID {
		r.hear(l, &enrp.HandleTableRequest{Servers: from(id)})
		return only[*enrp.HandleTableResponse](r, r.messages(l)).Pools[0].Elements[0].ID
	}
	if got := first(toA, a); got != 1 {
		t.Errorf("begins at %d", got)
	}
	if got := first(toA, a); got == 1 {
		t.Error("does not go on")
	}
	if got := first(toB, a); got != 1 {
		t.Errorf("another association begins at %d", got)
	}
	r.after(5*time.Second + 1)
	if got := first(toA, a); got != 1 {
		t.Errorf("after the time-out at %d", got)
	}
}
