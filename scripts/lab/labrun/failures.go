package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// failures kills and stops elements of both makers at registrars of both makers
// while a user of ours asks them all the time.
func failures(l *lab) {
	l.registrar(pr1, "rspd", "--compat", "rsplib", "--timers", "rsplib")
	theirs := l.rsplibRegistrar(pr2, "rspregistrar")
	atOurs := func(name string, n int) func(time.Duration) error {
		return func(limit time.Duration) error { return second(l.members(pr1, name, n, limit)) }
	}

	// Elements of both makers at our registrar.
	for _, maker := range []string{"rspserver", "rsppe"} {
		for _, how := range []string{"killed", "stopped"} {
			name := maker + "-" + how
			kill := l.twoElements(pr1, maker, name)
			l.need("two of "+maker+" register", atOurs(name, 2)(15*time.Second))
			l.fail(pr1, name, maker, how, kill, atOurs(name, 1))
		}
	}

	// Elements of ours at rsplib's registrar, which says what it does.
	for _, how := range []string{"killed", "stopped"} {
		name := "rsppe-" + how
		kill := l.twoElements(pr2, "rsppe", name)
		l.need("two of rsppe register at rsplib's registrar", theirs.says("Successfully registered "+name, 2, 15*time.Second))
		const lost = "Removing all pool elements registered by user"
		before := strings.Count(theirs.text(), lost)
		gone := func(limit time.Duration) error {
			return within(limit, func() error {
				text := theirs.text()
				if strings.Count(text, lost) == before && !strings.Contains(text, "of pool "+name+" -> removing it") {
					return errors.New("rspregistrar has not removed it")
				}
				return nil
			})
		}
		l.fail(pr2, name, "rsppe at rsplib's registrar", how, kill, gone)
	}
}

// twoElements starts two echo elements in a pool, on pe1 and pe2. What it
// returns does something to the first and its server.
func (l *lab) twoElements(registrar host, maker, name string) func(syscall.Signal) {
	var first []*process
	at := "-" + registrar.name
	for _, h := range []host{pe1, pe2} {
		var processes []*process
		if maker == "rspserver" {
			processes = []*process{l.rsplibElement(h, name+"-"+h.name+at, "echo", registrar, "-poolhandle="+name)}
		} else {
			l.port++
			server := l.server(h, name+"-"+h.name+at+"-server", "echo", sctpOn(h, l.port))
			element := l.mustStart(h, name+"-"+h.name+at, l.element(registrar, name, "--compat", "rsplib", "--check", "none",
				"--service", fmt.Sprintf("sctp://%s:%d", h.a(), l.port))...)
			processes = []*process{element, server}
		}
		if first == nil {
			first = processes
		}
	}
	return func(s syscall.Signal) {
		for _, p := range first {
			p.signal(s)
		}
	}
}

// fail kills or stops the first element while a user asks the pool, and checks
// when it is gone and that every request was answered.
func (l *lab) fail(registrar host, pool, what, how string, signal func(syscall.Signal), gone func(time.Duration) error) {
	user := l.mustStart(pu1, "user-"+pool+"-"+registrar.name, l.user(registrar, pool, "--compat", "rsplib", "--repeat", "0", "--interval", "50ms",
		"--request", "a request", "--read", "message", "--attempt-timeout", "1s", "-o", "json")...)
	l.need("user asks "+pool, user.answers(20))
	begin := time.Now()
	if how == "killed" {
		signal(syscall.SIGKILL)
		l.check(what+" killed: gone at once", gone(3*time.Second))
	} else {
		signal(syscall.SIGSTOP)
		l.check(what+" stopped: gone after the keep-alive time-outs", gone(20*time.Second))
	}
	l.note("%s %s: gone after %.1f s", what, how, time.Since(begin).Seconds())
	l.check("user goes on", user.answers(20))
	s, err := user.finished()
	l.check(what+" "+how+": the user fails over, every request is answered", err)
	l.note("%s %s: longest wait for an answer %.1f s", what, how, s.LongestGap)
	l.endOf(pool)
}

// endOf kills the processes whose name begins so, to leave room for others.
func (l *lab) endOf(prefix string) {
	for _, p := range l.processes {
		if strings.HasPrefix(p.name, prefix) {
			p.stop()
		}
	}
}
