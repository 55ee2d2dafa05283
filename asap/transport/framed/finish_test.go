package framed

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"rserpool/asap/transport"
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
