package registrar

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return epoch.Add(d) }

func machine(change func(*KeepAliveTimers)) *keepAlive {
	timers := DefaultTimers().KeepAlive
	timers.Spread = 0
	if change != nil {
		change(&timers)
	}
	return newKeepAlive(timers, rand.New(rand.NewPCG(1, 2)))
}

func generation(n uint64) handlespace.Generation { return handlespace.Generation{Stamp: n} }

// TestKeepAliveMachine plays stories: at each moment something happens, and then
// the machine wants these keep-alives and finds these elements dead.
func TestKeepAliveMachine(t *testing.T) {
	unknown := watch{key: elementKey{Handle: pool, ID: 1}}
	a := new(watch)
	type step struct {
		at     time.Duration
		do     func(k *keepAlive, now time.Time)
		probes int
		dead   int
	}
	nothing := func(*keepAlive, time.Time) {}
	watch := func(k *keepAlive, now time.Time) { k.watch(a, generation(1), now) }
	probe := func(k *keepAlive, now time.Time) { k.probe(a, now) }
	fall := func(k *keepAlive, now time.Time) { k.fall(a, now) }
	ack := func(k *keepAlive, now time.Time) { k.acked(a, now) }
	failed := func(k *keepAlive, now time.Time) { k.failed(a, now) }
	postponed := func(k *keepAlive, now time.Time) { k.postponed(a, now) }
	sec := time.Second
	for _, tt := range []struct {
		name   string
		timers func(*KeepAliveTimers)
		steps  []step
	}{
		{"periodic, acknowledged", nil, []step{
			{0, watch, 0, 0}, {29 * sec, nothing, 0, 0}, {30 * sec, nothing, 1, 0}, {31 * sec, ack, 0, 0},
			{60 * sec, nothing, 0, 0}, {61 * sec, nothing, 1, 0},
		}},
		{"silent: dead after the time-out", nil, []step{
			{0, watch, 0, 0}, {30 * sec, nothing, 1, 0}, {34 * sec, nothing, 0, 0}, {35 * sec, nothing, 0, 1},
		}},
		{"several misses if so configured", func(k *KeepAliveTimers) { k.Misses = 3 }, []step{
			{0, watch, 0, 0}, {30 * sec, nothing, 1, 0}, {35 * sec, nothing, 1, 0}, {40 * sec, nothing, 1, 0}, {45 * sec, nothing, 0, 1},
		}},
		{"an acknowledgement between two misses begins anew", func(k *KeepAliveTimers) { k.Misses = 2 }, []step{
			{0, watch, 0, 0}, {30 * sec, nothing, 1, 0}, {35 * sec, nothing, 1, 0}, {36 * sec, ack, 0, 0},
			{66 * sec, nothing, 1, 0}, {71 * sec, nothing, 1, 0}, {76 * sec, nothing, 0, 1},
		}},
		{"a fall needs one failure only", func(k *KeepAliveTimers) { k.Misses = 3 }, []step{
			{0, watch, 0, 0}, {10 * sec, fall, 1, 0}, {10*sec + 1, failed, 0, 1},
		}},
		{"a fall that is answered", nil, []step{
			{0, watch, 0, 0}, {10 * sec, fall, 1, 0}, {11 * sec, ack, 0, 0}, {40 * sec, nothing, 0, 0}, {41 * sec, nothing, 1, 0},
		}},
		{"a fall voids what is outstanding, and keeps the gap", nil, []step{
			{0, watch, 0, 0}, {10 * sec, probe, 1, 0}, {10*sec + sec/2, fall, 0, 0}, {11 * sec, nothing, 1, 0}, {16 * sec, nothing, 0, 1},
		}},
		{"reports meanwhile share the outstanding one", nil, []step{
			{0, watch, 0, 0}, {10 * sec, probe, 1, 0}, {11 * sec, probe, 0, 0}, {14 * sec, probe, 0, 0}, {15 * sec, nothing, 0, 1},
		}},
		{"reports in a row keep the gap", nil, []step{
			{0, watch, 0, 0}, {10 * sec, probe, 1, 0}, {10*sec + 1, ack, 0, 0}, {10*sec + 2, probe, 0, 0},
			{11*sec - 1, nothing, 0, 0}, {11 * sec, nothing, 1, 0},
		}},
		{"registering again is a sign of life", nil, []step{
			{0, watch, 0, 0}, {30 * sec, nothing, 1, 0}, {32 * sec, watch, 0, 0}, {35 * sec, nothing, 0, 0}, {62 * sec, nothing, 1, 0},
		}},
		{"the time-out of one that is held starts when it is sent", nil, []step{
			{0, watch, 0, 0}, {30 * sec, nothing, 1, 0},
			{30 * sec, func(k *keepAlive, _ time.Time) { k.hold(a) }, 0, 0},
			{50 * sec, func(k *keepAlive, now time.Time) { k.sent(a, now) }, 0, 0},
			{54 * sec, nothing, 0, 0}, {55 * sec, nothing, 0, 1},
		}},
		{"one that is held can fail", nil, []step{
			{0, watch, 0, 0}, {30 * sec, nothing, 1, 0}, {30 * sec, func(k *keepAlive, _ time.Time) { k.hold(a) }, 0, 0}, {31 * sec, failed, 0, 1},
		}},
		{"one that is held and spoken up for is settled", nil, []step{
			{0, watch, 0, 0}, {30 * sec, nothing, 1, 0}, {30 * sec, func(k *keepAlive, _ time.Time) { k.hold(a) }, 0, 0}, {31 * sec, ack, 0, 0},
			{32 * sec, func(k *keepAlive, now time.Time) { k.sent(a, now) }, 0, 0}, {33 * sec, failed, 0, 0}, {60 * sec, nothing, 0, 0}, {61 * sec, nothing, 1, 0},
		}},
		{"a fall that is over is forgotten", func(k *KeepAliveTimers) { k.Misses = 2 }, []step{
			{0, watch, 0, 0}, {10 * sec, fall, 1, 0}, {11 * sec, ack, 0, 0},
			{41 * sec, nothing, 1, 0}, {46 * sec, nothing, 1, 0}, {51 * sec, nothing, 0, 1},
		}},
		{"a late acknowledgement undoes the miss", func(k *KeepAliveTimers) { k.Misses, k.Timeout = 2, sec/2 }, []step{
			{0, watch, 0, 0}, {30 * sec, nothing, 1, 0}, {30*sec + sec/2, nothing, 0, 0}, {30*sec + 3*sec/4, ack, 0, 0},
			{31 * sec, nothing, 1, 0}, {31*sec + sec/2, nothing, 0, 0}, {32 * sec, nothing, 1, 0}, {32*sec + sec/2, nothing, 0, 1},
		}},
		{"what is postponed is no miss, and keeps the gap", nil, []step{
			{0, watch, 0, 0}, {10 * sec, fall, 1, 0}, {10*sec + 1, postponed, 0, 0}, {11*sec - 1, nothing, 0, 0}, {12 * sec, nothing, 1, 0},
			{12*sec + 1, failed, 0, 1},
		}},
		{"nothing to postpone at rest", nil, []step{{0, watch, 0, 0}, {10 * sec, postponed, 0, 0}, {30 * sec, nothing, 1, 0}}},
		{"who was not removed is asked again later", nil, []step{
			{0, watch, 0, 0}, {30 * sec, nothing, 1, 0}, {35 * sec, nothing, 0, 1}, {64 * sec, nothing, 0, 0}, {65 * sec, nothing, 1, 0},
		}},
		{"forgotten", nil, []step{
			{0, watch, 0, 0}, {30 * sec, nothing, 1, 0}, {31 * sec, func(k *keepAlive, _ time.Time) { k.forget(a) }, 0, 0},
			{40 * sec, probe, 0, 0}, {41 * sec, fall, 0, 0}, {1000 * sec, ack, 0, 0},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := machine(tt.timers)
			*a = unknown
			for _, s := range tt.steps {
				s.do(k, at(s.at))
				probes, dead := k.tick(at(s.at))
				if len(probes) != s.probes || len(dead) != s.dead {
					t.Fatalf("at %v: %d probes, %d dead, want %d and %d", s.at, len(probes), len(dead), s.probes, s.dead)
				}
				for _, v := range dead {
					if v != (verdict{a.key, generation(1)}) {
						t.Errorf("dead %+v", v)
					}
				}
				if next, ok := k.next(); ok && !next.After(at(s.at)) {
					t.Fatalf("at %v: next at %v", s.at, next)
				}
			}
		})
	}
}

