package pooltest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/poolelement"
	"rserpool/poolelement/cookie"
	"rserpool/pooluser"
)

// trial is one session under a schedule of faults: an application that sends numbered
// requests, and a service whose state says which it has seen.
type trial struct {
	w        *World
	h        *history
	delivery pooluser.Delivery
	timers   pooluser.Timers
	mistake  mistake
	sealer   *cookie.Sealer
	every    int  // requests from one cookie to the next
	prompt   bool // a cookie goes before each answer
	longest  int  // octets of filling in a request
	inbox    int
	slow     bool // the application naps between two calls of Receive

	mu     sync.Mutex
	rand   map[string]*rand.Rand // of elements
	others int                   // registrars and users
	since  map[string]time.Time  // elements have been well
	calm   bool                  // nothing happens by chance any more
}

const (
	trialPool = param.PoolHandle("counter")
	trialTime = 6 * time.Second // in which incidents begin
)

var trialElements = []string{"e1", "e2", "e3"}

func newTrial(t *testing.T, w *World, delivery pooluser.Delivery, m mistake) *trial {
	sealer, err := cookie.New(cookie.Config{Pool: trialPool, Keys: []cookie.Key{{ID: 1, Secret: []byte("sixteen octets or more")}}})
	if err != nil {
		t.Fatal(err)
	}
	tr := &trial{
		w: w, delivery: delivery, mistake: m, sealer: sealer, timers: pooluser.Fast, every: 1 + w.Rand().IntN(3),
		rand: map[string]*rand.Rand{},
	}
	if w.Rand().IntN(4) == 0 {
		tr.timers = pooluser.Default
	}
	tr.prompt = tr.every == 1
	tr.longest = []int{1, 100, 5000}[w.Rand().IntN(3)]
	tr.inbox, tr.slow = 1+w.Rand().IntN(20), w.Rand().IntN(3) == 0
	tr.h = newHistory(delivery, tr.timers.Total, tr.prompt)
	return tr
}

// chance tells whether something of probability 1/n happens at an element.
func (tr *trial) chance(element string, n int) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	r := tr.rand[element]
	if r == nil {
		r = tr.w.random("chances of " + element)
		tr.rand[element] = r
	}
	return r.IntN(n) == 0 && !tr.calm
}

// start prepares each start of an element: one in three is slow.
func (tr *trial) start(element string) func(*poolelement.ServeConfig) {
	return func(cfg *poolelement.ServeConfig) {
		cfg.Cookies = tr.sealer
		if tr.chance(element, 3) {
			tr.h.count("slow start")
			time.Sleep(300 * time.Millisecond)
		}
	}
}

// serve is the service: it answers each request with its number and the number of
// requests seen.
func (tr *trial) serve(element string) poolelement.HandlerFunc {
	return func(ctx context.Context, s *poolelement.Session) error {
		if tr.chance(element, 6) {
			tr.h.count("slow session")
			time.Sleep(200 * time.Millisecond)
		}
		var st state
		for {
			in, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			switch in.Kind {
			case poolelement.Resumed:
				st = decodeState(in.State)
				tr.h.resumed(st)
			case poolelement.Draining:
				return poolelement.ErrHandOver
			case poolelement.Data:
				if err := tr.answer(ctx, element, s, &st, requestOf(in.Data)); err != nil {
					return err
				}
			}
		}
	}
}

var errHandler = errors.New("the handler fails")

func (tr *trial) answer(ctx context.Context, element string, s *poolelement.Session, st *state, id uint64) error {
	tr.h.request(id)
	if tr.chance(element, 100) {
		tr.h.count("handler failed")
		return errHandler
	}
	if !slices.Contains(st.seen, id) {
		st.seen = append(st.seen, id)
	}
	if len(st.seen)%tr.every == 0 {
		tr.h.save(st)
		if err := s.SaveState(ctx, st.encode()); err != nil {
			return err
		}
		if tr.chance(element, 60) { // the cookie is on its way, and lost
			tr.h.count("crash behind cookie")
			tr.w.Crash(element)
			time.AfterFunc(2*time.Second, func() {
				if !tr.w.Running(element) {
					tr.w.Restart(element)
				}
			})
		}
	}
	return s.Send(ctx, message(fmt.Sprintf("%d %d", id, len(st.seen))))
}

// use is the application: it sends requests until stop is closed, and some more.
func (tr *trial) use(ctx context.Context, s *pooluser.Session, stop <-chan struct{}) {
	var work sync.WaitGroup
	work.Go(func() { tr.receive(ctx, s) })
	defer work.Wait()
	r := tr.w.random("pace")
	for id, more := uint64(1), 10; more > 0; id++ {
		select {
		case <-stop:
			more--
		case <-time.After(tr.pace(r)):
		}
		data := fmt.Sprintf("%d %s", id, strings.Repeat("x", r.IntN(tr.longest)))
		err := s.Send(ctx, pooluser.Message{Data: []byte(data), Request: id})
		switch {
		case err == nil:
			tr.h.locked(func() { tr.h.sent[id] = true })
		case errors.Is(err, pooluser.ErrUncertain):
			tr.h.locked(func() { tr.h.uncertain[id] = true; tr.h.counts["uncertain"]++ })
		default:
			if ctx.Err() == nil {
				tr.ended(err)
			}
			return
		}
	}
}

