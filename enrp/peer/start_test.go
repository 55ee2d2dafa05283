package peer

import (
	"slices"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/enrp"
)

// up lets the connection to a mentor come up.
func (r *rig) up(l Link) []sent {
	r.Helper()
	r.m.LinkUp(r.dial().ID, l, r.now)
	return r.messages(l)
}

// listing returns a machine that has asked its mentor, a, for the list.
func listing0(t *testing.T, n int) *rig {
	t.Helper()
	r := start0(t, mentors(n))
	only[*enrp.ListRequest](r, r.up(toA))
	return r
}

// loading0 returns a machine that has asked its mentor, a, for the table.
func loading0(t *testing.T, n int) *rig {
	t.Helper()
	r := listing0(t, n)
	r.hear(toA, &enrp.ListResponse{Servers: from(a)})
	only[*enrp.HandleTableRequest](r, r.messages(toA))
	return r
}

// table is a part of a mentor's table.
func table(more bool, elements ...Element) *enrp.HandleTableResponse {
	m := &enrp.HandleTableResponse{Servers: from(a), More: more}
	for _, e := range elements {
		m.Pools = append(m.Pools, enrp.Pool{Handle: e.Handle, Elements: []param.PoolElement{e.PoolElement}})
	}
	return m
}

func TestENRP_3_2_2_1_03_SM_PRS_01_WithoutMentorServesAtOnce(t *testing.T) {
	r := start0(t)
	r.wantServing(true)
	all := r.take()
	if len(actions[Serve](all)) != 1 || len(actions[Dial](all))+len(actions[Send](all)) > 0 {
		t.Errorf("actions %+v", all)
	}
}

func TestENRP_3_2_2_1_01_ENRP_3_2_2_2_01_SM_PRS_02_OneConfiguredPeerIsTheMentor(t *testing.T) {
	r := start0(t, mentors(1))
	r.wantServing(false)
	got := r.up(toA)
	// It introduces itself first, as some registrars answer only those they know.
	if p := only[*enrp.Presence](r, got); !p.ReplyRequired || p.Server.ID != own || p.Receiver != 0 {
		t.Errorf("presence %+v", p)
	}
	if m := only[*enrp.ListRequest](r, got); m.Receiver != 0 {
		t.Errorf("list request %+v", m)
	}
	if _, last := got[len(got)-1].m.(*enrp.ListRequest); !last {
		t.Errorf("order %s", show(got))
	}
}

func TestENRP_3_2_2_1_02_OneOfSeveralIsTheMentor(t *testing.T) {
	r := start0(t, mentors(3))
	if d := r.dial(); d.Mentor != 0 {
		t.Errorf("dials %+v", d)
	}
	r.after(time.Second)
	if n := len(r.take()); n > 0 {
		t.Errorf("%d actions while the mentor is dialled", n)
	}
}

func TestENRP_3_2_2_2_02_SM_PRS_05_SilentMentorIsAbandoned(t *testing.T) {
	r := listing0(t, 2)
	r.after(5*time.Second - 1)
	if got := r.take(); len(got) > 0 {
		t.Fatalf("too early: %+v", got)
	}
	r.after(1)
	if d := r.dial(); d.Mentor != 1 {
		t.Errorf("dials %+v", d)
	}
}

func TestENRP_3_2_2_1_02_MentorOutOfReachIsAbandonedAtOnce(t *testing.T) {
	r := start0(t, mentors(2))
	r.m.DialFailed(r.dial().ID, false, r.now)
	r.collect()
	if d := r.dial(); d.Mentor != 1 {
		t.Errorf("dials %+v", d)
	}
}

func TestENRP_3_2_2_2_04_ENRP_3_2_3_01_SM_PRS_03_ListFillsThePeerList(t *testing.T) {
	r := listing0(t, 1)
	r.hear(toA, &enrp.ListResponse{Servers: from(a), Peers: []param.ServerInformation{info(b), info(own), info(c)}}) // AMB-49
	all := r.take()
	if m := only[*enrp.HandleTableRequest](r, r.sent(all, toA)); m.OwnOnly || m.Receiver != a {
		t.Errorf("request %+v", m)
	}
	var ids []param.RegistrarID
	for _, p := range r.m.Peers() {
		ids = append(ids, p.ID)
	}
	if !slices.Equal(ids, []param.RegistrarID{a, c, b}) {
		t.Errorf("peers %v", ids)
	}
	dials := actions[Dial](all)
	if len(dials) != 2 {
		t.Fatalf("dials %+v", dials)
	}
	r.m.LinkUp(dials[0].ID, toB, r.now)
	if p := only[*enrp.Presence](r, r.messages(toB)); !p.ReplyRequired || p.Receiver != b {
		t.Errorf("presence %+v", p)
	}
}

