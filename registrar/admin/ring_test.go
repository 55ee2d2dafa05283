package admin

import (
	"context"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
)

func TestRing(t *testing.T) {
	r, s := server(t)
	var problem Problem
	if code := call(t, s, "GET", PathRing, "", &problem); code != http.StatusNotFound || problem.Detail != ErrNoRing.Error() {
		t.Errorf("without a ring: %d %+v", code, problem)
	}
	r.ring = &Ring{Cluster: "blue", View: "7@0x0a0a0a0a/1", Members: []RingMember{{ID: "0x0a0a0a0a", State: MemberSelf}}, Missing: []string{"tcp://192.0.2.1:9903"}}
	r.merges = []RingMerge{{View: "7@0x0a0a0a0a/1", Differences: 2}}
	var ring Ring
	if code := call(t, s, "GET", PathRing, "", &ring); code != http.StatusOK || ring.Cluster != "blue" || len(ring.Members) != 1 {
		t.Errorf("ring: %d %+v", code, ring)
	}
	if sum := ring.Summary(); sum.View != ring.View || sum.Members[0] != "0x0a0a0a0a" || len(sum.Missing) != 1 || sum.Whole {
		t.Errorf("summary %+v", sum)
	}
	var list RingMergeList
	if code := call(t, s, "GET", PathRingMerges, "", &list); code != http.StatusOK || len(list.Merges) != 1 || list.Merges[0].Differences != 2 {
		t.Errorf("merges: %d %+v", code, list)
	}
}

// What happens to the ring stands in the event stream between changes of elements,
// in order.
func TestRingInTheFeed(t *testing.T) {
	f := NewFeed(1)
	after := f.Last()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.PublishView(RingChange{Time: now, View: "2@0x1/1", Cause: "no-ack"})
	f.Publish(handlespace.Recovered{Record: recordAt(t, 1)}, now)
	f.PublishMerge(RingMerge{Time: now, View: "3@0x1/1", Differences: 1})
	changes, ok := f.Next(context.Background(), nil, after)
	if !ok || len(changes) != 3 {
		t.Fatalf("%d changes, %v", len(changes), ok)
	}
	var types []string
	for i, c := range changes {
		e, ok := showChange(c)
		if !ok || e.Seq != after+uint64(i)+1 || !e.Time.Equal(now) {
			t.Errorf("event %+v, %v", e, ok)
		}
		types = append(types, e.Type)
		switch i {
		case 0:
			ok = e.View != nil && e.View.View == "2@0x1/1" && e.Cause == "no-ack"
		case 2:
			ok = e.Merge != nil && e.Merge.Differences == 1
		}
		if !ok {
			t.Errorf("event %+v", e)
		}
	}
	if types[0] != EventView || types[1] != EventRecovered || types[2] != EventMerged {
		t.Errorf("events %v", types)
	}
}

// recordAt returns the record of an element with this home.
func recordAt(t *testing.T, home param.RegistrarID) *handlespace.Record {
	t.Helper()
	item, err := handlespace.NewItem(&handlespace.Entry{Handle: "p", Element: param.PoolElement{
		ID: 1, Home: home, Life: 60, Policy: param.Policy{Type: param.RoundRobin},
		User: param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})}},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return item.Record
}

func TestEventsOfElementsInARing(t *testing.T) {
	before, after := recordAt(t, 1), recordAt(t, 2)
	for _, tt := range []struct {
		event       handlespace.Event
		name, cause string
	}{
		{handlespace.Adopted{Handle: "p", Record: after}, EventRegistered, CauseMerge},
		{handlespace.Adopted{Handle: "p", Record: after, Previous: before}, EventUpdated, CauseMerge},
		{handlespace.Rehomed{Handle: "p", Record: after, Previous: before}, EventMoved, "from 0x00000001"},
		{handlespace.Confirmed{Handle: "p", Record: after, Previous: before}, EventConfirmed, ""},
	} {
		got, ok := showChange(Change{Seq: 1, Event: tt.event})
		if !ok || got.Type != tt.name || got.Cause != tt.cause || got.Element == nil || got.Element.Home != "0x00000002" {
			t.Errorf("%T: %+v, %v", tt.event, got, ok)
		}
	}
}

func TestMergeEntries(t *testing.T) {
	at := func(ms uint64) handlespace.Generation {
		return handlespace.Generation{Stamp: 1000 * ms, Raiser: 1, Incarnation: 9}
	}
	home := func(life uint64) handlespace.HomeID { return handlespace.HomeID{ID: 0x11, Incarnation: life} }
	key := handlespace.Key{Handle: "a b", ID: 7}
	for _, tt := range []struct {
		entry handlespace.MergeEntry
		want  MergeItem
	}{
		{handlespace.MergeEntry{Key: key, Kept: at(2000), Lost: at(1000), KeptHome: home(1), LostHome: home(2)},
			MergeItem{Result: MergeReplaced, KeptHome: "0x00000011", LostHome: "0x00000011", Kept: "1970-01-01T00:00:02.000000Z by 0x00000001/9", Lost: "1970-01-01T00:00:01.000000Z by 0x00000001/9"}},
		{handlespace.MergeEntry{Key: key, Kept: at(2000), KeptHome: home(1)},
			MergeItem{Result: MergeAdded, KeptHome: "0x00000011", Kept: "1970-01-01T00:00:02.000000Z by 0x00000001/9"}},
		{handlespace.MergeEntry{Key: key, Kept: at(2000), Lost: at(1000), LostHome: home(2), Removed: true},
			MergeItem{Result: MergeRemoved, LostHome: "0x00000011", Kept: "1970-01-01T00:00:02.000000Z by 0x00000001/9", Lost: "1970-01-01T00:00:01.000000Z by 0x00000001/9"}},
	} {
		tt.want.Handle, tt.want.ID = `a\x20b`, "0x00000007"
		if got := ShowMergeEntry(tt.entry); got != tt.want {
			t.Errorf("%+v, want %+v", got, tt.want)
		}
	}
}
