package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rserpool/cmd/internal/cli"
	"rserpool/registrar/admin"
)

// member is the admin API of a member of a ring.
type member struct {
	status     admin.Status
	registrars []admin.RegistrarInfo
	asked      atomic.Int64
	// later, if not nil, is the status from the second look on.
	later *admin.Status
}

func (m *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var v any
	switch r.URL.Path {
	case admin.PathStatus:
		s := m.status
		if m.asked.Add(1) > 1 && m.later != nil {
			s = *m.later
		}
		v = s
	case admin.PathRegistrars:
		v = admin.RegistrarList{Registrars: m.registrars}
	case admin.PathRing:
		// The other member is at an address where nothing answers by this port.
		v = admin.Ring{Members: []admin.RingMember{{State: admin.MemberSelf}, {State: admin.MemberConnected, Contact: "tcp://127.0.0.99:9903"}}}
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(v)
}

func TestStatusComparesRegistrars(t *testing.T) {
	ring := func(view string, missing ...string) *admin.RingSummary {
		return &admin.RingSummary{Cluster: "blue", View: view, Members: []string{"0x1", "0x2"}, Synced: true, Whole: len(missing) == 0, Missing: missing}
	}
	well := admin.Status{Registrar: "0x1", Ready: true, Elements: 2, Digest: "aa", Ring: ring("7@0x1/1")}
	well.Ring.Settings = map[string]string{"limit-pools": "5", "limit-elements": "1"}
	sums := []admin.RegistrarInfo{{ID: "0x1", Self: true, Elements: 1, Checksum: "0x1111"}, {ID: "0x2", Elements: 1, Checksum: "0x2222"}}
	second := well
	second.Registrar = "0x2"
	with := func(change func(*member)) *member {
		m := &member{status: second, registrars: sums}
		change(m)
		return m
	}
	for _, tt := range []struct {
		name string
		b    *member
		says string // the problem; empty: none
	}{
		{"agree", with(func(*member) {}), ""},
		{"digests", with(func(m *member) { m.status.Digest = "bb" }), "0x1 and 0x2 disagree: digest aa and bb"},
		{"for a moment", with(func(m *member) { m.status.Digest = "bb"; m.later = &second }), ""},
		{"views", with(func(m *member) { m.status.Ring = ring("8@0x2/1") }), "disagree: view 7@0x1/1 and 8@0x2/1"},
		{"settings", with(func(m *member) {
			m.status.Ring = ring("7@0x1/1")
			m.status.Ring.Settings = map[string]string{"limit-pools": "5", "limit-elements": "2"}
		}), "0x1 and 0x2 disagree: --limit-elements, which members of a ring need alike, 1 and 2"},
		{"settings of an older one", with(func(m *member) { m.status.Ring = ring("7@0x1/1"); m.status.Ring.Settings = nil }), ""},
		{"counts", with(func(m *member) { m.status.Elements = 3 }), "disagree: elements 2 and 3"},
		{"checksums", with(func(m *member) {
			m.registrars = []admin.RegistrarInfo{{ID: "0x2", Self: true, Elements: 1, Checksum: "0x2223"}}
		}), "disagree: checksum of 0x1 0x1111 and none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := httptest.NewServer(&member{status: well, registrars: sums}), httptest.NewServer(tt.b)
			defer a.Close()
			defer b.Close()
			settle := "300ms"
			if tt.says == "" {
				settle = "1m" // ends with their agreement
			}
			code, stdout, stderr := rspctl(t.Context(), nil, "status", "-s", a.URL, "-s", b.URL, "-o", "json", "--settle", settle, "--timeout", "2m")
			var got report
			if err := json.Unmarshal([]byte(stdout), &got); err != nil {
				t.Fatalf("%v: %s %s", err, stdout, stderr)
			}
			problems := strings.Join(got.Problems, "; ")
			if tt.says == "" && (code != cli.OK || problems != "") || tt.says != "" && (code != cli.Degraded || !strings.Contains(problems, tt.says)) {
				t.Errorf("exit %v, problems %q, want %q", code, problems, tt.says)
			}
			if len(got.Others) != 1 || got.Others[0].Registrar != "0x2" || got.Registrar != "0x1" {
				t.Errorf("asked %+v", got)
			}
		})
	}
	for name, tt := range map[string]struct {
		change func(*admin.Status)
		says   string
	}{
		"a peer is missing": {func(s *admin.Status) { s.Ring = ring("7@0x1/1", "tcp://192.0.2.3:9903") }, "not whole, missing: tcp://192.0.2.3:9903"},
		"not synced":        {func(s *admin.Status) { s.Ring = ring("7@0x1/1"); s.Ring.Synced = false }, "do not know the same"},
		"an exchange runs": {func(s *admin.Status) {
			s.Ring = ring("7@0x1/1")
			s.Ring.Synced, s.Ring.Whole = false, false
			s.Ring.Exchange = &admin.RingExchange{Since: time.Now().Add(-7 * time.Second), With: []string{"0x2"}, Awaited: []string{"0x3"}, Commands: 4}
		}, "exchange with 0x2, since "},
		"who is not done": {func(s *admin.Status) {
			s.Ring = ring("7@0x1/1")
			s.Ring.Synced, s.Ring.Whole = false, false
			s.Ring.Exchange = &admin.RingExchange{Since: time.Now().Add(-7 * time.Second), With: []string{"0x2"}, Awaited: []string{"0x3"}, Commands: 4}
		}, ", not done: 0x3, 4 commands wait"},
		"nobody to exchange with": {func(s *admin.Status) {
			s.Ring = ring("7@0x1/1")
			s.Ring.Synced, s.Ring.Exchange = false, &admin.RingExchange{Since: time.Now()}
		}, "waiting for other members, since"},
		"fewer members than wanted": {func(s *admin.Status) { s.Ring = ring("7@0x1/1"); s.Ring.Wanted, s.Ring.Whole = 3, false }, "has 2 members of 3"},
		"two under one identifier": {func(s *admin.Status) {
			s.Ring = ring("7@0x1/1")
			s.Ring.Clashes = []string{"0x2 at tcp://192.0.2.9:9903"}
		}, "use the identifier of a member: 0x2 at tcp://192.0.2.9:9903"},
		"answers wait":           {func(s *admin.Status) { s.Ring = ring("7@0x1/1"); s.Ring.HeldAnswers = 5 }, "answers wait for members of the ring: 5"},
		"not whole for whatever": {func(s *admin.Status) { s.Ring = ring("7@0x1/1"); s.Ring.Whole = false }, "the ring is not whole"},
		"the ring is lost":       {func(s *admin.Status) { s.Ring = &admin.RingSummary{Cluster: "blue", Error: "not running"} }, "the ring does not answer: not running"},
		"not ready":              {func(s *admin.Status) { s.Ready = false }, "not ready"},
		"whole, and by itself":   {func(*admin.Status) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			status := well
			tt.change(&status)
			a := httptest.NewServer(&member{status: status, registrars: sums})
			defer a.Close()
			code, stdout, stderr := rspctl(t.Context(), nil, "status", "-s", a.URL)
			if want := map[bool]cli.ExitCode{true: cli.OK, false: cli.Degraded}[tt.says == ""]; code != want || !strings.Contains(stdout, tt.says) {
				t.Errorf("exit %v, %s %s, want %q", code, stdout, stderr, tt.says)
			}
		})
	}
	t.Run("one does not answer", func(t *testing.T) {
		a, gone := httptest.NewServer(&member{status: well, registrars: sums}), httptest.NewServer(nil)
		defer a.Close()
		gone.Close()
		code, stdout, stderr := rspctl(t.Context(), nil, "status", "-s", gone.URL, "-s", a.URL)
		if code != cli.Degraded || !strings.Contains(stdout, gone.URL+" does not answer") || !strings.Contains(stdout, "0x1") {
			t.Errorf("exit %v, %s %s", code, stdout, stderr)
		}
	})
}

