package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// registrar is a handlespace without anything around it.
type registrar struct {
	space  *handlespace.Space
	feed   *Feed
	ready  bool
	unsure bool
	reload error
	busy   error // of what is asked for
	ring   *Ring
	merges []RingMerge
}

func (r *registrar) Status() Status { return Status{Registrar: "0x0a0a0a0a", Ready: r.ready} }
func (r *registrar) Ready() bool    { return r.ready }
func (r *registrar) Certain() bool  { return r.ready && !r.unsure }
func (r *registrar) Registrars() []RegistrarInfo {
	return []RegistrarInfo{{ID: "0x0a0a0a0a", Self: true}}
}
func (r *registrar) Space() *handlespace.Space { return r.space }
func (r *registrar) Reload() error             { return r.reload }
func (r *registrar) Ring(context.Context) (Ring, error) {
	if r.busy != nil {
		return Ring{}, r.busy
	}
	if r.ring == nil {
		return Ring{}, ErrNoRing
	}
	return *r.ring, nil
}
func (r *registrar) RingMerges(context.Context) ([]RingMerge, error) { return r.merges, nil }

func (r *registrar) apply(cmd handlespace.Command) []handlespace.Event {
	events := r.space.Apply(cmd)
	for _, e := range events {
		r.feed.Publish(e, time.Now())
	}
	return events
}

func (r *registrar) Register(_ context.Context, h param.PoolHandle, e param.PoolElement) ([]handlespace.Event, error) {
	if r.busy != nil {
		return nil, r.busy
	}
	e.Home = 0x0a0a0a0a
	return r.apply(handlespace.Register{Handle: h, Element: e, Now: time.Now()}), nil
}

func (r *registrar) Remove(_ context.Context, h param.PoolHandle, id param.PEID) ([]handlespace.Event, error) {
	if r.busy != nil {
		return nil, r.busy
	}
	return r.apply(handlespace.Remove{Handle: h, ID: id, Cause: handlespace.Administrative, Now: time.Now()}), nil
}

func server(t *testing.T) (*registrar, *Server) {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	r := &registrar{space: handlespace.New(handlespace.Config{}), feed: NewFeed(2), ready: true}
	s := &Server{cfg: Config{Backend: r, Feed: r.feed, Gatherer: prometheus.NewRegistry(), Log: log, Hosts: []string{"rspd.example"}}}
	return r, s
}

// call makes one request and decodes the answer into out.
func call(t *testing.T, s *Server, method, path, body string, out any, change ...func(*http.Request)) int {
	t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Host = "127.0.0.1:3865"
	for _, f := range change {
		f(req)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, req)
	if out != nil {
		if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
			t.Fatalf("%s %s: %v in %q", method, path, err, w.Body)
		}
	}
	if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" && w.Code != http.StatusForbidden && w.Code != http.StatusMethodNotAllowed {
		t.Errorf("%s %s: error of type %q", method, path, w.Header().Get("Content-Type"))
	}
	return w.Code
}

const service = `{"user_transport":{"protocol":"tcp","port":80,"addresses":["192.0.2.1"]},"policy":{"name":"lu","load":7},"life":60}`

