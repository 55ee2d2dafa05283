package main

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// overTCP is our registrar with elements that register over TCP, and two of rsplib's
// registrars, which know no ASAP over TCP, in one scope. Without --compat rsplib they
// refuse these elements, and every part of a handle table with one of them.
func overTCP(l *lab) {
	s := &scope{lab: l, elements: make(map[string]*process)}
	r2 := s.theirs(pr2)
	ours := func() *process {
		return s.ours(pr1, "--enrp-peer", sctpOn(pr2, 9901), "--listen", "tcp://"+pr1.a()+":3863")
	}
	r1 := ours()
	l.need("ours serves", s.serves(pr1, r1))
	s.our(pe1, pr1, "OverSCTP")
	names := []string{"OverSCTP"}
	for i, user := range []string{"tcp", "sctp"} {
		at, name := fmt.Sprintf("%s://%s:%d", user, pe2.a(), 7001+i), "OverTCP-"+user
		names = append(names, name)
		l.server(pe2, name+"-server", "echo", at)
		s.elements[name] = l.mustStart(pe2, name, l.bin("rsppe"), "--pool", name, "--registrar", "tcp://"+pr1.a(),
			"--compat", "rsplib", "--check", "none", "--service", at)
	}
	l.check("elements register over SCTP and TCP", s.resolvable(15*time.Second, []host{pr1}, names...))
	l.check("rsplib's registrar has the same elements and checksums", l.consistent(10*time.Second, 3, pr1, pr2))
	r3 := s.theirs(pr3, "-peer="+pr1.enrp())
	l.need("another registrar of rsplib's joins late", r3.says("registrar is ready", 1, 20*time.Second))
	l.check("it has downloaded the table from ours", l.consistent(15*time.Second, 3, pr1, pr2, pr3))
	for _, user := range []string{"tcp", "sctp"} {
		_, err := l.output(20*time.Second, pu1, "user-"+user, l.user(pr2, "OverTCP-"+user, "--compat", "rsplib", "--request", "hello")...)
		l.check("a user at rsplib's registrar is served by the element that is reached by "+user, err)
	}
	time.Sleep(12 * time.Second) // two keep-alives, some audits, and tools are forgotten
	l.check("all have the same later", l.consistent(0, 3, pr1, pr2, pr3))

	time.Sleep(12 * time.Second)
	r1.signal(syscall.SIGKILL)
	r1 = ours()
	l.need("ours is killed and comes back", s.serves(pr1, r1))
	l.check("the elements come back", s.resolvable(20*time.Second, []host{pr1}, names...))
	l.check("all have the same again", l.consistent(30*time.Second, 3, pr1, pr2, pr3))
	l.check("the registrars run", errors.Join(r1.running(), r2.running(), r3.running()))
}
