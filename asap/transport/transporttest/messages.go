package transporttest

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"testing"
	"time"

	"rserpool/asap/transport"
)

// size gives each message another length, from 8 octets up.
func size(number int) int { return 8 + number*37%1500 }

func testOrder(t *testing.T, s Suite) {
	const count = 600
	client, server := s.pair(t, transport.Options{})
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() {
		for i := 0; i < count; {
			var batch []transport.Message
			for range 1 + i%7 {
				batch = append(batch, message(i, size(i)))
				i++
			}
			if err := client.Send(patient(t), batch...); err != nil {
				t.Errorf("send: %v", err)
				return
			}
		}
	})
	for i := range count {
		check(t, receive(t, server), i, size(i))
	}
}

func testConcurrentSenders(t *testing.T, s Suite) {
	const senders, count = 4, 100
	client, server := s.pair(t, transport.Options{})
	var done sync.WaitGroup
	defer done.Wait()
	for sender := range senders {
		done.Go(func() {
			for i := range count {
				number := sender<<16 | i
				if err := client.Send(patient(t), message(number, size(i))); err != nil {
					t.Errorf("send: %v", err)
					return
				}
			}
		})
	}
	var next [senders]int
	for range senders * count {
		m := receive(t, server)
		number := int(binary.BigEndian.Uint32(m.Data[4:]))
		sender := number >> 16
		check(t, m, sender<<16|next[sender], size(next[sender]))
		next[sender]++
	}
}

func testPPID(t *testing.T, s Suite) {
	client, server := s.pair(t, transport.Options{DefaultPPID: transport.PPIDENRP})
	m := message(1, 8)
	m.Stream = 3
	unnamed := message(2, 8)
	unnamed.PPID = 0
	send(t, client, m, unnamed)
	got, then := receive(t, server), receive(t, server)
	if !s.PPID {
		if got.PPID != 0 || got.Stream != 0 {
			t.Errorf("PPID %d, stream %d on a network without them", got.PPID, got.Stream)
		}
		return
	}
	stream := m.Stream
	if s.NoStreams {
		stream = 0
	}
	if got.PPID != transport.PPIDASAP || got.Stream != stream {
		t.Errorf("PPID %d, stream %d; want %d, %d", got.PPID, got.Stream, transport.PPIDASAP, stream)
	}
	if then.PPID != transport.PPIDENRP {
		t.Errorf("PPID %d for a message without one; want the default %d", then.PPID, transport.PPIDENRP)
	}
}

func testBuffered(t *testing.T, s Suite) {
	client, server := s.pair(t, transport.Options{})
	if server.Buffered() {
		t.Error("buffered before anything was sent")
	}
	send(t, client, message(0, 40), message(1, 41), message(2, 12))
	time.Sleep(20 * time.Millisecond) // until all are there
	for i, want := range []bool{true, true, false} {
		receive(t, server)
		if got := server.Buffered(); got != (want && s.Buffered) {
			t.Errorf("buffered after message %d of 3: %v", i+1, got)
		}
	}
}

func testLongestMessage(t *testing.T, s Suite) {
	client, server := s.pair(t, transport.Options{})
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() {
		if err := client.Send(patient(t), message(1, 65535), message(2, 8), message(3, 65533)); err != nil {
			t.Errorf("send: %v", err)
		}
	})
	check(t, receive(t, server), 1, 65535)
	check(t, receive(t, server), 2, 8)
	check(t, receive(t, server), 3, 65533)
}

func testTooLongForBuffer(t *testing.T, s Suite) {
	client, server := s.pair(t, transport.Options{})
	send(t, client, message(1, 100), message(2, 8))
	_, err := server.Receive(patient(t), make([]byte, 96))
	if !errors.Is(err, transport.ErrTooLong) {
		t.Fatalf("100 octets into 96: %v, want %v", err, transport.ErrTooLong)
	}
	if m, err := server.Receive(patient(t), make([]byte, 96)); err == nil {
		t.Errorf("received % x on a connection that can't be used any more", m.Data)
	}
}

func testTooLongForLimit(t *testing.T, s Suite) {
	client, server := s.pair(t, transport.Options{MaxMessage: 200})
	send(t, client, message(1, 200), message(2, 201))
	check(t, receive(t, server), 1, 200)
	_, err := server.Receive(patient(t), make([]byte, 1000))
	if !errors.Is(err, transport.ErrTooLong) {
		t.Fatalf("201 octets with a limit of 200: %v, want %v", err, transport.ErrTooLong)
	}
}

// testBackPressure: a sender that is faster than the receiver waits, and loses
// nothing.
func testBackPressure(t *testing.T, s Suite) {
	const count, length = 200, 40000
	client, server := s.pair(t, transport.Options{})
	var sent sync.WaitGroup
	defer sent.Wait()
	sent.Go(func() {
		for i := range count {
			if err := client.Send(patient(t), message(i, length)); err != nil {
				t.Errorf("send: %v", err)
				return
			}
		}
	})
	time.Sleep(20 * time.Millisecond)
	for i := range count {
		check(t, receive(t, server), i, length)
	}
}