// pace is the time from one request to the next.
func (tr *trial) pace(r *rand.Rand) time.Duration {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.calm {
		return time.Second
	}
	return time.Duration(5+r.IntN(80)) * time.Millisecond
}

func (tr *trial) receive(ctx context.Context, s *pooluser.Session) {
	r := tr.w.random("naps")
	for {
		if tr.slow && r.IntN(40) == 0 && tr.pace(r) < time.Second {
			time.Sleep(500 * time.Millisecond)
		}
		m, err := s.Receive(ctx)
		switch {
		case err != nil:
			if ctx.Err() == nil {
				tr.ended(err)
			}
			return
		case m.Notification != nil:
			tr.h.notice(*m.Notification)
			if m.Notification.Kind == pooluser.FailoverBegun {
				tr.w.diary.note("u1", fmt.Sprintf("failover from %s: %v", tr.w.Who(m.Notification.Element.ID), m.Notification.Err))
			}
		default:
			tr.h.answer(requestOf(m.Data))
		}
	}
}

// ended notes the end of the session.
func (tr *trial) ended(err error) {
	tr.h.over(err, tr.excused())
	tr.w.diary.note("u1", "session ended: "+err.Error())
}

// sessionConfig draws what does not matter for what is right.
func (tr *trial) sessionConfig() pooluser.SessionConfig {
	r := tr.w.random("session")
	cfg := pooluser.SessionConfig{
		Timers: tr.timers, Delivery: tr.delivery, Notifications: true, SCTPHeartbeats: true, Inbox: tr.inbox,
	}
	if r.IntN(3) > 0 { // else answers come in the order of requests
		cfg.Answers = func(m pooluser.Message) uint64 { return requestOf(m.Data) }
	}
	if r.IntN(3) == 0 {
		cfg.Keep = 1 + r.IntN(5)
	}
	if r.IntN(3) == 0 {
		cfg.Answer = time.Second
	}
	return cfg
}

// run runs the trial and returns what was wrong.
func (tr *trial) run(t *testing.T) []string {
	w := tr.w
	registrars := []string{"r1"}
	if w.Seed()%5 == 0 {
		registrars = []string{"r1", "r2"}
	}
	tr.others = len(registrars) + 1
	if w.Rand().IntN(3) == 0 {
		w.Network().Buffer = 64 // octets of a request can leave without the rest
		tr.longest = min(tr.longest, 100)
	}
	w.Registrars(registrars...)
	for _, name := range trialElements {
		w.Element(name, trialPool, tr.serve(name), tr.start(name))
	}
	policy, measured := &meter{h: tr.h}, w.Rand().IntN(3) == 0
	user := w.User("u1", (&tap{h: tr.h, open: tr.sealer.Open, mistake: tr.mistake}).install, func(cfg *pooluser.Config) {
		cfg.Subscribe = w.Rand().IntN(4) == 0
		if w.Rand().IntN(4) == 0 {
			cfg.Stale = -1
		}
		if measured {
			policy.install(cfg)
		}
	})
	w.Settle()

	ctx, cancel := context.WithCancel(t.Context())
	s, err := user.Open(ctx, trialPool, tr.sessionConfig())
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() { tr.use(ctx, s, stop) })
	work.Go(func() { tr.watch(ctx) })

	elements := Troubles{
		Names: trialElements, Others: []string{"u1", "r1"}, Number: 8,
		Within: trialTime, Shortest: 50 * time.Millisecond, Longest: 2 * time.Second,
	}
	others := Troubles{
		Faults: []Fault{Killed, Hung, Isolated, Stopped}, Names: registrars, Number: 2,
		Within: trialTime, Shortest: 50 * time.Millisecond, Longest: 3 * time.Second,
	}
	alone := Troubles{
		Faults: []Fault{Isolated}, Names: []string{"u1"}, Number: w.Rand().IntN(2),
		Within: trialTime, Shortest: 50 * time.Millisecond, Longest: 2 * time.Second,
	}
	incidents := slices.Concat(elements.Draw(w.Rand()), others.Draw(w.Rand()), alone.Draw(w.Rand()))
	slices.SortStableFunc(incidents, func(a, b Incident) int { return int(a.At - b.At) })
	for _, in := range w.Play(incidents) {
		what := "element"
		switch in.Name {
		case "r1", "r2":
			what = "registrar"
		case "u1":
			what = "user"
		}
		tr.h.count(what + " " + in.Fault.String())
	}
	tr.mu.Lock()
	tr.calm = true
	tr.mu.Unlock()
	w.Settle()
	w.Pass(2 * tr.timers.Total) // what is under way ends
	close(stop)
	w.Pass(2 * tr.timers.Total)
	tr.h.count("trials")
	cancel()
	_ = s.Close()
	work.Wait()
	policy.conclude()
	return tr.h.conclude()
}

