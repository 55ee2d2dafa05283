package peer

import (
	"errors"
	"fmt"
	"time"

	"rserpool/asap/param"
)

// Timers are the times of RFC 5353, section 4. RFC and Rsplib return presets.
type Timers struct {
	// Heartbeat is PEER-HEARTBEAT-CYCLE: how often peers are told that this
	// registrar is alive, and what its checksum is. Default 30 s.
	Heartbeat time.Duration
	// LastHeard is MAX-TIME-LAST-HEARD: a peer that was silent for longer is
	// asked. Default 61 s; more than two of the peers' heartbeats.
	LastHeard time.Duration
	// NoResponse is MAX-TIME-NO-RESPONSE: how long answers may take before a
	// peer is dead, a mentor given up, a download or its session ended, a
	// takeover announced again to those that did not acknowledge. Default 5 s.
	NoResponse time.Duration
	// Pause is how long a starting registrar waits after all mentors have
	// refused or failed, before it asks them again. Default 5 s.
	Pause time.Duration
	// Patience is how long it goes on so before it serves without them
	// (AMB-45). Default 60 s.
	Patience time.Duration
}

// RFC returns the times of RFC 5353, and this project's where it gives none. A
// peer that vanishes silently is dead after LastHeard + NoResponse, 66 s.
func RFC() Timers {
	return Timers{
		Heartbeat: 30 * time.Second, LastHeard: 61 * time.Second, NoResponse: 5 * time.Second,
		Pause: 5 * time.Second, Patience: time.Minute,
	}
}

// Rsplib returns the times of rsplib's registrar: a dead peer is found after 10 s.
func Rsplib() Timers {
	return Timers{
		Heartbeat: 2444 * time.Millisecond, LastHeard: 5 * time.Second, NoResponse: 5 * time.Second,
		Pause: time.Second, Patience: 20 * time.Second,
	}
}

// Fast returns times by which a dead peer is found after 4 s, for networks that don't
// lose anything for longer than a second.
func Fast() Timers {
	return Timers{
		Heartbeat: time.Second, LastHeard: 3 * time.Second, NoResponse: time.Second,
		Pause: 500 * time.Millisecond, Patience: 10 * time.Second,
	}
}

// WithDefaults returns t with those of RFC in place of zeros.
func (t Timers) WithDefaults() Timers {
	d := RFC()
	for _, f := range []struct{ field, value *time.Duration }{
		{&t.Heartbeat, &d.Heartbeat}, {&t.LastHeard, &d.LastHeard}, {&t.NoResponse, &d.NoResponse},
		{&t.Pause, &d.Pause}, {&t.Patience, &d.Patience},
	} {
		if *f.field == 0 {
			*f.field = *f.value
		}
	}
	return t
}

// Validate names all that is wrong with times whose defaults are filled in.
func (t Timers) Validate() error {
	var errs []error
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"heartbeat", t.Heartbeat}, {"last heard", t.LastHeard}, {"no response", t.NoResponse},
		{"pause", t.Pause}, {"patience", t.Patience},
	} {
		if d.value < time.Millisecond || d.value > 24*time.Hour {
			errs = append(errs, fmt.Errorf("%s %v is not between 1ms and 24h", d.name, d.value))
		}
	}
	return errors.Join(errs...)
}

// Limits of a Machine. Zero fields stand for the defaults.
type Limits struct {
	// Peers is how many peers are known at a time. Messages of others are
	// answered as far as they are requests, but change nothing. Default 128.
	Peers int
	// Page is the length of a HANDLE_TABLE_RESPONSE, octets. Default 16384.
	Page int
}

// Element is a pool element of the handlespace.
type Element struct {
	Handle param.PoolHandle
	param.PoolElement
}

// Key returns the element's key.
func (e Element) Key() Key { return Key{e.Handle, e.ID} }

// Key names an element. Keys are ordered by handle, octet by octet, then by
// identifier; the zero Key comes before all others.
type Key struct {
	Handle param.PoolHandle
	ID     param.PEID
}

// Table is the handlespace as a Machine reads it.
type Table interface {
	// Checksum returns the PE checksum over the elements of a home (section
	// 3.6.2).
	Checksum(home param.RegistrarID) uint16
	// Elements appends to dst up to max elements in the order of their keys,
	// from the first behind after on: those of a home, or all for home 0. Each
	// has its ASAP transport.
	Elements(dst []Element, home param.RegistrarID, after Key, max int) []Element
	// Homes returns the homes of all elements, in any order.
	Homes() []param.RegistrarID
	// Settled reports whether all actions that concern a home's elements have
	// been applied. Until then its checksum is not compared.
	Settled(home param.RegistrarID) bool
}

// Config is all that a Machine is told at its start.
type Config struct {
	// Self describes this registrar. The identifier must not be zero.
	Self param.ServerInformation
	// Mentors is the number of configured registrars to get the handlespace
	// from. The driver knows where they are.
	Mentors int
	// Wait: nothing is asked of mentors before Begin, because the cluster may
	// give the handlespace, and who belongs to it is not known yet.
	Wait bool
	// Table is the handlespace. Required.
	Table Table
	// InCluster reports whether an identifier belongs to this registrar's
	// cluster, Alive whether that member is up. Nil: there is no cluster.
	InCluster func(param.RegistrarID) bool
	Alive     func(param.RegistrarID) bool
	// Multicast: heartbeats also go to a multicast group (AMB-21, rsplib).
	Multicast bool
	// LowerIDWinsTakeover turns the arbitration of takeovers round, as rsplib
	// does (AMB-41). All registrars of a scope must do the same.
	LowerIDWinsTakeover bool
	Timers              Timers
	Limits              Limits
}

func (c Config) withDefaults() Config {
	c.Timers = c.Timers.WithDefaults()
	if c.Limits.Peers == 0 {
		c.Limits.Peers = 128
	}
	if c.Limits.Page == 0 {
		c.Limits.Page = 16384
	}
	none := func(param.RegistrarID) bool { return false }
	if c.InCluster == nil {
		c.InCluster = none
	}
	if c.Alive == nil {
		c.Alive = none
	}
	return c
}
