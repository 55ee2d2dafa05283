package endtoend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Two processes under one identifier, both alive, are a mistake of those who run them:
// the same --id on two hosts, or a host that was given up and comes back. The ring
// keeps one of them; the other says why and ends, and nothing that was acknowledged
// is lost with it.

// twin is a second registrar under the identifier of another one, on a host of its own.
// Nobody waits until it is ready.
func (s *stage) twin(of int) *registrar {
	s.t.Helper()
	h := s.n.host("192.0.2.9/24")
	r := &registrar{host: h, at: "tcp://" + h.address, flags: append([]string{}, s.registrars[of].flags...)}
	for i, flag := range r.flags {
		if flag == "--ring-listen" {
			r.flags[i+1] = "tcp://" + h.address
		}
	}
	r.admin = s.registrars[of].admin
	return r
}

func (r *registrar) launch() {
	r.process = r.host.w.start("rspd "+r.at, r.host.command("rspd", r.flags...), nil)
}

// keptOut checks how a process ended that the ring did not want.
func (s *stage) keptOut(r *registrar, other string) {
	s.t.Helper()
	if code := r.exitCode(); code != 1 {
		s.t.Errorf("it ended with exit code %d, want 1", code)
	}
	for _, want := range []string{"another registrar that lives uses the identifier", "another registrar that lives is the member with this identifier: 0x0a0a0002/", "at tcp://" + other} {
		if !strings.Contains(r.log.String(), want) {
			s.t.Errorf("it does not say %q", want)
		}
	}
}

// members lists the members of all views that the ring has had, as the first registrar
// knows them.
func (s *stage) members() (all []string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ring, err := s.registrars[0].admin.Ring(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, c := range ring.Changes {
		all = append(all, c.Members...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// same fails the test if other registrars have been members than before. (Views may
// have changed for want of processors.)
func (s *stage) same(before []string) {
	s.t.Helper()
	if after := s.members(); !slices.Equal(after, before) {
		s.t.Errorf("the ring has had the members %v, before that %v", after, before)
	}
}

func TestSecondRegistrarUnderAnIdentifierIsKeptOut(t *testing.T) {
	s := newStage(t, 3)
	before := s.members()
	r := s.twin(1)
	r.flags = append(r.flags, "--ring-join-wait", "5s") // far more than it takes to look around
	start := time.Now()
	r.launch()
	s.keptOut(r, "192.0.2.2")
	s.t.Logf("it ended %v after its start", time.Since(start).Round(time.Millisecond))
	if strings.Contains(r.log.String(), "msg=serving") {
		t.Error("it served elements and users")
	}
	s.same(before)
	s.whole()
	s.finish()
}

// It comes up where the ring can't be seen, serves, and meets the ring: what registered
// there registers with the ring.
func TestSecondRegistrarUnderAnIdentifierThatServesGivesUp(t *testing.T) {
	s := newStage(t, 3)
	before := s.members()
	r := s.twin(1)
	s.n.plug(r.host, false)
	r.launch()
	r.says("msg=serving")
	e := r.host.element("z", append([]string{r.at}, s.from(0)...), "--pool", "late")
	e.car.says("registered")
	s.n.plug(r.host, true)
	start := time.Now()
	s.keptOut(r, "192.0.2.2")
	for i := range s.registrars {
		s.within(fmt.Sprintf("the element is known at registrar %d", i), start, 3*time.Second, func() string {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			p, err := s.registrars[i].admin.Pool(ctx, "late")
			if err != nil || len(p.Members) != 1 {
				return fmt.Sprintf("%+v, %v", p.Members, err)
			}
			return ""
		})
	}
	s.same(before)
	e.car.end(syscall.SIGTERM)
	s.changed()
	s.finish()
}

// A registrar that hangs is replaced under its identifier, and wakes up.
func TestReplacedRegistrarThatWakesUpGivesUp(t *testing.T) {
	s := newStage(t, 3)
	old := s.registrars[1].process
	s.registrars[1].signal(syscall.SIGSTOP)
	s.asleep(1, true)
	s.whole()
	r := s.twin(1)
	r.launch()
	s.within("its place is taken", time.Now(), 3*time.Second, func() string {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		ring, err := s.registrars[0].admin.Ring(ctx)
		if err != nil || len(ring.Members) != 3 || !ring.Synced {
			return fmt.Sprintf("%d members, %v", len(ring.Members), err)
		}
		return ""
	})
	before := s.members()
	old.signal(syscall.SIGCONT)
	s.keptOut(s.registrars[1], "192.0.2.9")
	s.same(before)
	if code := r.end(syscall.SIGTERM); code != 0 {
		t.Errorf("its replacement ended with exit code %d", code)
	}
	s.whole()
	s.revive(1)
	s.whole()
	s.finish()
}
