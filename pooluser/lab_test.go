package pooluser_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/hunt/hunttest"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
	"rserpool/pooluser"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	pool    = param.PoolHandle("pool")
	home1   = "10.0.0.1"
	home2   = "10.0.0.2"
	userAt  = "10.0.0.100"
	asap1   = 3863
	service = 8000
)

// lab is a network in memory: registrars, a user and elements by TCP, which are
// pipes and echo what they get.
type lab struct {
	t    *testing.T
	net  *mem.Network
	rows *[]*row

	mu     sync.Mutex
	pools  map[param.PoolHandle]*asap.HandleResolutionResponse
	down   map[string]bool // addresses of elements that refuse
	hang   map[string]bool // and of those that never answer
	dialed []string
	ppid   uint32 // of the latest message to an SCTP element
	mute   bool   // registrars don't answer
}

func inLab(t *testing.T, f func(t *testing.T, l *lab)) {
	t.Helper()
	var rows []*row
	synctest.Test(t, func(t *testing.T) {
		f(t, &lab{
			t: t, net: mem.NewNetwork(1), down: map[string]bool{}, hang: map[string]bool{},
			pools: map[param.PoolHandle]*asap.HandleResolutionResponse{}, rows: &rows,
		})
	})
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range r.failures {
				t.Error(f)
			}
		})
	}
}

// row is a requirement that is checked in the middle of a story. It becomes a
// subtest when the story is over, because there are none in virtual time.
type row struct {
	*testing.T
	name     string
	failures []string
}

func (r *row) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *row) Error(args ...any) { r.failures = append(r.failures, fmt.Sprint(args...)) }

func (l *lab) row(name string, f func(t *row)) {
	r := &row{T: l.t, name: name}
	*l.rows = append(*l.rows, r)
	f(r)
}

// sctpHost makes a machine of the network in memory pass for SCTP.
type sctpHost struct{ *mem.Host }

func (sctpHost) Name() string { return transport.SCTP }

func (l *lab) registrar(addr string) *hunttest.Registrar {
	l.t.Helper()
	r, err := hunttest.Start(l.net.Host(addr), netip.AddrPortFrom(netip.MustParseAddr(addr), asap1), l.answer)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(r.Stop)
	return r
}

func (l *lab) answer(msg asap.Message) []asap.Message {
	q, ok := msg.(*asap.HandleResolution)
	if !ok {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mute {
		return nil
	}
	if response := l.pools[q.Handle]; response != nil {
		answer := *response
		answer.Handle = q.Handle
		answer.AcceptUpdates = q.SendUpdates
		return []asap.Message{&answer}
	}
	return []asap.Message{unknown(q.Handle)}
}

func unknown(handle param.PoolHandle) *asap.HandleResolutionResponse {
	return &asap.HandleResolutionResponse{Handle: handle, Error: param.OperationError{{Code: param.CauseUnknownPoolHandle}}}
}

// setPool gives the pool these elements; none removes it.
func (l *lab) setPool(handle param.PoolHandle, policy param.PolicyType, ids ...param.PEID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pools, handle)
	if len(ids) > 0 {
		l.pools[handle] = response(policy, ids...)
	}
}

func response(policy param.PolicyType, ids ...param.PEID) *asap.HandleResolutionResponse {
	r := &asap.HandleResolutionResponse{Handle: pool, Policy: param.Policy{Type: policy}}
	for _, id := range ids {
		r.Elements = append(r.Elements, element(id))
	}
	return r
}

func element(id param.PEID) param.PoolElement {
	return param.PoolElement{
		ID: id, Life: 300, Policy: param.Policy{Type: param.RoundRobin},
		User: param.Transport{Type: param.TypeTCPTransport, Port: service, Addrs: []netip.Addr{address(id)}},
	}
}

func address(id param.PEID) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(id)}) }

// setMute makes registrars silent, or answer again.
func (l *lab) setMute(mute bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mute = mute
}

