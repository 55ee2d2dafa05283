package tcp

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"testing"
	"time"

	"rserpool/asap/transport"
)

// TestTrySend: a peer that reads gets everything at once; one that doesn't gets
// the rest, in order, with the next Send.
func TestTrySend(t *testing.T) {
	opened, peer := raw(t, transport.Options{})
	c := opened.(*conn)
	small, padding := framed(8), framed(13)[:13]
	if done, err := c.TrySend(t.Context(), transport.Message{Data: small}, transport.Message{Data: padding}); !done || err != nil {
		t.Fatalf("first messages: done %v, %v", done, err)
	}
	want := append(append(bytes.Clone(small), padding...), 0, 0, 0)
	got := make([]byte, len(want))
	_ = peer.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the peer got % x, %v; want % x", got, err, want)
	}

	var sent bytes.Buffer
	begin := time.Now()
	for done := true; done; {
		m := framed(65532)
		sent.Write(m)
		var err error
		if done, err = c.TrySend(t.Context(), transport.Message{Data: m}); err != nil {
			t.Fatal(err)
		}
		if time.Since(begin) > patience {
			t.Fatalf("the network takes everything: %d octets", sent.Len())
		}
	}
	for range 2 { // behind the rest
		sent.Write(small)
		if done, err := c.TrySend(t.Context(), transport.Message{Data: small}); done || err != nil {
			t.Fatalf("behind a rest: done %v, %v", done, err)
		}
	}
	sent.Write(padding)
	sent.Write(make([]byte, 3))
	result := make(chan error, 1)
	go func() {
		err := c.Send(within(t, patience))
		if err == nil {
			err = c.Send(within(t, patience), transport.Message{Data: padding})
		}
		c.Close()
		result <- err
	}()
	all, err := io.ReadAll(peer)
	if err != nil || !bytes.Equal(all, sent.Bytes()) {
		t.Errorf("the peer got %d octets, %v; want the %d sent", len(all), err, sent.Len())
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// TestTrySendDoesNotWait: while somebody waits in Send for the peer to read, TrySend
// leaves all to the next Send, and what both sent arrives in this order.
func TestTrySendDoesNotWait(t *testing.T) {
	opened, peer := raw(t, transport.Options{})
	c := opened.(*conn)
	long, small := bytes.Repeat(framed(65532), 400), framed(8)
	var msgs []transport.Message
	for rest := long; len(rest) > 0; rest = rest[65532:] {
		msgs = append(msgs, transport.Message{Data: rest[:65532]})
	}
	sent := make(chan error, 1)
	go func() { sent <- c.Send(t.Context(), msgs...) }()
	_ = peer.SetReadDeadline(time.Now().Add(patience))
	begin := make([]byte, 4)
	if _, err := io.ReadFull(peer, begin); err != nil { // Send is at it
		t.Fatal(err)
	}
	if done, err := c.TrySend(t.Context(), transport.Message{Data: small}); done || err != nil {
		t.Errorf("TrySend: done %v, %v", done, err)
	}
	go func() {
		err := <-sent
		if err == nil {
			err = c.Send(t.Context())
		}
		c.Close()
		sent <- err
	}()
	all, err := io.ReadAll(peer)
	if all = append(begin, all...); err != nil || !bytes.Equal(all, append(long, small...)) {
		t.Errorf("the peer got %d octets, %v; want %d, in their order", len(all), err, len(long)+len(small))
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestTrySendFails(t *testing.T) {
	opened, _ := raw(t, transport.Options{})
	c := opened.(*conn)
	if _, err := c.TrySend(t.Context(), transport.Message{Data: []byte{1, 0, 0, 9}}); err == nil {
		t.Error("a message with a wrong length was sent")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.TrySend(ended, transport.Message{Data: framed(8)}); err == nil {
		t.Error("sent after the end of the context")
	}
	c.Close()
	if done, err := c.TrySend(t.Context(), transport.Message{Data: framed(8)}); done || err == nil {
		t.Errorf("on a closed connection: done %v, %v", done, err)
	}
}

// TestNotStuck: neither an idle connection is stuck nor one to a peer that does not
// read.
func TestNotStuck(t *testing.T) {
	opened, _ := raw(t, transport.Options{})
	c := opened.(*conn)
	if c.Stuck(0) && runtime.GOOS == "linux" {
		t.Error("stuck before anything was sent")
	}
	for done := true; done; {
		var err error
		if done, err = c.TrySend(t.Context(), transport.Message{Data: framed(65532)}); err != nil {
			t.Fatal(err)
		}
	}
	if c.Stuck(10*time.Second) && runtime.GOOS == "linux" {
		t.Error("stuck because the peer does not read")
	}
	c.Close()
	if !c.Stuck(0) {
		t.Error("a closed connection is as good as new")
	}
}
