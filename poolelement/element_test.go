package poolelement

import (
	"context"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
)

func TestElementOverTCP(t *testing.T) {
	r := newFakeRegistrar(t, tcp.New(), "127.0.0.1:0", 0x0a)
	r.oblige()
	e, err := New(Config{
		Handle:     "echo",
		User:       param.Transport{Type: param.TypeTCPTransport, Port: 7},
		Registrars: []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}, Port: r.listener.Addrs()[0].Port()}},
		Networks:   transport.NewNetworks(tcp.New()),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	reg, _ := expect[*asap.Registration](t, r)
	t.Logf("%+v", reg)
	if err := e.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	expect[*asap.Deregistration](t, r)
}
