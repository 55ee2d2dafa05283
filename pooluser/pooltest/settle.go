package pooltest

import (
	"strings"
	"testing/synctest"
	"time"

	"rserpool/asap/param"
)

// settleLimit is how long Settle waits: longer than it takes to find a registrar that has
// been away.
const settleLimit = 2 * time.Minute

// Settle lets time pass until registrars serve, all of them know all elements, and users
// have a registrar. Processes that are dead, hang or are isolated are passed over. It
// fails the test when that takes more than two minutes.
func (w *World) Settle() {
	w.t.Helper()
	deadline := time.Now().Add(settleLimit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		synctest.Wait()
		waiting := w.unsettled()
		switch {
		case len(waiting) == 0:
			return
		case !time.Now().Before(deadline):
			w.t.Fatalf("pooltest: not settled within %v: %s", settleLimit, strings.Join(waiting, ", "))
		}
		time.Sleep(pause)
	}
}

// unsettled returns the names of processes that are not where their roles want them.
func (w *World) unsettled() (names []string) {
	for _, p := range w.reachable() {
		if p.settled != nil && !p.settled() {
			names = append(names, p.name)
		}
	}
	return names
}

// reachable returns the processes that run and are neither hung nor isolated, as they
// are now.
func (w *World) reachable() (out []process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.processes {
		if p.alive() && !p.hung && !w.isolated[p.name] {
			out = append(out, *p)
		}
	}
	return out
}

// known tells whether all registrars that can be reached have an element in their
// handlespaces.
func (w *World) known(pool param.PoolHandle, id param.PEID) bool {
	registrars := 0
	for _, p := range w.reachable() {
		if p.registrar == nil {
			continue
		}
		r := p.registrar.get()
		if r == nil || r.Space().Get(pool, id) == nil {
			return false
		}
		registrars++
	}
	return registrars > 0
}

// Pass lets time pass, and returns when all that happens meanwhile has happened.
func (w *World) Pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// Await lets time pass until condition holds, and fails the test when it does not
// within limit. It returns how long it took.
func (w *World) Await(limit time.Duration, what string, condition func() bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for synctest.Wait(); !condition(); synctest.Wait() {
		if time.Since(start) >= limit {
			w.t.Fatalf("pooltest: not within %v: %s", limit, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}
