package authority

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
)

func TestMembersAreKnownByTheClustersName(t *testing.T) {
	now := time.Now()
	made, err := New("blue.example", now, AuthorityLife)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := made.PEM()
	if err != nil {
		t.Fatal(err)
	}
	a, err := Parse(cert, key)
	if err != nil || a.Cluster() != "blue.example" {
		t.Fatalf("%v, %v", a, err)
	}
	member, memberKey, err := a.Issue("one", nil, now, MemberLife)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(member, memberKey)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	for _, tt := range []struct {
		name string
		at   time.Time
		ok   bool
	}{
		{"blue.example", now, true},
		{"blue.example", now.Add(-skew / 2), true},
		{"blue.example", now.Add(MemberLife + time.Minute), false},
		{"red.example", now, false},
	} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: tt.name, Roots: roots, CurrentTime: tt.at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if (err == nil) != tt.ok {
			t.Errorf("%s at %v: %v", tt.name, tt.at, err)
		}
	}
	if until := pair.Leaf.NotAfter; until.After(a.Expires()) || until.Before(now.Add(MemberLife-time.Minute)) {
		t.Errorf("ends %v", until)
	}
	late, _, err := a.Issue("late", nil, a.Expires().Add(-time.Hour), MemberLife)
	if err != nil {
		t.Fatal(err)
	}
	if pair, err = tls.X509KeyPair(late, memberKey); err == nil {
		t.Error("another member's key fits")
	}
	if _, err := Parse(member, memberKey); err == nil {
		t.Error("a member is an authority")
	}
	if _, err := Parse(cert, memberKey); err == nil {
		t.Error("a member's key is the authority's")
	}
	if _, err := Parse(bytes.ToUpper(cert), key); err == nil {
		t.Error("parsed what is none")
	}
}

func TestClusterNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"rserpool": true, "a": true, "a-1.b": true, strings.Repeat("a", 64): true,
		"": false, "A": false, "-a": false, "a-": false, "a..b": false, ".a": false, "a b": false, "ü": false, "192.0.2.1": false, strings.Repeat("a", 65): false,
	} {
		if err := CheckCluster(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// A certificate names the registrars as which its owner may speak.
func TestMembersAreBoundToIdentifiers(t *testing.T) {
	now := time.Now()
	a, err := New("blue", now, AuthorityLife)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	for _, ids := range [][]param.RegistrarID{nil, {1}, {0xffffffff, 7}} {
		cert, key, err := a.Issue("m", ids, now, MemberLife)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: "blue", Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
			t.Errorf("%v: %v", ids, err)
		}
		if named, err := transport.NamedRegistrars(pair.Leaf.URIs); err != nil || !slices.Equal(named, ids) {
			t.Errorf("issued for %v, names %v, %v", ids, named, err)
		}
	}
}
