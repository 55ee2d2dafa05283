package registrar

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/enrp/ring/ringnet"
	"rserpool/registrar/admin"
	"rserpool/registrar/handlespace"
)

// Errors of a Registrar.
var (
	// ErrState: Start of a registrar that was started before, or a call of
	// one that does not run.
	ErrState = errors.New("registrar is not in the state for this")
	// ErrBusy: the ring has no room for another command, or is being left.
	ErrBusy = errors.New("the ring takes no more commands")
	// ErrRestart: the new configuration changes what only a restart can.
	ErrRestart = errors.New("needs a restart")
)

// maxRegistrars bounds the other registrars that are remembered from
// announcements.
//
// It also bounds by how much a flood of made-up ones slows the registrar's own
// announcements down.
const maxRegistrars = 128

// Registrar is one registrar. Its methods may be called concurrently.
type Registrar struct {
	cfg         Config // as given to New, defaults filled in
	current     atomic.Pointer[Config]
	id          param.RegistrarID
	incarnation uint64
	started     time.Time
	ring        *ringEnd // nil without a ring
	newGroup    func(ringnet.Config) (ringGroup, error)
	metrics     *metrics
	space       *handlespace.Space
	owner       *owner
	loopScratch scratch // of the owner loop
	census      *census
	feed        *admin.Feed
	shown       ringShown
	announcer   *announcer
	presence    *presenceGroups
	inbox       chan task
	turn        chan struct{} // holds a value while somebody does the owner's work
	wake        chan struct{} // tells the owner loop of work
	reports     *rateLimiter  // of unreachable elements
	notices     notices
	files       int // how many may be open

	mu        sync.Mutex
	state     runState
	ctx       context.Context
	cancel    context.CancelCauseFunc
	doors     sync.Mutex           // guards the listeners
	listeners []listening          // nil after the registrar has stopped
	shut      bool                 // no more listeners
	entrances []transport.Endpoint // for elements and users, with their ports
	addresses []Address            // of all
	admin     *admin.Server
	group     sync.WaitGroup // acceptors, readers, writers, dials, announcers
	writers   chan *conn     // takes what is to be written by a spare one
	spare     atomic.Int32   // of them
	loopDone  chan struct{}
	failed    chan error              // takes why the registrar can't go on
	server    param.ServerInformation // of this registrar; set before readers start
	asap      param.Transport         // where this registrar speaks ASAP; likewise
	looping   atomic.Bool             // the owner loop takes work
	ready     atomic.Bool             // and elements and users are served
	serving   chan struct{}           // closed when they are for the first time
	unsure    atomic.Bool             // what is not known here may be known to others

	subscribed atomic.Int64 // subscriptions, for the admin API
}

type runState int

const (
	fresh runState = iota
	running
	stopped
)

// New checks a configuration and makes a registrar of it, which does nothing yet.
func New(cfg Config) (*Registrar, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("registrar configuration: %w", err)
	}
	r := &Registrar{
		cfg:      cfg,
		id:       cfg.ID,
		metrics:  newMetrics(cfg.Version, cfg.Limits.PoolLabels),
		census:   newCensus(),
		feed:     admin.NewFeed(cfg.Limits.Watchers),
		inbox:    make(chan task, cfg.Limits.Inbox),
		turn:     make(chan struct{}, 1),
		wake:     make(chan struct{}, 1),
		reports:  newRateLimiter(cfg.Limits.ReportRate, float64(cfg.Limits.ReportBurst), cfg.Limits.Reporters),
		files:    openFiles(),
		failed:   make(chan error, 1),
		serving:  make(chan struct{}),
		writers:  make(chan *conn),
		newGroup: func(cfg ringnet.Config) (ringGroup, error) { return ringnet.New(cfg) },
	}
	r.turn <- struct{}{} // until the loop runs
	r.shown.feed = r.feed
	r.current.Store(&cfg)
	if r.id == 0 {
		r.id = RandomID()
	}
	r.cfg.Log = cfg.Log.WithField("registrar", r.id.String())
	l := cfg.Limits
	r.space = handlespace.New(handlespace.Config{ // what is added here belongs into alike, too
		MaxPools: l.Pools, MaxElements: l.Elements, MaxPoolsPerOwner: l.PoolsPerClient,
		MaxElementSize:  l.ElementSize,
		MaxBadPEReports: l.MaxBadPEReports,
		RemovalWindow:   l.RemovalWindow, RemovalFloor: l.RemovalFloor, RemovalShare: l.RemovalShare,
		HoldBack: l.HoldBack, HoldBackShare: l.HoldBackShare,
		Tombstone: l.Tombstone, MaxTombstones: l.Tombstones,
		ResultLimits: l.Results,
	})
	r.metrics.watch(r.space)
	r.metrics.registry.MustRegister(spareGauge(&r.spare))
	if cfg.Ring.On() {
		r.metrics.registry.MustRegister(ringCollector{&r.shown})
	}
	if cfg.Refusals != nil {
		r.metrics.registry.MustRegister(cfg.Refusals.count)
	}
	if cfg.CertificateExpiry != nil {
		r.metrics.registry.MustRegister(expiryGauge(cfg.CertificateExpiry))
	}
	return r, nil
}

