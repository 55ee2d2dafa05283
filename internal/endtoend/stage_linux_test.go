package endtoend

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/registrar/admin"
)

// stage is a ring of registrars, each on a host of its own, with elements and users
// at work, and what is checked all the time:
//
//   - each answer to a resolution names all elements;
//   - what was acknowledged stays, as long as one registrar of the view lives;
//   - users of the pool are served.
type stage struct {
	t          *testing.T
	w          *world
	n          *network
	hosts      []*host
	registrars []*registrar
	down       []bool // dead or frozen
	before     []resources
	names      []string
	elements   []*element
	users      []*user
	askers     []*asker
	churn      *churn
	healed     time.Time // when something changed last

	mu     sync.Mutex
	free   bool      // answers are not checked
	wrong  []string  // answers
	latest time.Time // right answer
	gap    time.Duration
}

// stages limits how many rings there are at a time: they share two processors, and
// their time-outs are short.
var stages = make(chan struct{}, 2)

func takeStage(t *testing.T) {
	stages <- struct{}{}
	t.Cleanup(func() { <-stages })
}

const stageElements = 6

func newStage(t *testing.T, members int) *stage {
	t.Helper()
	n := newNetwork(t)
	takeStage(t)
	s := &stage{
		t: t, w: n.w, n: n,
		down: make([]bool, members),
	}
	var peers []string
	for i := range members {
		s.hosts = append(s.hosts, n.host(fmt.Sprintf("192.0.2.%d/24", i+1)))
		peers = append(peers, "--peer", "tcp://"+s.hosts[i].address)
	}
	for i, h := range s.hosts {
		s.registrars = append(s.registrars, h.registrar(append([]string{
			"--id", fmt.Sprintf("0x0a0a000%d", i+1), "--ring-listen", "tcp://" + h.address, "--insecure",
			"--ring-join-wait", "1s", "--keep-alive-timeout", slow,
		}, peers...)...))
	}
	s.changed()
	s.whole()
	for i := range members {
		s.before = append(s.before, s.resources(i))
	}

	for i := range stageElements {
		name := string(rune('a' + i))
		s.names = append(s.names, name)
		s.elements = append(s.elements, n.host(fmt.Sprintf("192.0.2.%d/24", 20+i)).element(name, s.from(i), "--check-interval", slow))
	}
	s.changed()
	s.within("all elements are known at all", time.Now(), 2*time.Second, s.missing)
	for i := range 2 {
		s.users = append(s.users, n.host(fmt.Sprintf("192.0.2.%d/24", 40+i)).user(s.from(i), "--attempt-timeout", slow))
	}
	asking := n.host("192.0.2.50/24")
	s.latest = time.Now()
	for _, r := range s.registrars {
		s.askers = append(s.askers, s.ask(asking, r))
	}
	s.churn = s.startChurn(n.host("192.0.2.60/24"))
	s.wait(time.Second) // of peace
	return s
}

// from lists the registrars for a client, beginning with another one for each.
func (s *stage) from(i int) []string {
	var at []string
	for k := range s.registrars {
		at = append(at, s.registrars[(i+k)%len(s.registrars)].at)
	}
	return at
}

func (s *stage) wait(d time.Duration) { time.Sleep(d); s.changed() }

func (s *stage) changed() { s.healed = time.Now() }

// within waits for something that has to be true within a time since start. It
// prints how long it took, and fails the test only at ten times the bound, because
// the machine may have other things to do.
func (s *stage) within(what string, start time.Time, bound time.Duration, complaint func() string) {
	s.t.Helper()
	s.w.within(time.Until(start.Add(10*bound)), complaint)
	s.t.Logf("%s after %v (bound %v)", what, time.Since(start).Round(time.Millisecond), bound)
}

// alive is how many registrars run.
func (s *stage) alive() int {
	n := 0
	for _, down := range s.down {
		if !down {
			n++
		}
	}
	return n
}

func (s *stage) kill(i int) {
	s.t.Helper()
	s.asleep(i, true)
	s.registrars[i].kill()
	s.mourn(i)
}

func (s *stage) stop(i int) {
	s.t.Helper()
	s.asleep(i, true)
	if code := s.registrars[i].end(syscall.SIGTERM); code != 0 {
		s.t.Errorf("%s ended with exit code %d", s.registrars[i].at, code)
	}
	s.mourn(i)
}

