package mem

import (
	"context"
	"net/netip"

	"rserpool/asap/transport"
)

// As returns what the process sees of the network under the name of another, such as
// transport.SCTP: listeners and connections have that name, too. Under the name of
// transport.TCP there are neither PPIDs nor streams.
func (h *Host) As(network string) transport.Network { return alias{h, network} }

type alias struct {
	*Host
	name string
}

func (n alias) Name() string { return n.name }

func (n alias) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	c, err := n.Host.Dial(ctx, local, remote, opt)
	if err != nil {
		return nil, err
	}
	return aliasConn{c.(*conn), n.name}, nil
}

func (n alias) Listen(ctx context.Context, local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	l, err := n.Host.Listen(ctx, local, opt)
	if err != nil {
		return nil, err
	}
	return aliasListener{l, n.name}, nil
}

type aliasListener struct {
	transport.Listener
	name string
}

func (l aliasListener) Network() string { return l.name }

func (l aliasListener) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return aliasConn{c.(*conn), l.name}, nil
}

type aliasConn struct {
	*conn
	name string
}

func (c aliasConn) Network() string { return c.name }

func (c aliasConn) Receive(ctx context.Context, buf []byte) (transport.Message, error) {
	return c.seen(c.conn.Receive(ctx, buf))
}

func (c aliasConn) Next(ctx context.Context) (transport.Message, error) {
	return c.seen(c.conn.Next(ctx))
}

func (c aliasConn) seen(m transport.Message, err error) (transport.Message, error) {
	if c.name == transport.TCP {
		m.PPID, m.Stream = 0, 0
	}
	return m, err
}
