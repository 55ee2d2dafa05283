package ringtest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"rserpool/enrp/ring"
	"rserpool/enrp/ring/internal/fault"
)

// epoch is when a world's time begins.
var epoch = time.Unix(1_000_000_000, 0).UTC()

// world is a group of members, the network between them, and their time.
type world struct {
	opt     Options
	timers  ring.Timers
	limits  ring.Limits
	primary bool
	faults  fault.Set
	net     Network
	rng     *rand.Rand
	trace   io.Writer
	spell   bool // payloads are text, and traced as such
	// lossy says whether a message is to be lost, beyond what else loses it. May be nil.
	lossy func(l *life, env ring.Envelope) bool

	now    time.Duration
	queue  eventQueue
	nodes  []*node
	lives  []*life
	links  [][]link // from, to
	storms int      // sum of their losses in 1,000
	traps  []Action
	heal   time.Duration // when faults end
	starts int           // that are still to come
	check  *checker
	cov    Coverage
	err    *Violation
	steps  int
	sent   int
	keys   uint64
	// stillAt and ticks find a machine that wants to be called without end.
	stillAt time.Duration
	ticks   int
	swing   float64
	buf     []byte
}

// node is a place where lives of a member run, one after the other.
type node struct {
	index       int
	incarnation ring.Incarnation
	life        *life // nil: none
	durable     ring.Durable
	pauses      int
	lag         time.Duration
	busy        time.Duration // that its application needs for the events of an output
	offset      time.Duration // of its clock
	ahead       time.Duration // of the machine's clock, which never goes back
}

// life is one process.
type life struct {
	node    *node
	self    ring.Node
	machine *ring.Machine
	app     App
	record  *record
	up      bool
	inbox   []message // while paused
	timer   time.Duration
	offer   [][]byte // what the ring had no room for
	end     bool
	crash   int // where in the next output it crashes; 0: nowhere
	leaving bool
	// applying: it is busy with an output, and only answers questions. Its node is
	// paused for that, once.
	applying bool
	dialed   []*life // connections that are up
	claims   map[string]bool
	relock   []string // claims to be repeated
}

type message struct {
	from, to int
	data     []byte
}

// link is the way from one node to another.
type link struct {
	cuts  int
	since time.Duration // of the first cut
	last  time.Duration // arrival of the latest message, for streams
	large []int         // longer messages are lost
}

func newWorld(members int, timers ring.Timers, limits ring.Limits, primary bool, net Network, seed uint64, opt Options) *world {
	w := &world{
		opt: opt, timers: timers, limits: limits, primary: primary, faults: opt.Faults, net: net, trace: opt.Trace,
		rng: rand.New(rand.NewPCG(seed, 2)),
	}
	w.check = newChecker(w.fail, &w.cov)
	w.check.primary, w.check.limits, w.check.starving = primary, limits, timers.Starving()
	if w.opt.NewApp == nil {
		w.opt.NewApp = newSet
	}
	w.links = make([][]link, members)
	for i := range members {
		w.links[i] = make([]link, members)
		w.nodes = append(w.nodes, &node{index: i})
	}
	return w
}

func (w *world) fail(check, format string, args ...any) {
	if w.err == nil {
		w.err = &Violation{Check: check, At: w.now, Detail: fmt.Sprintf(format, args...)}
		w.printf("VIOLATION %v", w.err)
	}
}

func (w *world) printf(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%-12v %s\n", w.now, fmt.Sprintf(format, args...))
	}
}

// after has something done later.
func (w *world) after(d time.Duration, f func()) {
	w.queue.push(event{at: w.now + d, do: f})
}

// step does the next thing, false if there is none before a time.
func (w *world) step(until time.Duration) bool {
	if w.err != nil || len(w.queue.events) == 0 || w.queue.events[0].at > until {
		w.now = max(w.now, until)
		return false
	}
	e := w.queue.pop()
	w.now = e.at
	w.steps++
	switch {
	case e.do != nil:
		e.do()
	case e.life != nil:
		w.tick(e.life, e.at)
	default:
		w.arrive(e.message)
	}
	return true
}

func (w *world) run(until time.Duration) {
	for w.step(until) {
	}
}

