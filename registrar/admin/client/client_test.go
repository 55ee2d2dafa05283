package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap/param"
	"rserpool/registrar/admin"
)

// tripper answers requests in memory.
type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{}}
}

func newClient(t *testing.T, f tripper) *Client {
	t.Helper()
	c, err := New("127.0.0.1:1", f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"": "http://" + admin.DefaultAddress, "[::1]:80": "http://[::1]:80", "http://a": "http://a:3865",
		"https://a": "https://a", "http://a:1/": "http://a:1", "a": "http://a:3865",
	} {
		if c, err := New(address, nil); err != nil || c.Address() != want {
			t.Errorf("%q: %v, %v, want %q", address, c, err, want)
		}
	}
	for _, address := range []string{"sctp://a:1", "http://", "http://a/b", "http://a?b", "http://a b"} {
		if _, err := New(address, nil); err == nil {
			t.Errorf("%q is taken", address)
		}
	}
}

// Handles of any octets reach the server's routing as one segment, unchanged.
func TestHandlesSurviveTheWay(t *testing.T) {
	mux := http.NewServeMux()
	got := ""
	mux.HandleFunc("GET /api/v1/pools/{pool}", func(w http.ResponseWriter, r *http.Request) {
		got = r.PathValue("pool")
		fmt.Fprint(w, "{}")
	})
	mux.HandleFunc("GET /api/v1/resolve", func(w http.ResponseWriter, r *http.Request) {
		got = r.FormValue("pool")
		fmt.Fprint(w, "{}")
	})
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(r.Method, r.URL.RequestURI(), nil))
		return w.Result(), nil
	})
	for _, h := range []param.PoolHandle{"echo", "a/b", "..", ".", "a b%41?#&=+;", "\x00\xff\\x41", "ü"} {
		for name, call := range map[string]func() error{
			"pool":    func() error { _, err := c.Pool(t.Context(), h); return err },
			"resolve": func() error { _, err := c.Resolve(t.Context(), h, 3); return err },
		} {
			got = ""
			err := call()
			if back, e := admin.UnescapeHandle(got); err != nil || e != nil || back != h {
				t.Errorf("%s %q: server saw %q, %v, %v", name, h, got, err, e)
			}
		}
	}
}

func TestPoolsFollowsPages(t *testing.T) {
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		switch r.URL.Query().Get("after") {
		case "":
			return answer(200, `{"pools":[{"handle":"a"},{"handle":"b"}],"next":"b"}`), nil
		case "b":
			return answer(200, `{"pools":[{"handle":"c"}]}`), nil
		}
		return answer(400, "{}"), nil
	})
	pools, err := c.Pools(t.Context())
	if err != nil || len(pools) != 3 || pools[2].Handle != "c" {
		t.Errorf("%v, %v", pools, err)
	}
}

func TestRegisterAndDeregister(t *testing.T) {
	var seen []string
	c := newClient(t, func(r *http.Request) (*http.Response, error) {
		body := ""
		if r.Body != nil {
			text, _ := io.ReadAll(r.Body)
			body = string(text)
		}
		seen = append(seen, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+body))
		if r.Method == http.MethodDelete {
			return answer(204, ""), nil
		}
		return answer(201, `{"id":"0x00000007"}`), nil
	})
	req := admin.RegisterRequest{User: admin.Transport{Protocol: "tcp", Port: 1, Addresses: []string{"192.0.2.1"}}, Policy: admin.Policy{Name: "rr"}, Life: 60}
	if e, err := c.Register(t.Context(), "p", 0, req); err != nil || e.ID != "0x00000007" {
		t.Error(e, err)
	}
	if _, err := c.Register(t.Context(), "p", 7, req); err != nil {
		t.Error(err)
	}
	if err := c.Deregister(t.Context(), "p", 7); err != nil {
		t.Error(err)
	}
	body := `{"user_transport":{"protocol":"tcp","port":1,"addresses":["192.0.2.1"]},"policy":{"name":"rr","type":""},"life":60}`
	want := []string{"POST /api/v1/pools/p " + body, "PUT /api/v1/pools/p/elements/0x00000007 " + body, "DELETE /api/v1/pools/p/elements/0x00000007"}
	for i := range want {
		if i >= len(seen) || seen[i] != want[i] {
			t.Errorf("request %d: %q, want %q", i, seen, want[i])
		}
	}
}

