package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/pooluser"
)

// pace is the pause between two requests.
const pace = 5 * time.Millisecond

// answer is one request's end, as the user saw it.
type answer struct {
	at     time.Time
	server string
	tries  int
	err    error // no answer, or a wrong one
	wrong  bool
}

// user asks the pool for squares, one request after the other, for as long as
// its context lives. It knows the pool's name and the registrar's address.
type user struct {
	resolver *pooluser.Resolver
	http     *http.Client

	mu      sync.Mutex
	answers []answer
}

func newUser(registrar, pool string) (*user, error) {
	endpoint, err := transport.ParseEndpoint(registrar, transport.TCP, 3863)
	if err != nil {
		return nil, err
	}
	resolver, err := pooluser.New(pooluser.Config{
		Registrars: []transport.Endpoint{endpoint},
		Networks:   transport.NewNetworks(tcp.New()),
		// Short, so that the show has something to show: the pool is asked for
		// anew every second while a registrar is there.
		Stale: time.Second,
	})
	if err != nil {
		return nil, err
	}
	resolver.Start()
	// Every request goes to the pool, not to a server: the dialer resolves,
	// chooses and connects. Connections are not kept, so that each request
	// chooses anew.
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		return resolver.Dial(ctx, param.PoolHandle(pool))
	}
	return &user{
		resolver: resolver,
		http:     &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}},
	}, nil
}

// run asks until ctx ends.
func (u *user) run(ctx context.Context) {
	defer u.resolver.Stop()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := int64(1); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a := u.ask(ctx, n)
		if ctx.Err() != nil {
			return
		}
		u.mu.Lock()
		u.answers = append(u.answers, a)
		u.mu.Unlock()
	}
}

// ask makes one request. A square can be asked for again safely, so a server that
// dies in the middle of the answer costs a second try on another.
func (u *user) ask(ctx context.Context, n int64) answer {
	var a answer
	for a.tries = 1; a.tries <= 5; a.tries++ {
		a.server, a.wrong, a.err = u.try(ctx, n)
		if a.err == nil || a.wrong || ctx.Err() != nil {
			break
		}
	}
	a.at = time.Now()
	return a
}

func (u *user) try(ctx context.Context, n int64) (server string, wrong bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://pool/square?n=%d", n), nil)
	if err != nil {
		return "", false, err
	}
	resp, err := u.http.Do(req)
	if err != nil {
		return "", false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return "", false, err
	}
	var r result
	if resp.StatusCode != http.StatusOK || json.Unmarshal(body, &r) != nil || r.N != n || r.Square != n*n {
		return r.Server, true, fmt.Errorf("asked for the square of %d, got %s: %q", n, resp.Status, body)
	}
	return r.Server, false, nil
}

// since returns the answers from the i-th on.
func (u *user) since(i int) []answer {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.answers[i:len(u.answers):len(u.answers)]
}

// tally sums up a stretch of answers.
type tally struct {
	requests, retried, unanswered, wrong int
	perServer                            map[string]int
	gap                                  time.Duration // longest time from one right answer to the next
	gapAt                                time.Time
	firstErr                             error
}

func sum(answers []answer, start time.Time) tally {
	t := tally{perServer: make(map[string]int)}
	last := start
	for _, a := range answers {
		t.requests++
		switch {
		case a.wrong:
			t.wrong++
		case a.err != nil:
			t.unanswered++
		default:
			t.perServer[a.server]++
			if a.tries > 1 {
				t.retried++
			}
			if gap := a.at.Sub(last); gap > t.gap {
				t.gap, t.gapAt = gap, a.at
			}
			last = a.at
		}
		if t.firstErr == nil {
			t.firstErr = a.err
		}
	}
	return t
}

// between cuts the answers of one act out of the whole.
func between(answers []answer, from, to time.Time) []answer {
	i, j := 0, len(answers)
	for i < j && answers[i].at.Before(from) {
		i++
	}
	for j > i && answers[j-1].at.After(to) {
		j--
	}
	return answers[i:j]
}
