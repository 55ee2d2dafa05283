package main

import (
	"fmt"
	"time"
)

// paths is ours with ours over two networks, one of which fails.
func paths(l *lab) {
	r := l.registrar(pr1, "rspd", "--timers", "fast")
	_, element := l.echoElement(pe1, pr1, "element", "echo", "--timers", "fast")
	p, err := l.members(pr1, "echo", 1, 10*time.Second)
	if err == nil && len(p.Members[0].UserTransport.Addresses) != 2 {
		err = fmt.Errorf("%+v", p)
	}
	l.need("element registers two addresses", err)

	session := l.mustStart(pu1, "session", l.user(pr1, "echo", "--request", "a request", "--repeat", "0", "--interval", "50ms",
		"--sticky", "--attempt-timeout", "10s", "--timeout", "30s", "-o", "json")...)
	l.need("session works", session.answers(40))
	for _, h := range []host{pr1, pe1, pu1} {
		l.need("network a is cut at "+h.name, h.cut("a"))
	}
	l.check("session goes on over network b", session.answers(40))
	time.Sleep(10 * time.Second) // several keep-alives
	l.check("element stays registered", second(l.members(pr1, "echo", 1, 0)))
	l.check("a new user finds the element over network b", l.requests(pu2, "second", 1, l.user(pr1, "echo", "--repeat", "3", "--timeout", "25s", "--attempt-timeout", "20s")...))
	for _, h := range []host{pr1, pe1, pu1} {
		l.check("network a is back at "+h.name, h.mend("a"))
	}
	s, err := session.finished()
	if err == nil && (s.Failovers > 0 || len(s.Elements) != 1) {
		err = fmt.Errorf("%+v", s)
	}
	l.check("one session, every request answered", err)
	l.note("longest wait for an answer: %.1f s, %d answers", s.LongestGap, s.Answered)
	l.check("both ran all the time", r.running())
	l.check("element ran all the time", element.running())
}
