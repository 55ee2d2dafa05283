package transport

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"rserpool/asap/param"
)

func TestRegistrarsThatCertificatesName(t *testing.T) {
	for text, want := range map[string][]param.RegistrarID{
		"":                                      nil,
		"https://a.example/registrar/1 urn:x:y": nil,
		"rserpool://blue/registrar/0x0000000a":  {10},
		"rserpool://blue/registrar/10":          {10},
		"RSERPOOL://blue/registrar/0xffffffff":  {0xffffffff},
		"rserpool://blue/registrar/1 a:b rserpool://red.blue/registrar/2": {1, 2},
		RegistrarURI("blue", 0x11223344).String():                         {0x11223344},
	} {
		if got, err := NamedRegistrars(parse(t, text)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"rserpool://a/registrar/", "rserpool://a/registrar/0", "rserpool://a/registrar/x", "rserpool://a/registrar/0x1ffffffff", "rserpool://a/registrar/-1",
		"rserpool://a/element/1", "rserpool:registrar:1", "rserpool:", "rserpool://a", "rserpool://a/registrar/1 rserpool://a/registrar/x", "rserpool://a/registrar/1/2",
	} {
		if got, err := NamedRegistrars(parse(t, text)); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
}

func parse(t *testing.T, text string) (uris []*url.URL) {
	t.Helper()
	for one := range strings.FieldsSeq(text) {
		u, err := url.Parse(one)
		if err != nil {
			t.Fatal(err)
		}
		uris = append(uris, u)
	}
	return uris
}

// Who names no registrar may be any.
func TestIdentityIsBoundOnlyWhereNamed(t *testing.T) {
	for _, tt := range []struct {
		named []param.RegistrarID
		id    param.RegistrarID
		ok    bool
	}{{nil, 1, true}, {[]param.RegistrarID{1}, 1, true}, {[]param.RegistrarID{1, 2}, 2, true}, {[]param.RegistrarID{1, 2}, 3, false}, {[]param.RegistrarID{1}, 0, false}} {
		err := CheckRegistrar(tt.named, tt.id)
		if (err == nil) != tt.ok {
			t.Errorf("%v as %v: %v", tt.named, tt.id, err)
		}
		if err != nil && !strings.Contains(err.Error(), "for registrar 0x00000001") {
			t.Errorf("says %v", err)
		}
	}
}
