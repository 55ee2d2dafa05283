package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ringFaults is five of our registrars in a ring over SCTP that lose each other, with
// elements and users, who lose none of them.
func ringFaults(l *lab) {
	five := []host{pr1, pr2, pr3, pr4, pr5}
	r := l.ringOn(five...)
	var elements []*process
	for i, registrar := range five {
		_, e := l.echoElement([]host{pe1, pe2, pe3, pe1, pe2}[i], registrar, "element-"+registrar.name, "echo",
			append([]string{"--timers", "fast"}, r.known(registrar)...)...)
		elements = append(elements, e)
	}
	l.need("all know the elements", r.agree(20*time.Second, len(elements)))
	session := r.session(pu2)
	l.need("a session works", session.answers(20))

	others := five[1:]
	r.fault("what one sends to all is lost", len(elements), func() {
		l.need("cut", pr1.lose(others...))
		l.steady(pr2, "what one sends to all is lost")
		l.check("what one sends to all is lost: the others are one ring", l.agree(20*time.Second, len(elements), others...))
		l.need("mended", pr1.find(others...))
	})
	r.fault("what one sends to another is lost", len(elements), func() {
		l.need("cut", pr1.lose(pr2))
		l.steady(pr3, "what one sends to another is lost")
		l.need("mended", pr1.find(pr2))
	})
	left, right := five[:2], five[2:]
	r.fault("split 2|3", len(elements), func() {
		l.need("cut", split(left, right))
		for _, side := range [][]host{left, right} {
			l.check("split 2|3: each side is a ring with all elements", l.agree(20*time.Second, len(elements), side...))
		}
		time.Sleep(2 * time.Second)
		l.need("mended", meet(left, right))
	})
	victim, err := l.someHome(five...)
	l.need("an element has a home", err)
	others = slices.DeleteFunc(slices.Clone(five), func(h host) bool { return h == victim })
	left, right = others[:2], others[2:]
	r.fault("split during a takeover", len(elements), func() {
		r.kill(victim)
		time.Sleep(100 * time.Millisecond)
		l.need("cut", split(left, right))
		time.Sleep(4 * time.Second)
		l.need("mended", meet(left, right))
	})
	r.fault("it comes back", len(elements), func() { r.start(victim) })
	l.answeredAll(session)

	asking := r.ask(len(elements))
	for _, h := range five {
		r.kill(h)
	}
	began := time.Now()
	for _, h := range five {
		r.launch(h)
	}
	l.check("all are killed and come back with nothing: every element registers by itself", r.agree(10*10*time.Second, len(elements)))
	l.note("registered everywhere %.1f s after the restart (bound 10 s)", time.Since(began).Seconds())
	a, err := asking.finish() // wrong answers are right: who starts knows no element
	l.check("all come back with nothing: users are answered again", err)
	l.note("longest time without a right answer from any registrar: %.1f s", a.Gap)
	for _, e := range elements {
		l.check(e.name+" ran all the time", e.running())
	}
}

// maxViews is how many views may come in a time while one member can't be kept: it is
// left alone for longer each time.
const (
	maxViews  = 10
	viewsTime = 8 * time.Second
)

// steady checks that a registrar's ring does not change again and again.
func (l *lab) steady(h host, what string) {
	before, err := l.views(h)
	time.Sleep(viewsTime)
	after, err2 := l.views(h)
	l.note("%s: %d views in %v", what, after-before, viewsTime)
	if err = errors.Join(err, err2); err == nil && after-before > maxViews {
		err = fmt.Errorf("%d views in %v", after-before, viewsTime)
	}
	l.check(what+": the ring does not change again and again", err)
}

// someHome returns which of the hosts is the home of an element of the echo pool.
func (l *lab) someHome(hosts ...host) (host, error) {
	var p pool
	if err := l.ctl(hosts[0], &p, "pool", "show", "echo"); err != nil {
		return host{}, err
	}
	for _, h := range hosts {
		if slices.ContainsFunc(p.Members, func(m member) bool { return h.isHome(m.Home) }) {
			return h, nil
		}
	}
	return host{}, fmt.Errorf("%+v", p)
}

// maxGap is how long users may be without a right answer from any registrar, in seconds.
const maxGap = 10

// fault lets something happen and checks that users are answered right all the time,
// and that all registrars that run know the same soon after.
func (r *registrars) fault(what string, elements int, happen func()) {
	asking := r.ask(elements)
	happen()
	began := time.Now()
	r.check(what+": all agree afterwards", r.agree(10*2*time.Second, elements))
	agreed := time.Since(began)
	a, err := asking.finish()
	switch {
	case err != nil:
	case a.Wrong > 0:
		err = fmt.Errorf("%d of %d answers are wrong: %v", a.Wrong, a.Wrong+a.Right, a.First)
	case a.Gap > maxGap:
		err = fmt.Errorf("none for %.1f s", a.Gap)
	}
	r.check(what+": users are answered right by whatever registrar lives", err)
	r.note("%s: agreed after %.1f s (bound 2 s); %d answers, longest time without one from any registrar %.1f s", what, agreed.Seconds(), a.Right, a.Gap)
}

// asking is a program that resolves the echo pool at all registrars.
type asking struct{ *process }

// ask starts it; an answer is right that names so many elements.
func (r *registrars) ask(elements int) asking {
	args := []string{r.bin("labrun"), "-ask", "echo", "-elements", strconv.Itoa(elements)}
	for _, h := range r.hosts {
		args = append(args, sctpOn(h, 3863))
	}
	r.asked++
	a := asking{r.mustStart(pu1, fmt.Sprint("ask-", r.asked), args...)}
	r.need("users are answered", a.says("answered", 1, 10*time.Second))
	return a
}

// finish ends it and returns what came of it.
func (a asking) finish() (result asked, err error) {
	if err := a.end(syscall.SIGTERM, 10*time.Second); err != nil {
		return result, fmt.Errorf("%w: %s", err, tail(a.text()))
	}
	_, text, _ := strings.Cut(a.text(), "\n") // the first line says that there are answers
	return result, json.Unmarshal([]byte(text), &result)
}
