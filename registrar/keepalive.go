package registrar

import (
	"math"
	"math/rand/v2"
	"time"

	"rserpool/internal/pages"
	"rserpool/registrar/handlespace"
)

// elementKey names a pool element.
type elementKey = handlespace.Key

// keepAlive decides when each element that this registrar is home to is asked
// whether it is alive, and which did not answer (RFC 5352, sections 3.5 and
// 2.2.7). It is a pure machine: no clock, no sockets, no goroutine. All
// deadlines lie in one set, so an element costs no timer. Deadlines are counted from
// the first moment at which an element was watched.
//
// At most one keep-alive per element is outstanding, and two are never started
// closer together than the gap.
type keepAlive struct {
	timers  KeepAliveTimers
	rand    *rand.Rand
	epoch   time.Time
	due     pages.Set[time.Duration, *watch]
	serial  uint64
	paced   time.Duration // when the latest one is due of those that come in crowds
	hearing time.Time     // until when time-outs wait for what elements have said
}

// phase is what the deadline of a watch means.
type phase uint8

const (
	unwatched   phase = iota // no deadline
	resting                  // start a keep-alive then
	outstanding              // no acknowledgement came until then
	held                     // no deadline: the connection is being set up
	undelivered              // it could not be delivered
)

// watch is how one element is watched: not at all if nothing is set but the key. It must
// not be copied while it is.
type watch struct {
	key        elementKey
	generation handlespace.Generation
	at         time.Duration
	filed      time.Duration                     // its place among the deadlines: at, or sooner; or never
	spot       pages.Spot[time.Duration, *watch] // the same
	started    time.Duration                     // the latest keep-alive, or longAgo
	serial     uint64                            // makes the order of deadlines total
	misses     int32                             // failed keep-alives in a row
	phase      phase
	fallen     bool // its association fell: one failure is enough
	claim      bool // to be told that this registrar is its home now
	told       bool // it was, and has not acknowledged that yet
}

// Before and after all deadlines, and so that gaps can be added.
const longAgo, never = math.MinInt64 / 2, math.MaxInt64 / 2

// Tie implements pages.Value.
func (w *watch) Tie() uint64 { return w.serial }

// Spot implements pages.Value.
func (w *watch) Spot() *pages.Spot[time.Duration, *watch] { return &w.spot }

// verdict names an element that failed its keep-alives, by its generation.
type verdict struct {
	key        elementKey
	generation handlespace.Generation
}

func newKeepAlive(timers KeepAliveTimers, random *rand.Rand) *keepAlive {
	return &keepAlive{timers: timers, rand: random, paced: longAgo}
}

// since returns a moment as deadlines are counted.
func (k *keepAlive) since(now time.Time) time.Duration { return now.Sub(k.epoch) }

// watch starts to watch an element, or starts anew after a re-registration: the
// registration itself is a sign of life.
func (k *keepAlive) watch(w *watch, generation handlespace.Generation, now time.Time) {
	if k.epoch.IsZero() {
		k.epoch = now
	}
	if w.phase == unwatched {
		k.serial++
		w.serial, w.started, w.filed = k.serial, longAgo, never
	}
	w.generation = generation
	w.claim, w.told = false, false
	k.rest(w, k.since(now))
}

// paceGap is the time between two keep-alives of a crowd: to elements that this
// registrar has become home to, or whose connection fell with many others.
const paceGap = 200 * time.Microsecond

// pace schedules a keep-alive soon, and not together with others.
func (k *keepAlive) pace(w *watch, now time.Duration) {
	k.paced = max(k.paced+paceGap, now)
	k.schedule(w, resting, k.afterGap(w, k.paced))
}

// claim starts to watch an element that this registrar has become home to without
// the element's word: it is told so by a keep-alive soon. If that fails the element
// is dead, as when its association falls.
func (k *keepAlive) claim(w *watch, generation handlespace.Generation, now time.Time) {
	k.watch(w, generation, now)
	w.claim, w.fallen = true, true
	k.pace(w, k.since(now))
}

// telling reports whether the keep-alive about to be sent says that this registrar
// is the element's home now.
func (k *keepAlive) telling(w *watch) bool {
	if w.claim {
		w.told = true
	}
	return w.claim
}

// forget stops watching an element.
func (k *keepAlive) forget(w *watch) {
	k.unschedule(w)
	*w = watch{key: w.key}
}

// probe asks for a keep-alive now, because somebody could not reach the element.
// One that is outstanding serves (AMB-89).
func (k *keepAlive) probe(w *watch, now time.Time) {
	if w.phase == resting {
		k.hurry(w, k.since(now))
	}
}