// clock is a life's time.
func (w *world) clock(l *life) time.Time { return epoch.Add(w.now + l.node.offset) }

// call calls a life's machine and does what comes of it. One that is paused gets
// it when it goes on.
func (w *world) call(l *life, f func(m *ring.Machine, now time.Time)) {
	if !l.up || w.err != nil {
		return
	}
	if l.node.pauses > 0 {
		return
	}
	f(l.machine, w.clock(l))
	w.pump(l)
}

// tick handles a life's timer.
func (w *world) tick(l *life, at time.Duration) {
	if !l.up || l.timer != at || l.node.pauses > 0 {
		return
	}
	if w.stillAt != w.now {
		w.stillAt, w.ticks = w.now, 0
	}
	if w.ticks++; w.ticks > 1000 {
		w.fail("timer", "%s wants to be called without end", name(l.self.Member))
		return
	}
	l.timer = -1
	l.machine.Tick(w.clock(l))
	w.pump(l)
}

// pump does what a machine wants done.
func (w *world) pump(l *life) {
	for w.err == nil && l.up {
		out, ok := l.machine.Ready()
		if ok {
			w.output(l, out)
		}
		if !l.up || w.err != nil || l.applying {
			return
		}
		if !w.propose(l) && !ok {
			break
		}
	}
	if !l.up || w.err != nil {
		return
	}
	w.schedule(l)
	if l.leaving && l.machine.Status().State == ring.Left {
		w.printf("%s has left", name(l.self.Member))
		w.down(l, false)
	}
}

// schedule sees to it that a life is called when it wants to.
func (w *world) schedule(l *life) {
	next := l.machine.Next()
	if n := l.app.Next(); !n.IsZero() && (next.IsZero() || n.Before(next)) {
		next = n
	}
	if next.IsZero() {
		return
	}
	at := max(next.Sub(epoch)-l.node.offset, w.now) + l.node.lag
	if l.timer >= w.now && l.timer <= at && l.timer != at-l.node.lag {
		// The earlier call does no harm, and asks again.
		return
	}
	if l.timer != at {
		l.timer = at
		w.queue.push(event{at: at, life: l})
	}
}

// output does what a driver does with an Output, in the order of the contract, and
// lets the life crash between.
func (w *world) output(l *life, out ring.Output) {
	if out.Persist != nil {
		l.node.durable = *out.Persist
	}
	if l.crash == crashAfterPersist {
		w.crash(l, false)
		return
	}
	for _, env := range out.Messages {
		if env.Early() {
			w.send(l, env)
		}
	}
	if !l.up || w.err != nil {
		return
	}
	if l.node.busy > 0 && len(out.Events) > 0 && l.node.pauses == 0 {
		w.cov.Busy++
		l.applying = true
		w.pause(l.node)
		w.after(l.node.busy, func() { w.applied(l, out) })
		return
	}
	w.apply(l, out)
}

// applied ends the time for which an application was busy.
func (w *world) applied(l *life, out ring.Output) {
	if l.node.pauses > 1 && l.up && w.err == nil {
		w.after(w.timers.HopRetry, func() { w.applied(l, out) })
		return
	}
	if l.applying = false; l.up && w.err == nil {
		w.apply(l, out)
	}
	w.resume(l.node)
}

// apply does the rest of an output.
func (w *world) apply(l *life, out ring.Output) {
	l.record.fresh = false
	for i, e := range out.Events {
		if l.crash == crashInEvents && i >= len(out.Events)/2 {
			w.crash(l, false)
			return
		}
		if _, ok := e.(ring.Installed); ok && i > 0 {
			if _, ok := out.Events[i-1].(ring.Delivered); ok {
				w.cov.Remainders++
			}
		}
		if w.trace != nil {
			w.printf("%s: %s", name(l.self.Member), w.describeEvent(l.self.Member, e))
		}
		w.check.event(l.record, e)
		l.app.Handle(e, w.clock(l))
		w.afterEvent(l, e)
		if w.err != nil {
			return
		}
	}
	w.check.handled(l.record)
	if w.opt.Output != nil {
		if err := w.opt.Output(l.app, w.clock(l)); err != nil {
			w.fail("app", "%s: %v", name(l.self.Member), err)
		}
	}
	if l.crash == crashAfterEvents && len(out.Events) > 0 {
		w.crash(l, false)
		return
	}
	l.machine.Handled(w.clock(l))
	for i, env := range out.Messages {
		if l.crash == crashInMessages && i >= len(out.Messages)/2 {
			w.crash(l, false)
			return
		}
		if env.Early() {
			continue
		}
		w.send(l, env)
		if !l.up || w.err != nil {
			return
		}
	}
}

