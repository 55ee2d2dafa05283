package poolhttp_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"rserpool/asap/param"
	"rserpool/pooluser"
	"rserpool/pooluser/internal/localpool"
	"rserpool/pooluser/poolhttp"
)

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

func TestUnknownPool(t *testing.T) {
	w := newWorld(t, nil)
	if _, err := w.client.Get("http://nobody/"); !errors.Is(err, pooluser.ErrUnknownPool) {
		t.Errorf("error %v, want ErrUnknownPool", err)
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
