package sim

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
	"rserpool/selection"
)

// Streams of random numbers; those of the users follow.
const (
	streamRegistrar = iota
	streamSelection
	streamUsers
)

const (
	pool      = param.PoolHandle("simulated")
	registrar = param.RegistrarID(1)
)

// start is when a simulation begins.
var start = time.Unix(0, 0).UTC()

func clock(t float64) time.Time { return start.Add(time.Duration(t * 1e9)) }

// Kinds of events.
type kind int

const (
	sends     kind = iota // user
	reaches               // request, element
	completes             // element
	reports               // element
	changes               // change
	begins                // measurement
	stops                 // measurement and arrivals
)

type event struct {
	t       float64
	seq     uint64
	kind    kind
	n       int
	turn    uint64 // completes: void if the server's is another
	request *request
}

type events []event

func (h events) Len() int { return len(h) }
func (h events) Less(i, k int) bool {
	return h[i].t < h[k].t || h[i].t == h[k].t && h[i].seq < h[k].seq
}
func (h events) Swap(i, k int) { h[i], h[k] = h[k], h[i] }
func (h *events) Push(x any)   { *h = append(*h, x.(event)) }
func (h *events) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// user is one pool user with its cache.
type user struct {
	rand   *rand.Rand // of its requests
	choice *selection.User
	asked  float64
}

// member is an element as it is registered.
type member struct {
	away    bool
	sent    float64 // load of the last registration
	sentAt  float64
	waiting bool // a report is due
}

type simulation struct {
	cfg     Config
	policy  selection.Definition
	space   *handlespace.Space
	random  *rand.Rand // of the users' choices
	agenda  events
	seq     uint64
	t       float64
	users   []user
	servers []server
	members []member

	stopped  bool
	before   []float64 // work done when measurement began
	inside   int       // requests on their way
	insideAt float64
	area     float64
	result   Result
	records  []*handlespace.Record
}

// Run simulates. Errors are those of Validate, or that the pool had no element
// when a user wanted one.
func Run(cfg Config) (*Result, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	d, _ := selection.ByName(cfg.Policy)
	s := &simulation{
		cfg:    cfg,
		policy: d,
		space: handlespace.New(handlespace.Config{
			Rand: cfg.stream(streamRegistrar), RemovalShare: 1,
		}),
		random:  cfg.stream(streamSelection),
		users:   make([]user, cfg.Users),
		servers: make([]server, len(cfg.Elements)),
		members: make([]member, len(cfg.Elements)),
		before:  make([]float64, len(cfg.Elements)),
		result:  Result{Elements: make([]ElementResult, len(cfg.Elements))},
	}
	for i, e := range cfg.Elements {
		s.servers[i] = server{Element: e, factor: 1}
		s.register(i)
	}
	for i := range s.users {
		s.users[i] = user{rand: cfg.stream(streamUsers + i)}
		s.plan(event{kind: sends, n: i}, s.gap(i))
	}
	for i, c := range cfg.Changes {
		s.plan(event{kind: changes, n: i}, c.At)
	}
	s.plan(event{kind: begins}, cfg.Warmup)
	s.plan(event{kind: stops}, cfg.Warmup+cfg.Duration)
	for len(s.agenda) > 0 {
		e := heap.Pop(&s.agenda).(event)
		s.t = e.t
		if err := s.happen(e); err != nil {
			return nil, err
		}
	}
	result := s.finish() // a copy: the simulation is garbage now
	return &result, nil
}

func (c Config) stream(n int) *rand.Rand { return rand.New(rand.NewPCG(c.Seed, uint64(n))) }

// plan puts an event on the agenda, so much later than now.
func (s *simulation) plan(e event, later float64) {
	s.seq++
	e.t, e.seq = s.t+later, s.seq
	heap.Push(&s.agenda, e)
}

// gap draws the time until a user's next request.
func (s *simulation) gap(u int) float64 {
	return s.cfg.Gaps(s.users[u].rand) * float64(s.cfg.Users) / s.cfg.Rate
}

func (s *simulation) happen(e event) error {
	switch e.kind {
	case sends:
		return s.send(e.n)
	case reaches:
		s.servers[e.n].arrive(s.t, e.request)
		s.changed(e.n)
	case completes:
		if e.turn == s.servers[e.n].turn {
			s.answer(s.servers[e.n].complete(s.t))
			s.changed(e.n)
		}
	case reports:
		s.members[e.n].waiting = false
		s.report(e.n)
	case changes:
		s.change(s.cfg.Changes[e.n])
	case begins:
		s.count(0)
		s.area = 0
		for i := range s.servers {
			s.servers[i].advance(s.t)
			s.before[i] = s.servers[i].done
		}
	case stops:
		s.stopped = true
		s.count(0)
		s.result.Present = s.area / s.cfg.Duration
		for i := range s.servers {
			s.servers[i].advance(s.t)
			s.result.Elements[i].Utilisation = (s.servers[i].done - s.before[i]) / (s.servers[i].Capacity * s.cfg.Duration)
		}
	}
	return nil
}

// count changes the number of requests on their way.
func (s *simulation) count(by int) {
	s.area += (s.t - s.insideAt) * float64(s.inside)
	s.inside += by
	s.insideAt = s.t
}