func TestErrors(t *testing.T) {
	refused := errors.New("connection refused")
	for name, test := range map[string]struct {
		trip tripper
		is   error
		text string
	}{
		"not found": {func(*http.Request) (*http.Response, error) {
			return answer(404, `{"title":"Not Found","detail":"no pool p"}`), nil
		}, ErrNotFound, "no pool p"},
		"refused with causes": {func(*http.Request) (*http.Response, error) {
			return answer(409, `{"title":"Conflict","detail":"refused","causes":[{"code":"0x0005","name":"Inconsistent Pooling Policy"}]}`), nil
		}, nil, "refused; cause 0x0005 (Inconsistent Pooling Policy)"},
		"not a registrar": {func(*http.Request) (*http.Response, error) { return answer(502, `<html>`), nil }, nil, "http://127.0.0.1:1 answers"},
		"not JSON":        {func(*http.Request) (*http.Response, error) { return answer(200, `<html>`), nil }, nil, "answer to GET /api/v1/status"},
		"unreachable":     {func(*http.Request) (*http.Response, error) { return nil, refused }, ErrUnreachable, "http://127.0.0.1:1: connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newClient(t, test.trip).Status(t.Context())
			if err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%v, want %v, %q", err, test.is, test.text)
			}
			if test.is == nil && (errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnreachable)) {
				t.Errorf("%v is more than it should be", err)
			}
		})
	}
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		c := newClient(t, func(r *http.Request) (*http.Response, error) { return nil, r.Context().Err() })
		if _, err := c.Status(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
	})
}

func TestWatchReconnectsBehindTheLastEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []string
		start := time.Now()
		c := newClient(t, func(r *http.Request) (*http.Response, error) {
			tries = append(tries, fmt.Sprintf("%v %s %s", time.Since(start), r.URL.Query().Get("pool"), r.Header.Get("Last-Event-ID")))
			switch len(tries) {
			case 1:
				return answer(200, ": hello\n\nid: 1\nevent: registered\ndata: {\"seq\":1,\ndata: \"type\":\"registered\"}\n\nid: 2\ndata: {\"seq\":2}\n\nid: 3\ndata: {\"se"), nil
			case 2, 3:
				return nil, errors.New("refused")
			}
			return answer(200, "id: 3\ndata: {\"seq\":3}\n\n"), nil
		})
		enough := errors.New("enough")
		var got []uint64
		err := c.Watch(t.Context(), "p q", func(e admin.Event) error {
			got = append(got, e.Seq)
			if e.Seq == 3 {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) || fmt.Sprint(got) != "[1 2 3]" {
			t.Errorf("%v, %v", got, err)
		}
		want := []string{`0s p\x20q `, `250ms p\x20q 2`, `750ms p\x20q 2`, `1.75s p\x20q 2`}
		if fmt.Sprint(tries) != fmt.Sprint(want) {
			t.Errorf("tries %q, want %q", tries, want)
		}
	})
}

func TestWatchEnds(t *testing.T) {
	for name, test := range map[string]struct {
		trip tripper
		want error
	}{
		"not reachable at first": {func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }, ErrUnreachable},
		"refused":                {func(*http.Request) (*http.Response, error) { return answer(404, "{}"), nil }, ErrNotFound},
		"context ended":          {func(*http.Request) (*http.Response, error) { return answer(200, ""), nil }, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := newClient(t, test.trip).Watch(ctx, "", func(admin.Event) error { return nil })
				if !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
			})
		})
	}
	t.Run("event without end", func(t *testing.T) {
		lines := strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 2*maxEvent/1000)
		err := readEvents(strings.NewReader(lines), func(admin.Event, string) error { return nil })
		if !errors.Is(err, errStream) || !strings.Contains(err.Error(), "more than") {
			t.Error(err)
		}
	})
	t.Run("nonsense instead of an event", func(t *testing.T) {
		c := newClient(t, func(*http.Request) (*http.Response, error) { return answer(200, "data: x\n\n"), nil })
		if err := c.Watch(t.Context(), "", func(admin.Event) error { return nil }); err == nil || errors.Is(err, errStream) {
			t.Error(err)
		}
	})
}
