package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// echoElement starts an SCTP echo server on a host and rsppe beside it.
func (l *lab) echoElement(h, registrar host, name, pool string, args ...string) (server, element *process) {
	l.port++
	at := sctpOn(h, l.port)
	server = l.server(h, name+"-server", "echo", at)
	element = l.mustStart(h, name, l.element(registrar, pool, append([]string{
		"--service", fmt.Sprintf("sctp://%s:%d", h.a(), l.port), "--advertise", fmt.Sprintf("%s,%s:%d", h.a(), h.b(), l.port), "--check", "none"}, args...)...)...)
	return server, element
}

// summary is what rsppu -o json prints at the end.
type summary struct {
	Requests   int
	Answered   int
	Failed     int
	Failovers  int
	LongestGap float64 `json:"longest_gap_seconds"`
	Elements   []struct {
		Element string
		Answers int
	}
}

// parseReport finds the summary in what rsppu has printed.
func parseReport(text string) (s summary, err error) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, `"type":"summary"`) {
			return s, json.Unmarshal([]byte(line), &s)
		}
	}
	return s, fmt.Errorf("no summary: %s", tail(text))
}

// answers waits for so many more answers to rsppu.
func (p *process) answers(more int) error {
	const answer = `"answer":"a request"`
	return p.says(answer, p.count(answer)+more, 30*time.Second)
}

// finished ends rsppu and returns what it reports, with an error if a request was not
// answered.
func (p *process) finished() (summary, error) {
	p.signal(syscall.SIGINT)
	_ = p.wait(5 * time.Second) // its exit code is that of an interrupt
	s, err := parseReport(p.text())
	if err == nil && s.Failed > 0 {
		err = fmt.Errorf("%d of %d requests failed", s.Failed, s.Requests)
	}
	return s, err
}

// requests runs rsppu for a number of requests and checks that all were answered
// and by so many elements.
func (l *lab) requests(h host, name string, elements int, args ...string) error {
	p, err := l.start(h, name, append(args, "-o", "json", "--interval", "20ms", "--request", "a request")...)
	if err != nil {
		return err
	}
	err = p.wait(30 * time.Second)
	s, parseErr := parseReport(p.text())
	if err := errors.Join(err, parseErr); err != nil {
		return fmt.Errorf("%w: %s", err, tail(p.text()))
	}
	if s.Failed > 0 || s.Failovers > 0 || s.Answered != s.Requests || len(s.Elements) != elements {
		return fmt.Errorf("%+v, want %d elements", s, elements)
	}
	if got := strings.Count(p.text(), `"answer":"a request"`); got != s.Requests {
		return fmt.Errorf("%d right answers of %d", got, s.Requests)
	}
	return nil
}

