package transport

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	tests := []struct {
		in   string
		want Endpoint
	}{
		{"sctp://10.0.0.1:4000", Endpoint{SCTP, []string{"10.0.0.1"}, 4000}},
		{"sctp://10.0.0.1,10.0.1.1:3863", Endpoint{SCTP, []string{"10.0.0.1", "10.0.1.1"}, 3863}},
		{"sctp://10.0.0.1:5,10.0.1.1:5", Endpoint{SCTP, []string{"10.0.0.1", "10.0.1.1"}, 5}},
		{"tcp://[2001:DB8::1]:80", Endpoint{TCP, []string{"2001:db8::1"}, 80}},
		{"tcp://[::1],127.0.0.1", Endpoint{TCP, []string{"::1", "127.0.0.1"}, 3863}},
		{"tcp://[fe80::1%eth0]", Endpoint{TCP, []string{"fe80::1%eth0"}, 3863}},
		{"tcp://[::ffff:192.0.2.1]", Endpoint{TCP, []string{"192.0.2.1"}, 3863}},
		{"TCP://PR.Example.org", Endpoint{TCP, []string{"pr.example.org"}, 3863}},
		{"mem://pr1:7", Endpoint{Mem, []string{"pr1"}, 7}},
		{"pr1", Endpoint{Auto, []string{"pr1"}, 3863}},
		{"pr1,pr1,PR1", Endpoint{Auto, []string{"pr1"}, 3863}},
		{":3900", Endpoint{Auto, []string{""}, 3900}},
		{"sctp://:0", Endpoint{SCTP, []string{""}, 0}},
	}
	for _, tt := range tests {
		got, err := ParseEndpoint(tt.in, Auto, 3863)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("ParseEndpoint(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}

func TestParseEndpointRefuses(t *testing.T) {
	for in, reason := range map[string]string{
		"":                                "no host",
		"tcp://":                          "no host",
		"tcp://a,":                        "no host",
		"udp://a":                         "unknown network",
		"tcp://a:":                        "no port",
		"tcp://a:x":                       "not a number",
		"tcp://a:65536":                   "not a number",
		"tcp://a:-1":                      "not a number",
		"tcp://a:1,b:2":                   "two ports",
		"tcp://::1":                       "brackets",
		"tcp://::1:80":                    "brackets",
		"tcp://[::1":                      "missing ]",
		"tcp://[::1]x":                    "not a port",
		"tcp://[::1]:":                    "not a port",
		"tcp://[10.0.0.1]":                "not an IPv6 address",
		"tcp://[pr1]":                     "not an IPv6 address",
		"tcp://a,:80":                     "goes with no other",
		"tcp://10.0.0.256":                "neither",
		"tcp://10.0.0":                    "neither",
		"tcp://-a":                        "neither",
		"tcp://a..b":                      "neither",
		"tcp://a b":                       "neither",
		"tcp://a/b":                       "neither",
		"tcp://user@a":                    "neither",
		strings.Repeat("a", 64):           "neither",
		strings.Repeat("a.", 127) + "b.a": "neither",
	} {
		if e, err := ParseEndpoint(in, Auto, 3863); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("ParseEndpoint(%q) = %+v, %v; want an error with %q", in, e, err, reason)
		}
	}
	var many []string
	for i := range MaxHosts + 1 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String())
	}
	if _, err := ParseEndpoint(strings.Join(many, ","), Auto, 1); err == nil {
		t.Errorf("%d hosts were accepted", len(many))
	}
}

func FuzzParseEndpoint(f *testing.F) {
	for _, s := range []string{"sctp://10.0.0.1,10.0.1.1:3863", "tcp://[::1%lo]:1", "mem://pr1", ":0", "a:1,b:1", "[::ffff:1.2.3.4]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEndpoint(s, Auto, 3863)
		if err != nil {
			return
		}
		again, err := ParseEndpoint(e.String(), TCP, 1)
		if err != nil || !reflect.DeepEqual(e, again) {
			t.Errorf("%q: %+v is written %q and read as %+v, %v", s, e, e, again, err)
		}
	})
}

// names is a Resolver for tests.
type names map[string][]netip.Addr

var errNoName = errors.New("no such name")

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if addrs, ok := n[host]; ok {
		return addrs, nil
	}
	return nil, errNoName
}

func TestResolve(t *testing.T) {
	r := names{
		"pr.example": {netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1")},
	}
	tests := []struct{ in, want string }{
		{"pr.example:7", "[2001:db8::1]:7 192.0.2.1:7"},
		{"192.0.2.1,pr.example:7", "192.0.2.1:7 [2001:db8::1]:7"},
		{"gone.example,192.0.2.9:7", "192.0.2.9:7"},
		{":7", "[::]:7"},
	}
	for _, tt := range tests {
		e, err := ParseEndpoint(tt.in, TCP, 0)
		if err != nil {
			t.Fatal(err)
		}
		addrs, err := e.Resolve(t.Context(), r)
		var got []string
		for _, a := range addrs {
			got = append(got, a.String())
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%s resolves to %v, %v; want %s", tt.in, got, err, tt.want)
		}
	}
	e, _ := ParseEndpoint("gone.example", TCP, 0)
	if _, err := e.Resolve(t.Context(), r); !errors.Is(err, errNoName) {
		t.Errorf("unknown name: %v, want the resolver's error", err)
	}
}
