package registrar

import (
	"context"
	"time"

	"rserpool/asap/transport"
	enrppeer "rserpool/enrp/peer"
	"rserpool/enrp/ring"
	"rserpool/registrar/replica"
)

// RingConfig describes the registrar's membership in a ring, whose members keep
// one handlespace in one order. Without Listen there is none: the registrar
// orders its commands alone.
type RingConfig struct {
	// Cluster is the name that all members have in common, 1 to 64 octets; who
	// has another one is refused. Default "rserpool".
	Cluster string
	// Listen is where members reach this one. Default: none, no ring.
	Listen []transport.Endpoint
	// Peers is where other members may be found. Own addresses among them are
	// passed over, so that all members can have the same list. Default: none,
	// the member waits to be found.
	Peers []transport.Endpoint
	// Advertise is where others are told to reach this member. Default: the
	// addresses listened on.
	Advertise []transport.Endpoint
	// Timers are the ring's. Default for each zero field: ring.LAN().
	Timers ring.Timers
	// Limits bound the ring's queues and messages. Zero fields: its defaults.
	// As many commands, and octets of them, as QueueProposals and QueueOctets (65,536
	// and 64 MiB by default) also wait here for room in the ring's
	// queue, or for the end of an exchange, and as many answers for the members
	// that Ack wants; beyond, registrations and deregistrations are refused for
	// lack of resources. Payload, if given, is at least 256 KiB.
	Limits ring.Limits
	// Size is the number of configured members, 1 to 32: locks are granted
	// only among more than half of them. Needs StateDir, where fences are kept.
	// Default 0: no such mode.
	Size     int
	StateDir string
	// Ack says when a registration is acknowledged. Default: when it is stable.
	Ack replica.Ack
	// JoinWait is how long a starting member that has Peers waits for them
	// before it serves alone. Default: 6 x Timers.ProbeInterval (3 s with
	// ring.LAN).
	JoinWait time.Duration
	// MaxSkew is by how much the clocks of two members may differ before the log
	// warns, see docs/architecture.md. Default: 500 ms.
	MaxSkew time.Duration
	// Networks are those of the ring's connections: with TLS, or not. Required
	// with Listen.
	Networks *transport.Networks
}

// On reports whether there is a ring.
func (c RingConfig) On() bool { return len(c.Listen) > 0 }

// PeeringConfig describes how the registrar meets registrars outside its ring, by
// plain RFC 5353. Config.ENRP is where they reach this one.
type PeeringConfig struct {
	// Mentors are registrars to ask for the handlespace at the start, and to
	// peer with (RFC 5353, section 3.2). Default: none.
	Mentors []transport.Endpoint
	// Announce lists functions that open a multicast group for presence
	// messages, as rsplib's registrars use. Default: none.
	Announce []func(context.Context) (transport.Announcer, error)
	// Networks are those of Config.ENRP and of Mentors: with TLS, or not.
	// Default: Config.Networks.
	Networks *transport.Networks
	// Timers say when peers are dead, and how long to wait for answers. Default
	// for each zero field: enrppeer.RFC(), with CompatRsplib enrppeer.Rsplib().
	Timers enrppeer.Timers
}

// DefaultCluster is the name of a ring that was given none.
const DefaultCluster = "rserpool"

// maxSkew is the standard for RingConfig.MaxSkew: less than elements take to find
// another registrar.
const maxSkew = 500 * time.Millisecond

// joinProbes is how many probes a starting member waits for others.
const joinProbes = 6

func (c RingConfig) withDefaults() RingConfig {
	setDefault(&c.Cluster, DefaultCluster)
	t, d := &c.Timers, ring.LAN()
	setDefault(&t.HopRetry, d.HopRetry)
	setDefault(&t.HopTimeout, d.HopTimeout)
	setDefault(&t.IdleRotation, d.IdleRotation)
	setDefault(&t.CollectWait, d.CollectWait)
	setDefault(&t.LostWait, d.LostWait)
	setDefault(&t.ProbeInterval, d.ProbeInterval)
	setDefault(&t.FlapWindow, d.FlapWindow)
	setDefault(&t.HoldOff, d.HoldOff)
	setDefault(&t.HoldOffMax, d.HoldOffMax)
	setDefault(&t.Lease, d.Lease)
	setDefault(&c.JoinWait, joinProbes*t.ProbeInterval)
	setDefault(&c.MaxSkew, maxSkew)
	return c
}

// minPayload is more than the longest payload of a replica: a chunk of an exchange and
// one element with its pool handle beyond it.
const minPayload = 256 << 10

// maxRing is the largest ring.
const maxRing = 32

// validate checks a ring that is on.
func (c RingConfig) validate(check func(ok bool, format string, args ...any)) {
	check(c.Networks != nil, "ring: no networks")
	check(len(c.Cluster) >= 1 && len(c.Cluster) <= 64, "ring: the cluster's name has %d octets, not 1 to 64", len(c.Cluster))
	check(c.Size >= 0 && c.Size <= maxRing, "ring: size %d is not between 0 and %d", c.Size, maxRing)
	check(c.Size == 0 || c.StateDir != "", "ring: a size needs a folder for the state, where fences are kept")
	check(c.Ack.MinMembers >= 0 && c.Ack.MinMembers <= maxRing, "ring: acknowledgement by %d members is not between 0 and %d", c.Ack.MinMembers, maxRing)
	check(!c.Ack.Local || c.Ack.MinMembers == 0, "ring: acknowledgement can't be local and by a number of members")
	check(c.Limits.Payload == 0 || c.Limits.Payload >= minPayload, "ring: payloads of %d octets are less than the %d that the exchange of what members know may need", c.Limits.Payload, minPayload)
	t := c.Timers
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"hop retry", t.HopRetry}, {"hop time-out", t.HopTimeout}, {"idle rotation", t.IdleRotation},
		{"collect wait", t.CollectWait}, {"lost wait", t.LostWait}, {"probe interval", t.ProbeInterval},
		{"flap window", t.FlapWindow}, {"hold-off", t.HoldOff}, {"longest hold-off", t.HoldOffMax},
		{"lease", t.Lease}, {"join wait", c.JoinWait}, {"difference of clocks", c.MaxSkew},
	} {
		check(d.value >= time.Millisecond && d.value <= time.Hour, "ring: %s %v is not between 1ms and 1h", d.name, d.value)
	}
	check(t.HopRetry < t.HopTimeout, "ring: hop retry %v is not less than the hop time-out %v", t.HopRetry, t.HopTimeout)
	check(t.HoldOff <= t.HoldOffMax, "ring: hold-off %v is more than its maximum %v", t.HoldOff, t.HoldOffMax)
}
