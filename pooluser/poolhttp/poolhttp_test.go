package poolhttp_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rserpool/asap/param"
	"rserpool/pooluser"
	"rserpool/pooluser/internal/localpool"
	"rserpool/pooluser/poolhttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is an element: an HTTP server of net/http.
type server struct {
	*httptest.Server
	id       param.PEID
	requests atomic.Int32
	conns    atomic.Int32
}

// world is a pool "web" with a registrar and a client.
type world struct {
	t         *testing.T
	registrar *localpool.Registrar
	resolver  *pooluser.Resolver
	transport *poolhttp.Transport
	client    *http.Client
	servers   []*server
}

// newWorld starts a server for each handler, the first with identifier 1. nil answers
// with the identifier.
func newWorld(t *testing.T, change func(*poolhttp.Config), handlers ...http.HandlerFunc) *world {
	t.Helper()
	w := &world{t: t, registrar: localpool.Start(t)}
	for i, h := range handlers {
		s := &server{id: param.PEID(i + 1)}
		s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			s.requests.Add(1)
			if h != nil {
				h(rw, r)
				return
			}
			fmt.Fprint(rw, i+1)
		}))
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.conns.Add(1)
			}
		}
		s.Config.ErrorLog = nil
		s.Start()
		t.Cleanup(s.Close)
		w.servers = append(w.servers, s)
	}
	w.setPool(param.Priority)
	w.resolver = w.registrar.User(t)
	cfg := poolhttp.Config{Resolver: w.resolver, Base: &http.Transport{}}
	if change != nil {
		change(&cfg)
	}
	transport, err := poolhttp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(transport.Close)
	w.transport, w.client = transport, &http.Client{Transport: transport}
	return w
}

// setPool puts all servers into the pool; with Priority the first of those left
// serves.
func (w *world) setPool(policy param.PolicyType) {
	var elements []param.PoolElement
	for i, s := range w.servers {
		e := localpool.Element(s.id, s.Listener.Addr().String())
		e.Policy = param.Policy{Type: policy, Priority: uint32(100 - i)}
		elements = append(elements, e)
	}
	w.registrar.Set("web", policy, elements...)
}

func (w *world) kill(id param.PEID) {
	w.servers[id-1].CloseClientConnections()
	w.servers[id-1].Close()
}

// do sends a request and returns the answer's body.
func (w *world) do(method, body string, change func(*http.Request)) (string, *http.Response, error) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://web/path", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	res, err := w.client.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	return string(data), res, err
}

func (w *world) want(method, answer string) *http.Response {
	w.t.Helper()
	got, res, err := w.do(method, "", nil)
	if err != nil || got != answer {
		w.t.Errorf("%s: %q, %v; want %q", method, got, err, answer)
	}
	return res
}

// eventually waits for what happens beside.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
	}
}

func (w *world) wantReported(ids ...param.PEID) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%v reported", ids), func() bool {
		return fmt.Sprint(w.registrar.Reports()) == fmt.Sprint(ids)
	})
}

