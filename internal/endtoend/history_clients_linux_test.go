package endtoend

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport/transporttest"
	"rserpool/internal/history"
	"rserpool/registrar/admin"
	"rserpool/registrar/admin/client"
)

// recording is what clients of a ring of registrars saw. All times are those of the
// one clock of this process.
type recording struct {
	w       *world
	name    string
	members []*recordedMember
	clients *host                       // where they are
	connect func(w way, connected bool) // registrars; where links can be cut
	began   time.Time
	group   sync.WaitGroup

	mu       sync.Mutex
	history  history.History
	wrong    []string // what clients must never be told
	elements uint32
}

// recordedMember is a registrar of the ring over all its lives.
type recordedMember struct {
	*registrar
	// look has its readers look at a pool at once.
	look chan param.PoolHandle

	mu sync.Mutex
	// life is the present one; "" while there is none that answers.
	life   history.Life
	deaths int
}

func (m *recordedMember) present() history.Life {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// die ends the present life.
func (m *recordedMember) die() {
	m.mu.Lock()
	m.life = ""
	m.deaths++
	m.mu.Unlock()
	m.kill()
}

func (r *recording) now() time.Duration { return time.Since(r.began) }

func (r *recording) record(o history.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Ops = append(r.history.Ops, o)
}

func (r *recording) upset(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.wrong) < 20 {
		r.wrong = append(r.wrong, fmt.Sprintf("%v: ", r.now().Round(time.Millisecond))+fmt.Sprintf(format, args...))
	}
}

// How long a client waits for an answer. What is frozen for less is asked all the
// while.
const recorderPatience = 3 * time.Second

// recorder is a connection of one client to one life of a registrar.
type recorder struct {
	r       *recording
	id      int
	at      history.Life
	conn    net.Conn
	answers chan asap.Message // closed with the connection
	done    chan struct{}
}

var errNobody = errors.New("the registrar is down")

// dial fails when it is not known whom it reaches. On the connection it answers
// keep-alives for an element, if there is one.
func (r *recording) dial(ctx context.Context, id int, m *recordedMember, e *recordedElement) (*recorder, error) {
	life := m.present()
	if life == "" {
		return nil, errNobody
	}
	dialling, cancel := context.WithTimeout(ctx, recorderPatience)
	defer cancel()
	conn, err := r.clients.dial(dialling, "tcp", m.asap())
	if err != nil {
		return nil, err
	}
	if m.present() != life {
		return nil, errors.Join(errNobody, conn.Close())
	}
	c := &recorder{r: r, id: id, at: life, conn: conn, answers: make(chan asap.Message, 16), done: make(chan struct{})}
	r.group.Go(func() {
		defer close(c.answers)
		receive(context.WithoutCancel(ctx), conn, e, func(m asap.Message) {
			select {
			case c.answers <- m:
			case <-c.done:
			}
		})
	})
	return c, nil
}

// close may be called once, or on nil.
func (c *recorder) close() {
	if c != nil {
		close(c.done)
		c.conn.Close()
	}
}

// receive answers keep-alives for an element and passes on what else comes, until the
// connection ends or ctx does.
func receive(ctx context.Context, conn net.Conn, e *recordedElement, other func(asap.Message)) {
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	for in := bufio.NewReader(conn); ; {
		m, err := readASAP(in)
		if err != nil {
			return
		}
		if _, ok := m.(*asap.EndpointKeepAlive); !ok {
			other(m)
		} else if e != nil && e.answers() && send(conn, &asap.EndpointKeepAliveAck{Handle: e.pool, ID: e.id}) != nil {
			return
		}
	}
}

func send(conn net.Conn, m asap.Message) error {
	if err := conn.SetWriteDeadline(time.Now().Add(recorderPatience)); err != nil {
		return err
	}
	return writeASAP(conn, m)
}

