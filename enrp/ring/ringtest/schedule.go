package ringtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"rserpool/enrp/ring"
)

// Schedule is all that a run does from outside: a configuration of members and
// network, and actions at their times.
type Schedule struct {
	Seed    uint64
	Profile string
	Members int
	Timers  ring.Timers
	Limits  ring.Limits
	Primary bool
	Network Network
	Actions []Action
	// Heal is when all faults but Standing end.
	Heal time.Duration
	// Standing is a link whose fault goes on after Heal: from, to. Equal: none.
	Standing [2]int
}

// Network says how messages fare when nothing is cut.
type Network struct {
	Delay, Jitter time.Duration // at least Delay, and up to Jitter more
	Late          int           // in 1,000: delayed by up to 12 times as much
	Loss, Twice   int           // in 1,000: lost, duplicated
	Stream        bool          // messages between two members keep their order
}

// ActionKind is what an action does.
type ActionKind uint8

// Kinds of actions. A and B are members, N a number, For how long it lasts.
const (
	Propose ActionKind = iota // A, N payloads of up to Size octets
	Lock                      // A, lock N
	Unlock                    // A, lock N
	Leave                     // A; starts again after For
	Crash                     // A at point N; starts again after For
	Pause                     // A, as SIGSTOP does
	Jump                      // A's clock by For
	Cut                       // from A to B
	Deaf                      // nothing reaches A
	Mute                      // nothing from A arrives
	Split                     // members in the bits of N from the others
	Slow                      // A sees all late by N thousandths of HopTimeout
	Busy                      // A's application needs N thousandths of HopTimeout for each output
	Full                      // the driver's queue from A to B is full
	Large                     // messages of more than N octets from A to B are lost
	Storm                     // N in 1,000 messages are lost
	Hint                      // A hears that the connection to B fell, which is not so
	Trap                      // waits for message N, then does B to A
	actionKinds
)

var actionNames = [actionKinds]string{"propose", "lock", "unlock", "leave", "crash", "pause", "jump", "cut", "deaf", "mute", "split", "slow", "busy", "full", "large", "storm", "hint", "trap"}

// Fault reports whether the action is a fault rather than use.
func (k ActionKind) Fault() bool { return k >= Leave }

// Action is one thing that a schedule does.
type Action struct {
	At   time.Duration
	Kind ActionKind
	A, B int
	N    int
	Size int
	For  time.Duration
	// Silent: nobody's driver notices a crash or cut before it dials again.
	Silent bool
}

// Where in an output a crash strikes.
const (
	crashNow = iota
	crashAfterPersist
	crashInEvents
	crashAfterEvents
	crashInMessages
	crashPoints
)

// What a trap waits for, ...
const (
	onFirstToken = iota // a token of the first round of a view, its Size'th hop
	onToken             // any token
	onCall
	onPromise
	onEnd     // a token that carries END
	onEntries // a token that carries entries
	onMergeCall
	traps
)

var trapNames = [traps]string{"first token", "token", "call", "promise", "END", "entries", "merge call"}

// ... to whom, ...
const (
	theSender = iota
	theReceiver
	theCoordinator
	victims
)

// ... and what it does.
const (
	doCrash   = iota // after the message was sent
	doLose           // the message and all else on this link for a while
	doPause          // the victim
	doMute           // the victim
	doDeaf           // the victim
	doCrashTo        // the victim, and the message is lost
	doPauseTo        // likewise
	deeds
)

var deedNames = [deeds]string{"crash", "lose", "pause", "mute", "deafen", "lose it and crash", "lose it and pause"}
var victimNames = [victims]string{"sender", "receiver", "coordinator"}

// forever is how long a standing fault lasts, unless all is mended.
const forever = time.Hour

func letter(i int) string { return string(rune('a' + i)) }

