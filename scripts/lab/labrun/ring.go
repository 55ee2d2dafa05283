package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// ringHosts are where the members of the ring run.
var ringHosts = []host{pr1, pr2, pr3}

// ringPort is where members of a ring reach each other.
const ringPort = 9903

// ring is three of our registrars in a ring over SCTP, with elements and users
// over SCTP: what one acknowledges all know, and the elements of one that dies or
// stops are taken over.
func ring(l *lab) {
	l.check("TLS over SCTP is refused", l.refusesTLS())

	members := make(map[host]*process)
	lives := 0
	start := func(h host) {
		lives++
		args := []string{"--id", fmt.Sprint(h.num), "--timers", "fast", "--ring-listen", sctpOn(h, ringPort)}
		for _, other := range ringHosts {
			args = append(args, "--peer", sctpOn(other, ringPort))
		}
		members[h] = l.registrar(h, fmt.Sprintf("rspd-%s-%d", h.name, lives), args...)
		l.need(h.name+" has a ring port", l.listens(h, ringPort, 10*time.Second))
	}
	for _, h := range ringHosts {
		start(h)
	}
	l.need("three are one ring", l.agree(20*time.Second, 0, ringHosts...))

	// Each element knows one registrar: it hears of another only by its
	// keep-alives.
	var elements []*process
	for i, registrar := range ringHosts {
		_, e := l.echoElement([]host{pe1, pe2, pe3}[i], registrar, "element-"+registrar.name, "echo", "--timers", "fast")
		elements = append(elements, e)
	}
	for _, h := range ringHosts {
		l.need("all elements are known at "+h.name, second(l.members(h, "echo", 3, 15*time.Second)))
	}
	l.check("all have the same elements", l.agree(5*time.Second, 3, ringHosts...))
	for _, h := range ringHosts {
		l.check("a user at "+h.name+" finds all elements", l.requests(pu1, "user-"+h.name, 3, l.user(h, "echo", "--repeat", "30")...))
	}
	session := l.mustStart(pu2, "session", append(l.user(pr1, "echo", "--request", "a request", "--repeat", "0", "--interval", "50ms",
		"--attempt-timeout", "5s", "--timeout", "20s", "-o", "json"), "--registrar", sctpOn(pr2, 3863), "--registrar", sctpOn(pr3, 3863))...)
	answers := func() error {
		before := strings.Count(session.text(), `"answer":"a request"`)
		return session.says(`"answer":"a request"`, before+20, 30*time.Second)
	}
	l.need("a session works", answers())

	members[pr1].stop()
	killed := time.Now()
	left := []host{pr2, pr3}
	l.check("one is killed: its element has a home among the others", l.homes(15*time.Second, left, 3))
	l.note("taken over %.1f s after the kill", time.Since(killed).Seconds())
	l.check("the element is told by keep-alive", within(15*time.Second, func() error {
		text := elements[0].text()
		for _, h := range left {
			if strings.Contains(text, h.a()+":") {
				return nil
			}
		}
		return fmt.Errorf("it names no other registrar: %s", tail(text))
	}))
	l.check("the others agree", l.agree(10*time.Second, 3, left...))
	for _, h := range left {
		l.check("a user at "+h.name+" still finds all elements", l.requests(pu1, "user-after-kill-"+h.name, 3, l.user(h, "echo", "--repeat", "30")...))
	}
	l.check("the session goes on", answers())

	start(pr1)
	l.check("it comes back and knows all", l.agree(20*time.Second, 3, ringHosts...))

	members[pr2].signal(syscall.SIGSTOP)
	l.check("one is stopped: its elements have a home among the others", l.homes(20*time.Second, []host{pr1, pr3}, 3))
	l.check("the session goes on", answers())
	members[pr2].signal(syscall.SIGCONT)
	l.check("it goes on and knows all", l.agree(20*time.Second, 3, ringHosts...))
	l.check("the session goes on", answers())

	for _, network := range []string{"a", "b"} {
		l.need("network "+network+" is cut at pr3", pr3.cut(network))
	}
	l.check("one is cut off: its elements have a home among the others", l.homes(20*time.Second, []host{pr1, pr2}, 3))
	time.Sleep(10 * time.Second)
	for _, network := range []string{"a", "b"} {
		l.need("network "+network+" is back at pr3", pr3.mend(network))
	}
	mended := time.Now()
	l.check("the sides meet and agree", l.agree(30*time.Second, 3, ringHosts...))
	l.note("agreed %.1f s after the networks were back", time.Since(mended).Seconds())

	for _, h := range ringHosts {
		l.check(h.name+" ends on SIGTERM", members[h].end(syscall.SIGTERM, 15*time.Second))
		start(h)
		l.check("after its restart all agree", l.agree(20*time.Second, 3, ringHosts...))
	}
	session.signal(syscall.SIGINT)
	_ = session.wait(5 * time.Second) // its exit code is that of an interrupt
	s, err := parseReport(session.text())
	if err == nil && s.Failed > 0 {
		err = fmt.Errorf("%d of %d requests failed", s.Failed, s.Requests)
	}
	l.check("every request of the session was answered", err)
	l.note("longest wait for an answer: %.1f s, %d answers, %d failovers", s.LongestGap, s.Answered, s.Failovers)
	for _, e := range elements {
		l.check(e.name+" ran all the time", e.running())
	}
}

// refusesTLS returns nil if rspd with certificates, asked for a ring over SCTP,
// ends and says why.
func (l *lab) refusesTLS() error {
	dir := l.file("ca")
	if out, err := l.output(20*time.Second, host{}, "ca-init", l.bin("rspd"), "ca", "init", "--dir", dir); err != nil {
		return fmt.Errorf("rspd ca init: %w: %s", err, tail(out))
	}
	if out, err := l.output(20*time.Second, host{}, "ca-issue", l.bin("rspd"), "ca", "issue", "one", "--dir", dir); err != nil {
		return fmt.Errorf("rspd ca issue: %w: %s", err, tail(out))
	}
	out, err := l.output(20*time.Second, pr1, "rspd-tls", l.bin("rspd"), "--id", "1", "--ring-listen", sctpOn(pr1, ringPort),
		"--tls-ca", dir+"/ca.crt", "--tls-cert", dir+"/one.crt", "--tls-key", dir+"/one.key")
	if !strings.Contains(out, "TLS over SCTP is not available") {
		err = errors.Join(err, errors.New("it does not say why"))
	}
	if exit := exitCode(err, 2); exit != nil {
		return fmt.Errorf("rspd %w: %s", exit, tail(out))
	}
	return nil
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
				known := false
				for _, h := range hosts {
					known = known || m.Home == fmt.Sprintf("0x%08x", h.num)
				}
				if !known {
					return fmt.Errorf("%s says that %s has home %s", asked.name, m.ID, m.Home)
				}
			}
		}
		return nil
	})
}