var errEnough = errors.New("enough")

func testSendEndsWithContext(t *testing.T, s Suite) {
	client, _ := s.pair(t, transport.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	defer time.AfterFunc(50*time.Millisecond, func() { cancel(errEnough) }).Stop()
	for range 10000 {
		if err := client.Send(ctx, message(1, 60000)); err != nil {
			if !errors.Is(err, errEnough) {
				t.Errorf("send to a peer that never reads: %v, want the context's cause", err)
			}
			return
		}
	}
	t.Error("600 MB were sent to a peer that never reads")
}

func testReceiveEndsWithContext(t *testing.T, s Suite) {
	client, server := s.pair(t, transport.Options{})
	ctx, cancel := context.WithCancelCause(t.Context())
	defer time.AfterFunc(20*time.Millisecond, func() { cancel(errEnough) }).Stop()
	for range 2 {
		if _, err := server.Receive(ctx, make([]byte, 100)); !errors.Is(err, errEnough) {
			t.Errorf("receive: %v, want the context's cause", err)
		}
	}
	send(t, client, message(1, 8))
	if _, err := server.Receive(ctx, make([]byte, 100)); !errors.Is(err, errEnough) {
		t.Errorf("receive with an ended context: %v, want its cause", err)
	}
	check(t, receive(t, server), 1, 8)
}

func testCancelLosesNothing(t *testing.T, s Suite) {
	const count = 300
	client, server := s.pair(t, transport.Options{})
	var sent sync.WaitGroup
	defer sent.Wait()
	sent.Go(func() {
		for i := range count {
			if err := client.Send(patient(t), message(i, 8+i*53%20000)); err != nil {
				t.Errorf("send: %v", err)
				return
			}
			if i%10 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	cancelled := 0
	buf := make([]byte, transport.MaxMessage)
	for next := 0; next < count; {
		ctx, cancel := context.WithTimeout(patient(t), 200*time.Microsecond)
		m, err := server.Receive(ctx, buf)
		cancel()
		switch {
		case err == nil:
			check(t, m, next, 8+next*53%20000)
			next++
		case errors.Is(err, context.DeadlineExceeded):
			cancelled++
		default:
			t.Fatalf("receive: %v", err)
		}
	}
	t.Logf("%d of %d calls were cancelled", cancelled, cancelled+count)
}

// next receives a message into memory of its own.
func next(t *testing.T, c transport.Conn) transport.Message {
	t.Helper()
	m, err := transport.Receiver(c)(patient(t))
	if err != nil {
		t.Fatalf("next: %v", err)
	}
	return m
}

// testNext: messages of all lengths, each in memory that stays as it is.
func testNext(t *testing.T, s Suite) {
	lengths := []int{8, 9, 2047, 2048, 2049, 4096, 4097, 30000, 65535, 8, 100}
	client, server := s.pair(t, transport.Options{})
	if _, ok := server.(transport.Nexter); ok != s.Next {
		t.Fatalf("connections are transport.Nexter: %v, want %v", ok, s.Next)
	}
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() {
		for round := range 3 {
			for i, n := range lengths {
				if err := client.Send(patient(t), message(100*round+i, n)); err != nil {
					t.Errorf("send: %v", err)
				}
			}
		}
	})
	var all []transport.Message
	for range 2 {
		for range lengths {
			all = append(all, next(t, server))
		}
	}
	for i, n := range lengths { // the two ways in turns
		m := next
		if i%2 == 0 {
			m = receive
		}
		check(t, m(t, server), 200+i, n)
	}
	for i, m := range all {
		check(t, m, 100*(i/len(lengths))+i%len(lengths), lengths[i%len(lengths)])
	}
}

// testNextInterrupted: a context that ends loses nothing, wherever it does.
func testNextInterrupted(t *testing.T, s Suite) {
	const count = 40
	client, server := s.pair(t, transport.Options{})
	var done sync.WaitGroup
	defer done.Wait()
	done.Go(func() {
		for i := range count {
			if err := client.Send(patient(t), message(i, 65000)); err != nil {
				t.Errorf("send: %v", err)
				return
			}
		}
	})
	receiver := transport.Receiver(server)
	for i := range count {
		for pause := 10 * time.Microsecond; ; pause *= 2 {
			ctx, cancel := context.WithTimeout(patient(t), pause)
			m, err := receiver(ctx)
			cancel()
			if errors.Is(err, context.DeadlineExceeded) && pause < patience {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			check(t, m, i, 65000)
			break
		}
	}
}

func testNextTooLong(t *testing.T, s Suite) {
	for _, n := range []int{201, 40000} {
		client, server := s.pair(t, transport.Options{MaxMessage: 200})
		send(t, client, message(1, 200), message(2, n))
		check(t, next(t, server), 1, 200)
		if _, err := transport.Receiver(server)(patient(t)); !errors.Is(err, transport.ErrTooLong) {
			t.Fatalf("%d octets with a limit of 200: %v, want %v", n, err, transport.ErrTooLong)
		}
	}
}