// ask sends a request and waits for what want takes.
func (c *recorder) ask(ctx context.Context, request asap.Message, want func(asap.Message) bool) error {
	ctx, cancel := context.WithTimeout(ctx, recorderPatience)
	defer cancel()
	for len(c.answers) > 0 { // what nobody asked for
		<-c.answers
	}
	if err := send(c.conn, request); err != nil {
		return err
	}
	for {
		select {
		case m, ok := <-c.answers:
			if !ok {
				return errNobody
			}
			if want(m) {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// resolve records what the registrar says of a pool.
func (c *recorder) resolve(ctx context.Context, pool param.PoolHandle) error {
	op := history.Op{Kind: history.Resolve, Client: c.id, At: c.at, Pool: string(pool), Outcome: history.Unknown, Call: c.r.now()}
	err := c.ask(ctx, &asap.HandleResolution{Handle: pool}, func(m asap.Message) bool {
		answer, ok := m.(*asap.HandleResolutionResponse)
		if !ok {
			c.r.upset("%v instead of an answer to a resolution", m.Type())
			return false
		}
		switch {
		case answer.Handle != pool:
			c.r.upset("answer for %q instead of %q", answer.Handle, pool)
			return false
		case len(answer.Error) > 0 && !answer.Error.Has(param.CauseUnknownPoolHandle):
			c.r.upset("resolution refused: %v", answer.Error)
			return true
		}
		op.Outcome = history.Done
		op.Seen = make(map[uint32]uint32)
		for _, e := range answer.Elements {
			op.Seen[uint32(e.ID)] = uint32(e.User.Port)
		}
		return true
	})
	op.Return = c.r.now()
	c.r.record(op)
	return err
}

// recordedElement is an element of a pool. Registrars reach it at a port of its own,
// where it answers keep-alives for as long as the recording goes on.
type recordedElement struct {
	pool param.PoolHandle
	id   param.PEID
	port uint16

	mu     sync.Mutex
	values uint16
	open   int // operations without an answer
	// How many registrations are on their way, and whether the latest news is that
	// the element is in its pool: else it knows nothing of it, and does not answer
	// for it.
	registering int
	registered  bool
}

// answers reports whether the element answers keep-alives.
func (e *recordedElement) answers() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.registered || e.registering > 0
}

// write registers or deregisters the element, and records it.
func (c *recorder) write(ctx context.Context, e *recordedElement, register bool) error {
	op := history.Op{Kind: history.Deregister, Client: c.id, At: c.at, Pool: string(e.pool), Element: uint32(e.id), Outcome: history.Unknown}
	var request asap.Message = &asap.Deregistration{Handle: e.pool, ID: e.id}
	if register {
		e.mu.Lock()
		e.values++
		e.registering++
		op.Kind, op.Value = history.Register, uint32(e.values)
		e.mu.Unlock()
		request = &asap.Registration{Handle: e.pool, Element: param.PoolElement{
			ID: e.id, Life: 3600, Policy: param.Policy{Type: param.RoundRobin},
			User: param.Transport{Type: param.TypeTCPTransport, Port: uint16(op.Value), Addrs: addrs(c.r.clients.address)},
			ASAP: param.Transport{Type: param.TypeTCPTransport, Port: e.port, Addrs: addrs(c.r.clients.address)},
		}}
	}
	op.Call = c.r.now()
	err := c.ask(ctx, request, func(m asap.Message) bool {
		var causes param.OperationError
		rejected := false
		switch m := m.(type) {
		case *asap.RegistrationResponse:
			if !register {
				c.r.upset("%s: registration answered, wanted a deregistration", c.at)
				return false
			}
			rejected, causes = m.Reject, m.Error
		case *asap.DeregistrationResponse:
			if register {
				return false // told that it was removed, when it was not in its pool
			}
			rejected, causes = len(m.Error) > 0, m.Error
		default:
			c.r.upset("%v instead of an answer", m.Type())
			return false
		}
		if op.Outcome = history.Done; rejected {
			op.Outcome = history.Rejected
			c.r.upset("%s rejects: %v", c.at, causes)
		}
		return true
	})
	op.Return = c.r.now()
	c.r.record(op)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case op.Outcome == history.Unknown:
		e.open++ // and it may be registered for ever
	case register:
		e.registering--
		e.registered = true
	default:
		e.registered = false
	}
	return err
}

// newElement makes an element that answers keep-alives.
func (r *recording) newElement(ctx context.Context, pool param.PoolHandle) (*recordedElement, error) {
	r.mu.Lock()
	r.elements++
	e := &recordedElement{pool: pool, id: param.PEID(r.elements)}
	r.mu.Unlock()
	l, err := r.clients.listen(net.JoinHostPort(r.clients.address, "0"))
	if err != nil {
		return nil, err
	}
	e.port = uint16(l.Addr().(*net.TCPAddr).Port)
	r.group.Go(func() {
		defer context.AfterFunc(ctx, func() { l.Close() })()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.group.Go(func() {
				receive(ctx, conn, e, func(asap.Message) {})
				conn.Close()
			})
		}
	})
	return e, nil
}

// slot is a place in a pool for one element at a time.
type slot struct {
	pool    param.PoolHandle
	mu      sync.Mutex
	element *recordedElement
}

// maxOpen is how many operations without an answer an element may have: each may
// take effect at any time, and makes more histories good.
const maxOpen = 2

// now returns the element of the slot, a new one when the last has too many open
// operations.
func (s *slot) now(ctx context.Context, r *recording) (*recordedElement, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.element; e != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.open < maxOpen {
			return e, nil
		}
	}
	e, err := r.newElement(ctx, s.pool)
	if err == nil {
		s.element = e
	}
	return e, err
}

