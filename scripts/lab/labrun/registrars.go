package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ringPort is where members of a ring reach each other.
const ringPort = 9903

// registrars are ours in a ring over SCTP, each on a host of its own.
type registrars struct {
	*lab
	hosts   []host
	running map[host]*process
	lives   int
	asked   int // programs that ask
}

// patience is what members of a ring have with one another here: the other timers are those
// of a LAN, but all processes share one slow processor, which keeps one waiting for 100 to
// 400 ms.
var patience = []string{"--ring-hop-timeout", "1s", "--ring-hop-retry", "200ms", "--ring-collect-wait", "200ms", "--ring-lost-wait", "200ms"}

// ringOn starts registrars on these hosts and waits until they are one ring.
func (l *lab) ringOn(hosts ...host) *registrars {
	r := &registrars{lab: l, hosts: hosts, running: make(map[host]*process)}
	for _, h := range hosts {
		r.launch(h)
	}
	for _, h := range hosts {
		r.awaitPorts(h)
	}
	l.need(fmt.Sprint(len(hosts), " are one ring"), r.agree(30*time.Second, 0))
	return r
}

// launch starts the registrar of a host; start waits until it listens, too.
func (r *registrars) launch(h host) {
	r.lives++
	args := append([]string{"--id", fmt.Sprint(h.num), "--timers", "fast", "--ring-listen", sctpOn(h, ringPort)}, patience...)
	for _, other := range r.hosts {
		args = append(args, "--peer", sctpOn(other, ringPort))
	}
	r.running[h] = r.mustStart(h, fmt.Sprintf("rspd-%s-%d", h.name, r.lives), r.rspd(h, args...)...)
}

func (r *registrars) start(h host) {
	r.launch(h)
	r.awaitPorts(h)
}

func (r *registrars) awaitPorts(h host) { r.needPorts(h, r.running[h], 3863, 9901, ringPort) }

// kill kills the registrar of a host.
func (r *registrars) kill(h host) {
	r.running[h].stop()
	delete(r.running, h)
}

// agree is lab.agree for all members that run.
func (r *registrars) agree(limit time.Duration, elements int) error {
	var hosts []host
	for _, h := range r.hosts {
		if r.running[h] != nil {
			hosts = append(hosts, h)
		}
	}
	return r.lab.agree(limit, elements, hosts...)
}

// registrarStatus is what rspctl says about a registrar.
type registrarStatus struct {
	Ready    bool
	Elements int
	Digest   string
	Ring     struct {
		View    string
		Members []string
		Synced  bool
	}
}

// agree waits until the registrars on these hosts are one ring, synced, and have
// the same records of so many elements.
func (l *lab) agree(limit time.Duration, elements int, hosts ...host) error {
	return within(limit, func() error {
		var first registrarStatus
		for i, h := range hosts {
			s, err := l.registrarStatus(h)
			if err != nil {
				return err
			}
			if i == 0 {
				first = s
			}
			if !s.Ready || s.Elements != elements || !s.Ring.Synced || len(s.Ring.Members) != len(hosts) || s.Ring.View != first.Ring.View || s.Digest != first.Digest {
				return fmt.Errorf("%s: %+v, %s: %+v", hosts[0].name, first, h.name, s)
			}
		}
		return nil
	})
}

// registrarStatus asks a registrar by its admin API.
func (l *lab) registrarStatus(h host) (s registrarStatus, err error) {
	l.commands++
	out, err := l.output(15*time.Second, h, fmt.Sprintf("rspctl-%d", l.commands), l.bin("rspctl"), "-o", "json", "status", "--settle", "0s")
	if err != nil && exitCode(err, 5) != nil { // 5: a configured peer is missing
		return s, fmt.Errorf("rspctl status: %w: %s", err, tail(out))
	}
	// What it finds fault with follows on standard error.
	return s, json.NewDecoder(strings.NewReader(out)).Decode(&s)
}

// views returns how many views the registrar on a host has installed.
func (l *lab) views(h host) (total int, err error) {
	var ring struct {
		Counters struct{ Views map[string]int }
	}
	err = l.ctl(h, &ring, "ring")
	for _, n := range ring.Counters.Views {
		total += n
	}
	return total, err
}

// homes waits until all elements of the pool have a home among the registrars on
// these hosts, by the word of each of them.
func (l *lab) homes(limit time.Duration, hosts []host, elements int) error {
	return within(limit, func() error {
		for _, asked := range hosts {
			var p pool
			if err := l.ctl(asked, &p, "pool", "show", "echo"); err != nil {
				return err
			}
			if len(p.Members) != elements {
				return fmt.Errorf("%s knows %d elements, not %d", asked.name, len(p.Members), elements)
			}
			for _, m := range p.Members {
				if !slices.ContainsFunc(hosts, func(h host) bool { return h.isHome(m.Home) }) {
					return fmt.Errorf("%s says that %s has home %s", asked.name, m.ID, m.Home)
				}
			}
		}
		return nil
	})
}

// known returns the flags that let a client know all registrars but one.
func (r *registrars) known(but host) (flags []string) {
	for _, h := range r.hosts {
		if h != but {
			flags = append(flags, "--registrar", sctpOn(h, 3863))
		}
	}
	return flags
}

// session starts rsppu, which asks the echo pool all the time.
func (r *registrars) session(h host) *process {
	first := r.hosts[0]
	return r.mustStart(h, "session", append(r.user(first, "echo", "--request", "a request", "--repeat", "0", "--interval", "50ms",
		"--attempt-timeout", "5s", "--timeout", "20s", "-o", "json"), r.known(first)...)...)
}

// answeredAll ends a session and checks that every request of it was answered.
func (l *lab) answeredAll(session *process) {
	s, err := session.finished()
	l.check("every request of the session was answered", err)
	l.note("longest wait for an answer: %.1f s, %d answers, %d failovers", s.LongestGap, s.Answered, s.Failovers)
}
