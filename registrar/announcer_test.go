package registrar

import (
	"net/netip"
	"testing"

	"rserpool/asap"
	"rserpool/asap/transport"
)

// everywhere listens on all addresses.
type everywhere struct{ transport.Listener }

func (everywhere) Addrs() []netip.AddrPort {
	return []netip.AddrPort{netip.MustParseAddrPort("[::]:3863")}
}

func (everywhere) Network() string { return transport.TCP }

func TestAnnouncementFollowsTheMachinesAddresses(t *testing.T) {
	inWorld(t, func(w *world) {
		r, err := New(w.config("other", "192.0.2.101"))
		if err != nil {
			t.Fatal(err)
		}
		var now []netip.Addr
		a := announcer{r: r, listeners: []listening{{everywhere{}, protoASAP}}, interfaces: func() ([]netip.Addr, error) { return now, nil }}
		for _, addresses := range [][]string{{}, {"192.0.2.7"}, {"192.0.2.8", "2001:db8::8"}} {
			now = nil
			for _, text := range addresses {
				now = append(now, netip.MustParseAddr(text))
			}
			data, err := a.message()
			if err != nil {
				t.Fatal(err)
			}
			m := decodeASAP(data).(*asap.ServerAnnounce)
			if len(m.Transports) != len(now) {
				t.Fatalf("announced %+v with the addresses %v", m.Transports, now)
			}
			for i, got := range m.Transports {
				if got.Port != 3863 || len(got.Addrs) != 1 || got.Addrs[0] != now[i] {
					t.Errorf("announced %+v, want %v", got, now[i])
				}
			}
		}
	})
}
