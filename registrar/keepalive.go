package registrar

import (
	"math/rand/v2"
	"time"

	"github.com/google/btree"

	"rserpool/registrar/handlespace"
)

// elementKey names a pool element.
type elementKey = handlespace.Key

// keepAlive decides when each element that this registrar is home to is asked
// whether it is alive, and which did not answer (RFC 5352, sections 3.5 and
// 2.2.7). It is a pure machine: no clock, no sockets, no goroutine. All
// deadlines lie in one tree, so an element costs no timer.
//
// At most one keep-alive per element is outstanding, and two are never started
// closer together than the gap.
type keepAlive struct {
	timers  KeepAliveTimers
	rand    *rand.Rand
	watched map[elementKey]*watch
	due     *btree.BTreeG[*watch]
	serial  uint64
	paced   time.Time // when the latest one is due of those that come in crowds
	hearing time.Time // until when time-outs wait for what elements have said
}

// phase is what the deadline of a watch means.
type phase int

const (
	resting     phase = iota // start a keep-alive then
	outstanding              // no acknowledgement came until then
	held                     // no deadline: the connection is being set up
	undelivered              // it could not be delivered
)

// watch is one element under watch.
type watch struct {
	key        elementKey
	generation handlespace.Generation
	phase      phase
	at         time.Time
	filed      time.Time // its place in the tree: at, or sooner; zero: none
	started    time.Time // of the latest keep-alive
	fallen     bool      // its association fell: one failure is enough
	misses     int       // failed keep-alives in a row
	claim      bool      // to be told that this registrar is its home now
	told       bool      // it was, and has not acknowledged that yet
	serial     uint64    // makes the order in the tree total
}

// verdict names an element that failed its keep-alives, by its generation.
type verdict struct {
	key        elementKey
	generation handlespace.Generation
}

func newKeepAlive(timers KeepAliveTimers, random *rand.Rand) *keepAlive {
	return &keepAlive{
		timers:  timers,
		rand:    random,
		watched: make(map[elementKey]*watch),
		due: btree.NewG(32, func(a, b *watch) bool {
			if !a.filed.Equal(b.filed) {
				return a.filed.Before(b.filed)
			}
			return a.serial < b.serial
		}),
	}
}

// watch starts to watch an element, or starts anew after a re-registration: the
// registration itself is a sign of life.
func (k *keepAlive) watch(key elementKey, generation handlespace.Generation, now time.Time) {
	w := k.watched[key]
	if w == nil {
		k.serial++
		w = &watch{key: key, serial: k.serial}
		k.watched[key] = w
	}
	w.generation = generation
	w.claim, w.told = false, false
	k.rest(w, now)
}

// paceGap is the time between two keep-alives of a crowd: to elements that this
// registrar has become home to, or whose connection fell with many others.
const paceGap = 200 * time.Microsecond

// pace schedules a keep-alive soon, and not together with others.
func (k *keepAlive) pace(w *watch, now time.Time) {
	if k.paced = k.paced.Add(paceGap); k.paced.Before(now) {
		k.paced = now
	}
	k.schedule(w, resting, k.afterGap(w, k.paced))
}

// claim starts to watch an element that this registrar has become home to without
// the element's word: it is told so by a keep-alive soon. If that fails the element
// is dead, as when its association falls.
func (k *keepAlive) claim(key elementKey, generation handlespace.Generation, now time.Time) {
	k.watch(key, generation, now)
	w := k.watched[key]
	w.claim, w.fallen = true, true
	k.pace(w, now)
}

// telling reports whether the keep-alive about to be sent says that this registrar
// is the element's home now.
func (k *keepAlive) telling(key elementKey) bool {
	w := k.watched[key]
	if w == nil || !w.claim {
		return false
	}
	w.told = true
	return true
}

// forget stops watching an element.
func (k *keepAlive) forget(key elementKey) {
	if w := k.watched[key]; w != nil {
		k.unschedule(w)
		delete(k.watched, key)
	}
}

// probe asks for a keep-alive now, because somebody could not reach the element.
// One that is outstanding serves (AMB-89).
func (k *keepAlive) probe(key elementKey, now time.Time) {
	if w := k.watched[key]; w != nil && w.phase == resting {
		k.hurry(w, now)
	}
}

// fall says that the association to the element fell. What was outstanding on it
// is void; a new keep-alive goes out, and if that fails the element is dead
// (AMB-84).
func (k *keepAlive) fall(key elementKey, now time.Time) {
	if w := k.watched[key]; w != nil {
		w.fallen = true
		k.pace(w, now)
	}
}

