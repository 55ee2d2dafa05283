package ringnet_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/enrp/ring"
	"rserpool/enrp/ring/ringnet"
	"rserpool/enrp/ring/ringtest"
	"rserpool/internal/authoritytest"
)

// handler takes events and does nothing.
type handler struct{}

func (handler) Handle([]ring.Event) {}

// node starts a member on loopback.
func node(t *testing.T, id ring.NodeID, network transport.Network, peers ...transport.Endpoint) *ringnet.Group {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	g, err := ringnet.New(ringnet.Config{
		Cluster: "blue", ID: id, Networks: transport.NewNetworks(network), Peers: peers,
		Listen: []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}},
		Timers: ringtest.Unhurried(), Handler: handler{}, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := g.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return g
}

func at(g *ringnet.Group) transport.Endpoint {
	return transport.Endpoint{Network: transport.TCP, Hosts: []string{"127.0.0.1"}, Port: g.Addrs()[0].Port()}
}

func status(t *testing.T, g *ringnet.Group) ringnet.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	st, err := g.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// together waits until a view has so many members.
func together(t *testing.T, g *ringnet.Group, members int) ringnet.Status {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		st := status(t, g)
		if len(st.View.Members) == members {
			return st
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d members, want %d: %+v", len(st.View.Members), members, st)
		}
	}
}

func secured(t *testing.T, f authoritytest.Files, failed func(string)) transport.Network {
	t.Helper()
	credentials, err := tcp.LoadCredentials(tcp.Files(f), "blue")
	if err != nil {
		t.Fatal(err)
	}
	return securedBy(credentials, failed)
}

func securedBy(credentials *tcp.Credentials, failed func(string)) transport.Network {
	settings := tcp.TLS{Credentials: credentials}
	if failed != nil {
		settings.Failed = func(_ netip.AddrPort, err error) { failed(tcp.HandshakeReason(err)) }
	}
	return tcp.New(tcp.WithTLS(settings))
}

// Who has no certificate of the cluster does not get into the ring, and changes
// nothing in it, whatever he speaks and however long he tries.
func TestTHR_2_5_3_01_StrangersDoNotJoin(t *testing.T) {
	type cluster = authoritytest.Cluster
	for name, stranger := range map[string]struct {
		network func(t *testing.T, blue, alike *cluster) transport.Network
		reason  string
	}{
		"no certificate": {func(*testing.T, *cluster, *cluster) transport.Network { return tcp.New() }, "not-tls"},
		"self-signed": {func(t *testing.T, blue, _ *cluster) transport.Network {
			return secured(t, blue.Trusting(blue.SelfSigned("self")), nil)
		}, "no-certificate"}, // none is shown, as the member names its authority
		"another authority": {func(t *testing.T, blue, alike *cluster) transport.Network {
			return secured(t, blue.Trusting(alike.Member("m")), nil)
		}, "unknown-authority"},
		"expired": {func(t *testing.T, blue, _ *cluster) transport.Network {
			for i := 0; ; i++ { // it must be good while it is loaded
				end := time.Now().Add(3 * time.Second).Truncate(time.Second)
				files := blue.MemberFor(fmt.Sprint("late", i), end.Add(-time.Hour), time.Hour)
				credentials, err := tcp.LoadCredentials(tcp.Files(files), "blue")
				inTime := time.Now().Before(end)
				time.Sleep(time.Until(end) + 100*time.Millisecond)
				if err == nil {
					return securedBy(credentials, nil)
				}
				if inTime {
					t.Fatal(err)
				}
			}
		}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			blue, alike := authoritytest.New(t, "blue"), authoritytest.New(t, "blue")
			refused := make(chan string, 1000)
			network := secured(t, blue.Member("one"), func(reason string) {
				select {
				case refused <- reason:
				default:
				}
			})
			one := node(t, 1, network)
			two := node(t, 2, secured(t, blue.Member("two"), nil), at(one))
			before := together(t, two, 2)
			together(t, one, 2)

			bad := node(t, 3, stranger.network(t, blue, alike), at(one), at(two))
			for tries := 0; tries < 3; { // it does not give up
				select {
				case reason := <-refused:
					if reason == stranger.reason {
						tries++
					} else if reason != "hung-up" { // which it may do before it hears why
						t.Errorf("refused for %q, want %q", reason, stranger.reason)
					}
				case <-time.After(time.Minute):
					t.Fatal("the stranger did not try")
				}
			}
			for _, g := range []*ringnet.Group{one, two} {
				st := status(t, g)
				if st.View.ID != before.View.ID || len(st.Outside) > 0 || slices.ContainsFunc(st.Peers, func(p ringnet.PeerStatus) bool { return p.Member.ID == 3 }) {
					t.Errorf("after the stranger came: %+v", st)
				}
			}
			if st := status(t, bad); len(st.View.Members) != 1 || len(st.Outside) > 0 {
				t.Errorf("the stranger knows %+v", st)
			}

			// One with a certificate gets in where the stranger did not.
			node(t, 4, secured(t, blue.Member("four"), nil), at(one))
			together(t, one, 3)
		})
	}
}

// Who has the certificate of one member can't take the place of another: neither by
// calling others nor by being called. Certificates that name nobody are good for any
// member, those that name several for each of these.
func TestMembersSpeakInTheirOwnNameOnly(t *testing.T) {
	blue := authoritytest.New(t, "blue")
	one := node(t, 1, secured(t, blue.MemberAs("one", 1), nil))
	two := node(t, 2, secured(t, blue.MemberAs("two", 2, 20), nil), at(one))
	before := together(t, two, 2)
	together(t, one, 2)

	thief := node(t, 3, secured(t, blue.MemberAs("stolen", 2), nil), at(one), at(two))
	caller := node(t, 5, secured(t, blue.MemberAs("five", 5), nil), at(thief))
	for _, g := range []*ringnet.Group{one, two, caller} {
		for deadline := time.Now().Add(time.Minute); status(t, g).Refused["identity"] == 0; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("nobody is refused: %+v", status(t, g).Refused)
			}
		}
	}
	for _, g := range []*ringnet.Group{one, two} {
		st := status(t, g)
		if st.View.ID != before.View.ID || len(st.Outside) > 0 || slices.ContainsFunc(st.Peers, func(p ringnet.PeerStatus) bool { return p.Member.ID == 3 }) {
			t.Errorf("after the thief came: %+v", st)
		}
	}
	st := status(t, thief)
	if len(st.View.Members) != 1 || len(st.Outside) > 0 || st.Refused["by-peer"] == 0 {
		t.Errorf("the thief knows %+v", st)
	}
	said := ""
	for _, p := range st.Peers {
		said += p.LastError
	}
	if !strings.Contains(said, "the certificate is for registrar 0x00000002, not for 0x00000003") {
		t.Errorf("the thief hears %q", said)
	}

	node(t, 4, secured(t, blue.Member("four"), nil), at(one))
	node(t, 20, secured(t, blue.MemberAs("twenty", 2, 20), nil), at(one))
	together(t, one, 4)
}