func TestKeepAlivesAreSpread(t *testing.T) {
	t.Run("ASAP_3_5_13 ENRP_6_2_02 elements that registered together are not asked together", func(t *testing.T) {
		timers := DefaultTimers().KeepAlive
		k := newKeepAlive(timers, rand.New(rand.NewPCG(3, 4)))
		const n = 10000
		watches := make(map[elementKey]*watch)
		for i := range n {
			w := &watch{key: elementKey{Handle: pool, ID: param.PEID(i + 1)}}
			watches[w.key] = w
			k.watch(w, generation(1), epoch)
		}
		total := 0
		for s := range 60 {
			now := at(time.Duration(s) * time.Second)
			probes, _ := k.tick(now)
			for _, key := range probes {
				k.acked(watches[key], now)
			}
			if s < 15 && len(probes) > 0 {
				t.Errorf("second %d: %d keep-alives too early", s, len(probes))
			}
			if len(probes) > n/10 {
				t.Errorf("second %d: a burst of %d", s, len(probes))
			}
			total += len(probes)
		}
		if total < n {
			t.Errorf("%d keep-alives for %d elements in a minute", total, n)
		}
	})
}

// TestKeepAliveInvariants plays at random and checks what must hold always.
func TestKeepAliveInvariants(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		k := machine(func(k *KeepAliveTimers) { k.Spread, k.Misses = 0.5, 2 })
		started := make(map[elementKey]time.Time)
		watches := make(map[elementKey]*watch)
		for id := range param.PEID(8) {
			w := &watch{key: elementKey{Handle: pool, ID: id + 1}}
			watches[w.key] = w
		}
		now := epoch
		for range 2000 {
			now = now.Add(time.Duration(random.Int64N(int64(2 * time.Second))))
			w := watches[elementKey{Handle: pool, ID: param.PEID(random.IntN(8) + 1)}]
			switch random.IntN(8) {
			case 0, 1:
				k.watch(w, generation(1), now)
			case 2:
				k.forget(w)
			case 3:
				k.probe(w, now)
			case 4:
				k.fall(w, now)
			case 5:
				if random.IntN(2) == 0 {
					k.failed(w, now)
				} else {
					k.postponed(w, now)
				}
			default:
				k.acked(w, now)
			}
			probes, _ := k.tick(now)
			for _, key := range probes {
				if last, ok := started[key]; ok && watches[key].phase != unwatched && now.Sub(last) < k.timers.Gap && watches[key].started != k.since(now) {
					t.Fatalf("seed %d: two keep-alives within %v", seed, now.Sub(last))
				}
				started[key] = now
			}
			watched := 0
			for _, w := range watches {
				if w.phase != unwatched {
					watched++
				}
			}
			if watched != k.due.Len() {
				t.Fatalf("seed %d: %d watched, %d deadlines", seed, watched, k.due.Len())
			}
		}
	}
}

