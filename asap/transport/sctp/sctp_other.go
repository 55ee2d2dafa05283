//go:build !linux || 386

package sctp

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"

	"rserpool/asap/transport"
)

func available() error {
	return fmt.Errorf("%w: no SCTP on %s/%s", transport.ErrUnsupported, runtime.GOOS, runtime.GOARCH)
}

func dial(context.Context, []netip.AddrPort, []netip.AddrPort, transport.Options) (transport.Conn, error) {
	return nil, available()
}

func listen([]netip.AddrPort, transport.Options) (transport.Listener, error) {
	return nil, available()
}