// watch notes since when elements have been well, until ctx ends: they run, they are in
// the handlespace, and all registrars and the user are well, too.
func (tr *trial) watch(ctx context.Context) {
	since := map[string]time.Time{}
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		well := tr.well()
		for _, e := range trialElements {
			switch {
			case !slices.Contains(well, e):
				delete(since, e)
			case since[e].IsZero():
				since[e] = time.Now()
			}
		}
		tr.mu.Lock()
		tr.since = maps.Clone(since)
		tr.mu.Unlock()
	}
}

// well returns the names of the elements that are well now.
func (tr *trial) well() []string {
	reachable := tr.w.reachable()
	tr.w.mu.Lock()
	cuts := slices.Clone(tr.w.cuts)
	tr.w.mu.Unlock()
	var names []string
	others := 0
	for _, p := range reachable {
		cut := slices.ContainsFunc(cuts, func(c [2]string) bool { return c[0] == p.name })
		switch {
		case cut || !p.settled():
		case slices.Contains(trialElements, p.name):
			names = append(names, p.name)
		default:
			others++
		}
	}
	if others < tr.others {
		return nil
	}
	return names
}

// excused tells whether no element was well for long enough to go on there.
func (tr *trial) excused() bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, since := range tr.since {
		if time.Since(since) > tr.timers.Total+2*time.Second {
			return false
		}
	}
	return true
}

func message(s string) transport.Message { return transport.Message{Data: []byte(s)} }

// floors are how often things happen in 100 trials at least; otherwise the trials show
// less than they seem to.
var floors = map[string]int{
	"element killed": 40, "element crashed": 40, "element hung": 40, "element isolated": 40, "element parted": 40, "element stopped": 40,
	"registrar killed": 20, "registrar hung": 15, "registrar isolated": 15, "registrar stopped": 15, "user isolated": 20,
	"slow start": 100, "slow session": 30, "handler failed": 50, "crash behind cookie": 50, "cookie lost": 50,
	"failed over": 200, "resumed": 200, "answered": 5000,
}

// floorsOf are those of one kind of delivery.
var floorsOf = map[pooluser.Delivery]map[string]int{
	pooluser.AtMostOnce:  {"unanswered": 200},
	pooluser.AtLeastOnce: {"sent again": 200, "received again": 50, "measured no answer": 50},
}

// testSessions runs trials, and wants enough to have happened in them.
func testSessions(t *testing.T, delivery pooluser.Delivery, sctp bool) {
	t.Parallel()
	trials := 60
	if raceEnabled {
		trials = 5
	}
	counts := map[string]int{}
	Seeds(t, trials, func(t *testing.T, w *World) {
		tr := newTrial(t, w, delivery, none)
		for _, wrong := range tr.run(t) {
			t.Error(wrong)
		}
		for what, n := range tr.h.counts {
			counts[what] += n
		}
	}, func(cfg *Config) { cfg.SCTP = sctp })
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("%7d  %s", counts[what], what)
	}
	if trials = counts["trials"]; trials < 50 || t.Failed() {
		return
	}
	for _, floors := range []map[string]int{floors, floorsOf[delivery]} {
		for what, floor := range floors {
			if got := 100 * counts[what] / trials; got < floor {
				t.Errorf("%s: %d times in 100 trials, want %d at least", what, got, floor)
			}
		}
	}
}

func TestSessionsAtMostOnceOverTCP(t *testing.T)   { testSessions(t, pooluser.AtMostOnce, false) }
func TestSessionsAtLeastOnceOverTCP(t *testing.T)  { testSessions(t, pooluser.AtLeastOnce, false) }
func TestSessionsAtMostOnceOverSCTP(t *testing.T)  { testSessions(t, pooluser.AtMostOnce, true) }
func TestSessionsAtLeastOnceOverSCTP(t *testing.T) { testSessions(t, pooluser.AtLeastOnce, true) }

// The properties find what is planted.
func TestPlantedMistakesAreFound(t *testing.T) {
	const trials = 30
	for _, planted := range []struct {
		mistake  mistake
		delivery pooluser.Delivery
		found    string
	}{
		{staleCookie, pooluser.AtLeastOnce, "the newest that came is"},
		{noCookie, pooluser.AtMostOnce, "before the cookie"},
		{resend, pooluser.AtMostOnce, "goes out on connections"},
		{swallow, pooluser.AtLeastOnce, "is not answered"},
		{swallow, pooluser.AtMostOnce, "never left"},
		{repeatedAnswer, pooluser.AtMostOnce, "is answered 2 times"},
	} {
		t.Run(fmt.Sprintf("%v %v", planted.mistake, planted.delivery), func(t *testing.T) {
			t.Parallel()
			found := false
			for seed := uint64(1); !found && seed <= trials; seed++ {
				Run(t, func(t *testing.T, w *World) {
					tr := newTrial(t, w, planted.delivery, planted.mistake)
					found = slices.ContainsFunc(tr.run(t), func(wrong string) bool { return strings.Contains(wrong, planted.found) })
				}, func(cfg *Config) { cfg.SCTP, cfg.Seed = true, seed })
			}
			if !found {
				t.Errorf("%d trials find nothing wrong", trials)
			}
		})
	}
}
