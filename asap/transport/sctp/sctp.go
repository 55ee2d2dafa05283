// Package sctp carries messages over the kernel's SCTP: one-to-one style
// sockets, several addresses at each end, one message per SCTP user message.
//
// The kernel's structures, numbers and address lists come from
// github.com/ishidawataru/sctp. Its connections do not serve: they block an
// operating system thread each and know neither deadlines nor truncation.
// Descriptors here are non-blocking and belong to the Go runtime's poller, so an
// association with a waiting reader costs a goroutine.
//
// Machines without SCTP, other systems than Linux among them, have the network
// too; its Available says why it can't be used.
package sctp

import (
	"context"
	"fmt"
	"net/netip"

	"rserpool/asap/transport"
)

type network struct{}

// New returns the SCTP network of this machine.
func New() transport.Network { return network{} }

func (network) Name() string { return transport.SCTP }

// Available opens a socket to find out.
func (network) Available() error { return available() }

func (network) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	c, err := dial(ctx, unmapAll(local), unmapAll(remote), opt.WithDefaults())
	if err != nil {
		return nil, fmt.Errorf("dial sctp %v: %w", remote, err)
	}
	return c, nil
}

func (network) Listen(ctx context.Context, local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	l, err := listen(unmapAll(local), opt.WithDefaults())
	if err != nil {
		return nil, fmt.Errorf("listen on sctp %v: %w", local, err)
	}
	return l, nil
}

// unmapAll writes IPv4-mapped IPv6 addresses as IPv4.
func unmapAll(addrs []netip.AddrPort) []netip.AddrPort {
	out := make([]netip.AddrPort, len(addrs))
	for i, a := range addrs {
		out[i] = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	return out
}