func TestENRP_3_2_2_2_06_SM_PRS_04_RefusedListIsAskedForAgain(t *testing.T) {
	r := listing0(t, 1)
	r.hear(toA, &enrp.ListResponse{Servers: from(a), Reject: true})
	if got := r.take(); len(actions[Send](got)) > 1 { // but the presence that a newcomer gets
		t.Errorf("at once: %+v", got)
	}
	r.after(5 * time.Second)
	only[*enrp.ListRequest](r, r.messages(toA))
	r.wantServing(false)
}

func TestENRP_3_2_2_2_06_RefusedListIsAskedForAtABackup(t *testing.T) {
	r := listing0(t, 2)
	r.hear(toA, &enrp.ListResponse{Servers: from(a), Reject: true})
	if d := r.dial(); d.Mentor != 1 {
		t.Errorf("dials %+v", d)
	}
}

func TestENRP_3_2_3_05_ENRP_3_2_3_06_SM_PRS_06_EachPartIsInstalledBeforeTheNextIsAskedFor(t *testing.T) {
	r := loading0(t, 1)
	r.hear(toA, table(true, element("p", 1, a), element("p", 2, b)))
	all := r.take()
	imports, asked := 0, false
	for _, x := range all {
		switch x := x.(type) {
		case Import:
			imports++
			if asked {
				t.Error("asks before it installs")
			}
		case Send:
			m, ok := x.Message.(*enrp.HandleTableRequest)
			if asked = ok; ok && m.OwnOnly {
				t.Errorf("asks for %+v", m)
			}
		}
	}
	if imports != 2 || !asked {
		t.Errorf("%d installed, asked %v", imports, asked)
	}
	r.wantHome("p", 2, b)
	r.wantServing(false)
}

func TestENRP_3_2_3_10_SM_PRS_07_ServesWhenTheLastPartIsInstalled(t *testing.T) {
	r := loading0(t, 1)
	r.hear(toA, table(false, element("p", 1, a)))
	all := r.take()
	i := slices.IndexFunc(all, func(x Action) bool { _, ok := x.(Import); return ok })
	s := slices.IndexFunc(all, func(x Action) bool { _, ok := x.(Serve); return ok })
	if i < 0 || s < i {
		t.Errorf("actions %+v", all)
	}
	r.wantServing(true)
}

func TestAMB_40_AnEmptyTableIsComplete(t *testing.T) {
	r := loading0(t, 1)
	r.hear(toA, table(false))
	r.wantServing(true)
}

func TestENRP_3_2_3_07_ENRP_3_2_3_08_ENRP_3_2_3_09_TableElementsAreAddedAndReplaced(t *testing.T) {
	r := loading0(t, 1)
	r.has(element("known", 1, b))
	again := element("known", 1, a)
	again.Life = 77
	r.hear(toA, table(false, again, element("known", 2, a), element("new", 1, a)))
	for _, k := range []Key{{"known", 1}, {"known", 2}, {"new", 1}} {
		r.wantHome(k.Handle, k.ID, a)
	}
	if life := r.space.elements[Key{"known", 1}].Life; life != 77 {
		t.Errorf("attributes not replaced: life %v", life)
	}
}

func TestAMB_68_UpdatesWinOverTheTableAskedForBefore(t *testing.T) {
	r := loading0(t, 1)
	r.hear(toA, &enrp.HandleUpdate{Servers: from(a), Action: enrp.DelPE, Handle: "p", Element: element("p", 1, a).PoolElement})
	r.hear(toA, table(false, element("p", 1, a), element("p", 2, a)))
	r.wantHome("p", 1, 0)
	r.wantHome("p", 2, a)
}

func TestENRP_3_2_3_12_SM_PRS_08_RefusedTableIsAskedForElsewhere(t *testing.T) {
	r := loading0(t, 2)
	r.hear(toA, &enrp.HandleTableResponse{Servers: from(a), Reject: true})
	if d := r.dial(); d.Mentor != 1 {
		t.Errorf("dials %+v", d)
	}
	r.wantServing(false)
}

