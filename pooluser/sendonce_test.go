package pooluser

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
)

// TestSentToAllArrives: an element says something first, as those do that have business
// cards. The kernel resets a connection that is closed before that has been read, and
// what is still on its way to the element is lost.
func TestSentToAllArrives(t *testing.T) {
	const size = 4 << 20
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := framed.NewListener(socket, framed.Options{MaxMessage: 2 * size})
	defer l.Close()
	got := make(chan error, 1)
	go func() {
		c, err := l.Accept(t.Context())
		if err != nil {
			got <- err
			return
		}
		defer c.Close()
		err = c.Send(t.Context(), transport.Message{Data: []byte("welcome"), PPID: 7})
		time.Sleep(50 * time.Millisecond)
		if err == nil {
			_, err = c.Receive(t.Context(), make([]byte, size))
		}
		got <- err
	}()
	r, err := New(Config{
		Registrars: []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}, Port: 1}},
		Networks:   transport.NewNetworks(),
	})
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(socket.Addr().String())
	e := param.PoolElement{ID: 1, User: param.Transport{Type: param.TypeTCPTransport, Port: at.Port(), Addrs: []netip.Addr{at.Addr()}}}
	cfg := SessionConfig{Timers: Timers{Connect: time.Minute}}.withDefaults() // the element may take its time
	if err := r.sendOnce(t.Context(), "pool", e, cfg, Message{Data: make([]byte, size), PPID: 7}); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Errorf("the element got %v", err)
	}
}
