package poolelement

import (
	"context"
	"crypto/tls"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/poolelement/cookie"
)

func TestServeConfigValidate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, c := range []struct {
			change  func(*ServeConfig)
			streams bool
			want    string
		}{
			{change: func(c *ServeConfig) { c.Listen = nil }, want: "Listen is empty"},
			{change: func(c *ServeConfig) { c.Listen[0].Network = transport.Auto }, want: `network "auto"`},
			{change: func(c *ServeConfig) {
				c.Listen = append(c.Listen, transport.Endpoint{Network: transport.SCTP})
			}, want: "one type of transport"},
			{change: func(c *ServeConfig) { c.Element.Handle = "" }, want: "Handle has 0 octets"},
			{change: func(c *ServeConfig) { c.Pools = []param.PoolHandle{pool} }, want: "twice"},
			{change: func(c *ServeConfig) {
				c.Pools = []param.PoolHandle{"other"}
				c.Element.Control.Port = 1
			}, want: "Control.Port"},
			{change: func(c *ServeConfig) { c.Cookies = cookie.Raw{} }, streams: true, want: "need Control"},
			{change: func(c *ServeConfig) { c.HealthTimeout = time.Hour }, want: "HealthTimeout"},
			{change: func(c *ServeConfig) { c.MaxSessions, c.Queue, c.DrainTimeout = -1, -1, -1 }, want: "DrainTimeout must not be negative"},
			{change: func(c *ServeConfig) { c.MaxPerAddress = -1 }, want: "MaxPerAddress must not be negative"},
			{change: func(c *ServeConfig) {
				c.TLS = new(tls.Config)
				c.Listen[0].Network = transport.SCTP
			}, want: "TLS"},
		} {
			cfg := w.serveConfig(transport.TCP)
			cfg.Cookies = nil
			c.change(&cfg)
			var err error
			if c.streams {
				err = ServeStreams(context.Background(), cfg, StreamHandlerFunc(echoStream))
			} else {
				err = Serve(context.Background(), cfg, HandlerFunc(echo))
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		}
		if err := w.serveConfig(transport.TCP).Validate(); err != nil {
			t.Errorf("a good one: %v", err)
		}
	})
}

func TestServeFailsWhenItCantListen(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		w.serve(network, nil, echo)
		err := Serve(context.Background(), w.serveConfig(network), HandlerFunc(echo))
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v, want that the address is in use", err)
		}
	})
}

func TestSeveralPoolsAndAddresses(t *testing.T) {
	overAll(t, func(t *testing.T, w *world, network string) {
		w.net.Host("many", "10.0.2.1", "10.0.2.2", "2001:db8::1")
		host := w.net.Host("many")
		s := w.serve(network, func(c *ServeConfig) {
			c.Element.Networks = transport.NewNetworks(host.As(transport.SCTP))
			c.ListenStream = host.ListenStream
			c.Pools = []param.PoolHandle{"other"}
			c.Element.ID = 7
			c.Listen = []transport.Endpoint{
				{Network: network, Hosts: []string{"10.0.2.1", "10.0.2.2"}, Port: 0},
				{Network: network, Hosts: []string{""}, Port: 7001},
			}
		}, echo)
		got := map[param.PoolHandle]map[param.PEID]param.Transport{pool: {}, "other": {}}
		for range 4 {
			reg, _ := expect[*asap.Registration](t, w.a)
			got[reg.Handle][reg.Element.ID] = reg.Element.User
		}
		for handle, elements := range got {
			one, two := elements[7], elements[8]
			if len(elements) != 2 || one.Port == 0 || two.Port != 7001 || len(two.Addrs) == 0 {
				t.Errorf("pool %q: %+v", handle, elements)
			}
			if want := map[string]int{transport.SCTP: 2, transport.TCP: 1}[network]; len(one.Addrs) != want {
				t.Errorf("pool %q: addresses %v, want %d", handle, one.Addrs, want)
			}
		}
		if n := len(s.server.Elements()); n != 4 {
			t.Errorf("%d elements", n)
		}
		ports := map[uint16]bool{}
		for _, a := range s.server.Addrs() {
			ports[a.Port()] = true
		}
		if len(ports) != 2 {
			t.Errorf("listening on %v", s.server.Addrs())
		}
	})
}

func TestAServerRunsOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.serve(transport.TCP, nil, echo)
		if err := s.server.Run(context.Background()); err == nil {
			t.Error("it ran twice")
		}
		synctest.Wait()
	})
}
