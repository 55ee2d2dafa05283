package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// rsplibRegistrar starts rspregistrar on a host and waits until it listens:
// rsplib's users retry badly after a refusal.
func (l *lab) rsplibRegistrar(h host, name string, args ...string) *process {
	p := l.mustStart(h, name, append([]string{"rspregistrar", "-asap=" + h.asap() + "," + h.b(), "-enrp=" + h.enrp() + "," + h.b(),
		"-minaddressscope=sitelocal", "-logcolor=off", "-loglevel=4"}, args...)...)
	l.need(name+" listens", errors.Join(l.listens(h, 3863, 10*time.Second), p.running()))
	return p
}

// rsplibElement starts rspserver with one of its services on a host.
func (l *lab) rsplibElement(h host, name, service string, registrar host, args ...string) *process {
	return l.mustStart(h, name, append([]string{"rspserver", "-" + service,
		"-registrar=" + registrar.asap(), "-logcolor=off", "-loglevel=4"}, args...)...)
}

// rsplibUser starts one of rsplib's pool users on a host.
func (l *lab) rsplibUser(h host, name, program string, registrar host, args ...string) *process {
	return l.mustStart(h, name, append([]string{program,
		"-registrar=" + registrar.asap(), "-logcolor=off", "-loglevel=4"}, args...)...)
}

// handlespaceHas waits until the handlespace dump of a registrar (hsdump speaks
// ENRP) contains all the texts.
func (l *lab) handlespaceHas(from, registrar host, limit time.Duration, texts ...string) error {
	n := 0
	return within(limit, func() error {
		n++
		dump, err := l.output(10*time.Second, from, fmt.Sprintf("hsdump-%s-%d", registrar.name, n), "hsdump", registrar.enrp())
		for _, text := range texts {
			if !strings.Contains(dump, text) {
				return fmt.Errorf("no %q in the dump (%v): %s", text, err, tail(dump))
			}
		}
		return nil
	})
}

func sanity(l *lab) {
	pr := l.rsplibRegistrar(pr1, "registrar")
	pe := l.rsplibElement(pe1, "echo", "echo", pr1, "-poolhandle=EchoPool")
	l.need("rspserver registers", pr.says("Successfully registered EchoPool", 1, 10*time.Second))
	pu := l.rsplibUser(pu1, "terminal", "rspterminal", pr1, "-poolhandle=EchoPool")
	fmt.Fprintln(pu.in, "hello pool")
	l.check("rspterminal gets an echo", pu.says("hello pool", 1, 10*time.Second))
	l.check("element runs on", pe.running())
	l.check("hsdump shows the pool", l.handlespaceHas(pu1, pr1, 10*time.Second, "EchoPool"))
}
