package registrar

import (
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
)

func TestClaims(t *testing.T) {
	var a *watch
	claimed := func() *keepAlive {
		k := machine(nil)
		a = &watch{key: elementKey{Handle: pool, ID: 1}}
		k.claim(a, generation(1), epoch)
		return k
	}
	t.Run("are made at once, and again until they are accepted", func(t *testing.T) {
		k := claimed()
		for _, when := range []time.Duration{0, 30 * time.Second} {
			if probes, _ := k.tick(at(when)); len(probes) != 1 || !k.telling(a) {
				t.Fatalf("at %v: %d keep-alives, or they don't say who is home", when, len(probes))
			}
			if _, accepted, _ := k.acked(a, at(when)); !accepted {
				t.Errorf("at %v: not accepted", when)
			}
		}
		k.watch(a, generation(2), at(31*time.Second)) // confirmed
		k.tick(at(61 * time.Second))
		if k.telling(a) {
			t.Error("made again after they were confirmed")
		}
	})
	t.Run("are not accepted by who has not been told", func(t *testing.T) {
		k := claimed()
		if _, accepted, watched := k.acked(a, epoch); accepted || !watched {
			t.Errorf("accepted %v, watched %v", accepted, watched)
		}
		k.tick(at(0))
		k.telling(a)
		k.acked(a, at(0))
		if _, accepted, _ := k.acked(a, at(0)); accepted {
			t.Error("one acknowledgement accepts twice")
		}
	})
	t.Run("fail once for all", func(t *testing.T) {
		k := machine(func(t *KeepAliveTimers) { t.Misses = 3 })
		a := new(watch)
		k.claim(a, generation(1), epoch)
		k.tick(at(0))
		k.failed(a, at(1))
		if _, dead := k.tick(at(1)); len(dead) != 1 {
			t.Errorf("%d dead, want 1", len(dead))
		}
	})
	t.Run("go out at a bounded rate", func(t *testing.T) {
		k := machine(nil)
		const n = 10000
		for i := range n {
			k.claim(&watch{key: elementKey{Handle: pool, ID: param.PEID(i + 1)}}, generation(1), epoch)
		}
		total := 0
		for ms := range 2000 {
			probes, _ := k.tick(at(time.Duration(ms) * time.Millisecond))
			if len(probes) > 5 {
				t.Fatalf("%d in one millisecond", len(probes))
			}
			total += len(probes)
		}
		if total < n-5 {
			t.Errorf("%d of %d within 2 s", total, n)
		}
	})
	t.Run("are void when the element is not this registrar's", func(t *testing.T) {
		k := claimed()
		k.forget(a)
		if probes, _ := k.tick(at(time.Hour)); len(probes) > 0 || k.telling(a) {
			t.Error("it is claimed all the same")
		}
	})
}

// With default timers: only the claims can tell so soon.
func TestThousandElementsAreTakenOver(t *testing.T) {
	inRing(t, 3, false, func(w *ringWorld) {
		w.startAll()
		const machines, each = 20, 50
		for i := range machines {
			p := w.members[0].element()
			for k := range each {
				id := param.PEID(i*each + k + 1)
				p.mu.Lock()
				// Pools of its own: a keep-alive names no element.
				handle := param.PoolHandle(id.String())
				p.acks[handle] = []param.PEID{id}
				p.mu.Unlock()
				p.sendOn(p.conn, &asap.Registration{Handle: handle, Element: p.element(id)})
			}
			synctest.Wait()
		}
		w.until("all registered", time.Minute, func() bool { return w.members[2].r.space.Counts().Elements == machines*each })
		w.members[0].kill()
		confirmed := func() (n int) {
			for _, m := range w.members[1:] {
				for _, r := range m.r.space.Owned(nil, m.id, handlespace.Key{}, machines*each) {
					if r.Confirmed {
						n++
					}
				}
			}
			return n
		}
		took := w.until("all confirmed", 10*time.Second, func() bool { return confirmed() == machines*each })
		t.Logf("1000 elements taken over, and all know, after %v", took)
		if took > time.Second {
			t.Errorf("it took %v", took)
		}
		if c := w.members[1].r.space.Counts(); c.Suspects > 0 {
			t.Errorf("%d suspects", c.Suspects)
		}
	})
}