func TestElementLifeCycle(t *testing.T) {
	_, s := server(t)
	path := ElementPath("Echo Pool", 0x11223344)
	var e Element
	if code := call(t, s, "PUT", path, service, &e); code != http.StatusCreated {
		t.Fatalf("PUT: %d %+v", code, e)
	}
	if e.Handle != `Echo\x20Pool` || e.ID != "0x11223344" || e.State != StateActive || e.Policy.Name != "lu" ||
		e.Policy.Load != 7 || e.Life != 60 || e.Expires == nil || e.User.Addresses[0] != "192.0.2.1" {
		t.Errorf("element %+v", e)
	}
	if code := call(t, s, "PUT", path, service, &e); code != http.StatusOK {
		t.Errorf("PUT again: %d", code)
	}
	if code := call(t, s, "GET", path, "", &e); code != http.StatusOK || e.ID != "0x11223344" {
		t.Errorf("GET: %d", code)
	}
	var chosen Element
	if code := call(t, s, "POST", PoolPath("Echo Pool"), service, &chosen); code != http.StatusCreated || chosen.ID == e.ID {
		t.Errorf("POST: %d %+v", code, chosen)
	}
	var pool Pool
	if code := call(t, s, "GET", PoolPath("Echo Pool"), "", &pool); code != http.StatusOK || pool.Elements != 2 || len(pool.Members) != 2 || pool.Transport != "tcp" {
		t.Errorf("pool: %d %+v", code, pool)
	}
	var list PoolList
	if call(t, s, "GET", PathPools, "", &list); len(list.Pools) != 1 || list.Pools[0].Policy != "lu" {
		t.Errorf("pools %+v", list)
	}
	var resolution Resolution
	if call(t, s, "GET", PathResolve+`?pool=Echo\x20Pool&items=1`, "", &resolution); len(resolution.Elements) != 1 || resolution.Policy != "lu" {
		t.Errorf("resolution %+v", resolution)
	}
	if code := call(t, s, "DELETE", path, "", nil); code != http.StatusNoContent {
		t.Errorf("DELETE: %d", code)
	}
	for _, request := range []string{"DELETE " + path, "GET " + path, "GET " + PoolPath("none"), "GET " + PathResolve + "?pool=none"} {
		method, path, _ := strings.Cut(request, " ")
		var p Problem
		if code := call(t, s, method, path, "", &p); code != http.StatusNotFound || p.Status != code || p.Detail == "" {
			t.Errorf("%s: %d %+v", request, code, p)
		}
	}
}

func TestRejectionNamesCauses(t *testing.T) {
	_, s := server(t)
	call(t, s, "PUT", ElementPath("p", 1), service, nil)
	var p Problem
	code := call(t, s, "PUT", ElementPath("p", 2), strings.Replace(service, `"lu"`, `"rr"`, 1), &p)
	if code != http.StatusConflict || len(p.Causes) != 1 || p.Causes[0].Code != "0x5" || p.Causes[0].Name != "Inconsistent Pooling Policy" ||
		p.Causes[0].Policy == nil || p.Causes[0].Policy.Name != "lu" {
		t.Errorf("%d %+v", code, p)
	}
}

func TestBadRequests(t *testing.T) {
	_, s := server(t)
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{"PUT", ElementPath("p", 1), "", http.StatusBadRequest},
		{"PUT", ElementPath("p", 1), "{", http.StatusBadRequest},
		{"PUT", ElementPath("p", 1), "[]", http.StatusBadRequest},
		{"PUT", ElementPath("p", 1), `{"no_such_field":1}`, http.StatusBadRequest},
		{"PUT", ElementPath("p", 1), service + "{}", http.StatusBadRequest},
		{"PUT", ElementPath("p", 1), strings.Replace(service, "60", "0", 1), http.StatusBadRequest},
		{"PUT", ElementPath("p", 1), strings.Replace(service, "60", "1.5", 1), http.StatusBadRequest},
		{"PUT", ElementPath("p", 1), strings.Replace(service, "60", "1e300", 1), http.StatusBadRequest},
		{"PUT", ElementPath("p", 1), strings.Replace(service, `"tcp"`, `"ipx"`, 1), http.StatusBadRequest},
		{"PUT", ElementPath("p", 1), strings.Replace(service, "192.0.2.1", "host", 1), http.StatusBadRequest},
		{"PUT", ElementPath("p", 1), strings.Replace(service, `"lu"`, `"best"`, 1), http.StatusBadRequest},
		{"PUT", ElementPath("p", 1), `{"user_transport":"` + strings.Repeat("x", maxBody) + `"}`, http.StatusRequestEntityTooLarge},
		{"PUT", PathPools + "/p/elements/0", service, http.StatusBadRequest},
		{"PUT", PathPools + "/p/elements/0x1ffffffff", service, http.StatusBadRequest},
		{"GET", PathPools + `/a%5Cz/elements/1`, "", http.StatusBadRequest},
		{"GET", PathPools + `/a%5Cxzz`, "", http.StatusBadRequest},
		{"GET", PathPools + `?limit=0`, "", http.StatusBadRequest},
		{"GET", PathPools + `?limit=-1`, "", http.StatusBadRequest},
		{"GET", PathResolve, "", http.StatusBadRequest},
		{"GET", PathResolve + "?pool=p&items=x", "", http.StatusBadRequest},
		{"POST", PathStatus, "", http.StatusMethodNotAllowed},
	} {
		if code := call(t, s, tt.method, tt.path, tt.body, nil); code != tt.want {
			t.Errorf("%s %s %.60s: %d, want %d", tt.method, tt.path, tt.body, code, tt.want)
		}
	}
}