// String describes the action as traces do.
func (a Action) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %s", a.At, actionNames[a.Kind])
	switch a.Kind {
	case Propose:
		fmt.Fprintf(&b, " %s %d of %d octets", letter(a.A), a.N, a.Size)
	case Lock, Unlock:
		fmt.Fprintf(&b, " %s %s", letter(a.A), lockName(a.N))
	case Crash:
		fmt.Fprintf(&b, " %s %s", letter(a.A), [crashPoints]string{"now", "after Persist", "amid Events", "after Events", "amid Messages"}[a.N])
	case Cut, Full:
		fmt.Fprintf(&b, " %s>%s", letter(a.A), letter(a.B))
	case Hint:
		fmt.Fprintf(&b, " %s lost %s", letter(a.A), letter(a.B))
	case Split:
		b.WriteByte(' ')
		for i := range 9 {
			if a.N>>i&1 == 1 {
				b.WriteString(letter(i))
			}
		}
	case Large:
		fmt.Fprintf(&b, " %s>%s over %d", letter(a.A), letter(a.B), a.N)
	case Slow, Busy:
		fmt.Fprintf(&b, " %s %d/1000", letter(a.A), a.N)
	case Storm:
		fmt.Fprintf(&b, " %d/1000", a.N)
	case Trap:
		fmt.Fprintf(&b, " on %s", trapNames[a.N])
		if a.N == onFirstToken {
			fmt.Fprintf(&b, " %d", a.Size)
		}
		fmt.Fprintf(&b, ": %s %s", deedNames[a.B], victimNames[a.A])
	default:
		fmt.Fprintf(&b, " %s", letter(a.A))
	}
	if a.For != 0 {
		fmt.Fprintf(&b, " for %v", a.For)
	}
	if a.Silent {
		b.WriteString(" silently")
	}
	return b.String()
}

// String lists the schedule.
func (s Schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, profile %s, %d members, primary %v, heal at %v, network %+v, limits %+v", s.Seed, s.Profile, s.Members, s.Primary, s.Heal, s.Network, s.Limits)
	if s.Standing[0] != s.Standing[1] {
		fmt.Fprintf(&b, ", %s>%s stays as it is", letter(s.Standing[0]), letter(s.Standing[1]))
	}
	for _, a := range s.Actions {
		fmt.Fprintf(&b, "\n  %v", a)
	}
	return b.String()
}

func lockName(n int) string { return fmt.Sprintf("lock-%d", n) }

// maker draws a schedule.
type maker struct {
	Schedule
	r *rand.Rand
	u time.Duration // a twelfth of HopTimeout: all times are drawn in it
}

// profiles are kinds of schedules, each made for some rare case to be frequent. A
// profile's name is drawn with its weight.
var profiles = []struct {
	name   string
	weight int
	make   func(m *maker)
}{
	{"mixed", 4, (*maker).mixed},
	{"loss", 2, (*maker).loss},
	{"crash", 3, (*maker).crash},
	{"restart", 3, (*maker).restart},
	{"partition", 3, (*maker).partition},
	{"oneway", 2, (*maker).oneway},
	{"standing", 1, (*maker).standing},
	{"torn", 4, (*maker).torn},
	{"chain", 8, (*maker).chain},
	{"gap", 2, (*maker).gap},
	{"rival", 3, (*maker).rival},
	{"pause", 2, (*maker).pause},
	{"primary", 2, (*maker).primary},
	{"locks", 2, (*maker).locks},
	{"full", 2, (*maker).full},
	{"leave", 2, (*maker).leave},
	{"big", 1, (*maker).big},
}

// Profiles lists the names of all profiles.
func Profiles() []string {
	var names []string
	for _, p := range profiles {
		names = append(names, p.name)
	}
	return names
}

