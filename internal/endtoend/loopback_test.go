//go:build unix

package endtoend

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"rserpool/asap/transport/transporttest"
)

func TestUserIsServedWhenAnElementIsKilled(t *testing.T) {
	for what, kill := range map[string]func(*element){
		"Server":  func(e *element) { e.server.kill() },
		"SideCar": func(e *element) { e.car.kill() },
		"Both":    func(e *element) { e.server.kill(); e.car.kill() },
	} {
		t.Run(what, func(t *testing.T) {
			h := newWorld(t).here()
			r := h.registrar()
			at := []string{r.at}
			h.element("a", at)
			b := h.element("b", at)
			h.element("c", at)
			r.hasMembers("a b c")
			u := h.user(at)
			u.isServedBy("a b c")
			kill(b)
			r.hasMembers("a c")
			u.isServedBy("a c")
			u.wasServed(2 * time.Second)
		})
	}
}

// With default timers, as users leave them, only the kernel's word of a closed
// connection makes this fast.
func TestKilledElementIsGoneSoonWithDefaultTimers(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar("--timers", "rfc")
	at := []string{r.at}
	h.element("a", at, "--timers", "auto")
	b := h.element("b", at, "--timers", "auto")
	r.hasMembers("a b")
	b.server.kill()
	b.car.kill()
	r.hasMembers("a")
}

func TestUserDoesNotNoticeThatTheRegistrarRestarts(t *testing.T) {
	for what, stop := range map[string]func(*registrar){
		"Killed":  func(r *registrar) { r.kill() },
		"Stopped": func(r *registrar) { r.end(syscall.SIGTERM) },
	} {
		t.Run(what, func(t *testing.T) {
			h := newWorld(t).here()
			r := h.registrar()
			at := []string{r.at}
			h.element("a", at)
			h.element("b", at)
			r.hasMembers("a b")
			u := h.user(at)
			u.isServedBy("a b")
			stop(r)
			u.isServedBy("a b")
			r.restart()
			r.hasMembers("a b")
			u.isServedBy("a b")
			u.wasServed(2 * time.Second)
		})
	}
}

func TestElementThatDiesWhileTheRegistrarIsAwayIsLeftOut(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	at := []string{r.at}
	h.element("a", at)
	b := h.element("b", at)
	h.element("c", at)
	r.hasMembers("a b c")
	u := h.user(at)
	u.isServedBy("a b c")
	r.kill()
	b.signal(syscall.SIGKILL)
	u.isServedBy("a c")
	r.restart()
	r.hasMembers("a c")
	u.isServedBy("a c")
	u.wasServed(2 * time.Second)
}

// With default timers, as users leave them, elements look for a registrar every ten
// seconds.
func TestPoolIsBackSoonAfterTheRegistrarWithDefaultTimers(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar("--timers", "rfc")
	at := []string{r.at}
	h.element("a", at, "--timers", "auto")
	h.element("b", at, "--timers", "auto")
	r.hasMembers("a b")
	u := h.user(at, "--timers", "auto")
	u.isServedBy("a b")
	r.kill()
	u.isServedBy("a b")
	r.restart()
	r.hasMembers("a b")
	u.isServedBy("a b")
	u.wasServed(2 * time.Second)
}

// The same identifier, and the old registration not yet gone.
func TestElementThatRestartsAtOnceStaysInThePool(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	at := []string{r.at}
	h.element("a", at)
	b := h.element("b", at)
	r.hasMembers("a b")
	u := h.user(at)
	for range 3 {
		b.car.kill()
		before := r.answeredKeepAlives()
		b.car = h.sidecar("b", b.service, at)
		b.car.says("registered")
		r.hasMembers("a b")
		h.w.until("keep-alives", func() bool { return r.answeredKeepAlives() >= before+4 })
		r.hasMembers("a b")
	}
	u.isServedBy("a b")
	u.wasServed(time.Second)
}

// Requests to a pool that is gone fail at once, and are answered when it is back.
func TestUserIsServedAgainWhenThePoolIsBack(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	at := []string{r.at}
	a := h.element("a", at)
	r.hasMembers("a")
	u := h.user(at)
	a.signal(syscall.SIGKILL)
	r.hasMembers("")
	u.isServedBy(`unknown pool "echo"`)
	h.element("b", at)
	u.isServedBy("b")
	if code := u.end(syscall.SIGINT); code != 1 {
		t.Errorf("exit code %d, want 1: some requests were not answered", code)
	}
}

func TestSideCarLeavesThePoolOnSIGTERM(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar("--timers", "rfc") // too slow to notice by itself
	at := []string{r.at}
	a := h.element("a", at)
	h.element("b", at)
	r.hasMembers("a b")
	if code := a.car.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if got, err := r.members(); err != nil || got != "b" {
		t.Errorf("elements %q, error %v after the side-car's end; want b", got, err)
	}
}

