package main

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"

	"rserpool/asap/param"
	"rserpool/asap/transport/tcp"
	"rserpool/cmd/internal/cli"
	"rserpool/enrp/ring"
	"rserpool/registrar"
	"rserpool/registrar/replica"
)

// built returns what the flags mean.
func built(t *testing.T, args ...string) (registrar.Config, error) {
	t.Helper()
	var c settings
	flags := pflag.NewFlagSet("rspd", pflag.ContinueOnError)
	c.declare(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	l, err := c.cluster.links(log)
	if err != nil {
		return registrar.Config{}, err
	}
	cfg, err := c.build(l, log, true)
	if err == nil {
		cfg = cfg.WithDefaults()
		err = cfg.Validate()
	}
	return cfg, err
}

// made makes a cluster's authority and the certificate of a member, by the
// commands, and returns the flags of the member.
func made(t *testing.T, cluster string) (dir string, flags []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "ca")
	for _, args := range [][]string{{"ca", "init", "--dir", dir, "--name", cluster}, {"ca", "issue", "one", "--dir", dir}} {
		if code, stdout, stderr := run1(t, args...); code != cli.OK || !strings.Contains(stdout, dir) {
			t.Fatalf("%v: exit %v, %s %s", args, code, stdout, stderr)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	return dir, []string{"--cluster", cluster, "--tls-ca", file("ca.crt"), "--tls-cert", file("one.crt"), "--tls-key", file("one.key")}
}

func TestWhoMaySpeak(t *testing.T) {
	_, tls := made(t, "blue")
	insecure := []string{"--insecure"}
	both := append([]string{"--insecure"}, tls...)
	for _, tt := range []struct {
		name, args string
		more       []string
		enrp, ring string // hosts, or what the refusal says
	}{
		{"nothing said", "", nil, "127.0.0.1", ""},
		{"everywhere", "--enrp-listen tcp://:9901 --ring-listen tcp://0.0.0.0", nil, "127.0.0.1", "127.0.0.1"},
		{"a network alone", "--enrp-listen tcp --ring-listen auto", nil, "127.0.0.1", "127.0.0.1"},
		{"loopback", "--enrp-listen tcp://127.0.0.2 --ring-listen tcp://localhost:1", nil, "127.0.0.2", "localhost"},
		{"off", "--enrp-listen off", nil, "", ""},
		{"ENRP elsewhere", "--enrp-listen sctp://192.0.2.1", nil, "REFUSED enrp-listen: sctp://192.0.2.1:9901 is not loopback", ""},
		{"ring elsewhere", "--ring-listen tcp://192.0.2.1", nil, "", "REFUSED ring-listen: tcp://192.0.2.1:9903 is not loopback"},
		{"one host elsewhere", "--ring-listen sctp://127.0.0.1,192.0.2.1", nil, "", "REFUSED is not loopback"},
		{"by name", "--ring-listen tcp://host.example", nil, "", "REFUSED is not loopback"},
		{"peer elsewhere", "--ring-listen auto --peer tcp://host.example", nil, "", "REFUSED peer: tcp://host.example:9903 is not loopback"},
		{"ENRP peer elsewhere", "--enrp-peer sctp://192.0.2.2", nil, "", "REFUSED enrp-peer: sctp://192.0.2.2:9901 is not loopback"},
		{"insecure", "--enrp-listen sctp://192.0.2.1 --ring-listen auto --peer sctp://192.0.2.2", insecure, "192.0.2.1", "<all>"},
		{"with certificates", "--ring-listen tcp://192.0.2.1 --peer tcp://192.0.2.2 --enrp-listen auto", tls, "<all>", "192.0.2.1"},
		{"TLS over SCTP", "--ring-listen sctp://192.0.2.1", tls, "", "REFUSED TLS over SCTP is not available; use tcp://..."},
		{"TLS over SCTP to a peer", "--ring-listen tcp --peer sctp://192.0.2.1", tls, "", "REFUSED TLS over SCTP is not available"},
		{"TLS over SCTP for ENRP", "--enrp-listen sctp", tls, "REFUSED TLS over SCTP is not available", ""},
		{"SCTP for ENRP without TLS", "--enrp-listen sctp://192.0.2.1 --ring-listen tcp://192.0.2.1", both, "192.0.2.1", "192.0.2.1"},
		{"TLS over SCTP although insecure", "--ring-listen sctp", both, "", "REFUSED TLS over SCTP is not available"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := built(t, append(append(strings.Fields(tt.args), "--id", "7"), tt.more...)...)
			for _, want := range []string{tt.enrp, tt.ring} {
				if refusal, ok := strings.CutPrefix(want, "REFUSED "); ok {
					if err == nil || !strings.Contains(err.Error(), refusal) {
						t.Errorf("%v, want %s", err, refusal)
					}
					return
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			first := func(cfg registrar.Config, ring bool) string {
				endpoints := cfg.ENRP
				if ring {
					endpoints = cfg.Ring.Listen
				}
				switch {
				case len(endpoints) == 0:
					return ""
				case endpoints[0].Hosts[0] == "":
					return "<all>"
				}
				return endpoints[0].Hosts[0]
			}
			if first(cfg, false) != tt.enrp || first(cfg, true) != tt.ring {
				t.Errorf("ENRP on %v, ring on %v", cfg.ENRP, cfg.Ring.Listen)
			}
		})
	}
	t.Run("elements and users are let in as before", func(t *testing.T) {
		cfg, err := built(t, append(tls, "--listen", "sctp://192.0.2.1")...)
		if err != nil || cfg.ASAP[0].String() != "sctp://192.0.2.1:3863" || cfg.Networks == cfg.Peering.Networks {
			t.Errorf("%v, %v", cfg.ASAP, err)
		}
	})
}

// A certificate that names registrars is for these alone, and gives one its identifier.
func TestCertificateGivesTheIdentifier(t *testing.T) {
	dir, tls := made(t, "blue")
	issue := func(name string, ids ...string) {
		t.Helper()
		args := []string{"ca", "issue", name, "--dir", dir}
		for _, id := range ids {
			args = append(args, "--id", id)
		}
		if code, stdout, stderr := run1(t, args...); code != cli.OK || len(ids) > 0 != strings.Contains(stdout, "may speak as registrar 0x") {
			t.Fatalf("%v: exit %v, %s %s", args, code, stdout, stderr)
		}
	}
	with := func(name string, more ...string) []string {
		file := func(suffix string) string { return filepath.Join(dir, name+suffix) }
		return append([]string{"--cluster", "blue", "--tls-ca", tls[3], "--tls-cert", file(".crt"), "--tls-key", file(".key")}, more...)
	}
	issue("seven", "7")
	issue("several", "0x8", "9")
	folder, kept := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(kept, identityFile), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		id   param.RegistrarID
		says string
	}{
		{with("seven"), 7, ""},
		{with("seven", "--ring-listen", "tcp://127.0.0.1"), 7, ""},
		{with("seven", "--ring-listen", "tcp://127.0.0.1", "--state-dir", folder), 7, ""},
		{with("seven", "--id", "0x7"), 7, ""},
		{with("seven", "--id", "8"), 0, "the certificate is for registrar 0x00000007, not for 0x00000008"},
		{with("seven", "--ring-listen", "tcp://127.0.0.1", "--state-dir", kept), 0, "not for 0x00000009"},
		{with("several"), 8, ""},
		{with("several", "--id", "9"), 9, ""},
		{with("several", "--ring-listen", "tcp://127.0.0.1", "--state-dir", kept), 9, ""},
		{with("several", "--id", "10"), 0, "for registrar 0x00000008, 0x00000009, not for 0x0000000a"},
		{with("one", "--id", "10"), 10, ""},
		{with("one", "--ring-listen", "tcp://127.0.0.1"), 0, "certificate that names it"},
	} {
		cfg, err := built(t, tt.args...)
		if tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) || tt.says == "" && (err != nil || cfg.ID != tt.id) {
			t.Errorf("%v: %v, %v, want %v %s", tt.args[8:], cfg.ID, err, tt.id, tt.says)
		}
	}
	for _, id := range []string{"0", "x", "0x100000000"} {
		if code, _, stderr := run1(t, "ca", "issue", "bad", "--dir", dir, "--id", id); code != cli.Usage || !strings.Contains(stderr, "id:") {
			t.Errorf("%q: exit %v, %s", id, code, stderr)
		}
	}
}

// What keeps a member of a ring from having an identifier is said once, and not at all if
// it is the certificate that can't be used, which may name it.
func TestMissingIdentifierIsSaidOnce(t *testing.T) {
	_, tls := made(t, "blue")
	ring := []string{"--check-config", "--ring-listen", "tcp://127.0.0.1"}
	for name, test := range map[string]struct {
		args []string
		says string
		lack int // lines about the identifier
	}{
		"no identifier":   {ring, "ring-listen: a member of a ring keeps its identifier", 1},
		"another cluster": {append(ring, append(tls, "--cluster", "red")...), "not red", 0},
		"no certificate":  {append(ring, "--tls-ca", "x", "--tls-cert", "x", "--tls-key", "x"), "no such file", 0},
	} {
		code, _, stderr := run1(t, test.args...)
		if lack := strings.Count(stderr, "identifier"); code != cli.Usage || lack != test.lack || !strings.Contains(stderr, test.says) {
			t.Errorf("%s: exit %v, %s", name, code, stderr)
		}
	}
}

func TestRingSettings(t *testing.T) {
	folder := t.TempDir()
	got, err := built(t, "--ring-listen", "tcp://127.0.0.1", "--peer", "tcp://127.0.0.2", "--peer", "tcp://127.0.0.3:1", "--id", "0x07",
		"--ring-timers", "wan", "--ring-lease", "9s", "--ring-size", "3", "--state-dir", folder, "--ack", "min-members=2", "--ring-advertise", "tcp://127.0.0.9")
	if err != nil {
		t.Fatal(err)
	}
	r := got.Ring
	if got.ID != 7 || r.Cluster != "rserpool" || len(r.Peers) != 2 || r.Peers[0].Port != ringPort || r.Peers[1].Port != 1 || r.Size != 3 || r.StateDir != folder ||
		r.Ack != (replica.Ack{MinMembers: 2}) || r.Timers.HopTimeout != ring.WAN().HopTimeout || r.Timers.Lease != 9*time.Second ||
		r.JoinWait != 6*ring.WAN().ProbeInterval || r.Advertise[0].Port != ringPort {
		t.Errorf("%+v", got.Ring)
	}
	for args, want := range map[string]string{
		"--ring-listen auto":                             "--state-dir",
		"--ring-listen auto --state-dir /does/not/exist": "state-dir",
		"--peer 127.0.0.1":                               "--ring-listen",
		"--ring-listen auto --id 1 --ring-timers slow":   "lan, wan, test",
		"--ring-listen auto --id 1 --ack min-members=0":  "ack",
		"--ring-listen auto --id 1 --ring-size 3":        "folder",
		"--ring-listen auto --id 1 --ring-hop-retry 1s":  "hop retry",
		"--tls-cert x":                        "go together",
		"--tls-cert x --tls-ca x --tls-key x": "no such file",
		"--tls-cert x --tls-ca x --tls-key x --cluster Red_Room!": "cluster name",
		"--enrp-announce auto": "--compat rsplib",
	} {
		if _, err := built(t, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	if got, err = built(t, "--enrp-announce", "auto", "--compat", "rsplib"); err != nil || len(got.Peering.Announce) != 1 {
		t.Errorf("presence by multicast: %v", err)
	}
}

// A member of a ring has the same identifier after a restart.
func TestIdentifierIsKept(t *testing.T) {
	folder := t.TempDir()
	args := []string{"--ring-listen", "tcp", "--state-dir", folder}
	if code, _, stderr := run1(t, append(args, "--check-config")...); code != cli.OK {
		t.Fatal(stderr)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 0 {
		t.Errorf("looking at the configuration leaves %v, %v", entries, err)
	}
	first, err := built(t, args...)
	if err != nil || first.ID == 0 {
		t.Fatalf("%v, %v", first.ID, err)
	}
	again, err := built(t, args...)
	if err != nil || again.ID != first.ID {
		t.Errorf("%v, then %v, %v", first.ID, again.ID, err)
	}
	if given, err := built(t, append(args, "--id", "9")...); err != nil || given.ID != 9 {
		t.Errorf("%v, %v", given.ID, err)
	}
	if err := os.WriteFile(filepath.Join(folder, identityFile), []byte("seven"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := built(t, args...); err == nil || !strings.Contains(err.Error(), identityFile) {
		t.Errorf("a broken file: %v", err)
	}
}

func TestAuthorityCommands(t *testing.T) {
	dir, flags := made(t, "blue")
	for name, want := range map[string]fs.FileMode{"ca.crt": 0o644, "ca.key": 0o600, "one.crt": 0o644, "one.key": 0o600, ".": 0o700} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode().Perm(), err)
		}
	}
	contents := func() string {
		var all strings.Builder
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			data, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			all.WriteString(e.Name() + "\n" + string(data))
		}
		return all.String()
	}
	before := contents()
	for args, want := range map[string]string{
		"ca init --dir " + dir:                         "file exists",
		"ca issue one --dir " + dir:                    "file exists",
		"ca issue ca --dir " + dir:                     "not ca",
		"ca issue ../two --dir " + dir:                 "name",
		"ca issue two --days 0 --dir " + dir:           "days",
		"ca issue two --dir " + dir + "/none":          "rspd ca init",
		"ca init --name Blue! --dir " + dir + "/other": "cluster name",
		"ca issue --dir " + dir:                        "arg",
	} {
		if code, _, stderr := run1(t, strings.Fields(args)...); code == cli.OK || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %v, %s", args, code, stderr)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "half.crt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run1(t, "ca", "issue", "half", "--dir", dir)
	if err := os.Remove(filepath.Join(dir, "half.crt")); err != nil {
		t.Fatal(err)
	}
	if contents() != before {
		t.Error("something was changed or left over")
	}
	if _, err := built(t, flags...); err != nil {
		t.Errorf("what was made can't be used: %v", err)
	}
	if _, err := built(t, append(flags, "--cluster", "red")...); err == nil || !strings.Contains(err.Error(), "red") {
		t.Errorf("in another cluster: %v", err)
	}
	if _, err := tcp.LoadCredentials(tcp.Files{CA: flags[3], Cert: filepath.Join(dir, "ca.crt"), Key: filepath.Join(dir, "ca.key")}, "blue"); err == nil {
		t.Error("the authority's own certificate is a member's")
	}
}