// NewSchedule draws the schedule of a seed. An empty profile is drawn, too.
func NewSchedule(seed uint64, profile string) Schedule {
	m := &maker{r: rand.New(rand.NewPCG(seed, 1))}
	sum := 0
	for _, p := range profiles {
		sum += p.weight
	}
	drawn := m.r.IntN(sum)
	i := 0
	for ; drawn >= profiles[i].weight; i++ {
		drawn -= profiles[i].weight
	}
	if profile != "" {
		i = slices.Index(Profiles(), profile)
		if i < 0 {
			panic("no profile " + profile)
		}
	}
	m.Seed, m.Profile, m.Timers = seed, profiles[i].name, ring.Test()
	m.u = m.Timers.HopTimeout / 12
	m.Members = []int{1, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 7, 8, 9}[m.r.IntN(18)]
	m.Heal = 1200 * m.u
	m.Network = Network{Delay: m.u / 20, Jitter: m.u / 4, Late: 2, Loss: 1, Twice: 5, Stream: m.r.IntN(2) == 0}
	if m.r.IntN(4) == 0 {
		m.Network.Delay, m.Network.Jitter = m.u/2, m.u
	}
	profiles[i].make(m)
	m.use(30 + m.r.IntN(30))
	if m.Members == 1 {
		m.use(270) // it has nobody to talk to
	}
	slices.SortStableFunc(m.Actions, func(a, b Action) int { return int(a.At - b.At) })
	return m.Schedule
}

func (m *maker) add(a Action) { m.Actions = append(m.Actions, a) }

// at draws a time at which faults may begin; the first rotations are spared.
func (m *maker) at() time.Duration { return m.span(100, 1100) }

// span draws between two numbers of units.
func (m *maker) span(from, to int) time.Duration {
	return time.Duration(from)*m.u + time.Duration(m.r.Int64N(int64(to-from)*int64(m.u)+1))
}

func (m *maker) member() int { return m.r.IntN(m.Members) }

func (m *maker) pair() (int, int) {
	a := m.member()
	if m.Members == 1 {
		return a, a
	}
	return a, (a + 1 + m.r.IntN(m.Members-1)) % m.Members
}

// atLeast sets the smallest number of members that make sense for a profile.
func (m *maker) atLeast(n int) {
	if m.Members < n {
		m.Members = n
	}
}

// times runs f between from and to times.
func (m *maker) times(from, to int, f func()) {
	for range from + m.r.IntN(to-from+1) {
		f()
	}
}

// use adds proposals, some in bursts.
func (m *maker) use(n int) {
	for range n {
		a := Action{At: m.span(0, 1180), Kind: Propose, A: m.member(), N: 1, Size: 1 + m.r.IntN(40)}
		if m.r.IntN(8) == 0 {
			a.N = 2 + m.r.IntN(6)
		}
		m.add(a)
	}
}

func (m *maker) useLocks(n int) {
	for range n {
		kind := Lock
		if m.r.IntN(2) == 0 {
			kind = Unlock
		}
		m.add(Action{At: m.span(0, 1180), Kind: kind, A: m.member(), N: m.r.IntN(3)})
	}
}

// anyFault adds a fault of any kind.
func (m *maker) anyFault() {
	a, b := m.pair()
	f := Action{At: m.at(), A: a, B: b, Silent: m.r.IntN(2) == 0}
	switch m.r.IntN(15) {
	case 0, 1:
		f.Kind, f.N, f.For = Crash, m.r.IntN(crashPoints), m.span(1, 200)
	case 2:
		f.Kind, f.For = Pause, m.span(1, 150)
	case 3:
		f.Kind, f.For = Jump, m.span(-100, 500)
	case 4, 5:
		f.Kind, f.For = Cut, m.span(1, 200)
	case 6:
		f.Kind, f.For = Deaf, m.span(5, 150)
	case 7:
		f.Kind, f.For = Mute, m.span(5, 150)
	case 8:
		f.Kind, f.N, f.For = Split, 1+m.r.IntN(1<<m.Members-1), m.span(5, 300)
	case 9:
		f.Kind, f.N, f.For = Slow, 100+m.r.IntN(1100), m.span(20, 200)
	case 10:
		f.Kind, f.For = Full, m.span(1, 40)
	case 11:
		f.Kind, f.N, f.For = Storm, 50+m.r.IntN(500), m.span(5, 60)
	case 12:
		f.Kind = Hint
	case 13:
		f.Kind, f.N, f.For = Large, 30+m.r.IntN(200), m.span(5, 150)
	case 14:
		f.Kind, f.N, f.For = Busy, 50+m.r.IntN(4000), m.span(20, 200)
	}
	m.add(f)
}

