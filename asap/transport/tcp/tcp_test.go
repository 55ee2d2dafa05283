package tcp

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"rserpool/asap/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopbacks are what the tests listen on.
var loopbacks = map[string]netip.AddrPort{
	"IPv4": netip.MustParseAddrPort("127.0.0.1:0"),
	"IPv6": netip.MustParseAddrPort("[::1]:0"),
}

func TestSuite(t *testing.T) {
	for name, local := range loopbacks {
		t.Run(name, func(t *testing.T) {
			transporttest.Suite{
				Setup: func(*testing.T) transporttest.Sides {
					return transporttest.Sides{Client: New(), Server: New(), Listen: []netip.AddrPort{local}}
				},
				Buffered: true,
			}.Run(t)
		})
	}
}