// fail makes an element refuse connections, or accept them again.
func (l *lab) fail(id param.PEID, down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down[netip.AddrPortFrom(address(id), service).String()] = down
}

func (l *lab) freeze(id param.PEID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hang[netip.AddrPortFrom(address(id), service).String()] = true
}

func (l *lab) dial(ctx context.Context, _, address string) (net.Conn, error) {
	l.mu.Lock()
	l.dialed = append(l.dialed, address)
	down, hang := l.down[address], l.hang[address]
	l.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	go func() {
		_, _ = io.Copy(far, far)
		_ = far.Close()
	}()
	return near, nil
}

func (l *lab) user(change func(*pooluser.Config)) *pooluser.Resolver {
	l.t.Helper()
	cfg := pooluser.Config{
		Networks:   transport.NewNetworks(l.net.Host(userAt), sctpHost{l.net.Host(userAt)}),
		Hunt:       hunt.Config{Rand: func() float64 { return 0 }},
		DialStream: l.dial,
		Rand:       rand.New(rand.NewPCG(1, 2)),
	}
	for _, r := range []string{home1, home2} {
		e, err := transport.ParseEndpoint(r, transport.Mem, asap1)
		if err != nil {
			l.t.Fatal(err)
		}
		cfg.Registrars = append(cfg.Registrars, e)
	}
	if change != nil {
		change(&cfg)
	}
	r, err := pooluser.New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	r.Start()
	l.t.Cleanup(r.Stop)
	synctest.Wait()
	return r
}

// wantAnswer resolves the pool and compares the elements.
func (l *lab) wantAnswer(r *pooluser.Resolver, want ...param.PEID) pooluser.Answer {
	l.t.Helper()
	a, err := r.Resolve(l.t.Context(), pool)
	if err != nil {
		l.t.Fatalf("resolve: %v", err)
	}
	var got []param.PEID
	for _, e := range a.Elements {
		got = append(got, e.ID)
	}
	if !slices.Equal(got, want) {
		l.t.Errorf("elements %v, want %v", got, want)
	}
	return a
}

// selectN selects n times.
func (l *lab) selectN(r *pooluser.Resolver, n int) []param.PEID {
	l.t.Helper()
	var out []param.PEID
	for range n {
		e, err := r.Select(l.t.Context(), pool)
		if err != nil {
			l.t.Fatalf("select: %v", err)
		}
		out = append(out, e.ID)
	}
	return out
}

// dialOK connects and returns the element.
func (l *lab) dialOK(r *pooluser.Resolver) param.PEID {
	l.t.Helper()
	conn, err := r.Dial(l.t.Context(), pool)
	if err != nil {
		l.t.Fatalf("dial: %v", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("ping")); err != nil {
		l.t.Errorf("write: %v", err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "ping" {
		l.t.Errorf("read %q, %v", buf, err)
	}
	return conn.Element.ID
}

// received returns the messages of one type that the registrar has received.
func received[T asap.Message](r *hunttest.Registrar) []T {
	synctest.Wait()
	var out []T
	for _, m := range r.Received() {
		if msg, ok := m.Message.(T); ok {
			out = append(out, msg)
		}
	}
	return out
}

func (l *lab) wantRequests(r *hunttest.Registrar, want int) {
	l.t.Helper()
	if got := len(received[*asap.HandleResolution](r)); got != want {
		l.t.Errorf("registrar got %d resolutions, want %d", got, want)
	}
}

func (l *lab) wantReports(r *hunttest.Registrar, want ...param.PEID) {
	l.t.Helper()
	var got []param.PEID
	for _, m := range received[*asap.EndpointUnreachable](r) {
		got = append(got, m.ID)
	}
	if !slices.Equal(got, want) {
		l.t.Errorf("reports %v, want %v", got, want)
	}
}

func sleep(d time.Duration) { time.Sleep(d) }