// abort ends the connection without an answer, as a server that dies does.
func abort(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func TestRequestsFollowThePolicyOnKeptConnections(t *testing.T) {
	w := newWorld(t, nil, nil, nil, nil)
	w.setPool(param.RoundRobin)
	for i := range 12 {
		res := w.want("GET", fmt.Sprint(i%3+1))
		if e, ok := poolhttp.Element(res); !ok || e.ID != param.PEID(i%3+1) {
			t.Errorf("answer from %v, %v", e.ID, ok)
		}
		if got := res.Request.URL.String(); got != "http://web/path" {
			t.Errorf("the answer's request is for %q", got)
		}
	}
	for _, s := range w.servers {
		if n := s.conns.Load(); n != 1 {
			t.Errorf("server %v had %d connections, want one that is kept", s.id, n)
		}
	}
	if n := w.registrar.Requests(); n != 1 {
		t.Errorf("%d resolutions, want 1", n)
	}
}

func TestServersSeeThePoolAsHost(t *testing.T) {
	var host, path atomic.Value
	w := newWorld(t, nil, func(rw http.ResponseWriter, r *http.Request) { host.Store(r.Host); path.Store(r.URL.RequestURI()) })
	w.want("GET", "")
	if host.Load() != "web" || path.Load() != "/path" {
		t.Errorf("server saw %v %v", host.Load(), path.Load())
	}
	if _, _, err := w.do("GET", "", func(r *http.Request) { r.Host = "example.org" }); err != nil || host.Load() != "example.org" {
		t.Errorf("server saw %v, %v; want the request's Host", host.Load(), err)
	}
}

func TestHandlesThatAreNoHostNames(t *testing.T) {
	w := newWorld(t, nil, nil)
	odd := param.PoolHandle("my pool/ä:80\x00")
	w.registrar.Set(odd, param.RoundRobin, localpool.Element(1, w.servers[0].Listener.Addr().String()))
	res, err := w.client.Get("http://" + pooluser.Host(odd) + ":8080/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("status %s", res.Status)
	}
	for _, bad := range []string{"http://a~zz/", "http://:80/", "ftp://web/"} {
		if res, err := w.client.Get(bad); err == nil {
			res.Body.Close()
			t.Errorf("%s: %s, want an error", bad, res.Status)
		}
	}
	if _, err := w.client.Get("ftp://web/"); !errors.Is(err, poolhttp.ErrScheme) {
		t.Errorf("error %v, want ErrScheme", err)
	}
}

// Nothing was sent to an element that can't be connected to: any request goes on.
func TestDeadElementsAreReportedAndPassedOver(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		w := newWorld(t, nil, nil, nil)
		w.kill(1)
		got, _, err := w.do(method, "data", func(r *http.Request) { r.GetBody = nil })
		if err != nil || got != "2" {
			t.Errorf("%s: %q, %v", method, got, err)
		}
		w.wantReported(1)
		for range 3 {
			w.want(method, "2")
		}
	}
}

func TestFailoverInTheMiddleOfARequest(t *testing.T) {
	type row struct {
		name   string
		method string
		change func(*http.Request)
		second bool // the second element answers
	}
	for _, r := range []row{
		{"GET", "GET", nil, true},
		{"HEAD", "HEAD", nil, true},
		{"PUT", "PUT", nil, true},
		{"DELETE", "DELETE", nil, true},
		{"POST", "POST", nil, false},
		{"PATCH", "PATCH", nil, false},
		{"POSTWithKey", "POST", func(r *http.Request) { r.Header["Idempotency-Key"] = []string{"k"} }, true},
		{"POSTWithUnsentKey", "POST", func(r *http.Request) { r.Header["X-Idempotency-Key"] = nil }, true},
		{"PUTWithoutGetBody", "PUT", func(r *http.Request) { r.GetBody = nil }, false},
	} {
		t.Run(r.name, func(t *testing.T) {
			var body atomic.Value
			var first *httptest.Server
			w := newWorld(t, nil,
				func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.ReadAll(r.Body)
					_ = first.Listener.Close() // it dies
					abort(nil, nil)
				},
				func(_ http.ResponseWriter, r *http.Request) {
					data, _ := io.ReadAll(r.Body)
					body.Store(string(data))
				})
			first = w.servers[0].Server
			_, res, err := w.do(r.method, "the body", r.change)
			if !r.second {
				var failed *pooluser.DialError
				if !errors.As(err, &failed) || len(failed.Attempts) != 1 || failed.Attempts[0].Element.ID != 1 {
					t.Errorf("error %v, want one about element 1", err)
				}
				if n := w.servers[1].requests.Load(); n != 0 {
					t.Errorf("%d requests at the second element", n)
				}
			} else if err != nil || res.StatusCode != 200 || body.Load() != "the body" {
				t.Errorf("answer %v, %v, body %q; want the second element's", res, err, body.Load())
			}
			w.wantReported(1)
		})
	}
}

