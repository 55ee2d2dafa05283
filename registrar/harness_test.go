package registrar

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
	"rserpool/enrp"
	"rserpool/registrar/handlespace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ownID  param.RegistrarID = 0x0a0a0a0a
	toolID param.RegistrarID = 0x0b0b0b0b
	pool   param.PoolHandle  = "EchoPool"
)

var (
	asapAddr = netip.MustParseAddrPort("192.0.2.100:3863")
	enrpAddr = netip.MustParseAddrPort("192.0.2.100:9901")
)

// world is a registrar and raw peers in a network in memory, all in one bubble of
// virtual time.
type world struct {
	*testing.T
	net   *mem.Network
	r     *Registrar
	peers []*peer
	hosts int
	made  map[string]bool // machines of registrars
}

// inWorld runs f with a registrar whose configuration the given functions change.
func inWorld(t *testing.T, f func(w *world), change ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, net: mem.NewNetwork(1), made: make(map[string]bool)}
		w.r = w.registrar("registrar", asapAddr.Addr().String(), change...)
		defer func() { // also when f fails
			for _, p := range w.peers {
				p.leave()
			}
			if err := w.r.Stop(context.Background()); err != nil {
				t.Errorf("Stop: %v", err)
			}
		}()
		f(w)
	})
}

// registrar starts a registrar on a machine of its own.
func (w *world) registrar(machine, addr string, change ...func(*Config)) *Registrar {
	w.Helper()
	r, err := New(w.config(machine, addr, change...))
	if err != nil {
		w.Fatal(err)
	}
	if err := r.Start(context.Background()); err != nil {
		w.Fatal(err)
	}
	synctest.Wait()
	return r
}

func (w *world) config(machine, addr string, change ...func(*Config)) Config {
	log := logrus.New()
	log.SetOutput(io.Discard)
	if testing.Verbose() {
		log.SetOutput(os.Stderr)
		log.SetLevel(logrus.DebugLevel)
	}
	if !w.made[machine] {
		w.made[machine] = true
		w.net.Host(machine, addr)
	}
	host := w.net.Host(machine)
	cfg := Config{
		ID:       ownID,
		Networks: transport.NewNetworks(host, asTCP{host}),
		ASAP:     []transport.Endpoint{{Network: transport.Mem, Hosts: []string{addr}, Port: asapAddr.Port()}},
		ENRP:     []transport.Endpoint{{Network: transport.Mem, Hosts: []string{addr}, Port: enrpAddr.Port()}},
		Log:      log,
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// overTCP lets the registrar listen by what passes for TCP.
func overTCP(cfg *Config) {
	cfg.ASAP[0].Network, cfg.ENRP[0].Network = transport.TCP, transport.TCP
}

// asTCP is the network in memory under the name of TCP, without PPIDs.
type asTCP struct{ transport.Network }

func (n asTCP) Name() string { return transport.TCP }

func (n asTCP) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	c, err := n.Network.Dial(ctx, local, remote, opt)
	return tcpConn{c}, err
}

func (n asTCP) Listen(ctx context.Context, local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	l, err := n.Network.Listen(ctx, local, opt)
	return tcpListener{l}, err
}

type tcpListener struct{ transport.Listener }

func (l tcpListener) Network() string { return transport.TCP }

func (l tcpListener) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.Listener.Accept(ctx)
	return tcpConn{c}, err
}

type tcpConn struct{ transport.Conn }

func (c tcpConn) Network() string { return transport.TCP }

func (c tcpConn) Receive(ctx context.Context, buf []byte) (transport.Message, error) {
	m, err := c.Conn.Receive(ctx, buf)
	m.PPID = 0
	return m, err
}

// peer is a raw ASAP or ENRP peer: it says what the test says, and listens on the
// port that it comes from.
type peer struct {
	w        *world
	host     *mem.Host
	addrs    []netip.AddrPort
	conn     transport.Conn // to the registrar; dialled by connect
	listener transport.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	group    sync.WaitGroup
	ppid     uint32

	// calm keeps keep-alives out of what was heard.
	calm bool

	mu       sync.Mutex
	incoming []transport.Conn
	got      []arrival
	ended    error
	// acks are the elements that the peer acknowledges keep-alives for.
	acks map[param.PoolHandle][]param.PEID
}

type arrival struct {
	at   time.Time
	data []byte
	via  transport.Conn
}

