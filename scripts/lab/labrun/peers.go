package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// scope is a set of registrars of both makers, with elements of both.
type scope struct {
	*lab
	lives    int
	elements map[string]*process
	rsplib   map[host]*process // its registrars, the latest on each host
}

// ours starts our registrar on a host. Its identifier is lower than rsplib's, so
// that it wins takeovers as rsplib arbitrates them.
func (s *scope) ours(h host, args ...string) *process {
	s.lives++
	return s.mustStart(h, fmt.Sprintf("rspd-%s-%d", h.name, s.lives), s.rspd(h, append([]string{
		"--compat", "rsplib", "--timers", "rsplib", "--id", fmt.Sprint(h.num), "--log-level", "debug"}, args...)...)...)
}

// theirs starts rsplib's registrar on a host.
func (s *scope) theirs(h host, args ...string) *process {
	s.lives++
	p := s.rsplibRegistrar(h, fmt.Sprintf("rspregistrar-%s-%d", h.name, s.lives),
		append([]string{"-identifier=" + theirID(h)}, args...)...)
	if s.rsplib == nil {
		s.rsplib = make(map[host]*process)
	}
	s.rsplib[h] = p
	return p
}

// our and their start an echo element that knows one registrar.
func (s *scope) our(h, registrar host, name string) {
	s.port++
	s.elements[name+"-server"] = s.server(h, name+"-server", "echo", sctpOn(h, s.port))
	s.elements[name] = s.mustStart(h, name, s.element(registrar, name, "--compat", "rsplib", "--check", "none",
		"--service", fmt.Sprintf("sctp://%s:%d", h.a(), s.port))...)
}

func (s *scope) their(h, registrar host, name string) {
	s.elements[name] = s.rsplibElement(h, name, "echo", registrar, "-poolhandle="+name)
}

// gone ends an element politely.
func (s *scope) gone(name string) error { return s.elements[name].end(syscall.SIGTERM, 10*time.Second) }

// resolvable waits until pools can be resolved at our registrars.
func (s *scope) resolvable(limit time.Duration, registrars []host, pools ...string) error {
	return within(limit, func() error {
		for _, h := range registrars {
			for _, name := range pools {
				if _, err := s.members(h, name, 1, 0); err != nil {
					return fmt.Errorf("at %s: %w", h.name, err)
				}
			}
		}
		return nil
	})
}

// serves waits until our registrar serves.
func (s *scope) serves(h host, p *process) error {
	return errors.Join(p.says("msg=serving", 1, 25*time.Second), s.listens(h, 3863, 0))
}