// An element that ends a connection but lives is not reported, and comes back.
func TestLivingElementsAreNotReported(t *testing.T) {
	var bad atomic.Bool
	bad.Store(true)
	w := newWorld(t, nil, func(rw http.ResponseWriter, r *http.Request) {
		if bad.Load() {
			abort(rw, r)
		}
		fmt.Fprint(rw, 1)
	}, nil)
	w.want("GET", "2")
	bad.Store(false)
	eventually(t, "element 1 in use again", func() bool {
		got, _, err := w.do("GET", "", nil)
		return err == nil && got == "1"
	})
	if got := w.registrar.Reports(); len(got) != 0 {
		t.Errorf("reported %v", got)
	}
}

func TestHungElementsAreLeftOut(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, func(c *poolhttp.Config) { c.Base.ResponseHeaderTimeout = 50 * time.Millisecond },
		func(http.ResponseWriter, *http.Request) { <-release }, nil)
	defer close(release)
	for range 5 {
		w.want("GET", "2")
	}
	if n := w.servers[0].requests.Load(); n != 1 {
		t.Errorf("the hung element got %d requests, want 1", n)
	}
	if got := w.registrar.Reports(); len(got) != 0 {
		t.Errorf("reported %v: it may just be slow", got)
	}
}

func TestDeathWithinTheAnswer(t *testing.T) {
	var first *httptest.Server
	w := newWorld(t, nil, func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprint(rw, "half an ans")
		_ = http.NewResponseController(rw).Flush()
		_ = first.Listener.Close()
		abort(rw, r)
	}, nil)
	first = w.servers[0].Server
	if got, _, err := w.do("GET", "", nil); err == nil || got != "half an ans" {
		t.Errorf("read %q, %v; want half of it and an error", got, err)
	}
	w.wantReported(1)
	w.want("GET", "2")
}

func busy(after string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		if after != "" {
			rw.Header().Set("Retry-After", after)
		}
		rw.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(rw, "busy")
	}
}

func TestBusyElements(t *testing.T) {
	t.Run("AnotherOneAnswers", func(t *testing.T) {
		for _, after := range []string{"120", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)} {
			w := newWorld(t, nil, busy(after), nil)
			for range 4 {
				w.want("GET", "2")
			}
			if n := w.servers[0].requests.Load(); n != 1 {
				t.Errorf("Retry-After %s: %d requests at the busy element, want 1", after, n)
			}
			if got := w.registrar.Reports(); len(got) != 0 {
				t.Errorf("reported %v", got)
			}
		}
	})
	t.Run("WithoutRetryAfterItIsAnAnswer", func(t *testing.T) {
		for _, after := range []string{"", "soon"} {
			w := newWorld(t, nil, busy(after), nil)
			if res := w.want("GET", "busy"); res.StatusCode != 503 {
				t.Errorf("status %s", res.Status)
			}
		}
	})
	t.Run("NotIdempotentIsAnswered", func(t *testing.T) {
		w := newWorld(t, nil, busy("1"), nil)
		w.want("POST", "busy")
		w.want("POST", "2") // the busy one is left out
	})
	t.Run("AllAreBusy", func(t *testing.T) {
		w := newWorld(t, nil, busy("1"), busy("1"))
		if res := w.want("GET", "busy"); res.StatusCode != 503 || res.Header.Get("Retry-After") != "1" {
			t.Errorf("answer %v", res)
		}
		if a, b := w.servers[0].requests.Load(), w.servers[1].requests.Load(); a != 1 || b != 1 {
			t.Errorf("%d and %d requests, want one each", a, b)
		}
	})
	t.Run("TheOtherIsDead", func(t *testing.T) {
		w := newWorld(t, nil, busy("1"), nil)
		w.kill(2)
		w.want("GET", "busy")
		w.wantReported(2)
	})
}

