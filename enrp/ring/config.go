package ring

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"rserpool/enrp/ring/internal/fault"
)

// Timers are the times of a ring; docs/ring.md has their formulas. All members
// should have the same.
type Timers struct {
	// HopRetry is after how long an unacknowledged token is sent again, on a
	// new connection.
	HopRetry time.Duration
	// HopTimeout is after how long the holder calls a view without the member
	// that does not acknowledge: one that is slow for less stays. More than
	// HopRetry.
	HopTimeout time.Duration
	// IdleRotation is how long the token takes for one round without traffic.
	// Longer is cheaper and finds silent deaths later.
	IdleRotation time.Duration
	// CollectWait is how long a caller waits for answers.
	CollectWait time.Duration
	// LostWait is how long a member waits for a sign of life after the
	// transport reported a lost connection.
	LostWait time.Duration
	// ProbeInterval is how often a coordinator asks nodes outside its view.
	ProbeInterval time.Duration
	// FlapWindow, HoldOff and HoldOffMax: a member that drops out of views more
	// than once within FlapWindow is held off for HoldOff, doubled for each
	// time, at most HoldOffMax.
	FlapWindow, HoldOff, HoldOffMax time.Duration
	// Lease is how long a lock holder's right lasts beyond its latest proof
	// that it is in a primary view. Primary mode only.
	Lease time.Duration
}

// Starving is the time without token after which a member asks.
func (t Timers) Starving() time.Duration { return t.IdleRotation + t.HopTimeout }

// Promise is how long a promise, or a call, waits for the install when the view
// has so many members and so many calls have failed, before jitter.
func (t Timers) Promise(members, failed int) time.Duration {
	return (2*t.CollectWait + time.Duration(members)*t.HopTimeout) << min(failed, 5)
}

// LAN returns the times for one data center.
func LAN() Timers {
	return Timers{
		HopRetry: 40 * time.Millisecond, HopTimeout: 120 * time.Millisecond,
		IdleRotation: 780 * time.Millisecond,
		CollectWait:  40 * time.Millisecond, LostWait: 40 * time.Millisecond,
		ProbeInterval: 500 * time.Millisecond,
		FlapWindow:    10 * time.Second, HoldOff: 250 * time.Millisecond, HoldOffMax: 10 * time.Second,
		Lease: 3 * time.Second,
	}
}

// WAN returns the times for round trips of up to some 100 ms.
func WAN() Timers {
	return Timers{
		HopRetry: 400 * time.Millisecond, HopTimeout: 1200 * time.Millisecond,
		IdleRotation: 4 * time.Second,
		CollectWait:  400 * time.Millisecond, LostWait: 400 * time.Millisecond,
		ProbeInterval: 3 * time.Second,
		FlapWindow:    time.Minute, HoldOff: 2 * time.Second, HoldOffMax: time.Minute,
		Lease: 15 * time.Second,
	}
}

// Test returns short times for tests in virtual time or on loopback.
func Test() Timers {
	return Timers{
		HopRetry: 4 * time.Millisecond, HopTimeout: 12 * time.Millisecond,
		IdleRotation: 50 * time.Millisecond,
		CollectWait:  4 * time.Millisecond, LostWait: 4 * time.Millisecond,
		ProbeInterval: 20 * time.Millisecond,
		FlapWindow:    500 * time.Millisecond, HoldOff: 20 * time.Millisecond, HoldOffMax: 200 * time.Millisecond,
		Lease: 200 * time.Millisecond,
	}
}

// Limits bound what a ring holds. Zero fields stand for the defaults.
type Limits struct {
	// Members is the largest view. Default 32.
	Members int
	// Payload is the longest payload, octets. Default and maximum 1 MiB.
	Payload int
	// Visit is how many octets of payloads a member adds to the token at one
	// visit; one payload is always allowed. Larger favours throughput, smaller
	// latency. Default 128 KiB.
	Visit int
	// Token is how many octets of payloads a token may carry before members
	// stop adding, but for one that finds it empty. With more than 1.75 MiB fewer
	// groups merge at a time. Default 1 MiB, maximum 4 MiB.
	Token int
	// QueueProposals and QueueOctets bound the proposals that wait for the
	// token. Beyond, Propose returns ErrFull. Defaults 65,536 and 16 MiB.
	QueueProposals int
	QueueOctets    int
	// Locks bounds the locks held or asked for, Outside the nodes known outside
	// the view. Defaults 4,096 and 64.
	Locks   int
	Outside int
}