// fall says that the association to the element fell. What was outstanding on it
// is void; a new keep-alive goes out, and if that fails the element is dead
// (AMB-84).
func (k *keepAlive) fall(w *watch, now time.Time) {
	if w.phase != unwatched {
		w.fallen = true
		k.pace(w, k.since(now))
	}
}

// hold says that the keep-alive waits for a connection: its time-out starts when
// sent is called.
func (k *keepAlive) hold(w *watch) {
	if w.phase == outstanding {
		k.unschedule(w)
		w.phase = held
	}
}

// sent says that the keep-alive that was held is on its way now.
func (k *keepAlive) sent(w *watch, now time.Time) {
	if w.phase == held {
		k.schedule(w, outstanding, k.since(now)+k.timers.Timeout)
	}
}

// failed says that the keep-alive could not be delivered.
func (k *keepAlive) failed(w *watch, now time.Time) {
	if w.phase == outstanding || w.phase == held {
		k.schedule(w, undelivered, k.since(now))
	}
}

// postponed says that the keep-alive could not be sent for a reason that is not
// the element's: there will be another one, within two gaps.
func (k *keepAlive) postponed(w *watch, now time.Time) {
	if w.phase == outstanding || w.phase == held {
		wait := time.Duration(k.rand.Float64() * float64(k.timers.Gap))
		k.schedule(w, resting, k.afterGap(w, k.since(now))+wait)
	}
}

// acked takes an acknowledgement, asked for or late, and returns the generation
// that is alive, and whether the element has accepted its new home by it; watched
// is false when it is not watched.
func (k *keepAlive) acked(w *watch, now time.Time) (g handlespace.Generation, accepted, watched bool) {
	if w.phase == unwatched {
		return handlespace.Generation{}, false, false
	}
	accepted, w.told = w.told, false
	w.misses = 0
	if w.phase != resting {
		k.rest(w, k.since(now))
	}
	return w.generation, accepted, true
}

// tick returns the elements to send a keep-alive to and those that are dead.
// A dead element stays under watch until it is forgotten, because the removal
// may be refused.
func (k *keepAlive) tick(at time.Time) (probes []elementKey, dead []verdict) {
	now, hearing := k.since(at), k.since(k.hearing)
	for {
		w := k.first()
		if w == nil || w.filed > now {
			return probes, dead
		}
		if w.at > now {
			k.file(w)
			continue
		}
		switch {
		case w.phase == resting:
			w.started = now
			k.schedule(w, outstanding, now+k.timers.Timeout)
			probes = append(probes, w.key)
		case w.phase == outstanding && now < hearing:
			k.schedule(w, outstanding, hearing)
		default: // outstanding, undelivered
			w.misses++
			if w.fallen || int(w.misses) >= k.timers.Misses {
				dead = append(dead, verdict{w.key, w.generation})
				k.rest(w, now)
			} else {
				k.hurry(w, now)
			}
		}
	}
}

// next returns when to call tick at the latest; false: never.
func (k *keepAlive) next() (time.Time, bool) {
	w := k.first()
	if w == nil {
		return time.Time{}, false
	}
	return k.epoch.Add(w.filed), true
}

// first returns the watch whose deadline comes up first, nil if none has one.
func (k *keepAlive) first() (first *watch) {
	k.due.Settle(func(_ time.Duration, w *watch) bool {
		first = w
		return false
	})
	return first
}

// rest schedules the next periodic keep-alive, spread so that many elements that
// registered together are not asked together (ASAP-3.5-13).
func (k *keepAlive) rest(w *watch, now time.Duration) {
	w.misses, w.fallen = 0, false
	spread := 1 + k.timers.Spread*(2*k.rand.Float64()-1)
	at := now + time.Duration(float64(k.timers.Interval)*spread)
	k.schedule(w, resting, k.afterGap(w, at))
}

// hurry schedules a keep-alive as soon as the gap allows.
func (k *keepAlive) hurry(w *watch, now time.Duration) {
	k.schedule(w, resting, k.afterGap(w, now))
}

func (k *keepAlive) afterGap(w *watch, at time.Duration) time.Duration {
	return max(at, w.started+k.timers.Gap)
}

// schedule sets the deadline. A later one than before leaves the watch where it is among
// the deadlines: most elements register again long before they are due.
func (k *keepAlive) schedule(w *watch, p phase, at time.Duration) {
	w.phase, w.at = p, at
	if at < w.filed {
		k.file(w)
	}
}

// file puts a watch where its deadline belongs.
func (k *keepAlive) file(w *watch) {
	k.unschedule(w)
	w.filed = w.at
	k.due.Insert(w.filed, w)
}

func (k *keepAlive) unschedule(w *watch) {
	k.due.Delete(w.filed, w)
	w.filed = never
}