func (m *maker) trap(at time.Duration, on, deed int) {
	m.add(Action{At: at, Kind: Trap, A: m.r.IntN(victims), B: deed, N: on, Size: 1 + m.r.IntN(m.Members), For: m.span(5, 150), Silent: m.r.IntN(2) == 0})
}

func (m *maker) mixed() {
	m.times(4, 16, m.anyFault)
	if m.r.IntN(3) == 0 {
		m.useLocks(12)
	}
}

func (m *maker) loss() {
	m.atLeast(2)
	m.Network.Loss, m.Network.Twice, m.Network.Late = 20+m.r.IntN(150), m.r.IntN(200), m.r.IntN(100)
	m.times(3, 8, func() {
		m.add(Action{At: m.at(), Kind: Storm, N: 300 + m.r.IntN(700), For: m.span(5, 60)})
	})
}

func (m *maker) crash() {
	m.atLeast(2)
	m.times(3, 10, func() {
		m.add(Action{At: m.at(), Kind: Crash, A: m.member(), N: m.r.IntN(crashPoints), For: m.span(20, 300), Silent: m.r.IntN(2) == 0})
	})
	if m.r.IntN(2) == 0 { // almost all at once
		at, survivor := m.at(), m.member()
		for i := range m.Members {
			if i != survivor {
				m.add(Action{At: at + m.span(0, 20), Kind: Crash, A: i, N: m.r.IntN(crashPoints), For: m.span(20, 300), Silent: m.r.IntN(2) == 0})
			}
		}
	}
}

func (m *maker) restart() {
	m.atLeast(2)
	m.times(3, 10, func() {
		m.add(Action{At: m.at(), Kind: Crash, A: m.member(), N: m.r.IntN(crashPoints), For: m.span(0, 15), Silent: m.r.IntN(2) == 0})
	})
	m.times(0, 3, func() { m.trap(m.at(), m.r.IntN(traps), doCrash) })
	m.times(0, 2, m.anyFault)
}

func (m *maker) partition() {
	m.atLeast(2)
	m.times(3, 7, func() {
		m.add(Action{At: m.at(), Kind: Split, N: 1 + m.r.IntN(1<<m.Members-1), For: m.span(20, 350), Silent: m.r.IntN(2) == 0})
	})
	m.times(0, 4, func() { m.trap(m.at(), []int{onMergeCall, onEnd, onFirstToken}[m.r.IntN(3)], m.r.IntN(deeds)) })
	m.times(0, 2, m.anyFault)
}

func (m *maker) oneway() {
	m.atLeast(2)
	m.times(3, 8, func() {
		a, b := m.pair()
		m.add(Action{At: m.at(), Kind: []ActionKind{Cut, Cut, Deaf, Mute}[m.r.IntN(4)], A: a, B: b, For: m.span(20, 400), Silent: m.r.IntN(3) > 0})
	})
	m.times(0, 3, func() { m.trap(m.at(), m.r.IntN(traps), doMute+m.r.IntN(2)) })
}

func (m *maker) standing() {
	m.atLeast(2)
	a, b := m.pair()
	m.Standing = [2]int{a, b}
	f := Action{At: m.span(100, 300), Kind: Cut, A: a, B: b, For: forever, Silent: m.r.IntN(2) == 0}
	if m.r.IntN(2) == 0 {
		f.Kind, f.N = Large, 40+m.r.IntN(160)
	}
	if m.r.IntN(2) == 0 {
		f.At = 0 // so that neither of the two is the first to notice
	}
	m.add(f)
	m.times(2, 4, m.anyFault)
}

