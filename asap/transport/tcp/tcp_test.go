package tcp

import (
	"net/netip"
	"testing"

	"go.uber.org/goleak"

	"rserpool/asap/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	for name, local := range transporttest.Loopbacks {
		t.Run(name, func(t *testing.T) {
			transporttest.Need(t, local)
			transporttest.Suite{
				Setup: func(*testing.T) transporttest.Sides {
					return transporttest.Sides{Client: New(), Server: New(), Listen: []netip.AddrPort{local}}
				},
				Buffered: true,
			}.Run(t)
		})
	}
}