func (w *world) afterEvent(l *life, e ring.Event) {
	if w.opt.Event != nil {
		if err := w.opt.Event(l.app, e, w.clock(l)); err != nil {
			w.fail("app", "%s: %v", name(l.self.Member), err)
		}
	}
	switch e := e.(type) {
	case ring.Installed:
		l.end = false // it was meant for the exchange before
	case ring.Ended:
		if s, ok := l.app.(*set); ok {
			w.check.compareSet(l.record, s)
		}
	case ring.Released:
		// A lease that ended takes the place in the queue with it.
		if e.Holder == l.self.Member && l.claims[e.Lock] {
			l.relock = append(l.relock, e.Lock)
		}
	}
}

// propose hands the ring what the application has to say, true if anything.
func (w *world) propose(l *life) bool {
	now := w.clock(l)
	payloads, end := l.app.Outbox(now)
	l.offer = append(l.offer, payloads...)
	l.end = l.end || end
	did := len(l.relock) > 0
	for _, lock := range l.relock {
		if err := l.machine.Lock(lock, now); err != nil && err != ring.ErrLeft {
			w.fail("api", "%s: Lock: %v", name(l.self.Member), err)
		}
	}
	l.relock = nil
	for len(l.offer) > 0 {
		p := l.offer[0]
		number, err := l.machine.Propose(append([]byte(nil), p...), now)
		if err == ring.ErrFull {
			w.cov.Refused++
			break
		}
		did = true
		l.offer = l.offer[1:]
		if err != nil {
			continue
		}
		w.check.propose(l.record, p, number)
	}
	if l.end && len(l.offer) == 0 {
		l.end, did = false, true
		if err := l.machine.End(now); err != nil && err != ring.ErrNotNeeded && err != ring.ErrLeft {
			w.fail("api", "%s: End: %v", name(l.self.Member), err)
		}
	}
	return did
}

// send puts a message on its way.
func (w *world) send(l *life, env ring.Envelope) {
	msg := env.Message
	if msg.Head().From != l.self || msg.Head().To != env.To.Member {
		w.fail("header", "%s sends %T from %v to %v, for %v", name(l.self.Member), msg, msg.Head().From, msg.Head().To, env.To)
		return
	}
	to := int(env.To.ID) - 1
	w.check.says(l.record, msg, w.now+l.node.ahead)
	if call, ok := msg.(*ring.Call); ok {
		w.countCall(l, call)
		w.checkNeighbours(l, call)
	}
	if w.err != nil {
		return
	}
	if env.Redial {
		w.redial(l, to)
	}
	w.sent++
	if w.trace != nil {
		w.printf("%s>%s %s", name(l.self.Member), name(env.To.Member), w.describe(msg))
	}
	data, err := ring.Append(w.buf[:0], msg)
	w.buf = data[:0]
	if err != nil {
		w.fail("codec", "%v", err)
		return
	}
	data = append([]byte(nil), data...)
	lost, then := w.sprung(l, to, msg)
	if lost || w.lossy != nil && w.lossy(l, env) {
		w.printf("  lost")
	} else {
		w.transmit(message{l.node.index, to, data})
	}
	if then != nil {
		then()
	}
}

// transmit is the network.
func (w *world) transmit(m message) {
	k := &w.links[m.from][m.to]
	tooLarge := slices.ContainsFunc(k.large, func(limit int) bool { return len(m.data) > limit })
	if k.cuts > 0 || tooLarge || w.rng.IntN(1000) < w.net.Loss+w.storms {
		w.printf("  lost")
		return
	}
	copies := 1
	if w.net.Twice > 0 && w.rng.IntN(1000) < w.net.Twice {
		copies = 2
	}
	for range copies {
		d := w.net.Delay
		if w.net.Jitter > 0 {
			d += time.Duration(w.rng.Int64N(int64(w.net.Jitter)))
		}
		if w.net.Late > 0 && w.rng.IntN(1000) < w.net.Late {
			d += time.Duration(w.rng.Int64N(12 * int64(w.net.Jitter+w.net.Delay)))
		}
		d += w.nodes[m.to].lag
		at := w.now + d
		if w.net.Stream {
			at = max(at, k.last)
			k.last = at
		}
		w.queue.push(event{at: at, message: m})
	}
}

