package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// ring is three of our registrars in a ring over SCTP, with elements and users
// over SCTP: what one acknowledges all know, and the elements of one that dies or
// stops are taken over.
func ring(l *lab) {
	l.check("TLS over SCTP is refused", l.refusesTLS())

	three := []host{pr1, pr2, pr3}
	r := l.ringOn(three...)

	// Each element knows one registrar: it hears of another only by its
	// keep-alives.
	var elements []*process
	for i, registrar := range three {
		_, e := l.echoElement([]host{pe1, pe2, pe3}[i], registrar, "element-"+registrar.name, "echo", "--timers", "fast")
		elements = append(elements, e)
	}
	for _, h := range three {
		l.need("all elements are known at "+h.name, second(l.members(h, "echo", 3, 15*time.Second)))
	}
	l.check("all have the same elements", r.agree(5*time.Second, 3))
	for _, h := range three {
		l.check("a user at "+h.name+" finds all elements", l.requests(pu1, "user-"+h.name, 3, l.user(h, "echo", "--repeat", "30")...))
	}
	session := r.session(pu2)
	l.need("a session works", session.answers(20))

	r.kill(pr1)
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
	l.check("the others agree", r.agree(10*time.Second, 3))
	for _, h := range left {
		l.check("a user at "+h.name+" still finds all elements", l.requests(pu1, "user-after-kill-"+h.name, 3, l.user(h, "echo", "--repeat", "30")...))
	}
	l.check("the session goes on", session.answers(20))

	r.start(pr1)
	l.check("it comes back and knows all", r.agree(20*time.Second, 3))

	r.running[pr2].signal(syscall.SIGSTOP)
	l.check("one is stopped: its elements have a home among the others", l.homes(20*time.Second, []host{pr1, pr3}, 3))
	l.check("the session goes on", session.answers(20))
	r.running[pr2].signal(syscall.SIGCONT)
	l.check("it goes on and knows all", r.agree(20*time.Second, 3))
	l.check("the session goes on", session.answers(20))

	for _, network := range []string{"a", "b"} {
		l.need("network "+network+" is cut at pr3", pr3.cut(network))
	}
	l.check("one is cut off: its elements have a home among the others", l.homes(20*time.Second, []host{pr1, pr2}, 3))
	time.Sleep(10 * time.Second)
	for _, network := range []string{"a", "b"} {
		l.need("network "+network+" is back at pr3", pr3.mend(network))
	}
	mended := time.Now()
	l.check("the sides meet and agree", r.agree(30*time.Second, 3))
	l.note("agreed %.1f s after the networks were back", time.Since(mended).Seconds())

	for _, h := range three {
		l.check(h.name+" ends on SIGTERM", r.running[h].end(syscall.SIGTERM, 15*time.Second))
		r.start(h)
		l.check("after its restart all agree", r.agree(20*time.Second, 3))
	}
	l.answeredAll(session)
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