// send sends a user's request to an element that it chooses.
func (s *simulation) send(u int) error {
	if s.stopped {
		return nil
	}
	r := &request{user: u, sent: s.t, measured: s.t >= s.cfg.Warmup, size: s.cfg.Sizes(s.users[u].rand)}
	if !s.cfg.Closed {
		s.plan(event{kind: sends, n: u}, s.gap(u))
	}
	if s.cfg.Keys > 0 {
		r.key = strconv.Itoa(s.users[u].rand.IntN(s.cfg.Keys))
	}
	if err := s.choose(r); err != nil {
		return err
	}
	s.count(1)
	s.result.Sent++
	if r.measured {
		s.result.Measured++
	}
	s.plan(event{kind: reaches, n: r.element, request: r}, s.away(r.element))
	return nil
}

// choose selects an element for a request as pooluser does: from the user's cache, or
// from a new reply if that is stale.
func (s *simulation) choose(r *request) error {
	u := &s.users[r.user]
	if u.choice == nil || s.t-u.asked >= s.cfg.Stale {
		s.records, _, _ = s.space.Resolve(s.records[:0], pool, handlespace.Query{Items: s.cfg.Results})
		list := make([]param.PoolElement, len(s.records))
		for i, r := range s.records {
			list[i] = r.Element()
		}
		if u.choice == nil {
			u.choice = selection.NewUser(s.policy.Type, list, s.random)
		} else {
			u.choice.Renew(list)
		}
		u.asked = s.t
		s.result.Resolutions++
	}
	e, ok := u.choice.NextFor(selection.Request{Key: r.key, Now: clock(s.t)})
	if !ok {
		return fmt.Errorf("at %.3f s: the pool is empty", s.t)
	}
	u.choice.Sent(e.ID, clock(s.t))
	r.element = int(e.ID) - 1
	return nil
}

// away is the time that a request to an element is under way.
func (s *simulation) away(i int) float64 { return s.cfg.Startup + 4*s.cfg.Elements[i].Distance }

// answer takes note of a request that was served.
func (s *simulation) answer(r *request) {
	s.count(-1)
	s.result.Served++
	s.result.Elements[r.element].Served++
	if s.cfg.Closed {
		s.plan(event{kind: sends, n: r.user}, s.gap(r.user))
	}
	took := s.t - r.sent
	s.users[r.user].choice.Answered(param.PEID(r.element+1), time.Duration(took*1e9), clock(s.t))
	if r.measured {
		alone := r.size / (s.cfg.Elements[r.element].Capacity)
		if e := s.cfg.Elements[r.element]; !e.Shared {
			alone *= float64(e.Slots)
		}
		s.result.add(took, max(0, took-alone-s.away(r.element)), r.size)
		s.result.Elements[r.element].Measured++
	}
	if s.cfg.OnDone != nil {
		s.cfg.OnDone(Done{Sent: r.sent, Answered: s.t, Size: r.size, User: r.user, Element: r.element, Key: r.key})
	}
}

// changed follows from a change of the number of requests at an element.
func (s *simulation) changed(i int) {
	srv := &s.servers[i]
	if s.cfg.OnChange != nil {
		s.cfg.OnChange(s.t, i, srv.present())
	}
	s.announce(i)
	s.report(i)
}

// announce plans the end of the service that ends first.
func (s *simulation) announce(i int) {
	srv := &s.servers[i]
	if next := srv.next(); !math.IsInf(next, 1) {
		s.plan(event{kind: completes, n: i, turn: srv.turn}, next-s.t)
	}
}

// report registers the load again if it has changed enough and the last
// registration is old enough.
func (s *simulation) report(i int) {
	m := &s.members[i]
	if m.away || m.waiting || !s.policy.Has(selection.Load) {
		return
	}
	if d := math.Abs(s.load(i) - m.sent); d == 0 || d < s.cfg.LoadStep {
		return
	}
	if wait := m.sentAt + s.cfg.LoadInterval - s.t; wait > 0 {
		m.waiting = true
		s.plan(event{kind: reports, n: i}, wait)
		return
	}
	s.register(i)
}

func (s *simulation) load(i int) float64 {
	return min(1, float64(s.servers[i].present())/s.servers[i].Full)
}

func (s *simulation) register(i int) {
	m := &s.members[i]
	m.sent, m.sentAt = s.load(i), s.t
	transport := param.Transport{Type: param.TypeTCPTransport, Port: uint16(1 + i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})}}
	s.space.Apply(handlespace.Register{
		Handle: pool,
		Element: param.PoolElement{
			ID: param.PEID(i + 1), Home: registrar, Life: param.InfiniteLife,
			User: transport, ASAP: transport, Policy: s.servers[i].policyOf(s.policy, m.sent),
		},
		Raiser: registrar, Incarnation: 1, Now: clock(s.t),
	})
	s.result.Registrations++
}

func (s *simulation) change(c Change) {
	switch c.What {
	case Leave:
		s.members[c.Element].away = true
		s.space.Apply(handlespace.Deregister{Handle: pool, ID: param.PEID(c.Element + 1), Raiser: registrar, Incarnation: 1, Now: clock(s.t)})
	case Return:
		s.members[c.Element].away = false
		s.register(c.Element)
	case Slow:
		srv := &s.servers[c.Element]
		srv.advance(s.t)
		srv.factor = c.Factor
		srv.turn++
		s.announce(c.Element)
	}
}
