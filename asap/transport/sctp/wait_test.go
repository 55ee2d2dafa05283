//go:build linux && !386

package sctp

import (
	"context"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
)

// TestWaitingTakesNoMemory: who waits in Next has no buffer.
func TestWaitingTakesNoMemory(t *testing.T) {
	const count = 100
	needSCTP(t)
	l, err := New().Listen(patient(t), ports("127.0.0.1:0"), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var clients, servers []transport.Conn
	for range count {
		client, server := associate(t, nil, l, transport.Options{})
		clients, servers = append(clients, client), append(servers, server)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // pools let go of what they hold at the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	waiting := func(receive func(transport.Conn, context.Context) (transport.Message, error)) uint64 {
		before := heap()
		ctx, cancel := context.WithCancel(context.Background())
		var all, got sync.WaitGroup
		got.Add(count)
		for _, c := range servers {
			all.Go(func() {
				for {
					if _, err := receive(c, ctx); err != nil {
						return
					}
					got.Done()
				}
			})
		}
		for i, c := range clients { // everybody has received something before
			if err := c.Send(patient(t), transport.Message{Data: make([]byte, 1+100*i), PPID: 7}); err != nil {
				t.Error(err)
			}
		}
		got.Wait()
		now := heap()
		cancel()
		all.Wait()
		return (max(now, before) - before) / count
	}
	next := waiting(func(c transport.Conn, ctx context.Context) (transport.Message, error) {
		return c.(transport.Nexter).Next(ctx)
	})
	buffered := waiting(func(c transport.Conn, ctx context.Context) (transport.Message, error) {
		return c.Receive(ctx, make([]byte, transport.MaxMessage))
	})
	t.Logf("octets for each connection that waits: %d in Next, %d in Receive", next, buffered)
	if next > 4096 {
		t.Errorf("one that waits in Next holds %d octets", next)
	}
}

// TestFlushWaitsForThePeer: after Flush nothing on any stream overtakes what was sent
// before, although packets are late and out of order.
func TestFlushWaitsForThePeer(t *testing.T) {
	needLab(t)
	command(t, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "20ms", "15ms")
	defer command(t, "tc", "qdisc", "del", "dev", "lo", "root")
	client, server := pair(t, nil, ports("10.8.0.1:0"), transport.Options{})
	receive := func() transport.Message {
		m, err := server.(transport.Nexter).Next(patient(t))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	overtaken := func(flush bool) int {
		n := 0
		for range 30 {
			err := client.Send(patient(t), transport.Message{Data: []byte("first"), PPID: 11})
			began := time.Now()
			if err == nil && flush {
				if err = client.(transport.Flusher).Flush(patient(t)); time.Since(began) < 10*time.Millisecond {
					t.Errorf("flushed within %v, the way to the peer and back takes 10 ms at least", time.Since(began))
				}
			}
			if err == nil {
				err = client.Send(patient(t), transport.Message{Data: []byte("then"), PPID: 7, Stream: 3})
			}
			if err != nil {
				t.Fatal(err)
			}
			if a, b := receive(), receive(); string(a.Data) != "first" || string(b.Data) != "then" {
				n++
			}
		}
		return n
	}
	if n := overtaken(true); n > 0 {
		t.Errorf("%d of 30 messages were overtaken in spite of Flush", n)
	}
	t.Logf("%d of 30 are overtaken without Flush", overtaken(false))
}

func TestFlushEnds(t *testing.T) {
	client, server := pair(t, nil, ports("127.0.0.1:0"), transport.Options{})
	f := client.(transport.Flusher)
	if err := f.Flush(patient(t)); err != nil {
		t.Errorf("with nothing sent: %v", err)
	}
	exchange(t, client, server, "all")
	if err := f.Flush(patient(t)); err != nil {
		t.Errorf("with everything received: %v", err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Flush(patient(t)); err == nil {
		t.Error("no error after Close")
	}
}

// TestLastMessageArrives: the peer is sending when we end, and gets what we sent last.
func TestLastMessageArrives(t *testing.T) {
	for range 50 {
		client, server := pair(t, nil, ports("127.0.0.1:0"), transport.Options{})
		flood := make(chan error, 1)
		go func() {
			for {
				if err := server.Send(context.Background(), transport.Message{Data: make([]byte, 1000), PPID: 7}); err != nil {
					flood <- err
					return
				}
			}
		}()
		if _, err := client.(transport.Nexter).Next(patient(t)); err != nil {
			t.Fatal(err)
		}
		if err := client.Send(patient(t), transport.Message{Data: []byte("last words"), PPID: 7}); err != nil {
			t.Fatal(err)
		}
		within, cancel := context.WithTimeout(patient(t), 10*time.Second)
		framed.Linger(within, framed.Over(client))
		if within.Err() != nil {
			t.Error("the association did not end")
		}
		cancel()
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		m, err := server.(transport.Nexter).Next(patient(t))
		if err != nil || string(m.Data) != "last words" {
			t.Errorf("the peer got %q, %v", m.Data, err)
		}
		if _, err := server.(transport.Nexter).Next(patient(t)); err != io.EOF {
			t.Errorf("then %v, want EOF", err)
		}
		<-flood
		_ = server.Close()
	}
}