// writeFor writes to a slot's element until ctx ends, at one registrar as long as
// that answers. After many an answer it has readers look at another registrar at
// once. Elements answer keep-alives for as long as serving.
func (r *recording) writeFor(ctx, serving context.Context, id int, s *slot, random *rand.Rand) {
	home := random.IntN(len(r.members))
	var c *recorder
	var e *recordedElement
	defer func() { c.close() }()
	for ctx.Err() == nil {
		pause(ctx, time.Duration(random.IntN(10))*time.Millisecond)
		next, err := s.now(serving, r)
		if err != nil {
			r.upset("%v", err)
			return
		}
		if next != e {
			c.close()
			c, e = nil, next
		}
		if c == nil {
			c, err = r.dial(ctx, id, r.members[home], e)
		}
		if err == nil {
			err = c.write(ctx, e, random.IntN(3) > 0)
		}
		if err != nil {
			c.close()
			c, home = nil, (home+1)%len(r.members)
			continue
		}
		if other := random.IntN(2 * len(r.members)); other < len(r.members) {
			select {
			case r.members[other].look <- s.pool:
			default:
			}
		}
	}
}

// readFor asks one registrar until ctx ends, and at once when it is told to look.
func (r *recording) readFor(ctx context.Context, id int, m *recordedMember, pools []param.PoolHandle, random *rand.Rand) {
	var c *recorder
	for ctx.Err() == nil {
		pool := pools[random.IntN(len(pools))]
		select {
		case pool = <-m.look:
		case <-time.After(time.Duration(random.IntN(10)) * time.Millisecond):
		case <-ctx.Done():
		}
		c = r.askAt(ctx, id, c, m, pool)
	}
	c.close()
}

