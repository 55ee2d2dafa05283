package ringnet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"go.uber.org/goleak"

	"rserpool/asap/transport"
	"rserpool/asap/transport/mem"
	"rserpool/enrp/ring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const port = 9901

// cluster is a group in the making, over a network in memory.
type cluster struct {
	t       *testing.T
	net     *mem.Network
	members map[int]*testMember
	size    int // how many addresses all members are told
	change  func(id int, cfg *Config)
	adjust  func(id int, g *Group)
}

// testMember is one process: a group, and an application that remembers.
type testMember struct {
	id    int
	host  *mem.Host
	group *Group
	log   *logLines

	mu        sync.Mutex
	view      ring.View
	causes    []ring.Cause
	left      []ring.Node
	synced    bool
	delivered []string // "proposer: payload"
	stable    uint64
	undone    []ring.NotDelivered
	clashes   []ring.Clash
	granted   []ring.Granted
	pause     func() // called by Handle, outside of the lock
}

func inCluster(t *testing.T, size int, test func(t *testing.T, c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, net: mem.NewNetwork(3), members: make(map[int]*testMember), size: size}
		c.net.FailureTime = 5 * time.Second
		for id := 1; id <= size; id++ {
			c.net.Host(name(id), address4(id))
		}
		for a := 1; a <= size; a++ {
			for b := a + 1; b <= size; b++ {
				c.net.Delay(name(a), name(b), 50*time.Microsecond, 150*time.Microsecond)
			}
		}
		defer c.stopAll()
		test(t, c)
	})
}

func name(id int) string     { return fmt.Sprintf("m%d", id) }
func address4(id int) string { return fmt.Sprintf("10.0.0.%d", id) }

func endpoint(id int) transport.Endpoint {
	return transport.Endpoint{Network: transport.Mem, Hosts: []string{address4(id)}, Port: port}
}

// start runs members, with a new process for one that was killed.
func (c *cluster) start(ids ...int) {
	c.t.Helper()
	for _, id := range ids {
		m := &testMember{id: id, host: c.net.Host(name(id)), log: &logLines{}}
		cfg := Config{
			Cluster: "blue", ID: ring.NodeID(id), Networks: transport.NewNetworks(m.host),
			Listen: []transport.Endpoint{endpoint(id)}, Handler: m, Log: m.log.logger(),
		}
		for other := 1; other <= c.size; other++ {
			cfg.Peers = append(cfg.Peers, endpoint(other)) // itself included
		}
		if c.change != nil {
			c.change(id, &cfg)
		}
		g, err := New(cfg)
		if err != nil {
			c.t.Fatal(err)
		}
		if c.adjust != nil {
			c.adjust(id, g)
		}
		m.group = g
		if err := g.Start(c.t.Context()); err != nil {
			c.t.Fatal(err)
		}
		c.members[id] = m
	}
}

// kill ends a process as SIGKILL does.
func (c *cluster) kill(id int) *testMember {
	m := c.members[id]
	c.net.Kill(name(id))
	delete(c.members, id)
	m.discard()
	return m
}

// discard ends what is left of a killed process.
func (m *testMember) discard() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = m.group.Stop(ctx) // it can't say goodbye
}

func (c *cluster) stop(id int) {
	c.t.Helper()
	m := c.members[id]
	delete(c.members, id)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.group.Stop(ctx); err != nil {
		c.t.Errorf("stop %d: %v", id, err)
	}
}

func (c *cluster) stopAll() {
	for _, m := range c.members {
		m.discard()
	}
}

// wait lets time pass until cond holds.
func (c *cluster) wait(atMost time.Duration, what string, cond func() bool) time.Duration {
	c.t.Helper()
	begin := time.Now()
	for !cond() {
		if time.Since(begin) > atMost {
			for _, id := range c.ids() {
				c.t.Logf("member %d: %s", id, c.members[id])
			}
			c.t.Fatalf("not within %s: %s", atMost, what)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
	}
	return time.Since(begin)
}

func (c *cluster) ids() []int {
	var ids []int
	for id := range c.members {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// whole reports whether these are in one view, and know the same.
func (c *cluster) whole(ids ...int) bool {
	var first ring.ViewID
	for i, id := range ids {
		m := c.members[id]
		m.mu.Lock()
		view, synced := m.view, m.synced
		m.mu.Unlock()
		if i == 0 {
			first = view.ID
		}
		if !synced || len(view.Members) != len(ids) || view.ID != first {
			return false
		}
		for _, other := range ids {
			if !view.Has(c.members[other].group.Self().Member) {
				return false
			}
		}
	}
	return true
}

func (c *cluster) waitWhole(atMost time.Duration, ids ...int) time.Duration {
	c.t.Helper()
	return c.wait(atMost, fmt.Sprintf("%v are one group", ids), func() bool { return c.whole(ids...) })
}

func (c *cluster) status(id int) Status {
	c.t.Helper()
	s, err := c.members[id].group.Status(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// propose hands payloads in and returns the number of the last.
func (c *cluster) propose(id int, payloads ...string) (number uint64) {
	c.t.Helper()
	for _, p := range payloads {
		var err error
		if number, err = c.members[id].group.Propose([]byte(p)); err != nil {
			c.t.Fatal(err)
		}
	}
	return number
}

// same fails unless these members delivered the same, and so many.
func (c *cluster) same(count int, ids ...int) {
	c.t.Helper()
	c.wait(5*time.Second, fmt.Sprintf("%d messages at %v", count, ids), func() bool {
		for _, id := range ids {
			if len(c.members[id].told()) < count {
				return false
			}
		}
		return true
	})
	want := c.members[ids[0]].told()
	for _, id := range ids {
		if got := c.members[id].told(); !slices.Equal(got, want) || len(got) != count {
			c.t.Errorf("member %d delivered %q,\nmember %d %q", id, got, ids[0], want)
		}
	}
}

func (m *testMember) told() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.delivered)
}

func (m *testMember) stableTo() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stable
}

func (m *testMember) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("view %v, causes %v, synced %v, %d delivered, stable %d", m.view, m.causes, m.synced, len(m.delivered), m.stable)
}

// Handle implements Handler.
func (m *testMember) Handle(events []ring.Event) {
	m.mu.Lock()
	pause := m.pause
	for _, e := range events {
		switch e := e.(type) {
		case ring.Installed:
			m.view, m.synced, m.left = e.View, !e.Exchange, e.Left
			m.causes = append(m.causes, e.Cause)
			if e.Exchange && e.View.ID.Coordinator.ID == ring.NodeID(m.id) {
				m.group.End(e.View.ID)
			}
		case ring.EndStable:
			m.synced = true
		case ring.Delivered:
			for _, entry := range e.Entries {
				m.delivered = append(m.delivered, fmt.Sprintf("%d: %s", entry.From.ID, entry.Payload))
			}
		case ring.Stable:
			m.stable = e.Proposal
		case ring.NotDelivered:
			m.undone = append(m.undone, e)
		case ring.Clash:
			m.clashes = append(m.clashes, e)
		case ring.Granted:
			m.granted = append(m.granted, e)
		}
	}
	m.mu.Unlock()
	if pause != nil {
		pause()
	}
}

// logLines collects log lines.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logLines) logger() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(l)
	log.SetLevel(logrus.DebugLevel)
	log.SetFormatter(&logrus.TextFormatter{DisableColors: true, TimestampFormat: "05.000000"})
	return log
}

func (l *logLines) has(text string) bool { return l.count(text) > 0 }

func (l *logLines) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}