// hold says that the keep-alive waits for a connection: its time-out starts when
// sent is called.
func (k *keepAlive) hold(key elementKey) {
	if w := k.watched[key]; w != nil && w.phase == outstanding {
		k.unschedule(w)
		w.phase = held
	}
}

// sent says that the keep-alive that was held is on its way now.
func (k *keepAlive) sent(key elementKey, now time.Time) {
	if w := k.watched[key]; w != nil && w.phase == held {
		k.schedule(w, outstanding, now.Add(k.timers.Timeout))
	}
}

// failed says that the keep-alive could not be delivered.
func (k *keepAlive) failed(key elementKey, now time.Time) {
	if w := k.watched[key]; w != nil && (w.phase == outstanding || w.phase == held) {
		k.schedule(w, undelivered, now)
	}
}

// postponed says that the keep-alive could not be sent for a reason that is not
// the element's: there will be another one, within two gaps.
func (k *keepAlive) postponed(key elementKey, now time.Time) {
	if w := k.watched[key]; w != nil && (w.phase == outstanding || w.phase == held) {
		wait := time.Duration(k.rand.Float64() * float64(k.timers.Gap))
		k.schedule(w, resting, k.afterGap(w, now).Add(wait))
	}
}

// acked takes an acknowledgement, asked for or late, and returns the generation
// that is alive, and whether the element has accepted its new home by it; watched
// is false when it is not watched.
func (k *keepAlive) acked(key elementKey, now time.Time) (g handlespace.Generation, accepted, watched bool) {
	w := k.watched[key]
	if w == nil {
		return handlespace.Generation{}, false, false
	}
	accepted, w.told = w.told, false
	w.misses = 0
	if w.phase != resting {
		k.rest(w, now)
	}
	return w.generation, accepted, true
}

// tick returns the elements to send a keep-alive to and those that are dead.
// A dead element stays under watch until it is forgotten, because the removal
// may be refused.
func (k *keepAlive) tick(now time.Time) (probes []elementKey, dead []verdict) {
	for {
		w, ok := k.due.Min()
		if !ok || w.filed.After(now) {
			return probes, dead
		}
		if w.at.After(now) {
			k.file(w)
			continue
		}
		switch {
		case w.phase == resting:
			w.started = now
			k.schedule(w, outstanding, now.Add(k.timers.Timeout))
			probes = append(probes, w.key)
		case w.phase == outstanding && now.Before(k.hearing):
			k.schedule(w, outstanding, k.hearing)
		default: // outstanding, undelivered
			w.misses++
			if w.fallen || w.misses >= k.timers.Misses {
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
	w, ok := k.due.Min()
	if !ok {
		return time.Time{}, false
	}
	return w.filed, true
}

// rest schedules the next periodic keep-alive, spread so that many elements that
// registered together are not asked together (ASAP-3.5-13).
func (k *keepAlive) rest(w *watch, now time.Time) {
	w.misses, w.fallen = 0, false
	spread := 1 + k.timers.Spread*(2*k.rand.Float64()-1)
	at := now.Add(time.Duration(float64(k.timers.Interval) * spread))
	k.schedule(w, resting, k.afterGap(w, at))
}

// hurry schedules a keep-alive as soon as the gap allows.
func (k *keepAlive) hurry(w *watch, now time.Time) {
	k.schedule(w, resting, k.afterGap(w, now))
}

func (k *keepAlive) afterGap(w *watch, at time.Time) time.Time {
	if w.started.IsZero() {
		return at
	}
	if earliest := w.started.Add(k.timers.Gap); at.Before(earliest) {
		return earliest
	}
	return at
}

// schedule sets the deadline. A later one than before leaves the watch where it is in
// the tree: most elements register again long before they are due.
func (k *keepAlive) schedule(w *watch, p phase, at time.Time) {
	w.phase, w.at = p, at
	if w.filed.IsZero() || at.Before(w.filed) {
		k.file(w)
	}
}

// file puts a watch where its deadline belongs.
func (k *keepAlive) file(w *watch) {
	k.unschedule(w)
	w.filed = w.at
	k.due.ReplaceOrInsert(w)
}

func (k *keepAlive) unschedule(w *watch) {
	if !w.filed.IsZero() {
		k.due.Delete(w)
		w.filed = time.Time{}
	}
}