func TestKeepAlive(t *testing.T) {
	tests := []struct {
		name   string
		change []func(*Config)
		f      func(w *world)
	}{
		{"ASAP_3_5_11 AMB_19 periodic keep-alives with H=0, every 30 s give or take half", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			var times []time.Time
			for range 8 { // the life is 300 s
				w.after(45 * time.Second)
				for _, a := range pe.take() {
					m := decodeASAP(a.data).(*asap.EndpointKeepAlive)
					if m.Home || m.Registrar != ownID || m.Handle != pool || m.ID != 0 {
						w.Errorf("keep-alive %+v", m)
					}
					times = append(times, a.at)
				}
				pe.join(pool, pe.element(1))
			}
			if len(times) < 8 {
				w.Errorf("%d keep-alives", len(times))
			}
		}},
		{"ASAP_3_5_12 SM_PRE_09 a silent element goes after the time-out", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.answerFor(pool)
			w.after(14 * time.Second)
			w.wantStored(pool, 1, true)
			w.after(37 * time.Second) // at most 45 s + 5 s
			w.wantStored(pool, 1, false)
		}},
		{"a silent element is told that it is out, for when it goes on", nil, func(w *world) {
			pe := w.peer()
			pe.calm = true
			pe.join(pool, pe.element(1))
			pe.answerFor(pool)
			w.after(51 * time.Second)
			if m := one[*asap.DeregistrationResponse](pe); m.Handle != pool || m.ID != 1 || m.Error != nil {
				w.Errorf("told %+v", m)
			}
		}},
		{"ASAP_3_5_05 ASAP_3_5_06 ASAP_3_5_08 SM_PRE_07 SM_PRE_08 a report has the element asked at once, and it stays if it answers", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			pu.say(&asap.EndpointUnreachable{Handle: pool, ID: 1})
			if m := one[*asap.EndpointKeepAlive](pe); m.Home {
				w.Errorf("keep-alive %+v", m)
			}
			w.after(6 * time.Second)
			w.wantStored(pool, 1, true)
			pu.silence()
		}},
		{"ASAP_3_5_07 a reported element that does not answer goes", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			pe.answerFor(pool)
			pu.say(&asap.EndpointUnreachable{Handle: pool, ID: 1})
			w.after(4 * time.Second)
			w.wantStored(pool, 1, true)
			w.after(time.Second)
			w.wantStored(pool, 1, false)
		}},
		{"ASAP_3_5_09 ASAP_3_5_10 AMB_16 more reporters than the threshold remove an element that answers", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			for n := range 4 {
				w.wantStored(pool, 1, true)
				w.peer().say(&asap.EndpointUnreachable{Handle: pool, ID: 1})
				if n < 3 && int(w.stored(pool, 1).Reports) != n+1 {
					w.Errorf("%d reports counted as %d", n+1, w.stored(pool, 1).Reports)
				}
			}
			w.wantStored(pool, 1, false)
		}},
		{"AMB_16 the count ends with a re-registration", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			for n := range 6 {
				w.peer().say(&asap.EndpointUnreachable{Handle: pool, ID: 1})
				w.after(2 * time.Second)
				if n == 2 {
					pe.take()
					pe.join(pool, pe.element(1))
				}
			}
			w.wantStored(pool, 1, true)
		}},
		{"THR_2_13_3_02 AMB_89 THR_2_14_3_01 one user cannot evict a living element, nor have it flooded", nil, func(w *world) {
			pe, pu := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			pe.take()
			for range 100 {
				pu.say(&asap.EndpointUnreachable{Handle: pool, ID: 1})
				w.after(10 * time.Millisecond)
			}
			w.wantStored(pool, 1, true)
			if n := len(pe.take()); n < 1 || n > 2 {
				w.Errorf("%d keep-alives within a second", n)
			}
		}},
		{"AMB_84 an element whose association falls is asked over a new one, and stays if it answers", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.conn.Abort()
			if m := one[*asap.EndpointKeepAlive](pe); m.Home {
				w.Errorf("keep-alive %+v", m)
			}
			w.after(time.Minute)
			w.wantStored(pool, 1, true)
			if len(pe.incoming) != 1 {
				w.Errorf("%d associations to the element", len(pe.incoming))
			}
		}},
		{"AMB_84 one that refuses goes at once", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.listener.Close()
			pe.conn.Abort()
			w.after(time.Millisecond)
			w.wantStored(pool, 1, false)
		}},
		{"AMB_84 one on a machine that is gone goes after a time-out", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			w.net.Unplug("host1")
			w.after(60 * time.Second)
			w.wantStored(pool, 1, false)
		}},
		{"over TCP the control port is asked", []func(*Config){overTCP}, func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.ASAP = param.Transport{Type: param.TypeTCPTransport, Port: 50000, Addrs: e.User.Addrs}
			pe.join(pool, e)
			pe.conn.Abort()
			one[*asap.EndpointKeepAlive](pe)
			w.after(time.Minute)
			w.wantStored(pool, 1, true)
		}},
		{"elements with one ASAP transport share the new association", nil, func(w *world) {
			pe := w.peer()
			for id := range param.PEID(20) {
				pe.join(pool, pe.element(id+1))
			}
			pe.conn.Abort()
			w.after(time.Minute)
			if info, _ := w.r.space.Pool(pool); info.Elements != 20 || len(pe.incoming) != 1 {
				w.Errorf("%d elements, %d associations", info.Elements, len(pe.incoming))
			}
		}},
		{"a registration over another association ends the new one", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.conn.Abort()
			w.after(time.Second)
			pe.take()
			again := pe.sibling(50001)
			again.join(pool, again.element(1))
			w.after(time.Second)
			if n := w.r.census.len(); n != 1 {
				w.Errorf("%d connections", n)
			}
		}},
		{"few dials at a time, and none counts as failed for waiting", []func(*Config){limits(func(l *Limits) { l.Dials = 1 })}, func(w *world) {
			var all []*peer
			for range 5 {
				pe := w.peer()
				pe.join(pool, pe.element(param.PEID(len(all)+1)))
				all = append(all, pe)
			}
			for i, pe := range all {
				w.net.Delay("registrar", fmt.Sprintf("host%d", i+1), time.Second, time.Second)
				pe.conn.Abort()
			}
			w.after(30 * time.Second) // five dials of 2 s, one after the other
			if info, _ := w.r.space.Pool(pool); info.Elements != 5 {
				w.Errorf("%d elements", info.Elements)
			}
		}},
		{"an acknowledgement from another host counts for nothing", nil, func(w *world) {
			pe, other := w.peer(), w.peer()
			pe.join(pool, pe.element(1))
			pe.answerFor(pool)
			for range 60 {
				other.say(&asap.EndpointKeepAliveAck{Handle: pool, ID: 1})
				w.after(time.Second)
			}
			w.wantStored(pool, 1, false)
		}},
		{"AMB_08 two elements of a pool on one association are told apart", nil, func(w *world) {
			pe := w.peer()
			pe.join(pool, pe.element(1))
			pe.join(pool, pe.element(2))
			pe.answerFor(pool, 2)
			w.after(time.Minute)
			w.wantStored(pool, 1, false)
			w.wantStored(pool, 2, true)
		}},
		{"beyond the removal share elements are marked, hidden, and come back when they answer", []func(*Config){limits(func(l *Limits) {
			l.RemovalFloor, l.RemovalShare = 1, 0.25
		})}, func(w *world) {
			var all []*peer
			for id := range param.PEID(8) {
				pe := w.peer()
				pe.join(pool, pe.element(id+1))
				all = append(all, pe)
			}
			for _, pe := range all[:6] {
				pe.answerFor(pool)
				w.peer().say(&asap.EndpointUnreachable{Handle: pool, ID: param.PEID(1)})
			}
			for id := range 6 {
				w.peer().say(&asap.EndpointUnreachable{Handle: pool, ID: param.PEID(id + 1)})
			}
			w.after(6 * time.Second)
			info, _ := w.r.space.Pool(pool)
			if info.Elements != 6 || info.Suspects != 4 {
				w.Fatalf("%d elements, %d suspects", info.Elements, info.Suspects)
			}
			if m := w.peer().resolve(pool); len(m.Elements) != 2 {
				w.Errorf("%d elements resolved", len(m.Elements))
			}
			if w.exceeded("removal_share") != 4 {
				w.Error("limit not counted")
			}
			for i, pe := range all[:6] {
				pe.answerFor(pool, param.PEID(i+1))
			}
			w.after(time.Minute)
			info, _ = w.r.space.Pool(pool)
			if info.Elements != 6 || info.Suspects != 0 {
				w.Errorf("%d elements, %d suspects after they answered", info.Elements, info.Suspects)
			}
		}},
		{"rsplib's elements are asked every 5 s by name", []func(*Config){asRsplib}, func(w *world) {
			pe := w.peer()
			e := pe.element(1)
			e.Life = 90000
			pe.join(pool, e)
			w.after(8 * time.Second)
			got := pe.heard()
			if len(got) < 1 || len(got) > 3 {
				w.Errorf("%d keep-alives in 8 s", len(got))
			}
			for _, m := range got {
				if k, ok := m.(*asap.EndpointKeepAlive); !ok || k.ID != 1 {
					w.Errorf("got %+v", m)
				}
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { inWorld(t, tt.f, tt.change...) })
	}
}

func TestRateLimiter(t *testing.T) {
	l := newRateLimiter(2, 3, 2)
	a, b, c := asapAddr.Addr(), asapAddr.Addr().Next(), asapAddr.Addr().Next().Next()
	var got []bool
	for _, s := range []struct {
		at   time.Duration
		addr int
	}{{0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 1}, {0, 2}, {time.Second, 0}, {time.Second, 0}, {time.Second, 0}, {time.Second, 2}, {2 * time.Second, 2}} {
		addr := a
		switch s.addr {
		case 1:
			addr = b
		case 2:
			addr = c
		}
		got = append(got, l.allow(addr, at(s.at)))
	}
	// The third address finds room when the second one's bucket is full again.
	want := []bool{true, true, true, false, true, false, true, true, false, true, true}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