// Other commands ask the next registrar when one can't be reached, or can't answer
// now, and no other.
func TestNextServerWhenOneIsAway(t *testing.T) {
	s, gone := fakeAdmin(t), httptest.NewServer(nil)
	gone.Close()
	if code, stdout, stderr := rspctl(t.Context(), nil, "pools", "-s", gone.URL, "-s", s.URL); code != cli.OK || !strings.Contains(stdout, "echo") {
		t.Errorf("exit %v, %s %s", code, stdout, stderr)
	}
	if code, _, stderr := rspctl(t.Context(), nil, "pool", "show", "nowhere", "-s", s.URL, "-s", gone.URL); code != cli.NotFound {
		t.Errorf("exit %v, %s", code, stderr)
	}
	joining := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(admin.Problem{Status: http.StatusServiceUnavailable, Detail: "not serving yet"})
	}))
	defer joining.Close()
	if code, stdout, stderr := rspctl(t.Context(), nil, "pools", "-s", joining.URL, "-s", s.URL); code != cli.OK || !strings.Contains(stdout, "echo") {
		t.Errorf("exit %v, %s %s", code, stdout, stderr)
	}
	if code, _, stderr := rspctl(t.Context(), nil, "pools", "-s", joining.URL); code != cli.Unreachable || !strings.Contains(stderr, "not serving yet") {
		t.Errorf("exit %v, %s", code, stderr)
	}
	if code, _, stderr := rspctl(t.Context(), nil, "pools", "-s", gone.URL, "-s", gone.URL); code != cli.Unreachable {
		t.Errorf("exit %v, %s", code, stderr)
	}
}

