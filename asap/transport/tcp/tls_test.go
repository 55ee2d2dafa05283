package tcp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/transporttest"
	"rserpool/internal/authoritytest"
)

func newCluster(t *testing.T, name string) cluster { return cluster{t, authoritytest.New(t, name)} }

type cluster struct {
	t *testing.T
	*authoritytest.Cluster
}

func (c cluster) member(name string) *Credentials {
	c.t.Helper()
	credentials, err := LoadCredentials(Files(c.Member(name)), c.Cluster.Cluster())
	if err != nil {
		c.t.Fatal(err)
	}
	return credentials
}

func TestSuiteOverTLS(t *testing.T) {
	c := newCluster(t, "blue")
	one, two := c.member("one"), c.member("two")
	for name, local := range transporttest.Loopbacks {
		t.Run(name, func(t *testing.T) {
			transporttest.Need(t, local)
			transporttest.Suite{
				Setup: func(*testing.T) transporttest.Sides {
					return transporttest.Sides{
						Client: New(WithTLS(TLS{Credentials: one})), Server: New(WithTLS(TLS{Credentials: two})),
						Listen: []netip.AddrPort{local},
					}
				},
				Buffered: true,
			}.Run(t)
		})
	}
}

// failures collects what TLS.Failed is told.
type failures struct {
	mu      sync.Mutex
	reasons []string
	more    chan struct{}
}

func (f *failures) failed(_ netip.AddrPort, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reasons = append(f.reasons, HandshakeReason(err))
	select {
	case f.more <- struct{}{}:
	default:
	}
}

// wait waits for a reason.
func (f *failures) wait(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		f.mu.Lock()
		all := strings.Join(f.reasons, " ")
		f.mu.Unlock()
		if strings.Contains(all, want) {
			return
		}
		select {
		case <-f.more:
		case <-deadline:
			t.Fatalf("no handshake failed for the reason %q, but: %s", want, all)
		}
	}
}

