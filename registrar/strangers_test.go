package registrar

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/enrp"
	"rserpool/internal/authoritytest"
)

// On an ENRP port that wants certificates nobody without one is heard: neither an
// update nor a question.
func TestStrangersAtThePortOfRegistrars(t *testing.T) {
	blue, alike := authoritytest.New(t, "blue"), authoritytest.New(t, "blue")
	network := func(f authoritytest.Files) transport.Network {
		credentials, err := tcp.LoadCredentials(tcp.Files(f), "blue")
		if err != nil {
			t.Fatal(err)
		}
		return tcp.New(tcp.WithTLS(tcp.TLS{Credentials: credentials}))
	}
	credentials, err := tcp.LoadCredentials(tcp.Files(blue.Member("one")), "blue")
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan string, 10)
	logger, lines := logtest.NewNullLogger()
	// said counts the lines with a text in the message or the error.
	said := func(text string) (n int) {
		for _, l := range lines.AllEntries() {
			if reason, _ := l.Data[logrus.ErrorKey].(error); strings.Contains(l.Message, text) || reason != nil && strings.Contains(reason.Error(), text) {
				n++
			}
		}
		return n
	}
	refusals := NewRefusals(logger)
	loopback := []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}}
	r, _ := overLoopback(t, func(c *Config) {
		c.ID, c.ENRP = ownID, loopback
		c.Refusals, c.CertificateExpiry = refusals, credentials.Expires
		c.Peering.Networks = transport.NewNetworks(tcp.New(tcp.WithTLS(tcp.TLS{
			Credentials: credentials,
			Failed: func(remote netip.AddrPort, err error) {
				refusals.Refused(remote, tcp.HandshakeReason(err), err)
				failed <- tcp.HandshakeReason(err)
			},
		})))
	})
	var to []netip.AddrPort
	for _, a := range r.Addrs() {
		if a.Protocol == string(protoENRP) {
			to = a.Addrs
		}
	}
	update := enrp.HandleUpdate{
		Servers: enrp.Servers{Sender: toolID, Receiver: ownID}, Action: enrp.AddPE, Handle: "p",
		Element: param.PoolElement{
			ID: 7, Home: toolID, Life: 60, Policy: param.Policy{Type: param.RoundRobin},
			User: param.Transport{Type: param.TypeTCPTransport, Port: 80, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
			ASAP: param.Transport{Type: param.TypeTCPTransport, Port: 3863, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		},
	}
	// heard says the messages and reports whether anything came back.
	heard := func(t *testing.T, n transport.Network, messages ...enrp.Message) bool {
		t.Helper()
		ctx := t.Context()
		c, err := n.Dial(ctx, nil, to, transport.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, m := range messages {
			data, err := m.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Send(ctx, transport.Message{Data: data, PPID: transport.PPIDENRP}); err != nil {
				return false
			}
		}
		m, err := c.Receive(ctx, make([]byte, transport.MaxMessage))
		if err != nil {
			return false
		}
		_, _, err = enrp.Decode(m.Data)
		return err == nil
	}
	question := &enrp.HandleTableRequest{Servers: fromTool}
	for _, tt := range []struct {
		name, reason string
		network      transport.Network
	}{
		{"ASAP_9_3_02 THR_2_15_3_03 without TLS", "not-tls", tcp.New()},
		{"ENRP_6_3_01 another authority", "unknown-authority", network(blue.Trusting(alike.Member("m")))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if heard(t, tt.network, &update, question) {
				t.Error("the stranger was answered")
			}
			select {
			case reason := <-failed:
				if reason != tt.reason {
					t.Errorf("refused for %q, want %q", reason, tt.reason)
				}
			case <-time.After(time.Minute):
				t.Error("the stranger was let in")
			}
			if n := r.Space().Counts(); n.Elements != 0 || n.Pools != 0 {
				t.Errorf("the stranger's update was taken: %+v", n)
			}
		})
	}
	families, err := r.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0
	var expiry float64
	for _, f := range families {
		if f.GetName() == "rserpool_certificate_expiry_timestamp_seconds" {
			expiry = f.Metric[0].GetGauge().GetValue()
		}
		if f.GetName() == "rserpool_handshake_failures_total" {
			counted = len(f.Metric)
		}
	}
	if expiry != float64(credentials.Expires().Unix()) {
		t.Errorf("the certificate ends at %v by the metric", expiry)
	}
	if counted != 2 || said("not let in") != 2 {
		t.Errorf("%d reasons are counted, %d lines logged", counted, said("not let in"))
	}
	if !heard(t, network(blue.Member("two")), question) {
		t.Error("a registrar of the cluster was not answered")
	}
	// Nor is one heard that speaks in the name of another.
	if heard(t, network(blue.MemberAs("stolen", 0x77)), &update, question) || r.Space().Counts().Elements != 0 {
		t.Error("another registrar's certificate lets it speak")
	}
	if said("the certificate is for registrar 0x00000077, not for "+toolID.String()) == 0 {
		t.Errorf("the log says %v", lines.AllEntries())
	}
	if !heard(t, network(blue.MemberAs("own", 0x77, toolID)), question) {
		t.Error("a registrar with its own certificate was not answered")
	}
}

// A stranger that tries again and again is told of each ten seconds, with how often it
// tried, and hides nobody who is refused for another reason.
func TestStrangersDoNotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, lines := logtest.NewNullLogger()
		r := NewRefusals(log)
		for range 600 {
			r.Refused(netip.MustParseAddrPort("192.0.2.1:5"), "not-tls", errors.New("no TLS"))
			time.Sleep(100 * time.Millisecond)
		}
		r.Refused(netip.MustParseAddrPort("192.0.2.2:5"), "unknown-authority", errors.New("another authority"))
		all := lines.AllEntries()
		if n := len(all); n < 6 || n > 8 {
			t.Fatalf("%d lines in a minute: %v", n, all)
		}
		if last := all[len(all)-1]; last.Data["peer"] != "192.0.2.2" {
			t.Errorf("the other one is not told of, the last line is %v", last)
		}
		if text := all[1].Message; !strings.Contains(text, "99 more") && !strings.Contains(text, "100 more") {
			t.Errorf("the second line says %q", text)
		}
	})
}