func TestTriesAreBounded(t *testing.T) {
	w := newWorld(t, func(c *poolhttp.Config) { c.MaxTries = 2 }, abort, abort, abort)
	_, _, err := w.do("GET", "", nil)
	var failed *pooluser.DialError
	if !errors.As(err, &failed) || len(failed.Attempts) != 2 {
		t.Fatalf("error %v, want two attempts", err)
	}
	for _, part := range []string{`pool "web"`, "0x00000001", "0x00000002"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}

func TestUnknownPool(t *testing.T) {
	w := newWorld(t, nil)
	if _, err := w.client.Get("http://nobody/"); !errors.Is(err, pooluser.ErrUnknownPool) {
		t.Errorf("error %v, want ErrUnknownPool", err)
	}
}

func TestContextEndsARequestAndBlamesNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	w := newWorld(t, nil, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-release
	}, nil)
	_, _, err := w.do("GET", "", func(r *http.Request) { *r = *r.WithContext(ctx) })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want Canceled", err)
	}
	if n := w.servers[1].requests.Load(); n != 0 {
		t.Errorf("%d requests at another element", n)
	}
	if e, err := w.resolver.Select(t.Context(), "web"); err != nil || e.ID != 1 {
		t.Errorf("selected %v, %v; want 1, which did nothing wrong", e.ID, err)
	}
}

// trackedBody knows whether it was closed.
type trackedBody struct {
	io.Reader
	closed atomic.Int32
}

func (b *trackedBody) Close() error { b.closed.Add(1); return nil }

func TestBodiesAreClosedOnceWhateverHappens(t *testing.T) {
	for name, handlers := range map[string][]http.HandlerFunc{
		"answered": {nil}, "dead": {nil}, "broken": {abort}, "nobody": nil,
	} {
		for _, read := range []string{"", "data"} {
			w := newWorld(t, nil, handlers...)
			if name == "dead" {
				w.kill(1)
			}
			body := &trackedBody{Reader: strings.NewReader(read)}
			_, _, err := w.do("POST", "", func(r *http.Request) { r.Body, r.GetBody, r.ContentLength = body, nil, -1 })
			if (err == nil) != (name == "answered") {
				t.Errorf("%s: %v", name, err)
			}
			eventually(t, "body closed", func() bool { return body.closed.Load() == 1 })
		}
	}
}

type brokenBody struct{}

var errBody = errors.New("can't be read")

func (brokenBody) Read([]byte) (int, error) { return 0, errBody }
func (brokenBody) Close() error             { return nil }

func TestRequestsAtFaultBlameNobody(t *testing.T) {
	w := newWorld(t, nil, nil, nil)
	if _, _, err := w.do("PUT", "", func(r *http.Request) { r.Body, r.ContentLength = brokenBody{}, -1 }); !errors.Is(err, errBody) {
		t.Errorf("error %v, want the body's", err)
	}
	if _, _, err := w.do("GET", "", func(r *http.Request) { r.Header.Set("X", "a\nb") }); err == nil {
		t.Error("a line break in a header was sent")
	}
	w.want("GET", "1")
	if got := w.registrar.Reports(); len(got) != 0 || w.servers[1].requests.Load() != 0 {
		t.Errorf("reported %v", got)
	}
}

// To a policy that goes by response times an element that fails fast is not a fast one.
func TestFailuresAreNoAnswers(t *testing.T) {
	for name, fail := range map[string]http.HandlerFunc{
		"Status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"Broken": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil, fail, func(w http.ResponseWriter, _ *http.Request) {
				time.Sleep(5 * time.Millisecond)
				fmt.Fprint(w, 2)
			})
			w.setPool(param.PeakEWMA)
			for range 50 {
				if _, _, err := w.do("GET", "", nil); err != nil {
					t.Fatal(err)
				}
			}
			if n := w.servers[0].requests.Load(); n > 2 {
				t.Errorf("the element that fails got %d of 50 requests", n)
			}
		})
	}
}