// view finds the members of a view in the log of a registrar.
var view = regexp.MustCompile(`msg="ring: new view" .*exchange=(true|false) .*members="?\[([^]]*)\]`)

// mourn forgets what was acknowledged when of the last view of a registrar that ended
// nobody lives who knew the same: the others were held up for longer than a ring waits,
// and it acknowledged the rest without them.
func (s *stage) mourn(i int) {
	s.t.Helper()
	log := s.registrars[i].log.String()
	all := view.FindAllStringSubmatchIndex(log, -1)
	if len(all) == 0 {
		return // it has not served
	}
	last := all[len(all)-1]
	exchange, members, then := log[last[2]:last[3]] == "true", log[last[4]:last[5]], log[last[1]:]
	known := !exchange || strings.Contains(then, "all members know the same")
	for k := range s.registrars {
		if known && !s.down[k] && strings.Contains(members, fmt.Sprintf("0x0a0a000%d/", k+1)) {
			return
		}
	}
	s.t.Logf("%s ended alone: what it acknowledged may be lost", s.registrars[i].at)
	s.churn.forget()
}

// asleep notes that a registrar runs or does not.
func (s *stage) asleep(i int, down bool) {
	s.down[i] = down
	s.changed()
}

// launch starts a registrar again; revive waits until it is ready.
func (s *stage) launch(i int) {
	s.t.Helper()
	r := s.registrars[i]
	r.process = s.w.start("rspd "+r.at, r.host.command("rspd", r.flags...), nil)
	s.asleep(i, false)
}

func (s *stage) revive(i int) {
	s.t.Helper()
	s.launch(i)
	s.w.until("the registrar to be ready again", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		status, err := s.registrars[i].admin.Status(ctx)
		return err == nil && status.Ready
	})
}

// split cuts or connects two groups of registrars.
func (s *stage) split(left, right []int, connected bool) {
	s.t.Helper()
	for _, w := range between(left, right) {
		s.n.oneWay(s.hosts[w.from], s.hosts[w.to], connected)
	}
	s.changed()
}

// whole waits until the registrars that run are one ring.
func (s *stage) whole() {
	s.t.Helper()
	s.within(fmt.Sprintf("%d registrars are one ring", s.alive()), s.healed, 2*time.Second, func() string {
		for i, r := range s.registrars {
			if s.down[i] {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			status, err := r.admin.Status(ctx)
			cancel()
			if err != nil || !status.Ready || status.Ring == nil || !status.Ring.Synced || len(status.Ring.Members) != s.alive() {
				return fmt.Sprintf("%s: %v, ready %v, ring %+v", r.at, err, status.Ready, status.Ring)
			}
		}
		return ""
	})
	s.changed()
}

// forget lets registrations be lost, because all registrars go at once; remember
// ends that.
func (s *stage) forget() {
	s.let(true)
	s.churn.forget()
}

func (s *stage) remember() { s.let(false) }

func (s *stage) let(free bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = free
}

// rotate makes the k-th registrar the first one.
func (s *stage) rotate(k int) {
	s.hosts = slices.Concat(s.hosts[k:], s.hosts[:k])
	s.registrars = slices.Concat(s.registrars[k:], s.registrars[:k])
	s.down = slices.Concat(s.down[k:], s.down[:k])
	s.before = slices.Concat(s.before[k:], s.before[:k])
}

// leave ends everybody but the registrars.
func (s *stage) leave() {
	s.t.Helper()
	for _, a := range s.askers {
		a.cancel()
		<-a.done
	}
	s.churn.stop()
	for _, u := range s.users {
		u.wasServed(10 * time.Second)
		s.t.Logf("longest gap of a user: %.0f ms of %d requests", 1000*u.summary.LongestGap, u.summary.Requests)
	}
	for _, e := range s.elements {
		e.car.end(syscall.SIGTERM)
		e.server.kill()
	}
}

// report fails the test when answers were wrong.
func (s *stage) report() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Logf("longest time without a right answer from any registrar: %v", s.gap.Round(time.Millisecond))
	for _, text := range s.wrong {
		s.t.Error(text)
	}
	if s.gap > 10*time.Second {
		s.t.Errorf("no registrar answered for %v", s.gap)
	}
}