// A clock's difference is shown as exactly as it is known, and marked when it is
// certainly too large.
func TestClocksAsShown(t *testing.T) {
	for _, tt := range []struct {
		clock *admin.RingClock
		want  string
	}{
		{nil, ""},
		{&admin.RingClock{Ahead: 0.0000124, Error: 0.00005}, "+0s"},
		{&admin.RingClock{Ahead: 0.0000124, Error: 0.0000005}, "+12µs"},
		{&admin.RingClock{Ahead: -0.0123456, Error: 0.00005}, "-12.3ms"},
		{&admin.RingClock{Ahead: 0.0123456, Error: 0.0002}, "+12ms"},
		{&admin.RingClock{Ahead: 0.7, Error: 0.3}, "+1s"},
		{&admin.RingClock{Ahead: -3.25, Error: 0.0008}, "-3.25s !"},
		{&admin.RingClock{Ahead: 86400, Error: 0.0008}, "+24h0m0s !"},
	} {
		if got := clock(tt.clock, 0.5); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.clock, got, tt.want)
		}
	}
}

func TestAgeOfAnExchange(t *testing.T) {
	x := admin.RingExchange{Since: noon, With: []string{"0x2"}, Awaited: []string{"0x3"}, Commands: 4}
	if got := exchange(&x, noon.Add(7049*time.Millisecond)); !strings.HasSuffix(got, " (7s), not done: 0x3, 4 commands wait") {
		t.Errorf("%q", got)
	}
}

func TestRingNeedsTheAdminAPI(t *testing.T) {
	if code, _, stderr := rspctl(t.Context(), nil, "ring", "-s", "tcp://127.0.0.1:1"); code != cli.Usage || !strings.Contains(stderr, "know no ring") {
		t.Errorf("exit %v, %s", code, stderr)
	}
	alone := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(admin.Problem{Status: 404, Detail: admin.ErrNoRing.Error()})
	}))
	defer alone.Close()
	if code, _, stderr := rspctl(t.Context(), nil, "ring", "-s", alone.URL); code != cli.NotFound || !strings.Contains(stderr, "in no ring") {
		t.Errorf("exit %v, %s", code, stderr)
	}
}

// A registrar that hangs costs its share of the time. Changes are made at one only.
func TestSilentRegistrarIsPassedOver(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	var asked atomic.Int64
	well := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		(&member{status: admin.Status{Registrar: "0x2", Ready: true}}).ServeHTTP(w, r)
	}))
	defer well.Close()
	run := func(timeout time.Duration, args ...string) (cli.ExitCode, string, string) {
		return rspctl(t.Context(), nil, append(args, "-s", "http://"+silent.Addr().String(), "-s", well.URL, "--timeout", timeout.String(), "-o", "json")...)
	}
	// answered gives more time until the share of the one that answers is enough here.
	answered := func(args ...string) (cli.ExitCode, string, string) {
		for timeout := 400 * time.Millisecond; ; timeout *= 2 {
			if code, stdout, stderr := run(timeout, args...); code != cli.TimedOut || timeout > time.Minute {
				return code, stdout, stderr
			}
		}
	}
	code, _, stderr := run(400*time.Millisecond, "deregister", "web", "1")
	if code != cli.TimedOut || asked.Load() != 0 {
		t.Errorf("deregister: exit code %d (%s), %d requests to the other one", code, stderr, asked.Load())
	}
	code, stdout, stderr := answered("status", "--settle", "0s")
	if code != cli.Degraded || !strings.Contains(stdout, `"registrar": "0x2"`) || !strings.Contains(stdout, "does not answer") {
		t.Errorf("status: exit code %d (%s), %s", code, stderr, stdout)
	}
	if code, _, stderr = answered("registrars"); code != cli.OK {
		t.Errorf("registrars: exit code %d (%s)", code, stderr)
	}
}