// MaxPayload, MaxContact and MaxLockName are upper limits of what their names
// say, in octets.
const (
	MaxPayload  = 1 << 20
	MaxContact  = 512
	MaxLockName = 255
)

// Config is all that a Machine is told at its start.
type Config struct {
	// Self is this member. Its incarnation must be larger than that of all its
	// former lives.
	Self   Node
	Timers Timers
	Limits Limits
	// Size is the number of configured members: primary mode needs more than
	// half of them. 0: no primary mode.
	Size int
	// Durable is what the last Output.Persist of a former life said. Primary
	// mode only.
	Durable Durable
	// Rand is the source of jitter. Required.
	Rand *rand.Rand
	// Faults break the machine on purpose, so that tests can show that they
	// would notice. Only tests within this package's tree can set it.
	Faults fault.Set
}

// WithDefaults returns a copy with the defaults filled in.
func (l Limits) WithDefaults() Limits {
	return Limits{
		Members:        cmp.Or(l.Members, 32),
		Payload:        cmp.Or(l.Payload, MaxPayload),
		Visit:          cmp.Or(l.Visit, 128<<10),
		Token:          cmp.Or(l.Token, 1<<20),
		QueueProposals: cmp.Or(l.QueueProposals, 1<<16),
		QueueOctets:    cmp.Or(l.QueueOctets, 16<<20),
		Locks:          cmp.Or(l.Locks, 4096),
		Outside:        cmp.Or(l.Outside, 64),
	}
}

// most is what the entries of a token can count for: those of maxSides views, each with
// a full token, as many operations of locks, and one payload for which there was no room.
func (l Limits) most() int { return maxSides * (2*l.Token + l.Payload + overhead) }

// besides is room in a message for what a side brings besides payloads: half of it for
// operations of locks, half for what entries have but their payloads.
const besides = MaxMessage / 64

// sides is how many groups may be in one merge: the first token brings what they have in
// theirs, and has to fit into a message.
func (l Limits) sides() int {
	return min(maxSides, MaxMessage/(max(l.Token, l.Payload+overhead)+besides))
}

// Validate names all that is wrong with a configuration.
func (c Config) Validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf("ring: "+format, args...))
		}
	}
	bad(c.Self.ID == 0, "Self.ID is 0")
	bad(c.Self.Incarnation == 0, "Self.Incarnation is 0")
	bad(len(c.Self.Contact) > MaxContact, "Self.Contact has %d octets, more than %d", len(c.Self.Contact), MaxContact)
	bad(c.Rand == nil, "Rand is missing")
	t := c.Timers
	for _, timer := range []struct {
		name string
		d    time.Duration
	}{
		{"HopRetry", t.HopRetry}, {"HopTimeout", t.HopTimeout}, {"IdleRotation", t.IdleRotation},
		{"CollectWait", t.CollectWait}, {"LostWait", t.LostWait}, {"ProbeInterval", t.ProbeInterval},
		{"FlapWindow", t.FlapWindow}, {"HoldOff", t.HoldOff}, {"HoldOffMax", t.HoldOffMax},
	} {
		bad(timer.d <= 0, "Timers.%s is %v", timer.name, timer.d)
	}
	bad(t.HopTimeout <= t.HopRetry, "Timers.HopTimeout %v is not more than HopRetry %v", t.HopTimeout, t.HopRetry)
	bad(c.Size < 0, "Size is %d", c.Size)
	bad(c.Size > 0 && t.Lease <= 0, "Timers.Lease is %v in primary mode", t.Lease)
	l := c.Limits.WithDefaults()
	for _, limit := range []struct {
		name     string
		n, atMax int
	}{
		{"Members", l.Members, maxMembers}, {"Payload", l.Payload, MaxPayload}, {"Visit", l.Visit, MaxMessage / 4},
		{"Token", l.Token, MaxMessage / 4}, {"QueueProposals", l.QueueProposals, 1 << 30}, {"QueueOctets", l.QueueOctets, min(1<<40, math.MaxInt)},
		{"Locks", l.Locks, maxLocks}, {"Outside", l.Outside, maxMembers},
	} {
		bad(limit.n < 1 || limit.n > limit.atMax, "Limits.%s is %d, not within 1 and %d", limit.name, limit.n, limit.atMax)
	}
	bad(c.Size > l.Members, "Size %d is more than Limits.Members %d", c.Size, l.Members)
	return errors.Join(errs...)
}