// inboxSize bounds what waits for a member that is paused.
const inboxSize = 500

func (w *world) arrive(m message) {
	l := w.nodes[m.to].life
	if l == nil {
		return
	}
	msg, err := ring.Decode(m.data)
	if err != nil {
		w.fail("codec", "from %s to %s: %v", letter(m.from), letter(m.to), err)
		return
	}
	if l.node.pauses > 0 {
		if l.applying && l.node.pauses == 1 && w.err == nil {
			if answers, ok := l.machine.Answer(msg, w.clock(l)); ok {
				for _, env := range answers {
					w.send(l, env)
				}
				return
			}
		}
		if len(l.inbox) < inboxSize {
			l.inbox = append(l.inbox, m)
		}
		return
	}
	w.call(l, func(machine *ring.Machine, now time.Time) { machine.Step(msg, now) })
}

// redial closes the connection to a node and sets up a new one, if it can.
func (w *world) redial(l *life, to int) {
	other := w.nodes[to].life
	w.after(w.net.Delay, func() {
		for _, o := range slices.Clone(l.dialed) {
			if o.node.index == to && (o != other || !o.up || !w.reachable(l.node.index, to)) {
				w.lose(l, o)
			}
		}
	})
}

// crash ends a life at once. Unless it is silent, those who can hear of it do.
func (w *world) crash(l *life, silent bool) {
	if !l.up {
		return
	}
	w.printf("%s crashes", name(l.self.Member))
	w.cov.Crashes++
	w.down(l, silent)
}

func (w *world) down(l *life, silent bool) {
	l.up, l.record.live = false, false
	l.node.life = nil
	l.inbox = nil
	for _, other := range w.lives {
		if !silent && other.up && slices.Contains(other.dialed, l) && w.links[l.node.index][other.node.index].cuts == 0 {
			w.after(w.net.Delay+time.Duration(w.rng.Int64N(int64(w.net.Jitter)+1)), func() { w.lose(other, l) })
		}
	}
}

// pause stops a node until resume has been called as often.
func (w *world) pause(n *node) {
	n.pauses++
	if n.life != nil {
		n.life.record.away = true
	}
}

func (w *world) resume(n *node) {
	if n.pauses--; n.pauses > 0 || n.life == nil {
		return
	}
	l := n.life
	w.printf("%s goes on", name(l.self.Member))
	inbox := l.inbox
	l.inbox = nil
	tickFirst := w.primary || w.rng.IntN(2) == 0
	if tickFirst {
		w.call(l, (*ring.Machine).Tick)
	}
	l.record.away = false
	for _, m := range inbox {
		w.arrive(m)
	}
	if !tickFirst {
		w.call(l, (*ring.Machine).Tick)
	}
}

func (w *world) countCall(l *life, call *ring.Call) {
	for _, n := range call.View.Members {
		if i := int(n.ID) - 1; n.Member != l.self.Member && i < len(w.nodes) {
			other := w.nodes[i].life
			if other != nil && other.self == n && other.machine.Status().State == ring.Calling {
				w.cov.Competing++
			}
		}
	}
}

// checkNeighbours checks that nobody is to pass the token over a link that has been
// cut for long.
func (w *world) checkNeighbours(l *life, call *ring.Call) {
	members := call.View.Members
	for i, n := range members {
		from, to := int(n.ID)-1, int(members[(i+1)%len(members)].ID)-1
		if k := &w.links[from][to]; from != to && k.cuts > 0 && w.now-k.since > w.timers.FlapWindow {
			w.fail("neighbours", "%s calls %s, but %s>%s has been cut for %v", name(l.self.Member), describeView(call.View), letter(from), letter(to), w.now-k.since)
		}
	}
}