// RandomID returns an identifier for a new registrar (RFC 5353, section 3.2.1).
func RandomID() param.RegistrarID {
	for {
		var b [4]byte
		// crypto/rand.Read never fails.
		_, _ = rand.Read(b[:])
		if id := param.RegistrarID(binary.BigEndian.Uint32(b[:])); id != 0 {
			return id
		}
	}
}

// ID returns the registrar's identifier.
func (r *Registrar) ID() param.RegistrarID { return r.id }

// Space returns the handlespace, to be read.
func (r *Registrar) Space() *handlespace.Space { return r.space }

func (r *Registrar) config() *Config   { return r.current.Load() }
func (r *Registrar) limits() *Limits   { return &r.config().Limits }
func (r *Registrar) timers() *Timers   { return &r.config().Timers }
func (r *Registrar) rsplib() bool      { return r.cfg.Compat == CompatRsplib }
func (r *Registrar) exceeded(l string) { r.metrics.limits.WithLabelValues(l).Inc() }

func (r *Registrar) admission() admission {
	cfg := r.config()
	return admission{
		self: r.id, addresses: cfg.Limits.Addresses, handleLength: cfg.Limits.HandleLength,
		foreignAddresses: cfg.ForeignAddresses, rsplib: r.rsplib(),
	}
}

func (r *Registrar) options() transport.Options {
	return transport.Options{MaxMessage: r.limits().MessageSize, DefaultPPID: transport.PPIDASAP}
}

// Start listens on all endpoints and serves until Stop. When one part fails to
// start, those that had started are stopped again. ctx bounds the start only.
func (r *Registrar) Start(ctx context.Context) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != fresh {
		return fmt.Errorf("start: %w", ErrState)
	}
	r.state = running
	r.ctx, r.cancel = context.WithCancelCause(context.Background())
	r.loopDone = make(chan struct{})
	r.started = time.Now()
	r.incarnation = uint64(r.started.UnixNano())
	defer func() {
		if err != nil {
			r.state = stopped
			err = errors.Join(err, r.halt())
		}
	}()

	for _, endpoint := range r.cfg.ASAP {
		opened, err := r.listen(ctx, protoASAP, endpoint)
		if err != nil {
			return err
		}
		endpoint.Port = opened[0].Addrs()[0].Port()
		r.entrances = append(r.entrances, endpoint)
	}
	for _, endpoint := range r.cfg.ENRP {
		if _, err := r.listen(ctx, protoENRP, endpoint); err != nil {
			return err
		}
	}
	r.server = param.ServerInformation{ID: r.id, Transport: r.endpoint(protoENRP)}
	r.asap = r.endpoint(protoASAP)
	r.addresses = r.listenAddrs()
	if r.announcer, err = r.newAnnouncer(ctx); err != nil {
		return err
	}
	if r.presence, err = r.newPresenceGroups(ctx); err != nil {
		return err
	}
	if r.admin, err = r.newAdmin(ctx); err != nil {
		return err
	}
	if r.mustLearn() {
		// Until there is something to tell users, a closed port sends them
		// elsewhere at once.
		if err := r.close(protoASAP); err != nil {
			return err
		}
	}
	r.tell(r.listeners)
	var order sequencer = &alone{space: r.space}
	if r.cfg.Ring.On() {
		if err := r.joinRing(ctx); err != nil {
			return err
		}
		order = r.ring
	}

	listeners := slices.Clone(r.listeners) // the loop may open others
	r.owner = newOwner(r, r.space, order, r.started)
	go func() {
		defer close(r.loopDone)
		r.owner.run()
	}()
	for _, l := range listeners {
		r.group.Go(func() { r.accept(l) })
	}
	if room, want := r.room(), r.limits().Connections; room < want {
		r.cfg.Log.WithFields(logrus.Fields{"connections": room, "configured": want, "files": r.files}).
			Warn("fewer connections than configured: the process may not have more files open")
	}
	r.announcer.start()
	r.presence.start()
	if r.admin != nil {
		r.group.Go(r.admin.Serve)
	}
	r.looping.Store(true)
	if !r.mustLearn() {
		r.serve()
	}
	return nil
}

