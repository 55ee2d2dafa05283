package poolelement

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
	"rserpool/poolelement/cookie"
)

// served is a server on the host "element" of a world, and the registrar A that it
// registers with.
type served struct {
	*world
	server *Server
	log    *logText
	stop   context.CancelFunc
	result chan error
}

// logText is a log that can be read while it is written.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// userAddr is where servers of tests listen.
const userAddr = elementAddr + ":7000"

// networks are what the tests of sessions run over.
var networks = []string{transport.TCP, transport.SCTP}

// overAll runs f over each network, in virtual time.
func overAll(t *testing.T, f func(t *testing.T, w *world, network string)) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) { f(t, w, network) })
		})
	}
}

func sealer(t *testing.T, handle param.PoolHandle) *cookie.Sealer {
	t.Helper()
	s, err := cookie.New(cookie.Config{Keys: []cookie.Key{{ID: 1, Secret: make([]byte, 32)}}, Pool: handle})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serveConfig returns what the servers of tests have in common.
func (w *world) serveConfig(network string) ServeConfig {
	host := w.net.Host("element")
	cfg := ServeConfig{
		Element: Config{
			Handle:     pool,
			Policy:     param.Policy{Type: param.LeastUsed},
			Registrars: []transport.Endpoint{{Network: transport.SCTP, Hosts: []string{"10.0.0.10"}, Port: 3863}},
			Networks:   transport.NewNetworks(host.As(transport.SCTP)),
			Hunt:       hunt.Default(),
			Control:    transport.Endpoint{},
		},
		Listen:       []transport.Endpoint{{Network: network, Hosts: []string{elementAddr}, Port: 7000}},
		ListenStream: host.ListenStream,
		Cookies:      sealer(w.t, pool),
	}
	cfg.Element.Hunt.Rand = func() float64 { return 0 }
	return cfg
}

// run starts a server and waits until it has registered.
func (w *world) run(cfg ServeConfig, newServer func(ServeConfig) (*Server, error)) *served {
	w.t.Helper()
	if w.a == nil {
		w.startA().oblige()
	}
	s := &served{world: w, log: &logText{}, result: make(chan error, 1)}
	log := logrus.New()
	log.SetOutput(s.log)
	log.SetLevel(logrus.InfoLevel)
	if cfg.Element.Log == nil {
		cfg.Element.Log = log
	}
	server, err := newServer(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	s.server = server
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() { s.result <- server.Run(ctx) }()
	synctest.Wait()
	return s
}

// serve starts a server in message style and cleans up after the test.
func (w *world) serve(network string, change func(*ServeConfig), handler HandlerFunc) *served {
	w.t.Helper()
	cfg := w.serveConfig(network)
	if change != nil {
		change(&cfg)
	}
	s := w.run(cfg, func(cfg ServeConfig) (*Server, error) { return NewServer(cfg, handler) })
	w.t.Cleanup(s.end)
	return s
}

// serveStreams starts one in stream style.
func (w *world) serveStreams(network string, change func(*ServeConfig), handler StreamHandlerFunc) *served {
	w.t.Helper()
	cfg := w.serveConfig(network)
	cfg.Cookies = nil
	if change != nil {
		change(&cfg)
	}
	s := w.run(cfg, func(cfg ServeConfig) (*Server, error) { return NewStreamServer(cfg, handler) })
	w.t.Cleanup(s.end)
	return s
}

// end stops the server and expects no error.
func (s *served) end() {
	s.t.Helper()
	s.stop()
	if err := <-s.result; err != nil && !errors.Is(err, ErrStopTimeout) {
		s.t.Errorf("Run: %v", err)
	}
	s.result <- nil // for the next call
}

// user is a raw user: it says and hears what a test wants.
type user struct {
	t    *testing.T
	conn transport.Conn
}

// dial connects to the server as a user on machine a.
func (w *world) dial(network string) *user {
	w.t.Helper()
	u, err := w.tryDial(network)
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

func (w *world) tryDial(network string) (*user, error) { return w.tryDialFrom("b", network) }

func (w *world) tryDialFrom(name, network string) (*user, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	host := w.net.Host(name)
	var conn transport.Conn
	if network == transport.TCP {
		stream, err := host.DialStream(ctx, "tcp", userAddr)
		if err != nil {
			return nil, err
		}
		if conn, err = framed.Client(ctx, stream, framed.Options{}); err != nil {
			return nil, err
		}
	} else {
		c, err := host.As(network).Dial(ctx, nil, []netip.AddrPort{netip.MustParseAddrPort(userAddr)}, transport.Options{})
		if err != nil {
			return nil, err
		}
		conn = framed.Over(c)
	}
	u := &user{w.t, conn}
	w.t.Cleanup(func() { u.conn.Abort() })
	return u, nil
}

// dialStream connects to the server as a user of plain byte streams.
func (w *world) dialStream(network string) net.Conn {
	w.t.Helper()
	host := w.net.Host("b")
	var stream net.Conn
	var err error
	if network == transport.TCP {
		stream, err = host.DialStream(context.Background(), "tcp", userAddr)
	} else {
		var conn transport.Conn
		conn, err = host.As(network).Dial(context.Background(), nil, []netip.AddrPort{netip.MustParseAddrPort(userAddr)}, transport.Options{})
		stream = &messageUser{conn: conn}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { stream.Close() })
	return stream
}

// messageUser is a byte stream over messages, just good enough.
type messageUser struct {
	net.Conn // nil
	conn     transport.Conn
	rest     []byte
}

func (m *messageUser) Read(p []byte) (int, error) {
	if len(m.rest) == 0 {
		in, err := m.conn.Receive(context.Background(), make([]byte, transport.MaxMessage))
		if err != nil {
			return 0, err
		}
		m.rest = in.Data
	}
	n := copy(p, m.rest)
	m.rest = m.rest[n:]
	return n, nil
}

func (m *messageUser) Write(p []byte) (int, error) {
	return len(p), m.conn.Send(context.Background(), transport.Message{Data: p, PPID: 7})
}

func (m *messageUser) Close() error { return m.conn.Close() }

func (u *user) send(data string) {
	u.t.Helper()
	if err := u.conn.Send(context.Background(), transport.Message{Data: []byte(data), PPID: 7}); err != nil {
		u.t.Fatalf("user sends %q: %v", data, err)
	}
}

// sendASAP sends a message on the control channel, and data right behind it.
func (u *user) sendASAP(msg asap.Message, more ...string) {
	u.t.Helper()
	data, err := msg.Append(nil)
	if err != nil {
		u.t.Fatal(err)
	}
	msgs := []transport.Message{{Data: data, PPID: transport.PPIDASAP}}
	for _, text := range more {
		msgs = append(msgs, transport.Message{Data: []byte(text), PPID: 7})
	}
	if err := u.conn.Send(context.Background(), msgs...); err != nil {
		u.t.Fatalf("user sends %v: %v", msg.Type(), err)
	}
}

// next returns the next message.
func (u *user) next() (transport.Message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	buf := make([]byte, transport.MaxMessage)
	return u.conn.Receive(ctx, buf)
}

// expect returns the next message, which must be of the application.
func (u *user) expect(want string) {
	u.t.Helper()
	m, err := u.next()
	if err != nil || m.PPID == transport.PPIDASAP || string(m.Data) != want {
		u.t.Fatalf("user got %q (PPID %d), %v, want %q", m.Data, m.PPID, err, want)
	}
}

// expectEnd waits for the end of the session, which must be want.
func (u *user) expectEnd(want error) {
	u.t.Helper()
	if m, err := u.next(); !errors.Is(err, want) {
		u.t.Fatalf("user got %x (PPID %d), %v, want %v", m.Data, m.PPID, err, want)
	}
	u.conn.Close()
}

// expectASAP returns the next message, which must be ASAP's and of type M.
func expectASAP[M asap.Message](u *user) M {
	u.t.Helper()
	m, err := u.next()
	if err != nil || m.PPID != transport.PPIDASAP {
		u.t.Fatalf("user got %q (PPID %d), %v, want ASAP", m.Data, m.PPID, err)
	}
	msg, _, err := asap.Decode(m.Data)
	if err != nil {
		u.t.Fatal(err)
	}
	got, ok := msg.(M)
	if !ok {
		u.t.Fatalf("user got %T %+v, want %T", msg, msg, got)
	}
	return got
}

// echo answers each message by itself.
func echo(ctx context.Context, s *Session) error {
	for {
		in, err := s.Receive(ctx)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case in.Kind == Data:
			if err := s.Send(ctx, in.Message); err != nil {
				return err
			}
		}
	}
}
