package mem

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"rserpool/asap/transport"
	"rserpool/asap/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	for _, family := range [][3]string{
		{"IPv4", "10.0.0.1", "10.0.0.2"},
		{"IPv6", "2001:db8::1", "2001:db8::2"},
	} {
		t.Run(family[0], func(t *testing.T) {
			suite(family, true, func(h *Host) transport.Network { return h }).Run(t)
			for _, name := range []string{transport.SCTP, transport.TCP} {
				t.Run("as "+name, func(t *testing.T) {
					suite(family, name != transport.TCP, func(h *Host) transport.Network { return h.As(name) }).Run(t)
				})
			}
		})
	}
}

func suite(family [3]string, ppid bool, as func(*Host) transport.Network) transporttest.Suite {
	return transporttest.Suite{
		Setup: func(*testing.T) transporttest.Sides {
			n := NewNetwork(1)
			n.Host("client", family[1])
			n.Host("server", family[2])
			n.Delay("client", "server", 100e3, 300e3)
			return transporttest.Sides{
				Client: as(n.Host("client")), Server: as(n.Host("server")),
				Listen: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(family[2]), 0)},
			}
		},
		Wrap: func(t *testing.T, test func(*testing.T)) { synctest.Test(t, test) },
		PPID: ppid, Buffered: true, Next: true,
	}
}