func TestListIsPaged(t *testing.T) {
	r, s := server(t)
	for i := range 25 {
		e := param.PoolElement{ID: 1, Life: 60, Policy: param.Policy{Type: param.RoundRobin},
			User: param.Transport{Type: param.TypeTCPTransport, Port: 1, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
		r.apply(handlespace.Register{Handle: param.PoolHandle(fmt.Sprintf("p%02d\x00/", i)), Element: e, Now: time.Now()})
	}
	var got []string
	path := PathPools + "?limit=10"
	for pages := 0; ; pages++ {
		var list PoolList
		call(t, s, "GET", path, "", &list)
		for _, p := range list.Pools {
			got = append(got, p.Handle)
		}
		if list.Next == "" {
			if pages != 2 {
				t.Errorf("%d pages", pages+1)
			}
			break
		}
		path = PathPools + "?limit=10&after=" + list.Next
	}
	if len(got) != 25 || got[0] != `p00\x00/` || got[24] != `p24\x00/` {
		t.Errorf("got %q", got)
	}
}

func TestOtherHostsAndOriginsAreRefused(t *testing.T) {
	_, s := server(t)
	for host, want := range map[string]int{
		"127.0.0.1:3865": 200, "[::1]:3865": 200, "localhost:3865": 200, "LOCALHOST": 200, "192.0.2.1": 200,
		"rspd.example:3865": 200, "evil.example": http.StatusMisdirectedRequest, "localhost.evil.example:3865": http.StatusMisdirectedRequest,
		"": http.StatusMisdirectedRequest,
	} {
		if code := call(t, s, "GET", PathStatus, "", nil, func(r *http.Request) { r.Host = host }); code != want {
			t.Errorf("host %q: %d, want %d", host, code, want)
		}
	}
	cross := func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }
	if code := call(t, s, "DELETE", ElementPath("p", 1), "", nil, cross); code != http.StatusForbidden {
		t.Errorf("cross-origin DELETE: %d", code)
	}
	if code := call(t, s, "POST", PathReload, "", nil, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }); code != http.StatusForbidden {
		t.Errorf("cross-site POST: %d", code)
	}
}

func TestSupervision(t *testing.T) {
	r, s := server(t)
	if code := call(t, s, "GET", PathHealthy, "", nil); code != 200 {
		t.Errorf("healthy: %d", code)
	}
	if code := call(t, s, "GET", PathReady, "", nil); code != 200 {
		t.Errorf("ready: %d", code)
	}
	r.ready = false
	if code := call(t, s, "GET", PathReady, "", nil); code != http.StatusServiceUnavailable {
		t.Errorf("not ready: %d", code)
	}
	if code := call(t, s, "POST", PathReload, "", nil); code != 200 {
		t.Errorf("reload: %d", code)
	}
	r.reload = errors.New("bad file")
	var p Problem
	if code := call(t, s, "POST", PathReload, "", &p); code != http.StatusConflict || p.Detail != "bad file" {
		t.Errorf("bad reload: %d %+v", code, p)
	}
}

