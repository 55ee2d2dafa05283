package ringnet

import (
	"errors"
	"strings"
	"testing"

	"rserpool/enrp/ring"
)

func TestVersionsInCommon(t *testing.T) {
	tests := []struct {
		a, b versionRange
		want version
		ok   bool
	}{
		{versionRange{1, 1}, versionRange{1, 1}, 1, true},
		{versionRange{1, 1}, versionRange{1, 2}, 1, true},
		{versionRange{1, 2}, versionRange{2, 3}, 2, true},
		{versionRange{1, 3}, versionRange{1, 9}, 3, true},
		{versionRange{1, 1}, versionRange{2, 3}, 0, false},
		{versionRange{4, 5}, versionRange{1, 3}, 0, false},
	}
	for _, tt := range tests {
		for range 2 {
			v, ok := tt.a.common(tt.b)
			if ok != tt.ok || ok && v != tt.want {
				t.Errorf("%s and %s: %d, %v; want %d, %v", tt.a, tt.b, v, ok, tt.want, tt.ok)
			}
			tt.a, tt.b = tt.b, tt.a
		}
	}
}

func TestHello(t *testing.T) {
	h := hello{
		versions: versionRange{1, 2}, cluster: strings.Repeat("c", maxCluster),
		node: ring.Node{Member: ring.Member{ID: 7, Incarnation: 1 << 60}, Contact: strings.Repeat("x", ring.MaxContact)},
	}
	wire := h.append(nil)
	// What a later version adds is passed over.
	if got, err := parseHello(append(wire, 1, 2, 3)); err != nil || got != h {
		t.Errorf("got %+v, %v; want %+v", got, err, h)
	}
	if len(wire)+headerLen > maxHello {
		t.Errorf("the longest hello has %d octets, more than %d", len(wire), maxHello)
	}
	for n := range wire {
		if _, err := parseHello(wire[:n]); !errors.Is(err, errHello) {
			t.Fatalf("the first %d octets of a hello: %v", n, err)
		}
	}
	for name, change := range map[string]func(*hello){
		"no cluster":            func(h *hello) { h.cluster = "" },
		"a long cluster name":   func(h *hello) { h.cluster += "c" },
		"a long contact":        func(h *hello) { h.node.Contact += "x" },
		"no identifier":         func(h *hello) { h.node.ID = 0 },
		"versions upside down":  func(h *hello) { h.versions = versionRange{2, 1} },
		"a version before all ": func(h *hello) { h.versions = versionRange{0, 1} },
	} {
		bad := h
		change(&bad)
		if _, err := parseHello(bad.append(nil)); !errors.Is(err, errHello) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseHello([]byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n")); !errors.Is(err, errHello) {
		t.Errorf("another protocol: %v", err)
	}
}
