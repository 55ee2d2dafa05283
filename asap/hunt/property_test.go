package hunt

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

// Random events against what must always hold: at most three attempts, each
// request ends exactly once and in bounded time, one transmission per key at a
// time, nothing sent on a connection that isn't up, no deadline in the past.
func TestMachineProperties(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			cfg := Config{Jitter: 0.2, Rand: r.Float64, MaxRequests: 20, MaxAnnounced: 8, Ordered: seed%2 == 0}
			w := &world{t: t, r: r, m: New(cfg), now: epoch, up: map[Link]bool{}, trying: map[Link]bool{}, open: map[RequestID]time.Time{}}
			w.m.SetStatic(endpoints(a1, a2, a3, a4, a5)[:r.IntN(6)], w.now)
			w.m.Start(w.now)
			for range 400 {
				w.step()
				w.settle()
			}
			for range 100 {
				w.advance(10 * time.Second)
			}
			if len(w.open) != 0 {
				t.Errorf("seed %d: %d requests never ended", seed, len(w.open))
			}
			if len(w.m.requests) != 0 || len(w.m.queues) != 0 {
				t.Errorf("seed %d: %d requests and %d queues left", seed, len(w.m.requests), len(w.m.queues))
			}
		})
	}
}

type world struct {
	t          *testing.T
	r          *rand.Rand
	m          *Machine
	now        time.Time
	up, trying map[Link]bool
	open       map[RequestID]time.Time
}

func pick(r *rand.Rand, set map[Link]bool) (Link, bool) {
	n := -1
	if len(set) > 0 {
		n = r.IntN(len(set))
	}
	// Map order is random anyway; the seed governs the rest.
	for l := range set {
		if n == 0 {
			return l, true
		}
		n--
	}
	return 0, false
}

func (w *world) message() asap.Message {
	handle := param.PoolHandle(fmt.Sprint("pool", w.r.IntN(4)))
	switch w.r.IntN(3) {
	case 0:
		return &asap.Registration{Handle: handle, Element: param.PoolElement{ID: 1}}
	case 1:
		return &asap.Deregistration{Handle: handle, ID: 1}
	}
	return &asap.HandleResolution{Handle: handle}
}

func (w *world) response() asap.Message {
	handle := param.PoolHandle(fmt.Sprint("pool", w.r.IntN(4)))
	switch w.r.IntN(4) {
	case 0:
		return &asap.RegistrationResponse{Handle: handle, ID: 1}
	case 1:
		return &asap.DeregistrationResponse{Handle: handle, ID: 1}
	case 2:
		return &asap.Error{}
	}
	return &asap.HandleResolutionResponse{Handle: handle}
}

func (w *world) step() {
	switch w.r.IntN(10) {
	case 0, 1:
		if id, err := w.m.Request(w.message(), w.now); err == nil {
			w.open[id] = w.now
		}
	case 2, 3:
		if l, ok := pick(w.r, w.trying); ok {
			delete(w.trying, l)
			if w.r.IntN(2) == 0 {
				w.m.Failed(l, w.now)
			} else {
				w.up[l] = true
				w.m.Up(l, w.now)
			}
		}
	case 4:
		if l, ok := pick(w.r, w.up); ok {
			delete(w.up, l)
			w.m.Down(l, w.now)
		}
	case 5, 6:
		if l, ok := pick(w.r, w.up); ok {
			w.m.Receive(l, w.response(), w.now)
		}
	case 7:
		var l Link
		if w.r.IntN(2) == 0 && len(w.up) < 10 {
			l = w.m.Incoming()
			w.up[l] = true
		} else {
			l, _ = pick(w.r, w.up)
		}
		w.m.Adopt(l, param.RegistrarID(w.r.IntN(3)), nil, tcp, w.now)
	case 8:
		w.m.Announce(&asap.ServerAnnounce{Registrar: param.RegistrarID(w.r.IntN(20))}, source, w.now)
	case 9:
		w.advance(time.Duration(w.r.IntN(20_000)) * time.Millisecond)
	}
}

func (w *world) advance(d time.Duration) {
	end := w.now.Add(d)
	for {
		w.settle()
		at, ok := w.m.Deadline()
		if !ok || at.After(end) {
			break
		}
		if at.Before(w.now) {
			w.t.Fatalf("deadline %v before now %v", at, w.now)
		}
		w.now = at
		w.m.Tick(at)
		if next, ok := w.m.Deadline(); ok && !next.After(at) {
			w.t.Fatalf("deadline %v not after Tick at %v", next, at)
		}
	}
	w.now = end
}

func (w *world) settle() {
	for out := w.m.Ready(); !out.Empty(); out = w.m.Ready() {
		for _, l := range out.Close {
			delete(w.up, l)
			delete(w.trying, l)
		}
		for _, d := range out.Dials {
			w.trying[d.Link] = true
		}
		if len(w.trying) > 3 {
			w.t.Fatalf("%d attempts at a time", len(w.trying))
		}
		for _, s := range out.Sends {
			if !w.up[s.Link] {
				w.t.Fatalf("send on connection %d, which is not up", s.Link)
			}
		}
		for _, res := range out.Results {
			if _, ok := w.open[res.Request]; !ok {
				w.t.Fatalf("request %d ended twice", res.Request)
			}
			delete(w.open, res.Request)
		}
	}
	if h, ok := w.m.Home(); ok && !w.up[h.Link] {
		w.t.Fatalf("home %d is not up", h.Link)
	}
	for _, q := range w.m.queues {
		for i, req := range q {
			if i > 0 && req.link != 0 {
				w.t.Fatalf("two requests outstanding for %+v", req.key)
			}
		}
	}
}
