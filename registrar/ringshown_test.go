package registrar

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rserpool/enrp/ring"
	"rserpool/enrp/ring/ringnet"
	"rserpool/registrar/admin"
	"rserpool/registrar/handlespace"
	"rserpool/registrar/replica"
)

func ringNode(id uint32) ring.Node {
	return ring.Node{Member: ring.Member{ID: ring.NodeID(id), Incarnation: ring.Incarnation(100 + id)}, Contact: fmt.Sprintf("tcp://192.0.2.%d:9903", id)}
}

// ringStatus is that of member 1, in a view with member 2, that knows member 3
// outside and looks for one at a fourth address.
func ringStatus() ringnet.Status {
	one, two, three := ringNode(1), ringNode(2), ringNode(3)
	view := ring.View{ID: ring.ViewID{Counter: 7, Coordinator: one.Member}, Members: []ring.Node{one, two}}
	st := ringnet.Status{Cluster: "blue", Status: ring.Status{
		Self: one, State: ring.Eating, View: view, Synced: view.ID, Cause: ring.CauseMerge,
		Hop: 40, Seq: 12, Stable: 9, Rotation: 2 * time.Millisecond, Queue: 3, QueueOctets: 30, InToken: 2,
		Outside: []ring.Node{three},
		Locks:   []ring.LockStatus{{Name: "b"}, {Name: "a", Holder: two.Member, Fence: ring.Fence{Counter: 7, Seq: 3}, Queue: []ring.Member{one.Member}}},
		Counters: ring.Counters{
			Views: map[ring.Cause]uint64{ring.CauseMerge: 2}, Refused: map[string]uint64{"promised": 1}, Entries: 12, Resent: 4,
		},
	}}
	st.Counters.Entered[ring.Starving], st.Counters.TokenLost[ring.Hungry] = 5, 6
	st.Peers = []ringnet.PeerStatus{
		{Member: two.Member, Addr: "192.0.2.2:1", LastError: "an old one"},
		{Member: two.Member, Addr: "192.0.2.2:9903", Connected: true, Since: time.Unix(1, 0), SentOctets: 10, ReceivedOctets: 20, Dropped: 1,
			Skew: ringnet.Skew{Ahead: -2 * time.Second, Error: time.Millisecond, At: time.Unix(2, 0)}},
		{Member: two.Member, Addr: "192.0.2.2:2", LastError: "another"},
		{Member: three.Member, Addr: "192.0.2.3:9903", Connected: true},
		{Addr: "192.0.2.4:9903", LastError: "connection refused"},
	}
	return st
}

func TestRingAsShown(t *testing.T) {
	r := showRing(ringStatus())
	if r.Cluster != "blue" || r.State != "eating" || r.View != "7@0x00000001/101" || r.Coordinator != "0x00000001" || r.Cause != "merge" ||
		r.Hop != 40 || r.StableLag != 3 || r.Rotation != 0.002 || r.Backlog != 3 || r.BacklogOctets != 30 || r.InToken != 2 {
		t.Errorf("%+v", r)
	}
	if len(r.Members) != 2 || r.Members[0].State != admin.MemberSelf || r.Members[0].Incarnation != "101" ||
		r.Members[1].State != admin.MemberConnected || r.Members[1].Sent != 10 || r.Members[1].Since == nil ||
		r.Members[0].Clock != nil || r.Members[1].Clock == nil || *r.Members[1].Clock != (admin.RingClock{Ahead: -2, Error: 0.001}) {
		t.Errorf("members %+v", r.Members)
	}
	if len(r.Outside) != 1 || r.Outside[0].ID != "0x00000003" || len(r.Missing) != 1 || r.Missing[0] != "192.0.2.4:9903" || !r.Synced || r.Whole {
		t.Errorf("outside %+v, missing %v, synced %v, whole %v", r.Outside, r.Missing, r.Synced, r.Whole)
	}
	if why := r.MissingErrors["192.0.2.4:9903"]; why != "connection refused" {
		t.Errorf("the fourth is missing because of %q", why)
	}
	if len(r.Locks) != 2 || r.Locks[0].Name != "a" || r.Locks[0].Holder != "0x00000002/102" || r.Locks[0].Fence != "7.3" || len(r.Locks[0].Queue) != 1 || r.Locks[1].Holder != "" {
		t.Errorf("locks %+v", r.Locks)
	}
	if c := r.Counters; c.Views["merge"] != 2 || c.Entered["starving"] != 5 || len(c.Entered) != 1 || c.TokenLost["hungry"] != 6 || c.Refused["promised"] != 1 || c.Dropped == nil {
		t.Errorf("counters %+v", c)
	}
	st := ringStatus()
	st.Outside, st.Peers = nil, st.Peers[:1]
	if r := showRing(st); !r.Whole || r.Members[1].State != admin.MemberAway {
		t.Errorf("a connection that fell does not make the view less: %+v", r)
	}
	st.Synced.Counter--
	if r := showRing(st); r.Synced || r.Whole {
		t.Error("synced, although in an older view")
	}
}