// asker resolves the pool at one registrar again and again.
type asker struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (s *stage) ask(h *host, r *registrar) *asker {
	ctx, cancel := context.WithCancel(context.Background())
	a := &asker{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		for ctx.Err() == nil {
			if conn, err := s.dial(ctx, h, r); err == nil {
				s.askOver(ctx, conn, r)
				conn.Close()
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return a
}

func (s *stage) dial(ctx context.Context, h *host, r *registrar) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	return h.dial(ctx, "tcp", r.asap())
}

// askOver asks until there is no answer.
func (s *stage) askOver(ctx context.Context, conn net.Conn, r *registrar) {
	want := strings.Join(s.names, " ")
	for ctx.Err() == nil {
		m, err := exchange(conn, &asap.HandleResolution{Handle: pool}, time.Second)
		if err != nil {
			return
		}
		if answer, ok := m.(*asap.HandleResolutionResponse); ok {
			var names []string
			for _, e := range answer.Elements {
				names = append(names, nameOf(e.ID.String()))
			}
			slices.Sort(names)
			s.answered(r, strings.Join(names, " ") == want, fmt.Sprintf("%v: %s names %q, causes %v", time.Now().Format("15:04:05.000"), r.at, names, answer.Error))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *stage) answered(r *registrar, right bool, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case right:
		s.gap = max(s.gap, time.Since(s.latest))
		s.latest = time.Now()
	case !s.free && len(s.wrong) < 10:
		s.wrong = append(s.wrong, text)
	}
}

// exchange sends a request and returns the next message.
func exchange(conn net.Conn, m interface{ Append([]byte) ([]byte, error) }, patience time.Duration) (asap.Message, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if err := writeASAP(conn, m); err != nil {
		return nil, err
	}
	return readASAP(conn)
}

// writeASAP writes a message with its padding.
func writeASAP(w io.Writer, m interface{ Append([]byte) ([]byte, error) }) error {
	data, err := m.Append(nil)
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, make([]byte, -len(data)&3)...))
	return err
}

// readASAP reads a message with its padding.
func readASAP(r io.Reader) (asap.Message, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n := int(head[2])<<8 | int(head[3])
	data := append(head, make([]byte, max(0, (n+3)&^3-4))...)
	if _, err := io.ReadFull(r, data[4:]); err != nil {
		return nil, err
	}
	m, _, err := asap.Decode(data[:n])
	return m, err
}

// metric reads a metric without labels.
func (r *registrar) metric(name string) int {
	resp, err := (&http.Client{Transport: &http.Transport{DialContext: r.host.dial, DisableKeepAlives: true}}).Get(r.api + admin.PathMetrics)
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			if n, err := strconv.Atoi(value); err == nil {
				return n
			}
		}
	}
	return -1
}

// dump writes what the registrar knows of the pool, and which others there are.
func (r *registrar) dump() (string, error) {
	p, err := r.pool()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	pools, err := r.admin.Pools(ctx)
	if err != nil {
		return "", err
	}
	var others []string
	for _, other := range pools {
		others = append(others, other.Handle)
	}
	text, err := json.Marshal([]any{p.Members, others})
	return string(text), err
}