func TestKeysSelect(t *testing.T) {
	w := newWorld(t, nil, nil, nil, nil)
	w.setPool(param.RendezvousHashing)
	for i := range w.servers {
		w.servers[i].requests.Store(0)
	}
	seen := map[string]string{}
	for i := range 40 {
		key := fmt.Sprint("customer", i%10)
		got, _, err := w.do("GET", "", func(r *http.Request) { *r = *r.WithContext(pooluser.WithKey(r.Context(), key)) })
		if err != nil {
			t.Fatal(err)
		}
		if seen[key] != "" && seen[key] != got {
			t.Errorf("%s went to %s and %s", key, seen[key], got)
		}
		seen[key] = got
	}
}

func TestHTTPSAndHTTP2(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, r.Proto) }))
		s.EnableHTTP2 = h2
		s.StartTLS()
		t.Cleanup(s.Close)
		roots := x509.NewCertPool()
		roots.AddCert(s.Certificate())
		w := newWorld(t, func(c *poolhttp.Config) {
			c.Base = &http.Transport{ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: roots}}
		})
		// The pools have the name that is in the test server's certificate, and another.
		for _, pool := range []param.PoolHandle{"example.com", "other"} {
			w.registrar.Set(pool, param.RoundRobin, localpool.Element(1, s.Listener.Addr().String()))
		}
		res, err := w.client.Get("https://example.com:443/")
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]; string(data) != want {
			t.Errorf("spoke %s, want %s", data, want)
		}
		var name x509.HostnameError
		if _, err := w.client.Get("https://other/"); !errors.As(err, &name) {
			t.Errorf("error %v, want the certificate refused", err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	_, err := poolhttp.New(poolhttp.Config{MaxTries: -1, Rest: -1})
	if err == nil {
		t.Fatal("bad configuration accepted")
	}
	for _, part := range []string{"resolver", "MaxTries", "Rest"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %s", err, part)
		}
	}
}

// Workers ask a pool of three servers, which die one after the other and come back.
func TestNoRequestFailsWhileServersComeAndGo(t *testing.T) {
	w := newWorld(t, func(c *poolhttp.Config) { c.MaxTries = 8 }, nil, nil, nil)
	w.setPool(param.RoundRobin)
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	var answers atomic.Int32
	for range 16 {
		workers.Go(func() {
			for ctx.Err() == nil {
				if _, _, err := w.do("GET", "", nil); err != nil {
					t.Error(err)
				}
				answers.Add(1)
			}
		})
	}
	for round := range 6 {
		before := answers.Load()
		s := w.servers[round%3]
		at := s.Listener.Addr().String()
		s.CloseClientConnections()
		s.Close()
		eventually(t, "requests go on", func() bool { return answers.Load() > before+200 })
		listener, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		revived := httptest.NewUnstartedServer(s.Config.Handler)
		_ = revived.Listener.Close()
		revived.Listener = listener
		revived.Start()
		t.Cleanup(revived.Close)
		s.Server = revived
		s.requests.Store(0)
		w.resolver.Purge("web") // or it is left out until the next answer
		eventually(t, "the server is used again", func() bool { return s.requests.Load() > 0 })
	}
	cancel()
	workers.Wait()
}

// What a pool costs beside a request to one server.
func BenchmarkRequest(b *testing.B) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	registrar := localpool.Start(b)
	registrar.Set("web", param.RoundRobin, localpool.Element(1, s.Listener.Addr().String()))
	transport, err := poolhttp.New(poolhttp.Config{Resolver: registrar.User(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer transport.Close()
	direct := &http.Transport{}
	defer direct.CloseIdleConnections()
	for name, way := range map[string]struct {
		transport http.RoundTripper
		url       string
	}{"Pool": {transport, "http://web/"}, "Server": {direct, s.URL}} {
		b.Run(name, func(b *testing.B) {
			client := &http.Client{Transport: way.transport}
			b.ReportAllocs()
			for b.Loop() {
				res, err := client.Get(way.url)
				if err != nil {
					b.Fatal(err)
				}
				if err := res.Body.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