func TestSideCarEndsOnSIGTERMWithoutARegistrar(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	a := h.element("a", []string{r.at}, "--stop-timeout", "1s")
	r.hasMembers("a")
	r.kill()
	a.car.says("registrar") // it has noticed
	start := time.Now()
	if code := a.car.end(syscall.SIGTERM); code != 6 {
		t.Errorf("exit code %d, want 6: the deregistration was not confirmed", code)
	}
	took := time.Since(start)
	t.Logf("ended after %v", took)
	if took > 5*time.Second {
		t.Errorf("the side-car took %v to end", took)
	}
}

func TestServerThatFailsItsChecksIsOutOfThePool(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	at := []string{r.at}
	healthy := filepath.Join(t.TempDir(), "healthy")
	write(t, healthy, "")
	h.element("a", at, "--check", "exec:test -e "+healthy)
	h.element("b", at)
	r.hasMembers("a b")
	u := h.user(at)
	if err := os.Remove(healthy); err != nil {
		t.Fatal(err)
	}
	r.hasMembers("b")
	u.isServedBy("b")
	write(t, healthy, "")
	r.hasMembers("a b")
	u.isServedBy("a b")
	u.wasServed(time.Second)
}

func TestServerThatStartsAfterItsSideCarJoins(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	service := transporttest.FreeAddress(t)
	car := h.sidecar("a", service, []string{r.at})
	car.says("check")
	r.hasMembers("")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	server := h.command(self)
	server.Env = append(server.Env, serverName+"=a", serverAddress+"="+service)
	h.w.start("server a", server, nil)
	r.hasMembers("a")
}

func TestRegistrarReadsItsConfigurationAgainOnSIGHUP(t *testing.T) {
	h := newWorld(t).here()
	file := filepath.Join(t.TempDir(), "rspd.yaml")
	write(t, file, "limit-elements-per-client: 1\n")
	r := h.registrar("--config", file)
	at := []string{r.at}
	h.element("a", at)
	r.hasMembers("a")
	u := h.user(at)
	refused := h.element("b", at)
	if code := refused.car.exitCode(); code != 1 {
		t.Errorf("the refused side-car's exit code is %d, want 1", code)
	}

	for _, bad := range []string{"limit-elements-per-client: lots\n", "limit-elephants: 1\n", "keep-alive-misses: 99\n", "listen: [\n", "limit-pools: 7\n"} {
		write(t, file, bad)
		said := len(r.log.String())
		r.signal(syscall.SIGHUP)
		r.w.until("the registrar to refuse "+bad, func() bool {
			return strings.Contains(r.log.String()[said:], "configuration not taken")
		})
		r.hasMembers("a")
	}
	refused = h.element("b", at)
	if code := refused.car.exitCode(); code != 1 {
		t.Errorf("with the old configuration the refused side-car's exit code is %d, want 1", code)
	}

	write(t, file, "limit-elements-per-client: 2\n")
	r.signal(syscall.SIGHUP)
	r.says("configuration read again")
	h.element("b", at)
	r.hasMembers("a b")
	u.isServedBy("a b")
	u.wasServed(time.Second)
}

func TestSideCarTakesANewPolicyOnSIGHUP(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	file := filepath.Join(t.TempDir(), "rsppe.yaml")
	write(t, file, "policy: wrr:1\n")
	a := h.element("a", []string{r.at}, "--config", file)
	r.hasMembers("a")
	write(t, file, "policy: wrr:none\n")
	a.car.signal(syscall.SIGHUP)
	a.car.says("not reloaded")
	if got := r.member("a").Policy.Weight; got != 1 {
		t.Errorf("weight %d after a bad configuration, want 1", got)
	}
	write(t, file, "policy: wrr:5\n")
	a.car.signal(syscall.SIGHUP)
	h.w.until("the weight to change", func() bool { return r.member("a").Policy.Weight == 5 })
}

func TestElementsAndUsersMoveToTheOtherRegistrar(t *testing.T) {
	for what, tt := range map[string]struct {
		stop  syscall.Signal
		flags []string
		watch int // keep-alives before that
	}{
		"Killed":  {stop: syscall.SIGKILL},
		"Stopped": {stop: syscall.SIGTERM},
		// The connections of a frozen registrar stay up, and nothing answers.
		// Elements miss its keep-alives when they have seen some,
		"Frozen": {stop: syscall.SIGSTOP, watch: 10},
		// or the answer to their next registration.
		"FrozenEarly": {stop: syscall.SIGSTOP, flags: []string{"--reregister", "2s"}},
	} {
		t.Run(what, func(t *testing.T) {
			h := newWorld(t).here()
			one, two := h.registrar("--keep-alive-timeout", slow), h.registrar("--keep-alive-timeout", slow)
			both := []string{one.at, two.at}
			two.kill() // so that all are at the first one
			h.element("a", both, tt.flags...)
			h.element("b", both, tt.flags...)
			one.hasMembers("a b")
			u := h.user(both)
			u.isServedBy("a b")
			two.restart()
			h.w.until("keep-alives", func() bool { return one.answeredKeepAlives() >= tt.watch })
			one.signal(tt.stop)
			two.hasMembers("a b")
			u.isServedBy("a b")
			u.wasServed(2 * time.Second)
		})
	}
}