func (m *maker) torn() {
	m.atLeast(3)
	m.times(2, 5, func() {
		// Something that makes a view change, and a trap in it.
		at := m.at()
		a, b := m.pair()
		switch m.r.IntN(4) {
		case 0:
			m.add(Action{At: at, Kind: Crash, A: a, N: m.r.IntN(crashPoints), For: m.span(20, 200)})
		case 1:
			m.add(Action{At: at, Kind: Split, N: 1 << a, For: m.span(20, 200)})
		case 2:
			m.add(Action{At: at, Kind: Pause, A: a, For: m.span(20, 60)})
		case 3:
			m.add(Action{At: at, Kind: Cut, A: a, B: b, For: m.span(20, 60)})
		}
		m.trap(at, []int{onFirstToken, onFirstToken, onFirstToken, onCall, onPromise}[m.r.IntN(5)], m.r.IntN(deeds))
		if m.r.IntN(2) == 0 { // one that promises, and knows nothing of what becomes of it for a while
			m.add(Action{At: at, Kind: Trap, A: theSender, B: doPauseTo, N: onPromise, For: m.span(30, 150)})
		}
		for range 2 + m.r.IntN(4) {
			m.add(Action{At: at + m.span(-5, 40), Kind: Propose, A: m.member(), N: 1 + m.r.IntN(3), Size: 8})
		}
	})
}

// chain tears one install after the other, after a token with entries was lost on
// its way, while some members are away: they come back from views that are several
// behind, with different parts of what was ordered there.
func (m *maker) chain() {
	m.atLeast(6)
	for at := m.span(100, 150); at < 1000*m.u; at += m.span(120, 250) {
		for range 6 + m.r.IntN(6) {
			m.add(Action{At: at + m.span(0, 3), Kind: Propose, A: m.member(), N: 1, Size: 8})
		}
		for range 1 + m.r.IntN(3) {
			a, b := m.pair()
			m.add(Action{
				At: at + m.span(1, 4), Kind: []ActionKind{Pause, Mute, Deaf, Cut}[m.r.IntN(4)],
				A: a, B: b, For: m.span(20, 120), Silent: true,
			})
		}
		m.add(Action{
			At: at + m.span(0, 3), Kind: Trap, N: onEntries, A: m.r.IntN(victims),
			B: []int{doLose, doCrashTo, doPause, doMute}[m.r.IntN(4)], For: m.span(10, 60), Silent: true,
		})
		for range 2 + m.r.IntN(3) {
			m.add(Action{
				At: at + m.span(3, 40), Kind: Trap, N: onFirstToken, Size: 1 + m.r.IntN(m.Members-1), A: m.r.IntN(victims),
				B: []int{doLose, doPause, doMute, doCrashTo}[m.r.IntN(4)], For: m.span(10, 60), Silent: true,
			})
		}
	}
}

// gap stops a member that lacks what others have ordered, and kills the one that is to
// get the token with more. The others install a view with the rest of that as its head,
// but the last of them, and call the next one, which large promises don't reach. Then the
// stopped member goes on, and calls those who have but the head, which begins beyond what
// it lacks.
func (m *maker) gap() {
	m.Members = 5 + m.r.IntN(3)
	for at := m.span(100, 150); at < 950*m.u; at += m.span(240, 280) {
		for i := range m.Members {
			m.add(Action{At: at + m.span(0, 1), Kind: Propose, A: i, N: 1 + m.r.IntN(2), Size: 8})
		}
		behind := m.member()
		m.add(Action{At: at + m.span(0, 2), Kind: Pause, A: behind, For: m.span(36, 60), Silent: true})
		m.add(Action{At: at + m.span(0, 4), Kind: Trap, N: onEntries, A: theReceiver, B: doCrashTo, For: m.span(200, 230), Silent: true})
		m.add(Action{
			At: at + 5*m.u, Kind: Trap, N: onFirstToken, Size: m.Members - 3, A: theReceiver,
			B: []int{doPauseTo, doCrashTo}[m.r.IntN(2)], For: m.span(100, 150), Silent: true,
		})
		for i := range m.Members {
			for j := range m.Members {
				if i != j && j != behind {
					m.add(Action{At: at + 26*m.u, Kind: Large, A: i, B: j, N: 300, For: 120 * m.u})
				}
			}
		}
	}
}

