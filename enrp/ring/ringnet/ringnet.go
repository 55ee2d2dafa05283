// Package ringnet drives a ring.Machine over the transports of asap/transport.
package ringnet

import (
	"context"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/transport"
	"rserpool/enrp/ring"
)

// Config is all that a Group is told. Zero fields take the defaults.
type Config struct {
	// Cluster is the name of the group, 1 to 64 octets. Members of different
	// clusters don't talk to each other. Required.
	Cluster string
	// ID is this member's identifier. Required. The incarnation is the clock in
	// nanoseconds at Start.
	ID ring.NodeID
	// Networks are those to listen and dial on, Listen where, Peers where other
	// members may be found. Listen is required. Own addresses among the Peers
	// are passed over, so that all members can have the same list.
	Networks *transport.Networks
	Listen   []transport.Endpoint
	Peers    []transport.Endpoint
	// Advertise is where others reach this member; default: the addresses it
	// listens on, those of the interfaces for an unspecified one.
	Advertise []transport.Endpoint
	Timers    ring.Timers // default ring.LAN()
	Limits    ring.Limits
	// Size and StateDir are for primary mode: the number of configured members,
	// and the folder where fences are kept.
	Size     int
	StateDir string
	// Handler takes the ring's events. Required.
	Handler Handler
	Log     logrus.FieldLogger
}

// Handler is the application of a Group.
type Handler interface {
	// Handle applies events, in order. The token is not passed on before it
	// returns. It is called by the group's goroutine, one call at a time, and
	// must not call methods of the Group that wait for that (Stop); Propose,
	// End, Lock and Unlock are fine.
	Handle(events []ring.Event)
}

// Group is one member of a ring at work. Its methods may be called concurrently.
type Group struct{}

// New checks a configuration and makes a Group of it, which does nothing yet.
func New(cfg Config) (*Group, error) { panic("unfinished") }

// Start listens and joins. ctx bounds the start only.
func (g *Group) Start(ctx context.Context) error { return nil }

// Stop leaves politely, as long as ctx allows, and waits until all has ended.
func (g *Group) Stop(ctx context.Context) error { return nil }

// Self returns this member; its incarnation is known after Start.
func (g *Group) Self() ring.Node { return ring.Node{} }

// Addrs returns where the group listens.
func (g *Group) Addrs() []netip.AddrPort { return nil }

// Propose hands in a payload, which belongs to the group from then on, and
// returns its number (see ring.Stable). It never waits: ring.ErrFull when there is
// no room.
func (g *Group) Propose(payload []byte) (uint64, error) { return 0, nil }

// Room receives a value when there is room again after ErrFull.
func (g *Group) Room() <-chan struct{} { return nil }

// End, Lock and Unlock: see ring.Machine.
func (g *Group) End()                     {}
func (g *Group) Lock(name string) error   { return nil }
func (g *Group) Unlock(name string) error { return nil }

// Status returns a snapshot, and how the connections are.
func (g *Group) Status(ctx context.Context) (Status, error) { return Status{}, nil }

// Status is a member's status with that of its driver.
type Status struct {
	ring.Status
	Cluster string
	Peers   []PeerStatus
}

// PeerStatus is one connection, or an address where nobody could be reached.
type PeerStatus struct {
	Member    ring.Member // zero: not known yet
	Addr      string
	Connected bool
	Since     time.Time
	LastError string
	SentOctets, ReceivedOctets,
	SentMessages, ReceivedMessages uint64
	Dropped uint64 // messages not sent because the queue was full
}
