package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// mixed is a ring of two of our registrars, with TCP between them, and two of
// rsplib's in one scope.
func mixed(l *lab) {
	s := &scope{lab: l, elements: make(map[string]*process)}
	ring := func(h host) *process {
		args := []string{"--ring-listen", "tcp://" + h.a() + ":9903", "--ring-timers", "wan", "--ring-join-wait", "3s", "--enrp-peer", sctpOn(pr3, 9901), "--enrp-peer", sctpOn(pr4, 9901)}
		for _, other := range []host{pr1, pr2} {
			args = append(args, "--peer", "tcp://"+other.a()+":9903")
		}
		return s.ours(h, args...)
	}
	r3 := s.theirs(pr3)
	s.their(pe1, pr3, "TheirsAt3")
	s.our(pe1, pr3, "OursAt3")
	l.need("elements register at rsplib's registrar", errors.Join(
		r3.says("Successfully registered TheirsAt3", 1, 15*time.Second), r3.says("Successfully registered OursAt3", 1, 15*time.Second)))
	r1 := ring(pr1)
	l.need("ours serves", s.serves(pr1, r1))
	l.check("it has downloaded the table from rsplib's registrar", s.resolvable(time.Second, []host{pr1}, "TheirsAt3", "OursAt3"))
	r4 := s.theirs(pr4, "-peer="+pr1.enrp())
	l.need("rsplib's second registrar joins late", r4.says("registrar is ready", 1, 20*time.Second))
	l.check("it has downloaded the table from ours", l.consistent(15*time.Second, 2, pr1, pr3, pr4))
	r2 := ring(pr2)
	l.need("our second member serves", s.serves(pr2, r2))
	l.check("it knows all at once", s.resolvable(time.Second, []host{pr2}, "TheirsAt3", "OursAt3"))

	all := []host{pr1, pr2, pr3, pr4}
	names := []string{"TheirsAt3", "OursAt3"}
	for i, h := range []host{pr1, pr2, pr4} {
		at := []host{pe1, pe2, pe3}[i]
		theirs, ours := fmt.Sprint("TheirsAt", h.num), fmt.Sprint("OursAt", h.num)
		s.their(at, h, theirs)
		s.our(at, h, ours)
		names = append(names, theirs, ours)
	}
	l.check("elements of both makers register everywhere", s.resolvable(20*time.Second, []host{pr1, pr2}, names...))
	l.check("all four have the same elements and checksums", l.consistent(10*time.Second, 8, all...))
	s.churn(8, all...)

	time.Sleep(12 * time.Second) // rsplib takes tools for registrars for so long
	r2.signal(syscall.SIGKILL)
	killed := time.Now()
	l.check("one of ours is killed: the other takes its elements over", s.homed(20*time.Second, pr1, pr1, "OursAt2"))
	l.check("and rsplib's element, unless that has moved by itself", s.homedOrMoved(20*time.Second, []host{pr1}, []host{pr1}, "TheirsAt2"))
	l.note("taken over %.1f s after the kill", time.Since(killed).Seconds())
	l.check("every element is resolvable", s.resolvable(0, []host{pr1}, names...))
	l.check("the three that are left have the same elements and checksums", l.consistent(20*time.Second, 8, pr1, pr3, pr4))
	l.check("taken over once", r1.exactly("elements taken over from a registrar that is gone", 1))

	r2 = ring(pr2)
	l.need("it comes back", s.serves(pr2, r2))
	l.check("and knows all", s.resolvable(2*time.Second, []host{pr2}, names...))

	time.Sleep(12 * time.Second)
	before := r1.count(takenOver) + r2.count(takenOver)
	r3.signal(syscall.SIGKILL)
	killed = time.Now()
	// rsplib's other registrar finds it dead, too, and asks for it; ours have the
	// lower identifiers and win. Were it to win, nobody would hear of that: its
	// TAKEOVER_SERVER does not leave its host.
	ours := []host{pr1, pr2}
	l.check("one of rsplib's is killed: ours take its elements over", s.homedIn(30*time.Second, ours, ours, "OursAt3"))
	l.check("and rsplib's element, unless that has moved by itself", s.homedOrMoved(30*time.Second, ours, ours, "TheirsAt3"))
	l.note("taken over %.1f s after the kill", time.Since(killed).Seconds())
	l.check("every element is resolvable", s.resolvable(0, []host{pr1, pr2}, names...))
	l.check("the three that are left have the same elements and checksums", l.consistent(20*time.Second, 8, pr1, pr2, pr4))
	l.check("taken over once", func() error {
		if n := r1.count(takenOver) + r2.count(takenOver) - before; n != 1 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	}())
}

// What elements of each maker do at each registrar in a churn.
const (
	churnTime     = 10 * time.Second
	churnOurs     = 3 // elements at a time
	churnTheirs   = 2
	churnOursLow  = 10 // acknowledged registrations, at least
	churnTheirLow = 2
)

// churned waits for a churn to rest and returns what it has done.
func (p *process) churned() (c churned, err error) {
	if err := p.says(`"Standing"`, 1, 2*churnPatience); err != nil {
		return c, err
	}
	text := strings.TrimSpace(p.text()) // what it has to complain of, and the result
	return c, json.Unmarshal([]byte(text[strings.LastIndex(text, "\n")+1:]), &c)
}

// churn lets elements of both makers come and go at all registrars at the same time, and
// checks that all know the same when they rest, and again when they have left; steady is
// how many elements there are besides.
func (s *scope) churn(steady int, registrars ...host) {
	churns := make(map[host][2]*process)
	for i, h := range registrars {
		at := []host{pe1, pe2, pe3, pu1}[i]
		start := func(maker string, elements int) *process {
			return s.mustStart(at, fmt.Sprintf("churn-%s-%s", maker, h.name), s.bin("labrun"), "-churn", maker, "-at", h.asap(),
				"-elements", strconv.Itoa(elements), "-for", churnTime.String())
		}
		churns[h] = [2]*process{start("ours", churnOurs), start("rsplib", churnTheirs)}
	}
	time.Sleep(churnTime)
	standing := steady
	for _, h := range registrars {
		for i, maker := range []string{"our", "rsplib's"} {
			p, low := churns[h][i], []int{churnOursLow, churnTheirLow}[i]
			c, err := p.churned()
			switch {
			case err != nil:
			case len(c.Errors) > 0:
				err = fmt.Errorf("%d errors: %v", len(c.Errors), c.Errors[:min(len(c.Errors), 5)])
			case c.Registered < low || c.Deregistered < low || c.Standing != c.Registered-c.Deregistered:
				err = fmt.Errorf("%+v, want %d of each at least", c, low)
			}
			s.check(fmt.Sprintf("%s elements come and go at %s", maker, h.name), err)
			s.note("%s acknowledged %d registrations and %d deregistrations of %s elements in %v", h.name, c.Registered, c.Deregistered, maker, churnTime)
			standing += c.Standing
		}
	}
	began := time.Now()
	s.check("after 10 s of registrations and deregistrations all four have the same elements and checksums", s.consistent(10*time.Second, standing, registrars...))
	s.note("%d elements, after %.1f s", standing, time.Since(began).Seconds())
	for _, h := range registrars {
		for _, p := range churns[h] {
			s.check(p.name+" leaves", p.end(syscall.SIGTERM, 2*churnPatience))
		}
	}
	s.check("all four have the same elements and checksums when they have left", s.consistent(10*time.Second, steady, registrars...))
}
