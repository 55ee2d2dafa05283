package poolelement

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"rserpool/asap/param"
	"rserpool/asap/transport"
)

func addresses(s ...string) []netip.Addr {
	out := make([]netip.Addr, len(s))
	for i := range s {
		out[i] = netip.MustParseAddr(s[i])
	}
	return out
}

func TestASAP_2_2_1_03_AddressesToRegister(t *testing.T) {
	var (
		sctpFar   = link{network: transport.SCTP, local: ports("192.0.2.1:5001", "127.0.0.1:5001", "[2001:db8::1]:5001"), remote: ports("192.0.2.9:3863"), control: 5001}
		sctpLocal = link{network: transport.SCTP, local: ports("[fe80::1]:5001", "192.0.2.1:5001"), remote: ports("192.0.2.9:3863"), control: 5001}
		sctpNear  = link{network: transport.SCTP, local: ports("127.0.0.1:5001"), remote: ports("127.0.0.1:3863"), control: 5001}
		tcpFar    = link{network: transport.TCP, local: ports("192.0.2.1:40000"), remote: ports("192.0.2.9:3863"), control: 5001}
		tcpNear   = link{network: transport.TCP, local: ports("[::1]:40000"), remote: ports("[::1]:3863"), control: 5001}
		tcpUser   = param.Transport{Type: param.TypeTCPTransport, Port: 80}
		sctpUser  = param.Transport{Type: param.TypeSCTPTransport, Port: 80, Use: param.DataAndControl}
		opaque    = param.Transport{Type: param.TypeOpaqueTransport, Opaque: []byte("x")}
		advertise = func(u param.Transport, a ...string) param.Transport { u.Addrs = addresses(a...); return u }
	)
	for _, c := range []struct {
		name       string
		user       param.Transport
		link       link
		want, asap []netip.Addr
		err        error
	}{
		{"TCPServiceOverSCTP", tcpUser, sctpFar, addresses("192.0.2.1"), nil, nil},
		{"ASAP_3_1_03_SCTPServiceHasAllAddressesOfTheAssociation", sctpUser, sctpFar, addresses("192.0.2.1", "2001:db8::1"), nil, nil},
		{"ASAP_3_1_12_NoASAPTransportOverSCTP", tcpUser, sctpNear, addresses("127.0.0.1"), nil, nil},
		{"ControlPortOverTCP", tcpUser, tcpFar, addresses("192.0.2.1"), addresses("192.0.2.1"), nil},
		{"LoopbackToLoopback", tcpUser, tcpNear, addresses("::1"), addresses("::1"), nil},
		{"Advertised", advertise(tcpUser, "192.0.2.7"), tcpFar, addresses("192.0.2.7"), addresses("192.0.2.1"), nil},
		{"AdvertisedLoopbackStaysHome", advertise(sctpUser, "127.0.0.1", "192.0.2.1"), sctpFar, addresses("192.0.2.1"), nil, nil},
		{"NothingButLoopback", advertise(tcpUser, "127.0.0.1"), tcpFar, nil, nil, ErrNoAddress},
		{"MappedAddress", advertise(tcpUser, "::ffff:192.0.2.1"), tcpFar, addresses("192.0.2.1"), addresses("192.0.2.1"), nil},
		{"LinkLocalAddressesAreForNeighbours", sctpUser, sctpLocal, addresses("192.0.2.1"), nil, nil},
		{"NothingButLinkLocal", advertise(tcpUser, "fe80::1"), sctpFar, addresses("fe80::1"), nil, nil},
		{"OpaqueHasNone", opaque, tcpFar, nil, addresses("192.0.2.1"), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{User: c.user}
			user, asap, err := cfg.transports(&c.link)
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			if !slices.Equal(user.Addrs, c.want) || user.Port != c.user.Port || user.Use != c.user.Use {
				t.Errorf("user transport %+v, want addresses %v", user, c.want)
			}
			if !slices.Equal(asap.Addrs, c.asap) || c.asap != nil && asap.Port != 5001 {
				t.Errorf("ASAP transport %+v, want addresses %v", asap, c.asap)
			}
		})
	}
}

func TestASAP_2_1_03_AnyTransportCanBeRegistered(t *testing.T) {
	for _, user := range []param.Transport{
		{Type: param.TypeTCPTransport, Port: 80},
		{Type: param.TypeUDPTransport, Port: 53},
		{Type: param.TypeUDPLiteTransport, Port: 53},
		{Type: param.TypeDCCPTransport, Port: 80, ServiceCode: 7},
		{Type: param.TypeSCTPTransport, Port: 7, Use: param.DataAndControl},
		{Type: param.TypeOpaqueTransport, Opaque: []byte("rfcomm:3")},
	} {
		b := newBench(t, func(c *Config) { c.User = user })
		b.findA()
		b.join()
		reg := registration(t, b.take())
		if data, err := reg.Append(nil); err != nil || len(data) == 0 || reg.Element.User.Type != user.Type {
			t.Errorf("%+v: %v", user, err)
		}
	}
}

func TestNothingUsableToRegisterIsAFailureThatPasses(t *testing.T) {
	b := newBench(t, func(c *Config) { c.User.Addrs = addresses("127.0.0.1") })
	b.findA()
	b.take()
	b.join()
	out := b.expect(Failed, "abandon", "registration failed")
	if err := out[1].(eventOutput).event.Err; !errors.Is(err, ErrNoAddress) {
		t.Errorf("event's error is %v", err)
	}
	if b.deadline().IsZero() {
		t.Error("it is not tried again")
	}
}

func TestValidateNamesAllProblems(t *testing.T) {
	err := Config{
		Life: -5, Reregister: -1, RetryMin: 5, RetryMax: 1, LoadStep: math.NaN(),
		User: param.Transport{Type: param.TypeTCPTransport, Use: param.DataAndControl},
	}.Validate()
	for _, want := range []string{
		"Handle has 0 octets", "port 0", "control channel", "Life is -5", "Networks is missing",
		"neither Registrars nor Announcers", "Reregister is -1ns", "RetryMax is 1ns", "LoadStep is NaN",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate does not say %q:\n%v", want, err)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("New took an empty configuration")
	}
}

func TestLoadOf(t *testing.T) {
	for share, want := range map[float64]uint32{
		-1: 0, 0: 0, 0.5: 1 << 31, 0.25: 1 << 30, 1: param.MaxLoad, 7: param.MaxLoad, math.Inf(1): param.MaxLoad,
	} {
		if got := LoadOf(share); got != want {
			t.Errorf("LoadOf(%v) = %d, want %d", share, got, want)
		}
	}
	if got := LoadOf(math.NaN()); got != 0 {
		t.Errorf("LoadOf(NaN) = %d", got)
	}
}