func TestENRP_3_2_3_13_SM_PRS_08_StalledDownloadBeginsAgainAtABackup(t *testing.T) {
	r := loading0(t, 2)
	r.hear(toA, table(true, element("p", 1, a)))
	r.take()
	r.after(5 * time.Second)
	if d := r.dial(); d.Mentor != 1 {
		t.Errorf("dials %+v", d)
	}
	// What comes late from the first does not count as the answer of the other.
	r.hear(toA, table(false))
	r.wantServing(false)
}

func TestSM_PRS_08_LostMentorIsReplaced(t *testing.T) {
	r := loading0(t, 2)
	r.m.LinkDown(toA, r.now)
	r.collect()
	if d := actions[Dial](r.take()); len(d) == 0 || d[len(d)-1].Mentor != 1 {
		t.Errorf("dials %+v", d)
	}
}

func TestENRP_3_2_2_2_05_ENRP_3_2_3_11_SM_PRS_09_StartingMentorRefuses(t *testing.T) {
	r := loading0(t, 1)
	r.has(element("p", 1, a))
	r.peer(toB, b)
	r.hear(toB, &enrp.ListRequest{Servers: from(b)})
	if m := only[*enrp.ListResponse](r, r.messages(toB)); !m.Reject || len(m.Peers) > 0 {
		t.Errorf("answer %+v", m)
	}
	r.hear(toB, &enrp.HandleTableRequest{Servers: from(b)})
	if m := only[*enrp.HandleTableResponse](r, r.messages(toB)); !m.Reject || len(m.Pools) > 0 {
		t.Errorf("answer %+v", m)
	}
}

func TestAMB_45_ServesAloneWhenNoMentorHelps(t *testing.T) {
	r := start0(t, mentors(2))
	for range 1000 {
		for _, d := range actions[Dial](r.take()) {
			r.m.DialFailed(d.ID, false, r.now)
		}
		if r.m.Serving() {
			break
		}
		r.after(100 * time.Millisecond)
	}
	if waited := r.now.Sub(time.Unix(1000, 0)); waited < time.Minute || waited > time.Minute+time.Second {
		t.Errorf("serves after %v", waited)
	}
	// And goes on looking for them.
	r.take()
	r.after(30 * time.Second)
	d := actions[Dial](r.take())
	if len(d) != 2 {
		t.Fatalf("dials %+v", d)
	}
	r.m.LinkUp(d[0].ID, toA, r.now)
	only[*enrp.ListRequest](r, r.messages(toA))
}

// Registrars that start together have each other for mentors and refuse: the one
// with the highest identifier begins.
func TestAMB_45_TheHighestOfThoseThatStartTogetherBegins(t *testing.T) {
	for _, test := range []struct {
		other param.RegistrarID
		begin bool
	}{{a, true}, {b, false}} {
		r := start0(t, mentors(1))
		r.m.LinkUp(r.dial().ID, toA, r.now)
		for range startRounds {
			r.wantServing(false)
			r.hear(toA, &enrp.ListResponse{Servers: from(test.other), Reject: true})
			if !r.m.Serving() {
				r.after(5 * time.Second)
			}
		}
		r.wantServing(test.begin)
	}
}

func TestMentorsOfTheClusterAreOfNoUse(t *testing.T) {
	r := start0(t, mentors(2), func(c *Config) { c.InCluster = func(id param.RegistrarID) bool { return id == a } })
	r.m.LinkUp(r.dial().ID, toA, r.now)
	r.hear(toA, &enrp.ListResponse{Servers: from(a)})
	d := r.dial()
	if d.Mentor != 1 {
		t.Fatalf("dials %+v", d)
	}
	r.m.MentorIsSelf(d.ID, r.now)
	r.wantServing(true)
}

func TestMentorsWaitForBegin(t *testing.T) {
	r := start0(t, mentors(1), func(c *Config) { c.Wait = true })
	r.after(time.Hour)
	r.wantServing(false)
	if got := actions[Dial](r.take()); len(got) > 0 {
		t.Errorf("dials %+v", got)
	}
	r.m.Begin(r.now)
	only[*enrp.ListRequest](r, r.up(toA))
}

func TestServeEndsTheStart(t *testing.T) {
	r := loading0(t, 1)
	r.m.Serve(r.now)
	r.wantServing(true)
	r.hear(toA, table(false, element("p", 1, a)))
	r.wantHome("p", 1, 0) // not asked for any more
}