// host makes a machine and a peer on it that is not connected yet.
func (w *world) host(addrs ...string) *peer {
	w.Helper()
	w.hosts++
	name := fmt.Sprintf("host%d", w.hosts)
	if len(addrs) == 0 {
		addrs = []string{fmt.Sprintf("192.0.2.%d", w.hosts)}
	}
	p := &peer{w: w, host: w.net.Host(name, addrs...), ppid: transport.PPIDASAP, acks: make(map[param.PoolHandle][]param.PEID)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	w.peers = append(w.peers, p)
	for _, a := range addrs {
		p.addrs = append(p.addrs, netip.AddrPortFrom(netip.MustParseAddr(a), 50000))
	}
	return p
}

// peer makes a peer that is connected to the registrar's ASAP endpoint and
// accepts associations.
func (w *world) peer(addrs ...string) *peer {
	w.Helper()
	p := w.host(addrs...)
	p.listen()
	p.connect(asapAddr)
	return p
}

// tool makes a peer that speaks ENRP and has introduced itself.
func (w *world) tool() *peer {
	w.Helper()
	p := w.host()
	p.ppid = transport.PPIDENRP
	p.connect(enrpAddr)
	p.say(&enrp.Presence{Servers: fromTool, Checksum: 0xffff})
	p.take() // the question for its presence
	return p
}

// sibling makes another peer on the same machine, from another port.
func (p *peer) sibling(port uint16) *peer {
	p.w.Helper()
	q := &peer{w: p.w, host: p.host, ppid: p.ppid, acks: make(map[param.PoolHandle][]param.PEID)}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	for _, a := range p.addrs {
		q.addrs = append(q.addrs, netip.AddrPortFrom(a.Addr(), port))
	}
	p.w.peers = append(p.w.peers, q)
	q.connect(asapAddr)
	return q
}

func (p *peer) connect(to netip.AddrPort) {
	p.w.Helper()
	c, err := p.host.Dial(p.ctx, p.addrs, []netip.AddrPort{to}, transport.Options{ReusePort: true})
	if err != nil {
		p.w.Fatal(err)
	}
	p.conn = c
	p.group.Go(func() { p.receive(c) })
	synctest.Wait()
}

func (p *peer) listen() {
	p.w.Helper()
	l, err := p.host.Listen(p.ctx, p.addrs, transport.Options{ReusePort: true})
	if err != nil {
		p.w.Fatal(err)
	}
	p.listener = l
	p.group.Go(func() {
		for {
			c, err := l.Accept(p.ctx)
			if err != nil {
				return
			}
			p.mu.Lock()
			p.incoming = append(p.incoming, c)
			p.mu.Unlock()
			p.group.Go(func() { p.receive(c) })
		}
	})
}

func (p *peer) receive(c transport.Conn) {
	buf := make([]byte, transport.MaxMessage)
	for {
		m, err := c.Receive(p.ctx, buf)
		p.mu.Lock()
		if err != nil {
			p.ended = err
			p.mu.Unlock()
			return
		}
		p.got = append(p.got, arrival{time.Now(), append([]byte(nil), m.Data...), c})
		p.mu.Unlock()
		if k, ok := decodeASAP(m.Data).(*asap.EndpointKeepAlive); ok {
			p.mu.Lock()
			acks := p.acks[k.Handle]
			p.mu.Unlock()
			for _, id := range acks {
				p.sendOn(c, &asap.EndpointKeepAliveAck{Handle: k.Handle, ID: id})
			}
		}
	}
}

func decodeASAP(data []byte) asap.Message {
	m, _, err := asap.Decode(data)
	if err != nil {
		return nil
	}
	return m
}

// leave closes everything of the peer.
func (p *peer) leave() {
	p.cancel()
	if p.conn != nil {
		p.conn.Abort()
	}
	p.mu.Lock()
	incoming := p.incoming
	p.mu.Unlock()
	for _, c := range incoming {
		c.Abort()
	}
	if p.listener != nil {
		p.listener.Close()
	}
	p.group.Wait()
}

// say sends a message and waits until everything that follows from it at once has
// happened.
func (p *peer) say(m interface{ Append([]byte) ([]byte, error) }) {
	p.w.Helper()
	p.sendOn(p.conn, m)
	synctest.Wait()
}

func (p *peer) sendOn(c transport.Conn, m interface{ Append([]byte) ([]byte, error) }) {
	data, err := m.Append(nil)
	if err != nil {
		p.w.Fatal(err)
	}
	// A peer may talk to a connection that was cut.
	_ = c.Send(p.ctx, transport.Message{Data: data, PPID: p.ppid})
}

// sayHex sends octets.
func (p *peer) sayHex(text string) {
	p.w.Helper()
	data, err := hex.DecodeString(text)
	if err != nil {
		p.w.Fatal(err)
	}
	if err := p.conn.Send(p.ctx, transport.Message{Data: data, PPID: p.ppid}); err != nil {
		p.w.Fatal(err)
	}
	synctest.Wait()
}

// take returns what came since the last call.
func (p *peer) take() []arrival {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

// heard returns the ASAP messages that came since the last take.
func (p *peer) heard() []asap.Message {
	p.w.Helper()
	var out []asap.Message
	for _, a := range p.take() {
		m, _, err := asap.Decode(a.data)
		if err != nil {
			p.w.Errorf("registrar sent %x: %v", a.data, err)
		}
		if _, ok := m.(*asap.EndpointKeepAlive); ok && p.calm {
			continue
		}
		out = append(out, m)
	}
	return out
}

// silence fails if anything came.
func (p *peer) silence() {
	p.w.Helper()
	for _, m := range p.heard() {
		p.w.Errorf("unexpected %v: %+v", m.Type(), m)
	}
}

// closed reports whether the connection to the registrar has ended.
func (p *peer) closed() bool {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended != nil
}

// one returns the only message that came, which must be of type T.
func one[T any](p *peer) T {
	p.w.Helper()
	var zero T
	got := p.heard()
	if len(got) != 1 {
		p.w.Fatalf("got %d messages %v, want one %T", len(got), got, zero)
	}
	m, ok := got[0].(T)
	if !ok {
		p.w.Fatalf("got %T %+v, want %T", got[0], got[0], zero)
	}
	return m
}

// heardENRP returns the ENRP messages that came since the last take.
func (p *peer) heardENRP() []enrp.Message {
	p.w.Helper()
	var out []enrp.Message
	for _, a := range p.take() {
		m, _, err := enrp.Decode(a.data)
		if err != nil {
			p.w.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// oneENRP returns the only message that came to a tool, but for what all peers are
// told and asked.
func oneENRP[T any](p *peer) T {
	p.w.Helper()
	got := slices.DeleteFunc(p.heardENRP(), func(m enrp.Message) bool {
		presence, ok := m.(*enrp.Presence)
		return m.Type() == enrp.TypeHandleUpdate || ok && presence.ReplyRequired
	})
	var zero T
	if len(got) != 1 {
		p.w.Fatalf("got %d messages, want one %T", len(got), zero)
	}
	out, ok := got[0].(T)
	if !ok {
		p.w.Fatalf("got %T, want %T", got[0], zero)
	}
	return out
}

// element is a Round Robin element of p, with a TCP service.
func (p *peer) element(id param.PEID) param.PoolElement {
	e := param.PoolElement{
		ID: id, Life: 300,
		User:   param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: []netip.Addr{p.addrs[0].Addr()}},
		Policy: param.Policy{Type: param.RoundRobin},
	}
	return e
}

// register registers an element and returns the answer.
func (p *peer) register(handle param.PoolHandle, e param.PoolElement) *asap.RegistrationResponse {
	p.w.Helper()
	p.say(&asap.Registration{Handle: handle, Element: e})
	return one[*asap.RegistrationResponse](p)
}

// join registers an element, must succeed, and answers keep-alives for it.
func (p *peer) join(handle param.PoolHandle, e param.PoolElement) {
	p.w.Helper()
	p.mu.Lock()
	p.acks[handle] = append(slices.Clone(p.acks[handle]), e.ID)
	p.mu.Unlock()
	if m := p.register(handle, e); m.Reject || m.Error != nil {
		p.w.Fatalf("registration of %v: reject %v, causes %v", e.ID, m.Reject, m.Error)
	}
}

// answerFor says which elements of a pool the peer acknowledges keep-alives for.
func (p *peer) answerFor(handle param.PoolHandle, ids ...param.PEID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acks[handle] = ids
}

// resolve asks for a pool and returns the answer.
func (p *peer) resolve(handle param.PoolHandle) *asap.HandleResolutionResponse {
	p.w.Helper()
	p.say(&asap.HandleResolution{Handle: handle})
	return one[*asap.HandleResolutionResponse](p)
}

// stored returns an element's record, nil if there is none.
func (w *world) stored(handle param.PoolHandle, id param.PEID) *handlespace.Record {
	synctest.Wait()
	return w.r.space.Get(handle, id)
}

func (w *world) wantStored(handle param.PoolHandle, id param.PEID, want bool) {
	w.Helper()
	if got := w.stored(handle, id) != nil; got != want {
		w.Errorf("%v in pool %q: stored %v, want %v", id, handle, got, want)
	}
}

// after lets time pass.
func (w *world) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wantCauses compares the codes of causes.
func (w *world) wantCauses(got param.OperationError, want ...param.CauseCode) {
	w.Helper()
	var codes []param.CauseCode
	for _, c := range got {
		codes = append(codes, c.Code)
	}
	if !reflect.DeepEqual(codes, want) {
		w.Errorf("causes %v, want %v", codes, want)
	}
}

// exceeded returns how often a limit was hit.
func (w *world) exceeded(limit string) int {
	return int(testutil.ToFloat64(w.r.metrics.limits.WithLabelValues(limit)))
}

func ids(elements []param.PoolElement) []param.PEID {
	var out []param.PEID
	for _, e := range elements {
		out = append(out, e.ID)
	}
	return out
}

func timers(f func(*Timers)) func(*Config) {
	return func(c *Config) {
		c.Timers = DefaultTimers()
		f(&c.Timers)
	}
}

func limits(f func(*Limits)) func(*Config) {
	return func(c *Config) {
		c.Limits = DefaultLimits()
		f(&c.Limits)
	}
}

func asRsplib(c *Config) { c.Compat = CompatRsplib }