// mustLearn reports whether the handlespace comes from others before elements and
// users are served.
func (r *Registrar) mustLearn() bool { return r.cfg.Ring.On() || len(r.cfg.Peering.Mentors) > 0 }

// Stop takes no new connections, lets answers under way go out, closes all
// connections in an orderly way and waits until everything has ended; when ctx
// ends before, it hurries. Stopping twice is harmless.
func (r *Registrar) Stop(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != running {
		r.state = stopped
		return nil
	}
	r.state = stopped
	r.ready.Store(false)
	ctx, cancel := context.WithTimeout(ctx, r.timers().Stop)
	defer cancel()
	errs := []error{r.shutDoors()}
	if r.admin != nil {
		errs = append(errs, r.admin.Shutdown(ctx))
		r.admin = nil
	}
	if r.ring == nil {
		r.settle(ctx)
	} else {
		errs = append(errs, r.leaveRing(ctx))
	}
	errs = append(errs, r.halt())
	return errors.Join(errs...)
}

// settlePause is the time between two looks.
const settlePause = 5 * time.Millisecond

// settle waits until the loop has done what was handed to it and the answers are
// sent, or ctx ends.
func (r *Registrar) settle(ctx context.Context) {
	poll := time.NewTicker(settlePause)
	defer poll.Stop()
	for {
		idle := true
		for _, c := range r.census.all() {
			idle = idle && c.busy.Load() == 0
		}
		if idle {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
}

// halt ends what runs and waits for it.
func (r *Registrar) halt() error {
	r.cancel(errEnded{reasonShutdown})
	errs := []error{r.shutDoors()}
	if r.admin != nil {
		errs = append(errs, r.admin.Close())
	}
	if r.announcer != nil {
		errs = append(errs, r.announcer.close())
	}
	if r.presence != nil {
		errs = append(errs, r.presence.close())
	}
	if r.owner == nil {
		close(r.loopDone)
	}
	<-r.loopDone
	if r.ring != nil {
		errs = append(errs, r.ring.abandon())
	}
	r.group.Wait()
	r.clear()
	r.admin = nil
	return errors.Join(errs...)
}

// clear does what was handed to the loop when that had ended already, for some of
// it holds connections.
func (r *Registrar) clear() {
	for {
		select {
		case t := <-r.inbox:
			t.do(time.Now())
			r.group.Wait()
		default:
			return
		}
	}
}

// Failed returns a channel that gives why the registrar can't go on, if that comes to
// pass. It is to be stopped then.
func (r *Registrar) Failed() <-chan error { return r.failed }

// Run starts the registrar, serves until ctx ends or it can't go on, and stops it.
func (r *Registrar) Run(ctx context.Context) error {
	if err := r.Start(ctx); err != nil {
		return err
	}
	var trouble error
	select {
	case <-ctx.Done():
	case trouble = <-r.Failed():
	}
	return errors.Join(trouble, r.Stop(context.WithoutCancel(ctx)))
}

// Address is where a running registrar listens.
type Address struct {
	Protocol string // "asap" or "enrp"
	Network  string // "sctp", "tcp" or "mem"
	Addrs    []netip.AddrPort
}

// serve notes that elements and users are served from now on.
func (r *Registrar) serve() {
	r.ready.Store(true)
	close(r.serving)
}

// Serving is closed when elements and users are served: at the end of Start or, in
// a ring, when the registrar knows what the other members know.
func (r *Registrar) Serving() <-chan struct{} { return r.serving }

// Addrs returns where the registrar listens.
func (r *Registrar) Addrs() []Address {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != running {
		return nil
	}
	return slices.Clone(r.addresses)
}

func (r *Registrar) listenAddrs() []Address {
	out := make([]Address, 0, len(r.listeners))
	for _, l := range r.listeners {
		out = append(out, Address{string(l.port), l.Network(), l.Addrs()})
	}
	return out
}

// AdminAddr returns where the admin API listens; "" if it doesn't.
func (r *Registrar) AdminAddr() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.admin == nil {
		return ""
	}
	return r.admin.Addr().String()
}

// start begins to serve a connection that has entered the census.
func (r *Registrar) start(c *conn) {
	r.metrics.associations.WithLabelValues(c.peer.network).Inc()
	c.log.Debug("connection up")
	r.group.Go(c.read)
}

// leave ends what start began.
func (r *Registrar) leave(c *conn) {
	r.census.leave(c)
	r.metrics.associations.WithLabelValues(c.peer.network).Dec()
	r.post(func(now time.Time) { r.owner.left(c, now) })
}

// post hands work to the owner loop; false when that has ended.
func (r *Registrar) post(do func(time.Time)) bool {
	ok := r.file(do)
	r.alert()
	return ok
}

// alert wakes the owner loop.
func (r *Registrar) alert() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// tryTurn takes the turn to do the owner's work, if nobody has it.
func (r *Registrar) tryTurn() bool {
	select {
	case r.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

// help does the tasks that wait, unless somebody is at it.
func (r *Registrar) help() {
	if len(r.inbox) > 0 && r.tryTurn() {
		r.owner.finish(inboxBatch)
	}
}

// file puts a task into the inbox, where it waits for help or alert; false when the
// loop has ended.
func (r *Registrar) file(do func(time.Time)) bool {
	t := task{time.Now(), do}
	select {
	case r.inbox <- t: // nearly always, and cheaper alone
		return true
	default:
	}
	select {
	case r.inbox <- t:
		return true
	case <-r.ctx.Done():
		return false
	}
}

// Submit proposes a command and waits for what it changed: until the ring's members
// all know it.
func (r *Registrar) Submit(ctx context.Context, cmd handlespace.Command) ([]handlespace.Event, error) {
	if !r.ready.Load() {
		return nil, fmt.Errorf("elements and users are not served: %w", ErrState)
	}
	type outcome struct {
		events []handlespace.Event
		err    error
	}
	result := make(chan outcome, 1)
	ok := r.post(func(now time.Time) {
		if r.owner.order.full() {
			result <- outcome{err: ErrBusy}
			return
		}
		r.owner.propose(cmd, proposal{
			answer:  func(events []handlespace.Event, _ time.Time) { result <- outcome{events: events} },
			refused: func(time.Time) { result <- outcome{err: ErrBusy} },
		}, now)
	})
	if !ok {
		return nil, fmt.Errorf("submit: %w", ErrState)
	}
	select {
	case o := <-result:
		return o.events, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-r.ctx.Done():
		return nil, context.Cause(r.ctx)
	}
}

// Reload takes timers, limits and address rules from another configuration. If
// that is not valid, or differs in what only a restart can change, the old one
// stays and the error says why.
func (r *Registrar) Reload(cfg Config) error {
	err := r.reload(cfg)
	if err != nil {
		r.metrics.reloadOK.Set(0)
		return fmt.Errorf("reload: %w", err)
	}
	r.metrics.reloadOK.Set(1)
	return nil
}

func (r *Registrar) reload(cfg Config) error {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return err
	}
	old := r.config()
	var errs []error
	fixed := func(what string, same bool) {
		if !same {
			errs = append(errs, fmt.Errorf("%s: %w", what, ErrRestart))
		}
	}
	fixed("identifier", cfg.ID == old.ID)
	fixed("ASAP endpoints", fmt.Sprint(cfg.ASAP) == fmt.Sprint(old.ASAP))
	fixed("ENRP endpoints", fmt.Sprint(cfg.ENRP) == fmt.Sprint(old.ENRP))
	fixed("ring", sameRing(&cfg.Ring, &old.Ring))
	fixed("peers outside the ring", fmt.Sprint(cfg.Peering.Mentors) == fmt.Sprint(old.Peering.Mentors) &&
		len(cfg.Peering.Announce) == len(old.Peering.Announce))
	fixed("announcements", len(cfg.Announce) == len(old.Announce))
	fixed("admin interface", fmt.Sprint(cfg.Admin) == fmt.Sprint(old.Admin))
	fixed("compat", cfg.Compat == old.Compat)
	fixed("rfc-strict", cfg.Strict == old.Strict)
	a, b := cfg.Limits, old.Limits
	fixed("limits of the handlespace", maps.Equal(alike(&a), alike(&b)) && fmt.Sprint(a.Results) == fmt.Sprint(b.Results))
	fixed("inbox, pool labels and watchers", a.Inbox == b.Inbox && a.PoolLabels == b.PoolLabels && a.Watchers == b.Watchers)
	fixed("message size", a.MessageSize == b.MessageSize) // the listeners have it
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	r.current.Store(&cfg)
	if r.looping.Load() {
		r.post(func(now time.Time) { r.owner.reconfigure(&cfg) })
	}
	return nil
}
