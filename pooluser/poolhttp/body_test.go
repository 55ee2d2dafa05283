package poolhttp_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

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

func (brokenBody) Close() error { return nil }

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
