package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rserpool/asap/transport"
	"rserpool/cmd/internal/cli"
	"rserpool/registrar/admin"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rspctl runs the program.
func rspctl(ctx context.Context, networks *transport.Networks, args ...string) (code cli.ExitCode, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = cli.Run(ctx, newCommand(networks), args, &out, &errs)
	return code, out.String(), errs.String()
}

var (
	noon    = time.Date(2026, 3, 1, 12, 0, 0, 250e6, time.UTC)
	evening = noon.Add(6 * time.Hour)
	echo    = admin.Element{
		Handle: "echo", ID: "0x0000000a", Home: "0x11111111", State: admin.StateActive,
		User:   admin.Transport{Protocol: "tcp", Port: 80, Addresses: []string{"192.0.2.7"}},
		Policy: admin.Policy{Name: "wrr", Type: "0x00000002", Weight: 3}, Life: 300, Registered: noon, Refreshed: noon, Expires: &evening,
	}
	suspect = admin.Element{
		Handle: "echo", ID: "0x0000000b", Home: "0x11111111", State: admin.StateSuspect, Cause: "unreachable",
		User:   admin.Transport{Protocol: "sctp", Port: 7, Addresses: []string{"2001:db8::1", "192.0.2.8"}, Control: true},
		ASAP:   &admin.Transport{Protocol: "sctp", Port: 3863, Addresses: []string{"192.0.2.8"}},
		Policy: admin.Policy{Name: "lud", Type: "0x40000002", Degradation: 0x19999999, Load: 0x80000000}, Life: -1, Registered: noon, Refreshed: noon, Reports: 2,
	}
)