func TestWhatHappenedToTheRing(t *testing.T) {
	b := backend{&Registrar{}}
	b.r.shown.feed = admin.NewFeed(1)
	if _, err := b.Ring(t.Context()); !errors.Is(err, admin.ErrNoRing) {
		t.Errorf("without a ring: %v", err)
	}
	if _, err := b.RingMerges(t.Context()); !errors.Is(err, admin.ErrNoRing) {
		t.Errorf("without a ring: %v", err)
	}
	shown := &b.r.shown
	joined(shown)
	now := time.Unix(1000, 0)
	one, two, three := ringNode(1), ringNode(2), ringNode(3)
	install := func(counter uint64, left []ring.Node, members ...ring.Node) {
		shown.installed(ring.Installed{View: ring.View{ID: ring.ViewID{Counter: counter, Coordinator: one.Member}, Members: members}, Cause: ring.CauseNoAck, Left: left}, one.Member, now)
	}
	install(1, nil, one, two)
	install(2, []ring.Node{two}, one, three)
	r, err := b.Ring(t.Context())
	if err != nil || len(r.Changes) != 2 {
		t.Fatalf("%+v, %v", r.Changes, err)
	}
	last := r.Changes[0]
	if last.View != "2@0x00000001/101" || last.Cause != "no-ack" || strings.Join(last.Joined, " ") != "0x00000003/103" || strings.Join(last.Left, " ") != "0x00000002/102" {
		t.Errorf("last change %+v", last)
	}
	if len(r.Changes[1].Joined) != 2 {
		t.Errorf("first change %+v", r.Changes[1])
	}
	for i := range uint64(2 * shownChanges) {
		install(3+i, nil, one)
		shown.merged(replica.Merged{
			View: ring.View{ID: ring.ViewID{Counter: i}}, Sides: []ring.ViewID{{Counter: 1}, {Counter: 2}},
			Entries: []handlespace.MergeEntry{{Key: handlespace.Key{Handle: "p", ID: 1}}}, Omitted: 2, Octets: 5,
		}, now)
	}
	r, _ = b.Ring(t.Context())
	merges, err := b.RingMerges(t.Context())
	if len(r.Changes) != shownChanges || len(merges) != shownMerges || err != nil {
		t.Errorf("%d changes and %d merges are kept, %v", len(r.Changes), len(merges), err)
	}
	if m := merges[0]; m.Differences != 3 || len(m.Entries) != 1 || len(m.Sides) != 2 || m.Octets != 5 || !strings.HasPrefix(m.View, fmt.Sprint(2*shownChanges-1)) {
		t.Errorf("merge %+v", m)
	}
}

// joined has the ring that ringStatus describes, with nothing that waits for it.
func joined(s *ringShown) {
	s.join(RingConfig{Ack: replica.Ack{MinMembers: 3}, MaxSkew: maxSkew},
		func(context.Context) (ringnet.Status, error) { return ringStatus(), nil },
		func(context.Context) (ringWork, error) {
			return ringWork{Stats: replica.Stats{TooFew: 6, Dropped: 7, Overflown: 8}}, nil
		})
}