func (m *maker) rival() {
	m.atLeast(3)
	m.times(3, 6, func() {
		at := m.at()
		m.trap(at, []int{onToken, onEntries, onEntries}[m.r.IntN(3)], []int{doCrash, doLose, doCrashTo, doPause}[m.r.IntN(4)])
		for range 1 + m.r.IntN(3) {
			a, b := m.pair()
			m.add(Action{At: at + m.span(0, 20), Kind: Hint, A: a, B: b})
		}
		m.add(Action{At: at + m.span(0, 60), Kind: Storm, N: 200 + m.r.IntN(500), For: m.span(5, 30)})
		m.add(Action{At: at, Kind: Propose, A: m.member(), N: 1 + m.r.IntN(3), Size: 8})
	})
}

func (m *maker) pause() {
	m.times(3, 10, func() {
		m.add(Action{At: m.at(), Kind: Pause, A: m.member(), For: m.span(1, 200), Silent: m.r.IntN(2) == 0})
	})
	m.times(0, 3, func() { m.add(Action{At: m.at(), Kind: Jump, A: m.member(), For: m.span(-200, 1000)}) })
	m.times(0, 3, func() {
		m.add(Action{At: m.at(), Kind: Slow, A: m.member(), N: 200 + m.r.IntN(1500), For: m.span(50, 300)})
	})
	m.times(0, 3, func() {
		m.add(Action{At: m.at(), Kind: Busy, A: m.member(), N: 200 + m.r.IntN(6000), For: m.span(50, 300)})
	})
}

func (m *maker) primary() {
	m.Primary = true
	m.useLocks(30)
	m.times(3, 8, func() {
		a, b := m.pair()
		f := Action{At: m.at(), A: a, B: b, Silent: m.r.IntN(2) == 0}
		switch m.r.IntN(4) {
		case 0:
			f.Kind, f.N, f.For = Crash, m.r.IntN(crashPoints), m.span(1, 400)
		case 1:
			f.Kind, f.For = Pause, m.span(20, 400)
		case 2:
			f.Kind, f.N, f.For = Split, 1+m.r.IntN(1<<m.Members-1), m.span(50, 500)
		case 3:
			f.Kind, f.For = Cut, m.span(20, 300)
		}
		m.add(f)
	})
}

func (m *maker) locks() {
	m.atLeast(2)
	m.useLocks(40)
	m.times(3, 8, m.anyFault)
}

func (m *maker) full() {
	m.Limits = ring.Limits{
		QueueProposals: 4 + m.r.IntN(20), QueueOctets: 2000 + m.r.IntN(8000),
		Visit: 200 + m.r.IntN(2000), Token: 500 + m.r.IntN(6000),
	}
	m.times(6, 16, func() {
		m.add(Action{At: m.span(0, 1150), Kind: Propose, A: m.member(), N: 1 + m.r.IntN(40), Size: 1 + m.r.IntN(1500)})
	})
	m.times(3, 8, m.anyFault)
}

func (m *maker) big() {
	m.Limits = ring.Limits{Visit: 32 << 10, Token: 128 << 10, QueueOctets: 600 << 10}
	m.times(4, 10, func() {
		m.add(Action{At: m.span(0, 1150), Kind: Propose, A: m.member(), N: 1 + m.r.IntN(2), Size: 1000 << m.r.IntN(9)})
	})
	m.times(3, 6, m.anyFault)
}

func (m *maker) leave() {
	m.atLeast(2)
	m.times(2, 6, func() {
		m.add(Action{At: m.at(), Kind: Leave, A: m.member(), For: m.span(20, 200)})
	})
	m.times(2, 4, m.anyFault)
	m.useLocks(8)
}