// fakeAdmin is an admin API with fixed contents.
func fakeAdmin(t *testing.T) *httptest.Server {
	show := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) }
	}
	problem := func(status int, detail string, causes ...admin.Cause) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(admin.Problem{Title: http.StatusText(status), Status: status, Detail: detail, Causes: causes})
		}
	}
	enrp := []admin.Endpoint{{Protocol: "asap", Network: "tcp", Addrs: []string{"192.0.2.1:3863"}}, {Protocol: "enrp", Network: "sctp", Addrs: []string{"192.0.2.1:9901", "[2001:db8::2]:9901"}}}
	pool := admin.Pool{Handle: "echo", Policy: "wrr", PolicyType: "0x00000002", Transport: "tcp", Elements: 2, Suspects: 1}
	whole := pool
	whole.Members = []admin.Element{echo, suspect}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+admin.PathStatus, show(admin.Status{
		Registrar: "0x11111111", Version: "v1", Started: noon, Ready: true, Pools: 2, Elements: 3, Suspects: 1, Checksum: "0x1234",
		Endpoints: enrp, Networks: []admin.Network{{Name: "tcp"}, {Name: "sctp", Error: "protocol not supported"}}, Conns: 4, Subscribed: 1,
	}))
	mux.HandleFunc("GET "+admin.PathPools, show(admin.PoolList{Pools: []admin.Pool{pool, {Handle: `a\x20b`, Policy: "0x80000001", PolicyType: "0x80000001", Transport: "sctp", Control: true, Elements: 1}}}))
	mux.HandleFunc("GET "+admin.PathPools+"/echo", show(whole))
	mux.HandleFunc("GET "+admin.PathPools+"/", problem(404, "no such pool"))
	mux.HandleFunc("GET "+admin.PathRegistrars, show(admin.RegistrarList{Registrars: []admin.RegistrarInfo{
		{ID: "0x11111111", Self: true, Elements: 3, Endpoints: enrp}, {ID: "0x22222222", Role: admin.RoleMember, Checksum: "0x0102", LastHeard: &noon}}}))
	one := admin.RingMember{ID: "0x11111111", Incarnation: "1772366400250000000", Contact: "tcp://192.0.2.1:9903", State: admin.MemberSelf}
	two := admin.RingMember{ID: "0x22222222", Incarnation: "1772366400250000001", Contact: "tcp://192.0.2.2:9903", State: admin.MemberConnected, Since: &noon, Sent: 1000, Received: 2000, Clock: &admin.RingClock{Ahead: -2.5, Error: 0.0001}}
	three := admin.RingMember{ID: "0x33333333", Incarnation: "1772366400250000002", Contact: "tcp://192.0.2.3:9903", State: admin.MemberAway, Error: "connection refused"}
	view := "7@0x11111111/1772366400250000000"
	mux.HandleFunc("GET "+admin.PathRing, show(admin.Ring{
		Cluster: "blue", State: "hungry", View: view, Coordinator: "0x11111111", Cause: "merge", Synced: true,
		Members: []admin.RingMember{one, two}, Outside: []admin.RingMember{three}, Missing: []string{"tcp://192.0.2.4:9903"}, MissingErrors: map[string]string{"tcp://192.0.2.4:9903": "wrong certificate"},
		Hop: 4711, Sequence: 12, StableLag: 2, Rotation: 0.0123, Backlog: 3, BacklogOctets: 300, InToken: 1,
		Ack: "min-members=3", Wanted: 3, HeldAnswers: 4, MaxSkew: 0.5,
		Locks: []admin.RingLock{{Name: "proxy", Holder: "0x22222222/1772366400250000001", Fence: "7.11", Queue: []string{"0x11111111/1772366400250000000"}}},
		Changes: []admin.RingChange{
			{Time: evening, View: view, Cause: "merge", Members: []string{"0x11111111/1", "0x22222222/2"}, Joined: []string{"0x22222222/2"}},
			{Time: noon, View: "6@0x11111111/1", Cause: "no-ack", Members: []string{"0x11111111/1"}, Left: []string{"0x33333333/3"}},
		},
		Counters: admin.RingCounters{Views: map[string]uint64{"merge": 1, "no-ack": 1}, TokenLost: map[string]uint64{"hungry": 2}, Refused: map[string]uint64{"recent-token": 3, "held-off": 1}, Entries: 99, Resent: 5, HeldOff: 1},
	}))
	mux.HandleFunc("GET "+admin.PathRingMerges, show(admin.RingMergeList{Merges: []admin.RingMerge{
		{Time: evening, View: view, Sides: []string{"6@0x11111111/1", "5@0x22222222/2"}, Differences: 3, Octets: 512, Entries: []admin.MergeItem{
			{Handle: "echo", ID: "0x0000000a", Result: admin.MergeReplaced, KeptHome: "0x11111111", LostHome: "0x22222222", Kept: "2026-03-01T12:00:00.250Z by 0x11111111/1", Lost: "2026-03-01T11:00:00.000Z by 0x22222222/2"},
			{Handle: "echo", ID: "0x0000000b", Result: admin.MergeAdded, KeptHome: "0x22222222", Kept: "2026-03-01T12:00:00.000Z by 0x22222222/2"},
		}},
		{Time: noon, View: view, Sides: []string{"1@0x11111111/1", "1@0x22222222/2"}},
	}}))
	mux.HandleFunc("GET "+admin.PathResolve, show(admin.Resolution{Handle: "echo", Policy: "wrr", Elements: []admin.Element{echo}}))
	mux.HandleFunc("POST "+admin.PathPools+"/echo", func(w http.ResponseWriter, r *http.Request) {
		e := echo
		var request admin.RegisterRequest
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
		}
		e.User, e.ASAP, e.Policy, e.Life = request.User, request.ASAP, request.Policy, request.Life
		_ = json.NewEncoder(w).Encode(e)
	})
	mux.HandleFunc("PUT "+admin.PathPools+"/echo/elements/0x00000001", problem(409, "registration refused", admin.Cause{Code: "0x0005", Name: "Inconsistent Pooling Policy"}))
	mux.HandleFunc("DELETE "+admin.PathPools+"/echo/elements/0x0000000a", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) })
	mux.HandleFunc("DELETE "+admin.PathPools+"/echo/elements/0x0000000c", problem(404, "no such element"))
	mux.HandleFunc("GET "+admin.PathEvents, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Last-Event-ID") != "" {
			problem(http.StatusGone, "enough")(w, r) // ends the watch
			return
		}
		for i, e := range []admin.Event{
			{Type: admin.EventSnapshot},
			{Type: admin.EventRegistered, Handle: "echo", ID: "0x0000000a", Element: &echo},
			{Type: admin.EventRemoved, Handle: "echo", ID: "0x0000000b", Cause: "unreachable", Element: &suspect},
			{Type: admin.EventView, Cause: "no-ack", View: &admin.RingChange{Time: noon, View: "7@0x11111111/1", Cause: "no-ack", Members: []string{"0x11111111/1"}}},
			{Type: admin.EventMerged, Merge: &admin.RingMerge{Time: noon, View: "8@0x11111111/1", Differences: 2}},
		} {
			e.Seq, e.Time = uint64(i+1), noon
			text, _ := json.Marshal(e)
			fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Type, text)
		}
	})
	mux.HandleFunc("GET /", problem(418, "teapot"))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestOutputOfEveryCommandInEveryFormat(t *testing.T) {
	s := fakeAdmin(t)
	for _, test := range []struct {
		name, args string
		code       cli.ExitCode
	}{
		{"pools", "pools", cli.OK},
		{"pool-show", "pool show echo", cli.OK},
		{"pool-show-absent", "pool show nowhere", cli.NotFound},
		{"resolve", "resolve echo --items 1", cli.OK},
		{"registrars", "registrars", cli.OK},
		{"register", "register echo -t sctp://192.0.2.9,[2001:db8::9]:7 --control --asap tcp://192.0.2.9:3864 -p lu:0.5 --life 90s", cli.OK},
		{"register-refused", "register echo -t tcp://192.0.2.9:7 --id 1", cli.Failed},
		{"deregister", "deregister echo 0x0000000a", cli.OK},
		{"deregister-absent", "deregister echo 12", cli.NotFound},
		{"status", "status", cli.Degraded},
		{"ring", "ring", cli.OK},
		{"ring-merges", "ring merges", cli.OK},
		{"watch", "watch", cli.Failed},
	} {
		for _, format := range []string{"table", "wide", "json", "yaml"} {
			t.Run(test.name+"/"+format, func(t *testing.T) {
				code, stdout, stderr := rspctl(t.Context(), nil, append(strings.Fields(test.args), "-s", s.URL, "-o", format)...)
				if code != test.code {
					t.Errorf("exit %d, want %d", code, test.code)
				}
				got := stdout
				if stderr != "" {
					got += "--- stderr\n" + stderr
				}
				golden(t, test.name+"."+format, got)
				if format == "json" && stdout != "" {
					for dec := json.NewDecoder(strings.NewReader(stdout)); ; {
						var v any
						if err := dec.Decode(&v); err == io.EOF {
							break
						} else if err != nil {
							t.Errorf("not JSON: %v", err)
							break
						}
					}
				}
			})
		}
	}
	t.Run("no headers", func(t *testing.T) {
		_, with, _ := rspctl(t.Context(), nil, "pools", "-s", s.URL)
		_, without, _ := rspctl(t.Context(), nil, "pools", "-s", s.URL, "--no-headers")
		if lines := strings.SplitAfter(with, "\n"); len(lines) != 4 || strings.Contains(without, "POOL") || strings.Count(without, "\n") != 2 {
			t.Errorf("with headers\n%swithout\n%s", with, without)
		}
	})
	t.Run("quiet status", func(t *testing.T) {
		if code, stdout, stderr := rspctl(t.Context(), nil, "status", "-q", "-s", s.URL); code != cli.Degraded || stdout+stderr != "" {
			t.Errorf("exit %d, %q, %q", code, stdout, stderr)
		}
	})
	t.Run("completion of pool handles", func(t *testing.T) {
		if _, stdout, _ := rspctl(t.Context(), nil, "__complete", "-s", s.URL, "pool", "show", ""); !strings.HasPrefix(stdout, "echo\na\\x20b\n:4") {
			t.Errorf("completion offers %q", stdout)
		}
	})
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func TestExitCodes(t *testing.T) {
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hang.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	interrupted, cancel := context.WithCancelCause(t.Context())
	cancel(cli.ErrSignal)
	for _, test := range []struct {
		name, args string
		ctx        context.Context
		code       cli.ExitCode
		stderr     string
	}{
		{"nothing there", "pools -s " + gone.URL, t.Context(), cli.Unreachable, "not reachable"},
		{"nothing to watch there", "watch -s " + gone.URL, t.Context(), cli.Unreachable, "not reachable"},
		{"no answer", "pools --timeout 50ms -s " + hang.URL, t.Context(), cli.TimedOut, "deadline"},
		{"interrupted", "pools -s " + hang.URL, interrupted, cli.Interrupted, ""},
		{"unknown command", "poools", t.Context(), cli.Usage, "pools"},
		{"bad server", "pools -s ftp://x", t.Context(), cli.Usage, "unknown network"},
		{"bad HTTP server", "pools -s http://x/y", t.Context(), cli.Usage, "http://host:port"},
		{"bad timeout", "pools --timeout 0s", t.Context(), cli.Usage, "timeout"},
		{"bad compat", "pools --compat rslib", t.Context(), cli.Usage, "compat"},
		{"empty handle", "pool show " + `\x4`, t.Context(), cli.Usage, "pool handle"},
		{"bad identifier", "deregister p 0", t.Context(), cli.Usage, "identifier 0"},
		{"no transport", "register p", t.Context(), cli.Usage, `"transport"`},
		{"bad interval", "watch --interval 0s", t.Context(), cli.Usage, "interval"},
		{"help", "", t.Context(), cli.OK, ""},
		{"version", "version", t.Context(), cli.OK, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, _, stderr := rspctl(test.ctx, nil, strings.Fields(test.args)...)
			if code != test.code || !strings.Contains(stderr, test.stderr) {
				t.Errorf("exit %d, %q, want %d, %q", code, stderr, test.code, test.stderr)
			}
		})
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestBadRegistrationsAreUsageErrors(t *testing.T) {
	for args, want := range map[string]string{
		"-t http://192.0.2.1:1":                      "does not begin with",
		"-t tcp://192.0.2.1":                         "no port",
		"-t tcp://:80":                               "no one's address",
		"-t udp://192.0.2.1,192.0.2.2:1":             "one host",
		"-t tcp://192.0.2.1:1 --control":             "control",
		"-t tcp://192.0.2.1:1 --asap udp://[::1]:1":  "asap",
		"-t tcp://192.0.2.1:1 -p fair":               "policy",
		"-t tcp://192.0.2.1:1 --life 1500ms":         "whole number of seconds",
		"-t tcp://192.0.2.1:1 --life -1s":            "whole number of seconds",
		"-t tcp://192.0.2.1:1 --id 0x1ffffffff":      "identifier",
		"-t sctp://192.0.2.1,192.0.2.2:1,192.0.2.3:": "port",
	} {
		code, _, stderr := rspctl(t.Context(), nil, append([]string{"register", "p", "-s", "http://127.0.0.1:1"}, strings.Fields(args)...)...)
		if code != cli.Usage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %q, want %q", args, code, stderr, want)
		}
	}
}
