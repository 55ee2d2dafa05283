package main

import (
	"errors"
	"fmt"
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
		s.our(pe3, h, fmt.Sprint("Brief", h.num))
		names = append(names, theirs, ours)
	}
	l.check("elements of both makers register everywhere", s.resolvable(20*time.Second, []host{pr1, pr2}, append(names, "Brief1", "Brief2", "Brief4")...))
	for _, h := range []host{pr1, pr2, pr4} {
		l.check("an element at "+h.name+" leaves", s.gone(fmt.Sprint("Brief", h.num)))
	}
	began := time.Now()
	l.check("all four have the same elements and checksums", l.consistent(10*time.Second, 8, all...))
	l.note("after %.1f s", time.Since(began).Seconds())

	time.Sleep(12 * time.Second) // rsplib takes tools for registrars for so long
	r2.signal(syscall.SIGKILL)
	killed := time.Now()
	l.check("one of ours is killed: the other takes its elements over", s.homed(20*time.Second, pr1, pr1, "TheirsAt2", "OursAt2"))
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
	l.check("one of rsplib's is killed: ours take its elements over", s.homedIn(30*time.Second, []host{pr1, pr2}, []host{pr1, pr2}, "TheirsAt3", "OursAt3"))
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
