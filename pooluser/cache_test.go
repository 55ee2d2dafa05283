package pooluser

import (
	"net/netip"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

// A pool whose elements come and go for years must not fill the memory.
func TestMemoryOfElementsIsBounded(t *testing.T) {
	cfg := Config{}.withDefaults()
	e := newEntry("pool")
	now := time.Now()
	for i := range 10 * maxAsked {
		id := param.PEID(i + 1)
		if i%1000 == 0 {
			e.fill(&asap.HandleResolutionResponse{Elements: []param.PoolElement{{ID: id}}}, 1, now, &cfg)
		}
		e.note(id)
		if i%2 == 0 && !e.fail(id, now.Add(time.Hour)) {
			t.Fatalf("failure of %v, which was asked for, is not to be reported", id)
		}
		if len(e.asked) > maxAsked || len(e.failed) > maxAsked {
			t.Fatalf("%d asked and %d failed elements remembered, want at most %d", len(e.asked), len(e.failed), maxAsked)
		}
	}
	e.fill(&asap.HandleResolutionResponse{Elements: []param.PoolElement{{ID: 1}}}, 1, now.Add(time.Hour), &cfg)
	if len(e.failed) != 0 {
		t.Errorf("%d failures remembered after their time", len(e.failed))
	}
}

// A failure is of the place, whatever the order in which an element that registers again has
// its addresses.
func TestFailuresOfMultihomedElements(t *testing.T) {
	at := func(port uint16, addrs ...string) param.Transport {
		place := param.Transport{Type: param.TypeSCTPTransport, Port: port}
		for _, a := range addrs {
			place.Addrs = append(place.Addrs, netip.MustParseAddr(a))
		}
		return place
	}
	f := failure{at: at(7000, "192.0.2.2", "192.0.2.1")}
	for _, tt := range []struct {
		listed param.Transport
		want   bool
	}{
		{at(7000, "192.0.2.2", "192.0.2.1"), true},
		{at(7000, "192.0.2.1", "192.0.2.2"), true},
		{at(7000, "192.0.2.1", "192.0.2.3"), false},
		{at(7000, "192.0.2.1"), false},
		{at(7000, "192.0.2.1", "192.0.2.2", "192.0.2.3"), false},
		{at(7001, "192.0.2.2", "192.0.2.1"), false},
	} {
		if got := f.of(param.PoolElement{User: tt.listed}); got != tt.want {
			t.Errorf("at %v: %v", tt.listed, got)
		}
	}
}
