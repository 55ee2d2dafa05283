package poolhttp_test

import (
	"context"
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

	"rserpool/asap/param"
	"rserpool/pooluser"
	"rserpool/pooluser/poolhttp"
)

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
	defer close(release)
	hang := func(http.ResponseWriter, *http.Request) { <-release }
	// With more time, until it is enough here for the one that answers.
	for patience := 50 * time.Millisecond; ; patience *= 2 {
		w := newWorld(t, func(c *poolhttp.Config) { c.Base.ResponseHeaderTimeout = patience }, hang, nil)
		var failed error
		for range 5 {
			if got, _, err := w.do("GET", "", nil); err != nil {
				failed = err
			} else if got != "2" {
				t.Errorf("answer %q, want that of 2", got)
			}
		}
		if failed != nil && patience < 10*time.Second {
			continue
		}
		if failed != nil {
			t.Error(failed)
		}
		if n := w.servers[0].requests.Load(); n != 1 {
			t.Errorf("the hung element got %d requests, want 1", n)
		}
		if got := w.registrar.Reports(); len(got) != 0 {
			t.Errorf("reported %v: it may just be slow", got)
		}
		return
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
	w := newWorld(t, func(c *poolhttp.Config) {
		c.MaxTries = 2
		c.Retry = func(*http.Request) bool {
			time.Sleep(20 * time.Millisecond) // enough to find out that the first lives
			return true
		}
	}, abort, abort, abort)
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

// To a policy that goes by response times an element that fails fast is not a fast one.
func TestFailuresAreNoAnswers(t *testing.T) {
	for name, fail := range map[string]http.HandlerFunc{
		"Status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"Broken": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			for end := time.Now().Add(time.Minute); ; {
				w := newWorld(t, nil, fail, func(w http.ResponseWriter, _ *http.Request) {
					time.Sleep(5 * time.Millisecond)
					fmt.Fprint(w, 2)
				})
				w.setPool(param.PeakEWMA)
				var longest time.Duration
				for range 50 {
					start := time.Now()
					if _, _, err := w.do("GET", "", nil); err != nil {
						t.Fatal(err)
					}
					longest = max(longest, time.Since(start))
				}
				n := w.servers[0].requests.Load()
				if n <= 2 {
					return
				}
				// A failure counts as a second: who takes as long is no better.
				if longest < time.Second || time.Now().After(end) {
					t.Fatalf("the element that fails got %d of 50 requests, of which the longest took %v", n, longest)
				}
			}
		})
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