// peers is our registrar with rsplib's in one scope, without a ring.
func peers(l *lab) {
	s := &scope{lab: l, elements: make(map[string]*process)}
	r2 := s.theirs(pr2)
	s.their(pe1, pr2, "TheirsAtTheirs")
	s.our(pe2, pr2, "OursAtTheirs")
	l.need("elements register at rsplib's registrar", errors.Join(
		r2.says("Successfully registered TheirsAtTheirs", 1, 15*time.Second), r2.says("Successfully registered OursAtTheirs", 1, 15*time.Second)))

	r1 := s.ours(pr1, "--enrp-peer", sctpOn(pr2, 9901))
	l.need("ours joins late and serves", s.serves(pr1, r1))
	l.check("it has downloaded the table from rsplib's registrar", s.resolvable(time.Second, []host{pr1}, "TheirsAtTheirs", "OursAtTheirs"))

	s.their(pe1, pr1, "TheirsAtOurs")
	s.our(pe2, pr1, "OursAtOurs")
	for i := range 3 {
		s.our(pe3, []host{pr1, pr2, pr1}[i], fmt.Sprint("Brief", i))
	}
	l.check("elements register", s.resolvable(15*time.Second, []host{pr1}, "TheirsAtOurs", "OursAtOurs", "Brief0", "Brief1", "Brief2"))
	l.check("both have the same elements and checksums", l.consistent(10*time.Second, 7, pr1, pr2))
	for i := range 2 {
		l.check("an element leaves", s.gone(fmt.Sprint("Brief", i)))
	}
	l.check("both have the same elements and checksums after deregistrations", l.consistent(10*time.Second, 5, pr1, pr2))

	r3 := s.theirs(pr3, "-peer="+pr1.enrp())
	l.need("another registrar of rsplib's joins late", r3.says("registrar is ready", 1, 20*time.Second))
	l.check("it has downloaded the table from ours", l.consistent(15*time.Second, 5, pr1, pr2, pr3))

	time.Sleep(12 * time.Second) // rsplib takes tools for registrars for so long
	r2.stop()
	killed := time.Now()
	l.check("rsplib's registrar is killed: ours takes its elements over", s.homed(30*time.Second, pr1, pr1, "OursAtTheirs"))
	l.check("and rsplib's element, unless that has moved by itself", s.homedOrMoved(30*time.Second, []host{pr1}, []host{pr1}, "TheirsAtTheirs"))
	l.note("taken over %.1f s after the kill", time.Since(killed).Seconds())
	l.check("all stay resolvable", s.resolvable(0, []host{pr1}, "TheirsAtTheirs", "OursAtTheirs", "TheirsAtOurs", "OursAtOurs", "Brief2"))
	l.check("the two that are left have the same elements and checksums", l.consistent(20*time.Second, 5, pr1, pr3))
	time.Sleep(12 * time.Second) // two keep-alives
	l.check("the elements stay", errors.Join(s.homed(0, pr1, pr1, "OursAtTheirs"), s.homedOrMoved(0, []host{pr1}, []host{pr1}, "TheirsAtTheirs")))
	l.check("taken over once", r1.exactly(takenOver, 1))
}

// takenOver is what our registrar says when it has won a takeover.
const takenOver = "taken over by this registrar"

// isHome tells whether this is the identifier of the host's registrar, of either maker.
func (h host) isHome(id string) bool {
	return id == fmt.Sprintf("0x%08x", h.num) || id == theirID(h)
}

// theirID is the identifier of rsplib's registrar on a host.
func theirID(h host) string { return "0x" + strings.Repeat(fmt.Sprint(h.num), 8) }

// homed waits until pools have one element each, whose home is the registrar on a
// host, as the one asked says.
func (s *scope) homed(limit time.Duration, asked, home host, pools ...string) error {
	return s.homedIn(limit, []host{asked}, []host{home}, pools...)
}

// homedIn is homed for one of several homes, as all of those asked say.
func (s *scope) homedIn(limit time.Duration, asked, homes []host, pools ...string) error {
	return within(limit, func() error {
		for _, h := range asked {
			for _, name := range pools {
				p, err := s.members(h, name, 1, 0)
				if err != nil {
					return err
				}
				if !slices.ContainsFunc(homes, func(home host) bool { return home.isHome(p.Members[0].Home) }) {
					return fmt.Errorf("%s has home %s by %s's word", name, p.Members[0].Home, h.name)
				}
			}
		}
		return nil
	})
}

// homedOrMoved is homedIn for an element of rsplib's, which looks for another registrar
// at once: it may have registered at one of rsplib's, as that says, before one of ours
// could take it over.
func (s *scope) homedOrMoved(limit time.Duration, asked, ours []host, name string) error {
	return within(limit, func() error {
		homes := slices.Clone(ours)
		for h, p := range s.rsplib {
			if p.running() == nil && p.count("Successfully registered "+name) > 0 {
				homes = append(homes, h)
			}
		}
		return s.homedIn(0, asked, homes, name)
	})
}

// count returns how often a program has said something.
func (p *process) count(text string) int { return strings.Count(p.text(), text) }

// exactly checks how often a program has said something.
func (p *process) exactly(text string, want int) error {
	if got := p.count(text); got != want {
		return fmt.Errorf("%s said %q %d times, not %d", p.name, text, got, want)
	}
	return nil
}