// A user that asks for each request notices at once.
func TestUserWithoutCacheMovesToTheOtherRegistrar(t *testing.T) {
	for what, stop := range map[string]syscall.Signal{"Killed": syscall.SIGKILL, "Frozen": syscall.SIGSTOP} {
		t.Run(what, func(t *testing.T) {
			h := newWorld(t).here()
			one, two := h.registrar(), h.registrar()
			h.element("a", []string{one.at})
			h.element("b", []string{two.at})
			one.hasMembers("a")
			two.hasMembers("b")
			two.kill()
			u := h.user([]string{one.at, two.at}, "--stale", "0")
			u.isServedBy("a")
			two.restart()
			two.hasMembers("b")
			one.signal(stop)
			u.isServedBy("b")
			u.wasServed(2 * time.Second)
		})
	}
}

func TestSubscriberHearsOfChanges(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	at := []string{r.at}
	a := h.element("a", at)
	h.element("b", at)
	r.hasMembers("a b")
	u := h.user(at, "--subscribe", "--stale", "1h")
	u.isServedBy("a b")
	h.element("c", at)
	u.isServedBy("a b c")
	a.car.end(syscall.SIGTERM) // the server goes on
	u.isServedBy("b c")
	// A registrar that restarts knows of no subscriptions.
	r.kill()
	r.restart()
	r.hasMembers("b c")
	h.element("d", at)
	u.isServedBy("b c d")
	u.wasServed(time.Second)
}

func TestSecondRegistrarOnTheSamePortSaysSo(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	for _, port := range []string{r.at, r.enrp} {
		o := h.run("rspd", "--listen", port, "--enrp-listen", "off", "--admin", "off")
		if o.code != 1 || !strings.Contains(o.stderr, "address already in use") || !strings.Contains(o.stderr, strings.TrimPrefix(port, "tcp://")) {
			t.Errorf("%+v, want exit code 1 and the address", o)
		}
	}
}

func TestFrozenElementIsRemovedAndComesBack(t *testing.T) {
	for what, freeze := range map[string]func(*element, syscall.Signal){
		"SideCar": func(e *element, s syscall.Signal) { e.car.signal(s) },
		"Both":    (*element).signal,
	} {
		t.Run(what, func(t *testing.T) {
			h := newWorld(t).here()
			r := h.registrar()
			at := []string{r.at}
			h.element("a", at)
			b := h.element("b", at)
			r.hasMembers("a b")
			u := h.user(at)
			u.isServedBy("a b")
			freeze(b, syscall.SIGSTOP)
			r.hasMembers("a")
			u.isServedBy("a")
			freeze(b, syscall.SIGCONT)
			r.hasMembers("a b")
			u.isServedBy("a b")
			u.wasServed(2 * time.Second)
		})
	}
}

// A server that accepts connections and never answers passes a check by TCP; its
// users go elsewhere.
func TestUserGoesOnWhenAServerFreezes(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	at := []string{r.at}
	h.element("a", at)
	b := h.element("b", at)
	r.hasMembers("a b")
	u := h.user(at)
	u.isServedBy("a b")
	b.server.signal(syscall.SIGSTOP)
	u.isServedBy("a")
	b.server.signal(syscall.SIGCONT)
	u.isServedBy("a b")
	u.wasServed(2 * time.Second)
}

func TestAdministratorTakesOutADeadElement(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar("--timers", "rfc") // would take half a minute
	at := []string{r.at}
	h.element("a", at)
	b := h.element("b", at)
	r.hasMembers("a b")
	b.signal(syscall.SIGSTOP)
	if o := r.ctl("deregister", pool, idOf("b")); o.code != 0 {
		t.Fatalf("deregister: %+v", o)
	}
	if got, err := r.members(); err != nil || got != "a" {
		t.Errorf("elements %q, error %v; want a", got, err)
	}
	if o := r.ctl("deregister", pool, idOf("b")); o.code != 4 {
		t.Errorf("deregister again: %+v, want exit code 4", o)
	}
}

// When most of a pool seems to die at once, it may be the registrar's own network:
// the rest is kept, and marked.
func TestElementsBeyondTheRemovalShareAreKeptAsSuspects(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar("--removal-floor", "1", "--removal-share", "0.3", "--removal-window", "10m")
	at := []string{r.at}
	a, b, c := h.element("a", at), h.element("b", at), h.element("c", at)
	r.hasMembers("a b c")
	u := h.hopefulUser(at, "--timeout", "30s")
	u.isServedBy("a b c")
	for _, e := range []*element{a, b, c} {
		e.signal(syscall.SIGSTOP)
	}
	h.w.until("two suspects", func() bool {
		p, err := r.pool()
		return err == nil && p.Elements == 2 && p.Suspects == 2
	})
	if o := r.ctl("status", "--quiet"); o.code != 5 || o.stdout != "" {
		t.Errorf("status: %+v, want exit code 5 and no output", o)
	}
	for _, e := range []*element{a, b, c} {
		e.signal(syscall.SIGCONT)
	}
	r.hasMembers("a b c")
	u.isServedBy("a b c")
	u.wasServed(20 * time.Second)
	if o := r.ctl("status", "--quiet"); o.code != 0 {
		t.Errorf("status: %+v, want exit code 0", o)
	}
}
