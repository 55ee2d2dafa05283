package pooltest

import (
	"context"
	"fmt"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/poolelement"
	"rserpool/poolelement/cookie"
)

// Element starts a server of sessions in message style, by poolelement.Serve, over TCP
// or, with Config.SCTP, over SCTP. Its cookies are signed with a key that the elements
// of a World share.
func (w *World) Element(name string, pool param.PoolHandle, h poolelement.Handler, change ...func(*poolelement.ServeConfig)) {
	w.t.Helper()
	w.element(name, pool, change, func(cfg poolelement.ServeConfig) (*poolelement.Server, error) {
		return poolelement.NewServer(cfg, h)
	})
}

// StreamElement is Element in stream style, by poolelement.ServeStreams. It has a
// control channel, and so need its users: pooluser.StreamConfig.Control.
func (w *World) StreamElement(name string, pool param.PoolHandle, h poolelement.StreamHandler, change ...func(*poolelement.ServeConfig)) {
	w.t.Helper()
	w.element(name, pool, change, func(cfg poolelement.ServeConfig) (*poolelement.Server, error) {
		return poolelement.NewStreamServer(cfg, h)
	})
}

func (w *World) element(name string, pool param.PoolHandle, change []func(*poolelement.ServeConfig), make func(poolelement.ServeConfig) (*poolelement.Server, error)) {
	w.t.Helper()
	role := &elementRole{w: w}
	w.start(name, process{settled: role.settled, run: func(ctx context.Context, m *Machine) error {
		cfg, err := m.serveConfig(pool)
		if err != nil {
			return err
		}
		for _, f := range change {
			f(&cfg)
		}
		s, err := make(cfg)
		if err != nil {
			return err
		}
		role.set(ctx, cfg.Element.Handle, cfg.Element.ID)
		defer role.unset(cfg.Element.ID)
		return ended(ctx, s.Run(ctx))
	}})
}

// serveConfig is what elements of the World start with.
func (m *Machine) serveConfig(pool param.PoolHandle) (poolelement.ServeConfig, error) {
	sealer, err := cookie.New(cookie.Config{
		Pool: pool, Keys: []cookie.Key{{ID: 1, Secret: fmt.Appendf(nil, "secret of the world of seed %d", m.w.cfg.Seed)}},
	})
	if err != nil {
		return poolelement.ServeConfig{}, err
	}
	network := transport.TCP
	if m.w.cfg.SCTP {
		network = transport.SCTP
	}
	return poolelement.ServeConfig{
		Element: poolelement.Config{
			Handle: pool, ID: m.peID, Registrars: m.Registrars(), Networks: m.Networks(), Hunt: m.Hunt(), Log: m.log,
		},
		Listen:       []transport.Endpoint{{Network: network, Hosts: []string{m.addr.String()}, Port: servicePort}},
		ListenStream: m.ListenStream,
		Cookies:      sealer,
		Control:      true,
	}, nil
}