// What the registrar's state prevents is answered by 503, as supervisors, load
// balancers and clients know what to do then, and not by 500, which means a mistake
// in the program, nor by 404, which would be a lie.
func TestWhatTheStatePreventsIsNotAvailable(t *testing.T) {
	element := ElementPath("p", 1)
	requests := []struct{ method, path, body string }{
		{"PUT", element, service}, {"POST", PoolPath("p"), service}, {"DELETE", element, ""},
		{"GET", PathRing, ""}, {"POST", PathReload, ""},
	}
	negative := []struct{ method, path, body string }{
		{"GET", PoolPath("p"), ""}, {"GET", element, ""}, {"GET", PathResolve + "?pool=p", ""},
	}
	check := func(t *testing.T, s *Server, method, path, body string, want int) {
		t.Helper()
		var p Problem
		req := httptest.NewRequest(method, path, strings.NewReader(body))
		req.Host = "127.0.0.1:3865"
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, req)
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != want || p.Status != want || p.Detail == "" {
			t.Errorf("%s %s: %d %+v, %v, want %d", method, path, w.Code, p, err, want)
		}
		if retry := w.Header().Get("Retry-After"); (retry != "") != (want == http.StatusServiceUnavailable) {
			t.Errorf("%s %s: %d with Retry-After %q", method, path, w.Code, retry)
		}
	}
	for name, err := range map[string]error{
		"not serving": fmt.Errorf("%w: elements and users are not served", ErrUnavailable),
		"wrapped":     fmt.Errorf("ring: %w", fmt.Errorf("%w: not running", ErrUnavailable)),
	} {
		t.Run(name, func(t *testing.T) {
			r, s := server(t)
			r.busy, r.reload = err, err
			for _, q := range requests {
				check(t, s, q.method, q.path, q.body, http.StatusServiceUnavailable)
			}
		})
	}
	t.Run("a mistake stays one", func(t *testing.T) {
		r, s := server(t)
		r.busy = errors.New("mistake")
		for _, q := range requests[:4] {
			check(t, s, q.method, q.path, q.body, http.StatusInternalServerError)
		}
	})
	t.Run("others may know more", func(t *testing.T) {
		r, s := server(t)
		for _, state := range []struct {
			ready, unsure bool
			want          int
		}{{true, false, http.StatusNotFound}, {true, true, http.StatusServiceUnavailable}, {false, false, http.StatusServiceUnavailable}} {
			r.ready, r.unsure = state.ready, state.unsure
			for _, q := range negative {
				check(t, s, q.method, q.path, q.body, state.want)
			}
		}
		r.ready, r.unsure = true, true
		if code := call(t, s, "PUT", element, service, nil); code != http.StatusCreated {
			t.Fatalf("registered: %d", code)
		}
		for _, q := range negative {
			if code := call(t, s, q.method, q.path, q.body, nil); code != http.StatusOK {
				t.Errorf("%s of what is known: %d", q.path, code)
			}
		}
	})
}

