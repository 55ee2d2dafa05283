package registrars

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/cmd/internal/cli"
)

func TestParse(t *testing.T) {
	good := Settings{Registrars: []string{"192.0.2.1", "tcp://[2001:db8::1]:99"}, Announce: "off", Compat: "none", Timers: "auto"}
	p, err := good.Parse()
	if err != nil || len(p.Endpoints) != 2 || p.Endpoints[0].Port != asap.Port || p.Groups != nil || p.Hunt.T1 != hunt.Default().T1 || p.RSPLib {
		t.Errorf("%+v, %v", p, err)
	}
	groups := map[string]string{
		"auto": "224.0.1.185:3863 [ff05::133]:3863", "239.1.2.3": "239.1.2.3:3863",
		"[ff15::1]:5000,239.1.2.3": "[ff15::1]:5000 239.1.2.3:3863",
	}
	for text, want := range groups {
		s := Settings{Announce: text, Compat: "none", Timers: "fast"}
		if p, err := s.Parse(); err != nil || strings.Trim(fmt.Sprint(p.Groups), "[]") != strings.Trim(want, "[]") {
			t.Errorf("%s: %v, %v, want %s", text, p.Groups, err, want)
		}
	}
	s := Settings{Announce: "auto", Compat: "rsplib", Timers: "auto"}
	p, err = s.Parse()
	if err != nil || !p.RSPLib || !p.Hunt.Ordered || p.Groups[0].String() != "239.0.0.50:3863" || p.Hunt.T5 != hunt.RSPLib().T5 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := Groups("239.1.2.3,192.0.2.1", cli.CompatNone); err == nil {
		t.Error("an address that is no group is accepted")
	}
	bad := Settings{Registrars: []string{"no port:x"}, Announce: "192.0.2.1", Compat: "none", Timers: "slow"}
	_, err = bad.Parse()
	for _, flag := range []string{"registrar", "announce", "timers"} {
		if err == nil || !strings.Contains(err.Error(), flag+":") {
			t.Errorf("%v does not name %s", err, flag)
		}
	}
	if _, err := (&Settings{Announce: "off", Compat: "none", Timers: "rfc"}).Parse(); err == nil {
		t.Error("no way to find a registrar is accepted")
	}
}

func TestHostsOfOneRegistrarStayTogether(t *testing.T) {
	var s Settings
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	s.Declare(fs)
	if err := fs.Parse([]string{"--registrar", "sctp://192.0.2.1,198.51.100.1:3863", "--registrar", "192.0.2.2"}); err != nil {
		t.Fatal(err)
	}
	p, err := s.Parse()
	if err != nil || len(p.Endpoints) != 2 || len(p.Endpoints[0].Hosts) != 2 {
		t.Errorf("%+v, %v; want an endpoint of two hosts and one of one", p.Endpoints, err)
	}
}