// guarded is a listener of a member of a cluster; nobody else is accepted by it.
func guarded(t *testing.T, c cluster, change ...func(*TLS)) (netip.AddrPort, *failures, transport.Listener) {
	t.Helper()
	f := &failures{more: make(chan struct{}, 1)}
	settings := TLS{Credentials: c.member("server"), Failed: f.failed}
	for _, change := range change {
		change(&settings)
	}
	l, err := New(WithTLS(settings)).Listen(t.Context(), []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addrs()[0], f, l
}

// Nobody without a valid certificate of the cluster gets a message in: both ends are
// authenticated, certificates are checked against the configured authority, and who
// speaks too old a TLS, or none, is cut off.
func TestENRP_6_2_01_ENRP_6_3_01_StrangersAreNotAccepted(t *testing.T) {
	blue, red := newCluster(t, "blue"), newCluster(t, "red")
	alike := newCluster(t, "blue") // the same name, another authority
	pair := func(files authoritytest.Files) tls.Certificate {
		p, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	longAgo := time.Now().Add(-48 * time.Hour)
	for _, tt := range []struct {
		name   string
		certs  []tls.Certificate
		change func(*tls.Config)
		reason string
	}{
		{"no certificate", nil, nil, "no-certificate"},
		{"self-signed", []tls.Certificate{pair(blue.SelfSigned("self"))}, nil, "unknown-authority"},
		{"authority of another cluster", []tls.Certificate{pair(red.Member("m"))}, nil, "unknown-authority"},
		{"another authority of this name", []tls.Certificate{pair(alike.Member("m"))}, nil, "unknown-authority"},
		{"expired", []tls.Certificate{pair(blue.MemberFor("m", longAgo, time.Hour))}, nil, "expired"},
		{"not yet valid", []tls.Certificate{pair(blue.MemberFor("m", time.Now().Add(48*time.Hour), time.Hour))}, nil, "expired"},
		{"an old version of TLS", []tls.Certificate{pair(blue.Member("m"))}, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, "other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to, failed, l := guarded(t, blue)
			raw, err := net.Dial("tcp", to.String())
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			config := &tls.Config{
				InsecureSkipVerify: true,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // whatever is asked for
					if len(tt.certs) == 0 {
						return &tls.Certificate{}, nil
					}
					return &tt.certs[0], nil
				},
			}
			if tt.change != nil {
				tt.change(config)
			}
			c := tls.Client(raw, config)
			_, _ = c.Write(framed(8)) // may fail, or be thrown away
			failed.wait(t, tt.reason)
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("the stranger was answered")
			}
			nobody(t, l)
		})
	}
	t.Run("AMB_52_NoTLS", func(t *testing.T) {
		to, failed, l := guarded(t, blue)
		conn, err := New().Dial(t.Context(), nil, []netip.AddrPort{to}, transport.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Send(t.Context(), transport.Message{Data: framed(8)}); err != nil {
			t.Fatal(err)
		}
		failed.wait(t, "not-tls")
		if m, err := conn.Receive(within(t, patience), make([]byte, 4096)); err == nil && len(m.Data) > 0 {
			t.Errorf("received % x", m.Data)
		}
		nobody(t, l)
	})
	t.Run("hangs up", func(t *testing.T) {
		to, failed, _ := guarded(t, blue)
		conn, err := net.Dial("tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		failed.wait(t, "hung-up")
	})
}

// nobody checks that a listener has accepted nobody.
func nobody(t *testing.T, l transport.Listener) {
	t.Helper()
	if c, err := l.Accept(within(t, 20*time.Millisecond)); err == nil {
		c.Close()
		t.Error("the stranger was accepted")
	}
}

// A member does not speak to a server that is not of its cluster.
func TestDialRefusesStrangers(t *testing.T) {
	blue, red, alike := newCluster(t, "blue"), newCluster(t, "red"), newCluster(t, "blue")
	member := New(WithTLS(TLS{Credentials: blue.member("m")}))
	for reason, server := range map[string]cluster{"unknown-authority": alike, "other-cluster": red} {
		to, failed, _ := guarded(t, server)
		c, err := member.Dial(within(t, patience), nil, []netip.AddrPort{to}, transport.Options{})
		if err == nil {
			c.Close()
			t.Fatal("connected")
		}
		if got := HandshakeReason(err); got != reason && got != "unknown-authority" {
			t.Errorf("%v (%s), want %s", err, got, reason)
		}
		failed.wait(t, "refused-by-peer")
	}
}

// An authority that several clusters share still tells them apart.
func TestNameOfTheCluster(t *testing.T) {
	both := newCluster(t, "blue")
	blue := Files(both.Member("m"))
	if _, err := LoadCredentials(blue, "red"); err == nil || !strings.Contains(err.Error(), "blue") {
		t.Errorf("a certificate of blue in red: %v", err)
	}
}

// Handshakes that do not get on end by themselves, and don't keep others out.
func TestSilentHandshakes(t *testing.T) {
	blue := newCluster(t, "blue")
	silent := func(t *testing.T, to netip.AddrPort) net.Conn {
		c, err := net.Dial("tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	t.Run("time-out", func(t *testing.T) {
		to, failed, _ := guarded(t, blue, func(s *TLS) { s.Timeout = 50 * time.Millisecond })
		c := silent(t, to)
		failed.wait(t, "timeout")
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the connection goes on: %v", err)
		}
	})
	t.Run("many", func(t *testing.T) {
		to, failed, l := guarded(t, blue, func(s *TLS) { s.Handshakes, s.Timeout = 4, time.Hour })
		for range 20 {
			silent(t, to)
		}
		failed.wait(t, strings.TrimSpace(strings.Repeat("too-many ", 16)))
		connected(t, blue, to, l)
	})
}