func TestOnlyLoopbackUnlessAllowed(t *testing.T) {
	r, s := server(t)
	cfg := s.cfg
	cfg.Address = "0.0.0.0:0"
	if _, err := Listen(context.Background(), cfg); !errors.Is(err, ErrNotLoopback) {
		t.Errorf("got %v", err)
	}
	cfg.AllowRemote = true
	l, err := Listen(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	_ = r
}

// events reads server-sent events.
func events(t *testing.T, body io.Reader, n int) []Event {
	t.Helper()
	var out []Event
	for sc := bufio.NewScanner(body); len(out) < n && sc.Scan(); {
		data, ok := strings.CutPrefix(sc.Text(), "data: ")
		if !ok {
			continue
		}
		var e Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func TestEventStream(t *testing.T) {
	r, s := server(t)
	cfg := s.cfg
	cfg.Address = "127.0.0.1:0"
	l, err := Listen(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() { defer close(served); l.Serve() }()
	open := func(query, last string) *http.Response {
		req, err := http.NewRequest("GET", "http://"+l.Addr().String()+PathEvents+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Last-Event-ID", last)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	all, one := open("", ""), open("?pool=b", "")
	first := events(t, all.Body, 1)
	events(t, one.Body, 1)
	if first[0].Type != EventSnapshot {
		t.Errorf("begins with %+v", first[0])
	}
	if resp := open("", ""); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a third stream of two: %d", resp.StatusCode)
	} else {
		resp.Body.Close()
	}
	for _, h := range []param.PoolHandle{"a", "b"} {
		call(t, s, "PUT", ElementPath(h, 1), service, nil)
		call(t, s, "PUT", ElementPath(h, 1), service, nil)
		call(t, s, "DELETE", ElementPath(h, 1), "", nil)
	}
	got := events(t, all.Body, 6)
	want := []string{EventRegistered, EventUpdated, EventRemoved, EventRegistered, EventUpdated, EventRemoved}
	for i, e := range got {
		if e.Type != want[i] || e.ID != "0x00000001" || e.Element == nil || e.Seq != first[0].Seq+uint64(i)+1 {
			t.Errorf("event %d: %+v", i, e)
		}
	}
	if got[2].Cause != "administrative" {
		t.Errorf("cause %q", got[2].Cause)
	}
	if only := events(t, one.Body, 3); only[0].Handle != "b" || only[2].Type != EventRemoved {
		t.Errorf("of one pool: %+v", only)
	}
	all.Body.Close()
	one.Body.Close()

	// Who comes back goes on behind what it saw; who saw another registrar
	// begins anew.
	var again *http.Response
	for again == nil || again.StatusCode != http.StatusOK { // until the old streams are counted out
		again = open("", fmt.Sprint(got[3].Seq))
	}
	if rest := events(t, again.Body, 2); rest[0].Seq != got[4].Seq || rest[1].Seq != got[5].Seq {
		t.Errorf("goes on with %+v", rest)
	}
	again.Body.Close()
	for again.StatusCode = 0; again.StatusCode != http.StatusOK; {
		again = open("", fmt.Sprint(got[5].Seq+1000))
	}
	if rest := events(t, again.Body, 1); rest[0].Type != EventSnapshot {
		t.Errorf("begins with %+v", rest)
	}
	again.Body.Close()
	if err := l.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-served
	http.DefaultClient.CloseIdleConnections()
	_ = r
}

func TestFeedTellsWhoIsTooSlow(t *testing.T) {
	f := NewFeed(1)
	start := f.Last()
	for range feedLength + 10 {
		f.Publish(handlespace.Absent{}, time.Now())
	}
	if _, known := f.Next(context.Background(), nil, start); known {
		t.Error("changes that are gone were not missed")
	}
	after := f.Last() - feedLength + 1
	for n := 0; after < f.Last(); n++ {
		changes, known := f.Next(context.Background(), nil, after)
		if !known || len(changes) == 0 || changes[0].Seq != after+1 || n > feedLength/feedPage {
			t.Fatalf("known %v, %d changes behind %d", known, len(changes), after)
		}
		after = changes[len(changes)-1].Seq
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if changes, known := f.Next(ctx, nil, after); !known || len(changes) != 0 {
		t.Errorf("known %v, %d changes", known, len(changes))
	}
	if _, known := f.Next(ctx, nil, after+1); known {
		t.Error("the future is known")
	}
}

func TestHandlesAreEscapedOneToOne(t *testing.T) {
	for handle, text := range map[param.PoolHandle]string{
		"EchoPool": "EchoPool", "a b": `a\x20b`, `a\b`: `a\x5cb`, "\x00\xff": `\x00\xff`, "ä/ü": `\xc3\xa4/\xc3\xbc`, "..": "..",
	} {
		if got := EscapeHandle(handle); got != text {
			t.Errorf("%q is written %q, want %q", handle, got, text)
		}
	}
	if got, err := UnescapeHandle("typed as it is: ä"); err != nil || got != "typed as it is: ä" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", `\`, `\x`, `\x1`, `\xg0`, `a\n`, `\\`} {
		if got, err := UnescapeHandle(bad); err == nil {
			t.Errorf("%q was read as %q", bad, got)
		}
	}
	_, s := server(t)
	for _, handle := range []param.PoolHandle{"..", ".", "a/b", "a%2Fb", "?#", "\x00", "elements", "ä"} {
		if code := call(t, s, "PUT", ElementPath(handle, 1), service, nil); code != http.StatusCreated {
			t.Errorf("PUT %q: %d", ElementPath(handle, 1), code)
		}
		if s.cfg.Backend.Space().Get(handle, 1) == nil {
			t.Errorf("%q: registered under another handle", handle)
		}
	}
}

// FuzzRequests sends anything to the API: no panic, no error of the server, and
// what a handle's text means does not change on the way.
func FuzzRequests(f *testing.F) {
	for _, seed := range []struct{ method, path, body string }{
		{"PUT", ElementPath("p", 1), service}, {"GET", PathPools + "?limit=3&after=a", ""},
		{"POST", PoolPath("a/b"), service}, {"DELETE", ElementPath("p", 1), ""},
		{"GET", PathResolve + "?pool=p&items=2", ""}, {"GET", PoolPath(`\`), ""},
	} {
		f.Add(seed.method, seed.path, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		if handle, err := UnescapeHandle(path); err == nil {
			if again, err := UnescapeHandle(EscapeHandle(handle)); err != nil || again != handle {
				t.Errorf("%q became %q, %v", handle, again, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1"+path, strings.NewReader(string(body)))
		if err != nil {
			return
		}
		_, s := server(t)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(leaving{w, cancel}, req)
		if w.Code >= 500 {
			t.Errorf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
	})
}

// leaving is a client that goes when it gets something before the end, as event streams
// have none.
type leaving struct {
	*httptest.ResponseRecorder
	leave context.CancelFunc
}

func (l leaving) Flush() {
	l.ResponseRecorder.Flush()
	l.leave()
}
