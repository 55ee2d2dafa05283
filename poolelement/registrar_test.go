package poolelement

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// fakeRegistrar is a registrar that does what a test tells it: it speaks raw
// ASAP messages and answers nothing by itself, unless obliging.
type fakeRegistrar struct {
	t        *testing.T
	id       param.RegistrarID
	listener transport.Listener
	got      chan received
	stop     context.CancelFunc
	tasks    sync.WaitGroup

	mu       sync.Mutex
	conns    []transport.Conn
	obliging bool // answers every registration and deregistration with success
	others   []param.PoolElement
	policy   param.Policy // of the pool they are in
}

// received is a message and where it came from.
type received struct {
	msg  asap.Message
	conn transport.Conn
	at   time.Time
}

func newFakeRegistrar(t *testing.T, network transport.Network, addr string, id param.RegistrarID) *fakeRegistrar {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l, err := network.Listen(ctx, []netip.AddrPort{netip.MustParseAddrPort(addr)}, transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r := &fakeRegistrar{t: t, id: id, listener: l, got: make(chan received, 1000), stop: stop}
	r.tasks.Go(func() {
		for {
			conn, err := l.Accept(ctx)
			if err != nil {
				return
			}
			r.serve(ctx, conn)
		}
	})
	t.Cleanup(r.close)
	return r
}

// serve reads what comes on the connection.
func (r *fakeRegistrar) serve(ctx context.Context, conn transport.Conn) {
	r.mu.Lock()
	r.conns = append(r.conns, conn)
	r.mu.Unlock()
	r.tasks.Go(func() {
		buf := make([]byte, transport.MaxMessage)
		for {
			m, err := conn.Receive(ctx, buf)
			if err != nil {
				return
			}
			msg, _, err := asap.Decode(m.Data)
			if err != nil {
				r.t.Errorf("registrar got %x: %v", m.Data, err)
				continue
			}
			r.mu.Lock()
			obliging, others, policy := r.obliging, r.others, r.policy
			r.mu.Unlock()
			if q, ok := msg.(*asap.HandleResolution); ok && obliging {
				r.send(conn, resolution(q.Handle, policy, others))
				continue
			}
			if answer := success(msg); obliging && answer != nil {
				r.send(conn, answer)
			}
			r.got <- received{msg, conn, time.Now()}
		}
	})
}

// success returns the positive answer to a request, nil for other messages.
func success(msg asap.Message) asap.Message {
	switch m := msg.(type) {
	case *asap.Registration:
		return &asap.RegistrationResponse{Handle: m.Handle, ID: m.Element.ID}
	case *asap.Deregistration:
		return &asap.DeregistrationResponse{Handle: m.Handle, ID: m.ID}
	}
	return nil
}

// resolution lists the elements of a pool, or says that there is none.
func resolution(handle param.PoolHandle, policy param.Policy, elements []param.PoolElement) asap.Message {
	r := &asap.HandleResolutionResponse{Handle: handle, Policy: policy, Elements: elements}
	if len(elements) == 0 {
		r.Error = param.OperationError{param.NewCause(param.CauseUnknownPoolHandle)}
	}
	return r
}

// know makes the registrar list these elements, when it is obliging.
func (r *fakeRegistrar) know(elements ...param.PoolElement) {
	r.mu.Lock()
	r.others = elements
	r.mu.Unlock()
}

func (r *fakeRegistrar) oblige() {
	r.mu.Lock()
	r.obliging = true
	r.mu.Unlock()
}

func (r *fakeRegistrar) send(conn transport.Conn, msg asap.Message) {
	r.t.Helper()
	data, err := msg.Append(nil)
	if err != nil {
		r.t.Errorf("encode: %v", err)
		return
	}
	if err := conn.Send(context.Background(), transport.Message{Data: data, PPID: transport.PPIDASAP}); err != nil {
		r.t.Errorf("registrar sends %T: %v", msg, err)
	}
}

// drop closes the connections but goes on listening.
func (r *fakeRegistrar) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Abort()
	}
	r.conns = nil
}

// close ends the registrar as a crash does.
func (r *fakeRegistrar) close() {
	r.listener.Close()
	r.stop()
	r.drop()
	r.tasks.Wait()
}

// patience is how long tests wait for a message. In virtual time it costs
// nothing.
const patience = 5 * time.Minute

// expect returns the next message, which must be of type M.
func expect[M asap.Message](t *testing.T, r *fakeRegistrar) (M, received) {
	t.Helper()
	select {
	case got := <-r.got:
		m, ok := got.msg.(M)
		if !ok {
			t.Fatalf("registrar %v got %T %+v, want %T", r.id, got.msg, got.msg, m)
		}
		return m, got
	case <-time.After(patience):
		var m M
		t.Fatalf("registrar %v: no %T", r.id, m)
		panic("unreachable")
	}
}

// expectNothing checks that no message comes for the time d.
func (r *fakeRegistrar) expectNothing(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case got := <-r.got:
		t.Fatalf("registrar %v got %T %+v, want nothing", r.id, got.msg, got.msg)
	case <-time.After(d):
	}
}

// accept answers the request with success.
func (r *fakeRegistrar) accept(got received) { r.send(got.conn, success(got.msg)) }

// dial opens an association to the element's control port, as a registrar that
// takes over does.
func (r *fakeRegistrar) dial(t *testing.T, network transport.Network, to netip.AddrPort) transport.Conn {
	t.Helper()
	conn, err := network.Dial(context.Background(), nil, []netip.AddrPort{to}, transport.Options{})
	if err != nil {
		t.Fatalf("registrar %v dials the element at %v: %v", r.id, to, err)
	}
	r.serve(context.Background(), conn)
	return conn
}
