// Package hunttest has a scripted registrar for tests of the clients of
// registrars.
package hunttest

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"rserpool/asap"
	"rserpool/asap/transport"
)

// Received is one message as the registrar got it.
type Received struct {
	Message asap.Message
	At      time.Time
}

// Registrar listens and answers as it is told. Its goroutines, one that accepts
// and one per connection, end with Stop.
type Registrar struct {
	answer   func(asap.Message) []asap.Message
	listener transport.Listener
	cancel   context.CancelFunc
	work     sync.WaitGroup

	mu       sync.Mutex
	received []Received
	conns    map[transport.Conn]bool
	accepted int
}

// Start listens at the address of the network. answer is called for each message
// and returns what to send back on its connection; nil stays silent.
func Start(network transport.Network, at netip.AddrPort, answer func(asap.Message) []asap.Message) (*Registrar, error) {
	ctx, cancel := context.WithCancel(context.Background())
	l, err := network.Listen(ctx, []netip.AddrPort{at}, transport.Options{})
	if err != nil {
		cancel()
		return nil, err
	}
	r := &Registrar{answer: answer, listener: l, cancel: cancel, conns: map[transport.Conn]bool{}}
	r.work.Go(func() {
		for {
			conn, err := l.Accept(ctx)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns[conn] = true
			r.accepted++
			r.mu.Unlock()
			r.work.Go(func() { r.serve(ctx, conn) })
		}
	})
	return r, nil
}

func (r *Registrar) serve(ctx context.Context, conn transport.Conn) {
	defer func() {
		r.mu.Lock()
		delete(r.conns, conn)
		r.mu.Unlock()
		_ = conn.Close()
	}()
	buf := make([]byte, transport.MaxMessage)
	for {
		m, err := conn.Receive(ctx, buf)
		if err != nil {
			return
		}
		msg, _, err := asap.Decode(m.Data)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.received = append(r.received, Received{msg, time.Now()})
		r.mu.Unlock()
		if r.answer == nil {
			continue
		}
		for _, reply := range r.answer(msg) {
			if send(ctx, conn, reply) != nil {
				return
			}
		}
	}
}

func send(ctx context.Context, conn transport.Conn, msg asap.Message) error {
	data, err := msg.Append(nil)
	if err != nil {
		return err
	}
	return conn.Send(ctx, transport.Message{Data: data, PPID: transport.PPIDASAP})
}

// Addr returns the address listened on.
func (r *Registrar) Addr() netip.AddrPort { return r.listener.Addrs()[0] }

// Received returns the messages received so far.
func (r *Registrar) Received() []Received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Received(nil), r.received...)
}

// Accepted returns how many connections were accepted so far.
func (r *Registrar) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// Send sends a message on all connections.
func (r *Registrar) Send(msg asap.Message) error {
	for _, conn := range r.open() {
		if err := send(context.Background(), conn, msg); err != nil {
			return err
		}
	}
	return nil
}

// SendRaw sends octets with a payload protocol identifier on all connections.
func (r *Registrar) SendRaw(data []byte, ppid uint32) error {
	for _, conn := range r.open() {
		if err := conn.Send(context.Background(), transport.Message{Data: data, PPID: ppid}); err != nil {
			return err
		}
	}
	return nil
}

// Drop closes all connections and goes on listening.
func (r *Registrar) Drop() {
	for _, conn := range r.open() {
		_ = conn.Abort()
	}
}

func (r *Registrar) open() []transport.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	var conns []transport.Conn
	for conn := range r.conns {
		conns = append(conns, conn)
	}
	return conns
}

// Stop stops listening and closes all connections.
func (r *Registrar) Stop() {
	r.cancel()
	_ = r.listener.Close()
	r.Drop()
	r.work.Wait()
}