// An exchange that runs is shown with whom it is and since when, also beyond view
// changes that interrupt it; and what waits, with the reason.
func TestWhatWaitsForTheRing(t *testing.T) {
	shown := &ringShown{feed: admin.NewFeed(1)}
	joined(shown)
	one, two, three, four := ringNode(1), ringNode(2), ringNode(3), ringNode(4)
	work := ringWork{Stats: replica.Stats{Exchanging: true, Queued: 2, Waiting: 3, TooFew: 6}, awaited: []ring.Member{three.Member}}
	shown.work = func(context.Context) (ringWork, error) { return work, nil }
	get := func() admin.Ring {
		t.Helper()
		r, err := shown.ring(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := get(); r.HeldAnswers != 6 || r.Ack != "min-members=3" || r.Wanted != 3 || r.MaxSkew != 0.5 || r.Exchange != nil {
		t.Errorf("%+v", r)
	}
	start := time.Unix(1000, 0)
	install := func(after time.Duration, exchange bool, origins ...ring.Origin) {
		e := ring.Installed{Exchange: exchange, Origins: origins}
		for _, o := range origins {
			e.View.Members = append(e.View.Members, ring.Node{Member: o.Member})
		}
		shown.installed(e, one.Member, start.Add(after))
	}
	from := func(n ring.Node, counter uint64, with ring.Member) ring.Origin {
		return ring.Origin{Member: n.Member, Installed: ring.ViewID{Counter: counter}, With: with}
	}
	// Two came with this one, but for what it knew from before.
	install(0, true, from(one, 5, ring.Member{}), from(two, 5, ring.Member{}), from(three, 4, ring.Member{}), from(four, 5, four.Member))
	check := func(r admin.Ring, with string) {
		t.Helper()
		x := r.Exchange
		if x == nil || !x.Since.Equal(start) || strings.Join(x.With, " ") != with || strings.Join(x.Awaited, " ") != "0x00000003" || x.Commands != 5 {
			t.Errorf("exchange %+v", x)
		}
		if s := r.Summary(); s.Exchange != x || s.HeldAnswers != 6 || s.Wanted != 3 {
			t.Errorf("summary %+v", s)
		}
	}
	check(get(), "0x00000003 0x00000004")
	install(time.Second, true, from(one, 6, ring.Member{}), from(three, 6, three.Member)) // interrupted
	check(get(), "0x00000003")
	shown.ended()
	if r := get(); r.Exchange != nil {
		t.Errorf("after END: %+v", r.Exchange)
	}
	install(2*time.Second, true, from(one, 7, ring.Member{}))
	if r := get(); r.Exchange == nil || len(r.Exchange.With) != 0 || !r.Exchange.Since.Equal(start.Add(2*time.Second)) {
		t.Errorf("alone, waiting for others: %+v", r.Exchange)
	}
	install(3*time.Second, false, from(one, 7, ring.Member{}), from(two, 7, ring.Member{}))
	if r := get(); r.Exchange != nil {
		t.Errorf("in a view without exchange: %+v", r.Exchange)
	}
}

// A live registrar under the identifier of a member is told from others outside.
func TestClashAsShown(t *testing.T) {
	shown := &ringShown{}
	joined(shown)
	st := ringStatus()
	twin := ring.Node{Member: ring.Member{ID: 2, Incarnation: 9}, Contact: "tcp://192.0.2.9:9903"}
	st.Outside = append(st.Outside, twin)
	shown.status = func(context.Context) (ringnet.Status, error) { return st, nil }
	for range 2 * shownClashes {
		shown.clashed(ring.Clash{Mine: ringNode(2), Other: twin})
	}
	r, err := shown.ring(t.Context())
	if err != nil || len(r.Outside) != 2 || r.Outside[0].Clash || !r.Outside[1].Clash || r.Whole {
		t.Errorf("%+v, %v", r.Outside, err)
	}
	if s := r.Summary(); len(s.Clashes) != 1 || s.Clashes[0] != "0x00000002 at tcp://192.0.2.9:9903" || strings.Join(s.Missing, " ") != "192.0.2.4:9903 0x00000003" {
		t.Errorf("summary %+v", s)
	}
	if len(shown.clashes) > shownClashes {
		t.Errorf("%d clashes are kept", len(shown.clashes))
	}
}

// A ring that has fewer members than acknowledgements or locks want is not whole.
func TestRingWithFewerMembersThanWantedIsNotWhole(t *testing.T) {
	whole := ringStatus()
	whole.Outside, whole.Peers = nil, nil
	for wanted, want := range []bool{true, true, true, false, false} {
		for _, cfg := range []RingConfig{{Size: wanted}, {Ack: replica.Ack{MinMembers: wanted}}} {
			shown := &ringShown{}
			joined(shown)
			shown.join(cfg, func(context.Context) (ringnet.Status, error) { return whole, nil }, shown.work)
			if r, err := shown.ring(t.Context()); err != nil || r.Whole != want || r.Wanted != wanted {
				t.Errorf("2 members of %d: whole %v, %v", wanted, r.Whole, err)
			}
		}
	}
}

func TestRingMetrics(t *testing.T) {
	shown := &ringShown{}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(ringCollector{shown})
	values := func() map[string]float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		out := make(map[string]float64)
		for _, f := range families {
			for _, m := range f.Metric {
				name := f.GetName()
				for _, l := range m.Label {
					name += " " + l.GetValue()
				}
				out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		return out
	}
	if got := values(); len(got) != 0 {
		t.Errorf("before the ring is there: %v", got)
	}
	joined(shown)
	got := values()
	for name, want := range map[string]float64{
		"rserpool_ring_views_total merge": 2, "rserpool_ring_states_total starving": 5, "rserpool_ring_token_losses_total hungry": 6,
		"rserpool_ring_calls_refused_total promised": 1, "rserpool_ring_entries_total": 12, "rserpool_ring_tokens_resent_total": 4,
		"rserpool_ring_commands_dropped_total unreadable": 7, "rserpool_ring_commands_dropped_total no_room": 8, "rserpool_ring_members": 2, "rserpool_ring_missing_members": 2, "rserpool_ring_synced": 1, "rserpool_ring_rotation_seconds": 0.002,
		"rserpool_ring_queue_entries": 3, "rserpool_ring_stable_lag_entries": 3,
		"rserpool_ring_whole": 0, "rserpool_ring_held_answers": 6, "rserpool_ring_exchange_seconds": 0,
		"rserpool_ring_clock_ahead_seconds 0x00000002": -2,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	shown.status = func(context.Context) (ringnet.Status, error) { return ringnet.Status{}, context.DeadlineExceeded }
	if got := values(); len(got) != 0 {
		t.Errorf("of a ring that does not answer: %v", got)
	}
}