// Certificates are exchanged without a restart.
// A certificate with a name that can't be read is not taken for one without.
func TestUnreadableIdentityIsRefused(t *testing.T) {
	for text, ok := range map[string]bool{"https://blue/": true, "rserpool://blue/registrar/1": true, "rserpool://blue/registrar/one": false} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		err = readable(tls.ConnectionState{PeerCertificates: []*x509.Certificate{{URIs: []*url.URL{u}}}})
		if (err == nil) != ok || err != nil && HandshakeReason(err) != "unreadable-identity" {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestCredentialsAreReadAgain(t *testing.T) {
	old, fresh := newCluster(t, "blue"), newCluster(t, "blue")
	files := Files(old.MemberFor("m", time.Now(), time.Hour))
	copyTo := func(from authoritytest.Files) {
		t.Helper()
		for to, from := range map[string]string{files.CA: from.CA, files.Cert: from.Cert, files.Key: from.Key} {
			data, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	c, err := LoadCredentials(files, "blue")
	if err != nil {
		t.Fatal(err)
	}
	var results []error
	c.Changed = func(err error) { results = append(results, err) }
	first := c.configs()
	c.looked = time.Time{}
	if c.configs().client != first.client || len(results) != 0 {
		t.Error("read again although nothing changed")
	}

	copyTo(fresh.MemberFor("m", time.Now(), 2*time.Hour))
	if c.configs().client != first.client {
		t.Error("files were looked at more than once a second")
	}
	c.looked = time.Time{}
	second := c.configs()
	if second.client == first.client || len(results) != 1 || results[0] != nil || !second.expires.After(first.expires) {
		t.Errorf("changed files: %v", results)
	}

	if err := os.WriteFile(files.Key, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.looked = time.Time{}
		if c.configs().client != second.client {
			t.Error("bad files were taken")
		}
	}
	if len(results) != 2 || results[1] == nil {
		t.Errorf("bad files are told once: %v", results)
	}
	if err := c.Reload(); err == nil || c.Expires() != second.expires {
		t.Errorf("reload of bad files: %v", err)
	}
	copyTo(fresh.MemberFor("n", time.Now(), 3*time.Hour))
	if err := c.Reload(); err != nil || !c.Expires().After(second.expires) {
		t.Errorf("reload: %v", err)
	}
	c.Check = func(named []param.RegistrarID) error { return transport.CheckRegistrar(named, 7) }
	copyTo(fresh.MemberAs("other", 8))
	if err := c.Reload(); err == nil || len(c.Registrars()) != 0 {
		t.Errorf("the certificate of another registrar: %v", err)
	}
	copyTo(fresh.MemberAs("own", 7))
	if err := c.Reload(); err != nil || !slices.Equal(c.Registrars(), []param.RegistrarID{7}) {
		t.Errorf("the registrar's own certificate: %v, %v", c.Registrars(), err)
	}
	for _, name := range []string{files.CA, files.Cert, files.Key} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		if err := c.Reload(); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// connected returns both ends of a member's connection to l, which listens there.
func connected(t *testing.T, cluster cluster, to netip.AddrPort, l transport.Listener) (c, s transport.Conn) {
	t.Helper()
	c, err := New(WithTLS(TLS{Credentials: cluster.member("m")})).Dial(within(t, patience), nil, []netip.AddrPort{to}, transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	s, err = l.Accept(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return c, s
}

// Nothing that goes past TLS to the socket is offered.
func TestNothingGoesPastTLS(t *testing.T) {
	blue := newCluster(t, "blue")
	to, _, l := guarded(t, blue)
	c, s := connected(t, blue, to, l)
	type trySender interface {
		TrySend(context.Context, ...transport.Message) (bool, error)
	}
	for _, end := range []transport.Conn{c, s} {
		if _, ok := end.(trySender); ok {
			t.Error("TrySend writes to the socket")
		}
	}
}

// Closing does not wait for a peer that does not read.
func TestCloseOverTLSDoesNotWait(t *testing.T) {
	blue := newCluster(t, "blue")
	to, _, l := guarded(t, blue)
	const many = 12 // for each of which the farewell of TLS would wait 5 s
	var took time.Duration
	for range many {
		c, _ := connected(t, blue, to, l)
		// Fill the socket below TLS, so that the farewell has no room.
		raw, err := c.(*secured).Conn.(*conn).tcp.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			for {
				if _, err := syscall.Write(int(fd), make([]byte, 65536)); err != nil {
					return
				}
			}
		})
		start := time.Now()
		c.Close()
		took += time.Since(start)
	}
	t.Logf("%v for %d", took, many)
	if took > many/2*5*time.Second {
		t.Errorf("%d took %v", many, took)
	}
}
