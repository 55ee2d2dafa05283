package poolhttp_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
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
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute still not: %s", what)
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