// oursAtRsplib is rsplib's registrar with our programs.
func oursAtRsplib(l *lab) {
	compat := []string{"--compat", "rsplib"}
	r1 := l.rsplibRegistrar(pr1, "registrar1", "-identifier=0x11111111")
	// Ours find it while it still starts.
	_, e1 := l.echoElement(pe1, pr1, "element1", "OurEchoPool", compat...)
	_, e2 := l.echoElement(pe2, pr1, "element2", "OurEchoPool", compat...)
	l.check("rsppe registers SCTP services", r1.says("Successfully registered OurEchoPool", 2, 15*time.Second))
	l.server(pe3, "tcp-server", "echo", "tcp://"+pe3.a()+":7007")
	e3 := l.mustStart(pe3, "element3", l.element(pr1, "OurTCPPool", append(compat, "--service", "tcp://"+pe3.a()+":7007", "--policy", "lu")...)...)
	l.check("rsppe registers a TCP service", r1.says("Successfully registered OurTCPPool", 1, 15*time.Second))
	theirs := l.rsplibElement(pe3, "rsplib-echo", "echo", pr1, "-poolhandle=TheirEchoPool")
	l.check("rspserver registers", r1.says("Successfully registered TheirEchoPool", 1, 10*time.Second))

	l.check("rsppu asks our SCTP elements in turn", l.requests(pu1, "user-sctp", 2, l.user(pr1, "OurEchoPool", "--repeat", "20", "--compat", "rsplib")...))
	l.check("rsppu asks our TCP element", l.requests(pu1, "user-tcp", 1, l.user(pr1, "OurTCPPool", "--repeat", "20", "--compat", "rsplib")...))
	l.check("rsppu asks rsplib's element", l.requests(pu1, "user-theirs", 1, l.user(pr1, "TheirEchoPool", "--repeat", "20", "--compat", "rsplib", "--read", "message")...))
	terminal := l.rsplibUser(pu2, "terminal", "rspterminal", pr1, "-poolhandle=OurEchoPool")
	fmt.Fprintln(terminal.in, "hello pool")
	l.check("rspterminal gets an echo of ours", terminal.says("hello pool", 1, 10*time.Second))
	_, err := l.output(20*time.Second, pu1, "user-unknown", l.user(pr1, "NoSuchPool", "--request", "x", "--compat", "rsplib")...)
	l.check("rsppu tells an unknown pool by exit code 4", exitCode(err, 4))

	rspctl := func(args ...string) []string {
		return append([]string{"-s", "sctp://" + pr1.a(), "--compat", "rsplib"}, args...)
	}
	var pools []pool
	err = l.ctl(pu2, &pools, rspctl("pools")...)
	if err == nil && len(pools) != 3 {
		err = fmt.Errorf("%d pools: %v", len(pools), pools)
	}
	l.check("rspctl pools", err)
	var show pool
	err = l.ctl(pu2, &show, rspctl("pool", "show", "OurEchoPool")...)
	if err == nil && (len(show.Members) != 2 || len(show.Members[0].UserTransport.Addresses) != 2) {
		err = fmt.Errorf("%+v", show)
	}
	l.check("rspctl pool show", err)
	var any json.RawMessage
	err = l.ctl(pu2, &any, rspctl("registrars")...)
	if err == nil && !strings.Contains(string(any), "0x11111111") {
		err = fmt.Errorf("%s", any)
	}
	l.check("rspctl registrars", err)
	err = l.ctl(pu2, &any, rspctl("resolve", "OurTCPPool")...)
	if err == nil && !strings.Contains(string(any), pe3.a()) {
		err = fmt.Errorf("%s", any)
	}
	l.check("rspctl resolve", err)

	// Two keep-alives each, and two re-registrations of a life of 90 s.
	time.Sleep(12 * time.Second)
	l.check("elements stay", errors.Join(e1.running(), e2.running(), e3.running(), theirs.running(),
		r1.says("keep-alive timeout", 0, 0), l.handlespaceHas(pu1, pr1, 10*time.Second, "OurEchoPool", "OurTCPPool")))

	l.check("rsppe ends on SIGTERM", e3.end(syscall.SIGTERM, 10*time.Second))
	_, err = l.output(10*time.Second, pu2, "gone", append([]string{l.bin("rspctl")}, rspctl("pool", "show", "OurTCPPool")...)...)
	l.check("and has deregistered", exitCode(err, 4))
}

// takeover lets one of rsplib's registrars vanish: another takes its elements
// over, and ours follow it. No tool has asked the registrars before, as they
// would wait for its vote.
func takeover(l *lab) {
	l.rsplibRegistrar(pr1, "registrar1", "-identifier=0x11111111")
	var others []*process
	var elements []*process
	for i, h := range []host{pe1, pe2} {
		_, element := l.echoElement(h, pr1, fmt.Sprint("element", i), "OurEchoPool", "--compat", "rsplib")
		elements = append(elements, element)
	}
	for i, h := range []host{pr2, pr3} {
		others = append(others, l.rsplibRegistrar(h, fmt.Sprint("registrar", i+2), "-peer="+pr1.enrp()))
	}
	for _, r := range others {
		l.check(r.name+" is ready", r.says("registrar is ready", 1, 15*time.Second))
	}
	for _, element := range elements {
		l.need(element.name+" registers", element.says("registered", 1, 15*time.Second))
	}
	time.Sleep(3 * time.Second) // heartbeats
	l.need("registrar is cut off", cutOff(pr1))
	l.check("the elements change their home", within(40*time.Second, func() error {
		n := 0
		for _, r := range others {
			n += strings.Count(r.text(), "Successfully registered OurEchoPool")
		}
		if n < len(elements) {
			return fmt.Errorf("%d of %d have registered elsewhere", n, len(elements))
		}
		return errors.Join(elements[0].running(), elements[1].running())
	}))
	l.check("a user finds them there", l.requests(pu1, "user", 2, append(l.user(pr2, "OurEchoPool", "--repeat", "20", "--compat", "rsplib"),
		"--registrar", sctpOn(pr3, 3863))...))
}
