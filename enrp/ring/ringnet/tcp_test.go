package ringnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/enrp/ring"
	"rserpool/enrp/ring/ringtest"
)

// summed is an application that keeps check sums of what it is given.
type summed struct {
	group *Group
	self  ring.Member

	mu     sync.Mutex
	change chan struct{} // closed at each change
	view   ring.View
	synced bool
	sums   []uint32
	stable uint64
}

func (a *summed) Handle(events []ring.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range events {
		switch e := e.(type) {
		case ring.Installed:
			a.view, a.synced = e.View, !e.Exchange
			a.group.cfg.Log.WithFields(logrus.Fields{"cause": e.Cause, "view": e.View.ID, "n": len(e.View.Members)}).Info("installed")
			if e.Exchange && e.View.ID.Coordinator.ID == a.self.ID {
				a.group.End(e.View.ID)
			}
		case ring.EndStable:
			a.synced = true
		case ring.Delivered:
			for _, entry := range e.Entries {
				a.sums = append(a.sums, crc32.ChecksumIEEE(entry.Payload)+uint32(entry.From.ID))
			}
		case ring.Stable:
			a.stable = e.Proposal
		}
	}
	close(a.change)
	a.change = make(chan struct{})
}

// wait returns when cond, called with the lock held, is true.
func (a *summed) wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		a.mu.Lock()
		ok, change := cond(), a.change
		a.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
		case <-timeout:
			t.Fatalf("member %d: not within a minute: %s", a.self.ID, what)
		}
	}
}

// startTCP runs a group on loopback.
func startTCP(t *testing.T, n int) []*summed {
	t.Helper()
	var apps []*summed
	lines := &logLines{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("\n", strings.Join(lines.lines, ""))
		}
	})
	var peers []transport.Endpoint
	for i := range n {
		a := &summed{change: make(chan struct{}), self: ring.Member{ID: ring.NodeID(i + 1)}}
		g, err := New(Config{
			Cluster: "tcp", ID: a.self.ID, Networks: transport.NewNetworks(tcp.New()),
			Listen: []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}},
			Timers: ringtest.Unhurried(),
			Peers:  peers, Handler: a, Log: lines.logger().WithField("self", i+1),
		})
		if err != nil {
			t.Fatal(err)
		}
		a.group = g
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := g.Stop(ctx); err != nil {
				t.Error(err)
			}
		})
		peers = append(peers, transport.Endpoint{Network: transport.TCP, Hosts: []string{"127.0.0.1"}, Port: g.Addrs()[0].Port()})
		apps = append(apps, a)
	}
	for _, a := range apps {
		a.wait(t, "all are one group", func() bool { return len(a.view.Members) == n && a.synced })
	}
	return apps
}

// TestOverTCP: many short and some of the longest messages from all members, in
// one order, complete, and stable.
func TestOverTCP(t *testing.T) {
	apps := startTCP(t, 3)
	views := make(map[*summed]uint64)
	changes := func(a *summed) uint64 {
		s, err := a.group.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Counters.Views[ring.CauseNoAck] + s.Counters.Views[ring.CauseStarved]
	}
	for _, a := range apps {
		views[a] = changes(a)
	}
	const short, long = 3000, 10
	var senders sync.WaitGroup
	for _, a := range apps {
		senders.Go(func() {
			for i := range short + long {
				payload := fmt.Appendf(nil, "%d of %d", i, a.self.ID)
				if i%(short/long) == 1 {
					payload = bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(i)), ring.MaxPayload/4)
				}
				for {
					_, err := a.group.Propose(payload)
					if err == nil {
						break
					}
					if err != ring.ErrFull {
						t.Error(err)
						return
					}
					<-a.group.Room()
				}
			}
		})
	}
	senders.Wait()
	all := len(apps) * (short + long)
	for _, a := range apps {
		a.wait(t, "all is delivered and stable", func() bool { return len(a.sums) == all && a.stable == short+long })
	}
	for _, a := range apps[1:] {
		for i := range all {
			if a.sums[i] != apps[0].sums[i] {
				t.Fatalf("message %d differs at member %d", i, a.self.ID)
			}
		}
	}
	for _, a := range apps {
		s, err := a.group.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if changes(a) != views[a] {
			t.Errorf("member %d: views changed under load: %v", a.self.ID, s.Counters.Views)
		}
		for _, p := range s.Peers {
			if p.Dropped > 0 {
				t.Errorf("member %d dropped %d messages to %s", a.self.ID, p.Dropped, p.Member)
			}
		}
	}
}
