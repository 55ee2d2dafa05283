package framed

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
)

// TestAnEndThatWaitsLosesNothing: the peer is in the middle of sending, which makes
// the kernel reset a connection that is closed at once.
func TestAnEndThatWaitsLosesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := loopback{}.Listen(ctx, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := loopback{}.Dial(ctx, nil, l.Addrs(), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	client, server := dialled.(*Conn), accepted.(*Conn)
	sending := make(chan error, 1)
	go func() {
		for {
			if err := client.Send(ctx, transport.Message{Data: make([]byte, 1000), PPID: 7}); err != nil {
				sending <- err
				return
			}
		}
	}()
	if err := server.Send(ctx, transport.Message{Data: []byte("last words"), PPID: 7}); err != nil {
		t.Fatal(err)
	}
	server.Finish(ctx)
	server.Finish(ctx) // once more changes nothing
	if err := server.Send(ctx, transport.Message{Data: []byte("more"), PPID: 7}); !errors.Is(err, net.ErrClosed) || !errors.Is(err, ErrNotSent) {
		t.Errorf("Send after Finish: %v", err)
	}
	received := make(chan error, 1)
	go func() {
		for {
			if _, err := server.Next(ctx); err != nil {
				received <- err
				return
			}
		}
	}()
	m, err := client.Next(ctx)
	if err != nil || string(m.Data) != "last words" {
		t.Errorf("%q, %v", m.Data, err)
	}
	if _, err := client.Next(ctx); err != io.EOF {
		t.Errorf("then %v, want EOF", err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	<-sending
	if err := <-received; err != io.EOF && !errors.Is(err, ErrCut) { // a goodbye behind what takes time to send is left out
		t.Errorf("the end that waits got %v", err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}

// A Close waits for a Finish that is under way no longer than for a word of its own, and
// for another Close.
func TestClosesDuringFinish(t *testing.T) {
	test := func(t *testing.T, c Lingerer, end func() error) {
		var all sync.WaitGroup
		finishing, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		all.Go(func() { c.Finish(finishing) })
		synctest.Wait() // the peer does not read
		began := time.Now()
		for range 2 {
			all.Go(func() {
				if err := end(); err != nil || time.Since(began) != goodbyeWait {
					t.Errorf("Close after %v: %v", time.Since(began), err)
				}
			})
		}
		all.Wait()
	}
	t.Run("byte stream", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := pair(t)
			test(t, c, c.Close)
		})
	})
	t.Run("association", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := mem.NewNetwork(1)
			n.Host("client", "192.0.2.2")
			l, err := n.Host("server", "192.0.2.1").Listen(t.Context(), []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7000")}, transport.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			peer, err := n.Host("client").Dial(t.Context(), nil, l.Addrs(), transport.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Abort()
			accepted, err := l.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c := Over(accepted)
			go keepReceiving(c)
			if err := peer.Send(t.Context(), transport.Message{Data: make([]byte, beatLen), PPID: PPIDHeartbeat}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			for err == nil { // until the peer's buffer is full
				soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				err = c.Send(soon, transport.Message{Data: make([]byte, goodbyeLen), PPID: 7})
				cancel()
			}
			test(t, c, c.Close)
		})
	})
}