// askAt resolves at one registrar, over the connection c if it is still good. It
// returns the one for the next time, perhaps nil.
func (r *recording) askAt(ctx context.Context, id int, c *recorder, m *recordedMember, pool param.PoolHandle) *recorder {
	if c != nil && c.at != m.present() {
		c.close()
		c = nil
	}
	var err error
	if c == nil {
		c, err = r.dial(ctx, id, m, nil)
	}
	if err == nil {
		err = c.resolve(ctx, pool)
	}
	if err != nil {
		c.close()
		return nil
	}
	return c
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// sampleFor asks a registrar for its view until ctx ends.
func (r *recording) sampleFor(ctx context.Context, m *recordedMember) error {
	c, err := client.New(m.api, &http.Transport{DialContext: m.host.dial})
	if err != nil {
		return err
	}
	defer c.Close()
	told := make(map[history.Life]uint64) // newest view of each life that is recorded as an earlier one
	for ctx.Err() == nil {
		call := r.now()
		once, cancel := context.WithTimeout(ctx, recorderPatience)
		ring, err := c.Ring(once)
		cancel()
		if err == nil {
			s, err := sampleOf(ring)
			if err != nil {
				return err
			}
			s.Call, s.Return = call, r.now()
			var news []history.View
			for _, v := range s.Earlier {
				if v.Counter > told[s.At] {
					news = append(news, v)
				}
			}
			s.Earlier = news
			told[s.At] = s.View.Counter
			r.mu.Lock()
			r.history.Samples = append(r.history.Samples, s)
			r.mu.Unlock()
		}
		pause(ctx, 10*time.Millisecond)
	}
	return nil
}

// sampleOf takes what the check needs from what a registrar shows.
func sampleOf(ring admin.Ring) (history.Sample, error) {
	s := history.Sample{Synced: ring.Synced}
	var members []history.Life
	for _, m := range ring.Members {
		life := history.Life(m.ID + "/" + m.Incarnation)
		members = append(members, life)
		if m.State == admin.MemberSelf {
			s.At = life
		}
	}
	var err error
	if s.View, err = viewOf(ring.View, members); err != nil {
		return s, err
	}
	for _, c := range ring.Changes {
		var members []history.Life
		for _, m := range c.Members {
			members = append(members, history.Life(m))
		}
		v, err := viewOf(c.View, members)
		if err != nil {
			return s, err
		}
		s.Earlier = append(s.Earlier, v)
	}
	if s.At == "" {
		return s, fmt.Errorf("a registrar that is not in its own view: %+v", ring)
	}
	return s, nil
}

func viewOf(id string, members []history.Life) (history.View, error) {
	text, coordinator, _ := strings.Cut(id, "@")
	counter, err := strconv.ParseUint(text, 10, 64)
	return history.View{Counter: counter, Coordinator: history.Life(coordinator), Members: members}, err
}

// recordMembers starts a ring of registrars with these flags, one on each host, whose
// clients are on another.
func recordMembers(hosts []*host, clients *host, flags ...string) *recording {
	r := &recording{w: clients.w, clients: clients, began: time.Now()}
	r.w.t.Helper()
	var peers, at []string
	for _, h := range hosts {
		ring := "tcp://" + h.address
		if h.namespace == "" {
			ring = "tcp://" + transporttest.FreeAddress(r.w.t)
		}
		at = append(at, ring)
		peers = append(peers, "--peer", ring)
	}
	for i, h := range hosts {
		m := &recordedMember{registrar: h.registrar(slices.Concat([]string{
			"--id", strconv.Itoa(i + 1), "--ring-listen", at[i], "--insecure", "--ring-join-wait", "1s",
		}, peers, flags)...)}
		m.look = make(chan param.PoolHandle, 8)
		r.members = append(r.members, m)
		r.known(m)
	}
	return r
}

// known finds out which life of a registrar answers, if one does already.
func (r *recording) known(m *recordedMember) bool {
	m.mu.Lock()
	deaths := m.deaths
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	status, err := m.admin.Status(ctx)
	if err != nil || !status.Ready {
		return false
	}
	ring, err := m.admin.Ring(ctx)
	if err != nil {
		return false
	}
	s, err := sampleOf(ring)
	if err != nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.deaths == deaths {
		m.life = s.At
	}
	return true
}

// whole waits until the ring has all its members.
func (r *recording) whole() {
	r.w.t.Helper()
	r.w.within(2*patience, func() string {
		for _, m := range r.members {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			ring, err := m.admin.Ring(ctx)
			cancel()
			if err != nil || !ring.Synced || len(ring.Members) != len(r.members) || !r.known(m) {
				return fmt.Sprintf("%s: %v, synced %v, members %+v", m.at, err, ring.Synced, ring.Members)
			}
		}
		return ""
	})
}