// seeded returns a source of randomness that RING_SEED makes repeatable.
func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("RING_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("RING_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// churn registers one element after the other, at whatever registrar answers, and
// remembers which were acknowledged. They answer keep-alives, by whatever connection.
type churn struct {
	s          *stage
	h          *host
	registrars []*registrar
	ctx        context.Context
	cancel     context.CancelFunc
	group      sync.WaitGroup
	listen     net.Listener

	mu     sync.Mutex
	paused bool
	acked  map[string]bool // handles
	forgot int             // times
}

const churnPort = 5555

func (s *stage) startChurn(h *host) *churn {
	s.t.Helper()
	c := &churn{s: s, h: h, registrars: s.registrars, acked: make(map[string]bool)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	var err error
	if c.listen, err = h.listen(fmt.Sprintf("%s:%d", h.address, churnPort)); err != nil {
		s.t.Fatal(err)
	}
	c.group.Go(func() {
		for {
			conn, err := c.listen.Accept()
			if err != nil {
				return
			}
			c.group.Go(func() { c.serve(conn, nil) })
		}
	})
	c.group.Go(c.register)
	return c
}

func addrs(text string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(text)} }

// register makes an element each 50 ms.
func (c *churn) register() {
	var conn net.Conn
	answers := make(chan *asap.RegistrationResponse, 16)
	at := 0
	for i := 0; c.ctx.Err() == nil; i++ {
		time.Sleep(50 * time.Millisecond)
		c.mu.Lock()
		paused, forgot := c.paused, c.forgot
		c.mu.Unlock()
		if paused {
			continue
		}
		if conn == nil {
			at++
			next, err := c.s.dial(c.ctx, c.h, c.registrars[at%len(c.registrars)])
			if err != nil {
				continue
			}
			conn = next
			c.group.Go(func() { c.serve(next, answers) })
		}
		handle := param.PoolHandle(fmt.Sprintf("churn-%06d", i))
		element := param.PoolElement{
			ID: param.PEID(i + 1), Life: 600,
			User:   param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: addrs(c.h.address)},
			ASAP:   param.Transport{Type: param.TypeTCPTransport, Port: churnPort, Addrs: addrs(c.h.address)},
			Policy: param.Policy{Type: param.RoundRobin},
		}
		if writeASAP(conn, &asap.Registration{Handle: handle, Element: element}) != nil || !c.acknowledged(answers, handle, forgot) {
			conn.Close() // another registrar may know better
			conn = nil
		}
	}
}

// acknowledged waits for an answer and notes it, unless all was forgotten meanwhile.
func (c *churn) acknowledged(answers chan *asap.RegistrationResponse, handle param.PoolHandle, forgot int) bool {
	late := time.After(time.Second)
	for {
		select {
		case m := <-answers:
			if m.Handle != handle {
				continue
			}
			c.mu.Lock()
			if c.forgot == forgot {
				c.acked[string(handle)] = !m.Reject
			}
			c.mu.Unlock()
			if m.Reject {
				c.s.answered(nil, false, fmt.Sprintf("registration of %s rejected: %v", handle, m.Error))
			}
			return true
		case <-late:
			return false
		case <-c.ctx.Done():
			return true
		}
	}
}

// serve answers keep-alives and passes answers on.
func (c *churn) serve(conn net.Conn, answers chan *asap.RegistrationResponse) {
	defer conn.Close()
	defer context.AfterFunc(c.ctx, func() { conn.Close() })()
	reader := bufio.NewReader(conn)
	for {
		m, err := readASAP(reader)
		if err != nil {
			return
		}
		switch m := m.(type) {
		case *asap.EndpointKeepAlive:
			i, err := strconv.Atoi(strings.TrimPrefix(string(m.Handle), "churn-"))
			if err != nil {
				continue
			}
			if writeASAP(conn, &asap.EndpointKeepAliveAck{Handle: m.Handle, ID: param.PEID(i + 1)}) != nil {
				return
			}
		case *asap.RegistrationResponse:
			select {
			case answers <- m:
			default:
			}
		}
	}
}

func (c *churn) pause(paused bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = paused
}

func (c *churn) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.acked)
	c.forgot++
}

func (c *churn) stop() {
	c.cancel()
	c.listen.Close()
	c.group.Wait()
}

// check fails the test if a registrar lacks what was acknowledged.
func (c *churn) check(s *stage) {
	s.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	s.t.Logf("%d registrations acknowledged", len(c.acked))
	for i, r := range s.registrars {
		if s.down[i] {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		pools, err := r.admin.Pools(ctx)
		cancel()
		if err != nil {
			s.t.Error(err)
			continue
		}
		known := make(map[string]bool)
		for _, p := range pools {
			known[p.Handle] = true
		}
		var lost []string
		for handle, acked := range c.acked {
			if acked && !known[handle] {
				lost = append(lost, handle)
			}
		}
		slices.Sort(lost)
		if len(lost) > 0 {
			s.t.Errorf("%s lacks %d of %d acknowledged elements: %q", r.at, len(lost), len(c.acked), lost[:min(len(lost), 10)])
		}
	}
}
