package registrar

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	enrppeer "rserpool/enrp/peer"
	"rserpool/selection"
)

// Compat names an implementation whose peculiarities the registrar takes into
// account.
type Compat string

// Values of Compat.
const (
	CompatNone   Compat = ""
	CompatRsplib Compat = "rsplib"
)

// Config is all that a Registrar can be told. Zero fields take the defaults that
// WithDefaults fills in.
type Config struct {
	// ID is the registrar's identifier. Default: random (RFC 5353, section
	// 3.2.1).
	ID param.RegistrarID

	// Networks are those to listen and dial on. Required.
	Networks *transport.Networks

	// ASAP lists the endpoints for elements and users. Default: auto on all
	// addresses, port 3863. An 'auto' endpoint listens on TCP and, where the
	// kernel has it, on SCTP.
	ASAP []transport.Endpoint

	// ENRP lists the endpoints for registrars and tools that read the handle
	// table. Default: none.
	ENRP []transport.Endpoint

	// Ring is the registrar's membership in a ring. Default: none. A member
	// needs an ID that it keeps.
	Ring RingConfig

	// Peering is how it meets registrars outside the ring. Default: it waits
	// for them at ENRP.
	Peering PeeringConfig

	// Announce lists functions that open a multicast group to announce the
	// registrar to (RFC 5352, section 3.6). Default: none, no multicast.
	Announce []func(context.Context) (transport.Announcer, error)

	// Admin is the administrators' HTTP interface.
	Admin AdminConfig

	// Compat takes the peculiarities of another implementation into account:
	// with CompatRsplib lives are milliseconds, nothing unsolicited but
	// keep-alives is sent, no warnings, the policy stands in every positive
	// answer, pool handles have at most 32 octets, keep-alives go every 5 s, and
	// other registrars are told of ASAP transports over TCP as over SCTP.
	Compat Compat

	// Strict keeps to the letter of the RFCs where this project extends them:
	// elements register over SCTP only (RFC 5352, section 2.2.1).
	Strict bool

	// ForeignAddresses accepts user transports with addresses that are not
	// among those of the element's association, for elements behind address
	// translation. Default false (RFC 5352, section 2.2.1).
	ForeignAddresses bool

	// Policies say which policies pools may have. Default: any that is known.
	Policies []PolicyRule

	Timers Timers
	Limits Limits

	// Version is shown by the admin API and as metric.
	Version string

	// Log takes the log. Default: logrus.StandardLogger().
	Log logrus.FieldLogger

	// Refusals counts those who could not prove that they belong to the
	// cluster; the TLS networks tell it. Default: none.
	Refusals *Refusals

	// CertificateExpiry returns when this registrar's certificate ends, to be
	// shown as metric. Default nil: it has none.
	CertificateExpiry func() time.Time

	// OnReload is what a POST to the admin API's reload does. Default: nil,
	// the request is refused.
	OnReload func() error
}

// AdminConfig describes the administrators' HTTP interface.
type AdminConfig struct {
	// Address to listen on, host:port. Default "": no interface.
	Address string
	// AllowRemote permits an address that is not loopback. There is no
	// authentication: whoever reaches the address is an administrator.
	AllowRemote bool
	// Hosts are further names that requests may name in their Host header,
	// besides IP addresses and localhost (against DNS rebinding).
	Hosts []string
}

// KeepAliveTimers say how elements are watched. A silent element is found dead
// after at most Interval x (1 + Spread) + Misses x Timeout, one whose
// association falls after at most Gap + Timeout, at once when it refuses a
// connection.
type KeepAliveTimers struct {
	// Interval is the mean time between two keep-alives of an element.
	// Default 30 s. Shorter finds silent elements sooner and costs messages.
	Interval time.Duration
	// Spread varies each interval by this share either way, 0 to 0.9.
	// Default 0.5 (RFC 5352, section 3.5); negative: none.
	Spread float64
	// Timeout is how long an acknowledgement may take. Default 5 s.
	Timeout time.Duration
	// Gap is the least time between the starts of two keep-alives of one
	// element, whatever asks for them. Default 1 s.
	Gap time.Duration
	// Misses is how many keep-alives in a row fail before a silent element
	// is removed. Default 1 (RFC 5352, section 3.5); at most 10.
	Misses int
}

// Timers of the registrar.
type Timers struct {
	KeepAlive KeepAliveTimers
	// Announce is T6-Serverannounce. Default 1 s.
	Announce time.Duration
	// UpdateDelay collects changes of a pool before its subscribers are told.
	// Default 50 ms, at most 100 ms.
	UpdateDelay time.Duration
	// Write is how long a peer may take to accept what is sent to it before
	// its connection is cut. Default 10 s.
	Write time.Duration
	// Idle is how long a connection may be silent, or hold a message half
	// sent, before it is closed. Connections of registered elements and of
	// subscribers may be silent for ever. Default 10 min.
	Idle time.Duration
	// Stop bounds a polite Stop. Default 5 s.
	Stop time.Duration
}

// DefaultTimers are the RFCs' values, or the readings where they give none.
func DefaultTimers() Timers {
	return Timers{
		KeepAlive: KeepAliveTimers{
			Interval: 30 * time.Second, Spread: 0.5, Timeout: 5 * time.Second,
			Gap: time.Second, Misses: 1,
		},
		Announce:    time.Second,
		UpdateDelay: 50 * time.Millisecond,
		Write:       10 * time.Second,
		Idle:        10 * time.Minute,
		Stop:        5 * time.Second,
	}
}

// FastTimers find a silent element within 2.5 s, for networks without jitter:
// each element costs about one keep-alive per second.
func FastTimers() Timers {
	t := DefaultTimers()
	t.KeepAlive = KeepAliveTimers{
		Interval: time.Second, Spread: 0.5, Timeout: 500 * time.Millisecond,
		Gap: 250 * time.Millisecond, Misses: 2,
	}
	t.UpdateDelay = 10 * time.Millisecond
	return t
}

// RsplibTimers are those of rsplib's registrar, whose elements register again
// only when something reaches them.
func RsplibTimers() Timers {
	t := DefaultTimers()
	t.KeepAlive.Interval, t.KeepAlive.Timeout = 5*time.Second, 5*time.Second
	return t
}

// Limits bound what peers can make the registrar spend. What goes beyond a limit
// is refused and counted: in rserpool_limit_exceeded_total{limit}, or in
// rserpool_queue_drops_total{queue} for queues.
type Limits struct {
	// MessageSize is the longest ASAP message accepted, octets, at most
	// 65536; a longer one costs its connection. Default 16384. Each
	// connection has a receive buffer of this size.
	MessageSize int
	// Connections is the number of connections in all, default 20000, and
	// ConnectionsPerAddress of one peer address, default 5000.
	Connections, ConnectionsPerAddress int
	// ClientPrefix6 says who is one client where clients are counted, for the
	// limits on connections, pools, elements and reports: IPv6 addresses that
	// agree in so many first bits, 1 to 128. Default 64, the addresses that a
	// host can choose from; 128 counts each address, for networks whose hosts
	// share one prefix and can be trusted not to use that.
	ClientPrefix6 int
	// Inbox is the number of events that wait for the owner loop. Default
	// 1024; when it is full, readers wait.
	Inbox int
	// SendQueue is the number of messages that wait for one peer, default
	// 256; when it is full the connection is cut.
	SendQueue int
	// Elements and Pools bound the handlespace. Defaults 2,000,000 and
	// 500,000. ElementsPerClient and PoolsPerClient bound what one peer
	// address registers. Defaults 20000 and 2000. ElementSize is the size of
	// one element, octets, encoded. Default 4096.
	Elements, Pools, ElementsPerClient, PoolsPerClient, ElementSize int
	// HandleLength is the longest pool handle, octets. Default and maximum
	// 32768, so that it fits any message together with an element.
	HandleLength int
	// Addresses is the number of addresses in one transport. Default 64.
	Addresses int
	// Subscriptions is the number of update subscriptions in all, default
	// 100000, and SubscriptionsPerConnection of one connection, default 256.
	Subscriptions, SubscriptionsPerConnection int
	// ReportRate is the number of unreachable reports per second taken from
	// one address, default 10, ReportBurst its burst, default 50, and
	// Reporters the number of addresses remembered, default 65536.
	ReportRate  float64
	ReportBurst int
	Reporters   int
	// MaxBadPEReports is MAX-BAD-PE-REPORT: an element reported by more
	// reporters than this is removed although it answers. Default 3.
	MaxBadPEReports int
	// RemovalShare is the share of a pool, 0 to 1, that may be removed
	// unattended within RemovalWindow; beyond it elements are marked suspect
	// and kept. Default 0.5 within 1 min; 1 switches it off. The first
	// RemovalFloor removals are always allowed. Default 10.
	RemovalShare  float64
	RemovalWindow time.Duration
	// HoldBack is for how long after the ring has lost registrars elements that
	// do not answer, or whose registrations run out, are marked suspect instead
	// of removed, and HoldBackShare the share of a pool, 0 to 1, that may be so.
	// Defaults 1 min and 1: a registrar that was cut off keeps all that it
	// knows for so long, and shows elements that are dead.
	HoldBack      time.Duration
	HoldBackShare float64
	// Tombstone is for how long it is remembered that an element was removed,
	// beyond its registration life, so that a registrar that was cut off does
	// not bring it back; longer than it takes to find a dead element and to
	// hold it back. Tombstones bounds them in number, and their pool handles
	// together to 256 octets for each; beyond, the oldest goes.
	// Defaults 10 min and 1,000,000.
	Tombstone    time.Duration
	Tombstones   int
	RemovalFloor int
	// Dials is the number of connections to elements being set up at a
	// time, default 256. So many connections to elements may also be there
	// beyond Connections.
	Dials int
	// Results is the number of elements in an answer to a resolution, per
	// policy. Default: that of selection.Definition.Limit, all that fit and 3
	// for the policies by chance (AMB-35); 3 for all with CompatRsplib.
	Results map[param.PolicyType]int
	// TablePage is the size of one page of the handle table, octets, 1400
	// to 65532. Default 16384.
	TablePage int
	// PoolLabels is the number of pools that metrics name; further ones are
	// counted as "other". Default 100.
	PoolLabels int
	// Watchers is the number of event streams of the admin API. Default 64.
	Watchers int
}

// DefaultLimits returns the limits described at the fields.
func DefaultLimits() Limits {
	return Limits{
		MessageSize: 16384, Connections: 20000, ConnectionsPerAddress: 5000, ClientPrefix6: 64,
		Inbox: 1024, SendQueue: 256,
		Elements: 2000000, Pools: 500000, ElementsPerClient: 20000, PoolsPerClient: 2000, ElementSize: 4096,
		HandleLength: maxHandle, Addresses: 64,
		Subscriptions: 100000, SubscriptionsPerConnection: 256,
		ReportRate: 10, ReportBurst: 50, Reporters: 65536, MaxBadPEReports: 3,
		RemovalShare: 0.5, RemovalWindow: time.Minute, RemovalFloor: 10,
		HoldBack: time.Minute, HoldBackShare: 1, Tombstone: 10 * time.Minute, Tombstones: 1000000,
		Dials: 256, TablePage: 16384, PoolLabels: 100, Watchers: 64,
	}
}

// maxHandle is the longest handle that may be allowed.
const maxHandle = 32768

// rsplibHandle is the longest pool handle that rsplib bears.
const rsplibHandle = 32

// rsplibResults is the number of elements in rsplib's answers.
const rsplibResults = 3

// WithDefaults returns a copy of c with defaults in place of zero fields.
func (c Config) WithDefaults() Config {
	if c.ASAP == nil {
		c.ASAP = []transport.Endpoint{{Network: transport.Auto, Hosts: []string{""}, Port: 3863}}
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	setDefault(&c.Peering.Networks, c.Networks)
	if c.Compat == CompatRsplib && c.Peering.Timers == (enrppeer.Timers{}) {
		c.Peering.Timers = enrppeer.Rsplib()
	}
	c.Peering.Timers = c.Peering.Timers.WithDefaults()
	if c.Ring.On() {
		c.Ring = c.Ring.withDefaults()
	}
	timers := DefaultTimers()
	if c.Compat == CompatRsplib {
		timers = RsplibTimers()
	}
	c.Timers = c.Timers.withDefaults(timers)
	c.Limits = c.Limits.withDefaults(DefaultLimits())
	if c.Compat == CompatRsplib {
		c.Limits.HandleLength = min(c.Limits.HandleLength, rsplibHandle)
		results := make(map[param.PolicyType]int)
		for _, d := range selection.All() {
			results[d.Type] = rsplibResults
		}
		maps.Copy(results, c.Limits.Results)
		c.Limits.Results = results
	}
	return c
}

func (t Timers) withDefaults(d Timers) Timers {
	setDefault(&t.KeepAlive.Interval, d.KeepAlive.Interval)
	setDefault(&t.KeepAlive.Timeout, d.KeepAlive.Timeout)
	setDefault(&t.KeepAlive.Gap, d.KeepAlive.Gap)
	setDefault(&t.KeepAlive.Misses, d.KeepAlive.Misses)
	setDefault(&t.KeepAlive.Spread, d.KeepAlive.Spread)
	t.KeepAlive.Spread = max(0, t.KeepAlive.Spread)
	setDefault(&t.Announce, d.Announce)
	setDefault(&t.UpdateDelay, d.UpdateDelay)
	setDefault(&t.Write, d.Write)
	setDefault(&t.Idle, d.Idle)
	setDefault(&t.Stop, d.Stop)
	return t
}

func (l Limits) withDefaults(d Limits) Limits {
	setDefault(&l.MessageSize, d.MessageSize)
	setDefault(&l.Connections, d.Connections)
	setDefault(&l.ConnectionsPerAddress, d.ConnectionsPerAddress)
	setDefault(&l.ClientPrefix6, d.ClientPrefix6)
	setDefault(&l.Inbox, d.Inbox)
	setDefault(&l.SendQueue, d.SendQueue)
	setDefault(&l.Elements, d.Elements)
	setDefault(&l.Pools, d.Pools)
	setDefault(&l.ElementsPerClient, d.ElementsPerClient)
	setDefault(&l.PoolsPerClient, d.PoolsPerClient)
	setDefault(&l.ElementSize, d.ElementSize)
	setDefault(&l.HandleLength, d.HandleLength)
	setDefault(&l.Addresses, d.Addresses)
	setDefault(&l.Subscriptions, d.Subscriptions)
	setDefault(&l.SubscriptionsPerConnection, d.SubscriptionsPerConnection)
	setDefault(&l.ReportRate, d.ReportRate)
	setDefault(&l.ReportBurst, d.ReportBurst)
	setDefault(&l.Reporters, d.Reporters)
	setDefault(&l.MaxBadPEReports, d.MaxBadPEReports)
	setDefault(&l.RemovalShare, d.RemovalShare)
	setDefault(&l.RemovalWindow, d.RemovalWindow)
	setDefault(&l.HoldBack, d.HoldBack)
	setDefault(&l.HoldBackShare, d.HoldBackShare)
	setDefault(&l.Tombstone, d.Tombstone)
	setDefault(&l.Tombstones, d.Tombstones)
	setDefault(&l.RemovalFloor, d.RemovalFloor)
	setDefault(&l.Dials, d.Dials)
	setDefault(&l.TablePage, d.TablePage)
	setDefault(&l.PoolLabels, d.PoolLabels)
	setDefault(&l.Watchers, d.Watchers)
	return l
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate names everything that is wrong with a configuration whose defaults
// are filled in.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Networks != nil, "no networks")
	if err := c.Peering.Timers.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("peering: %w", err))
	}
	check(c.Compat == CompatNone || c.Compat == CompatRsplib, "compat %q is unknown, only %q is there", c.Compat, CompatRsplib)

	if c.Admin.Address != "" {
		_, _, err := net.SplitHostPort(c.Admin.Address)
		check(err == nil, "admin address: %v", err)
	}

	if c.Ring.On() {
		check(c.ID != 0, "ring: a member needs an identifier of its own that it keeps")
		c.Ring.validate(check)
	} else {
		check(len(c.Ring.Peers) == 0, "ring: peers, but nowhere to listen")
	}

	k := c.Timers.KeepAlive
	for _, d := range []struct {
		name     string
		value    time.Duration
		min, max time.Duration
	}{
		{"keep-alive interval", k.Interval, 10 * time.Millisecond, 24 * time.Hour},
		{"keep-alive time-out", k.Timeout, time.Millisecond, time.Hour},
		{"keep-alive gap", k.Gap, time.Millisecond, time.Hour},
		{"announce interval", c.Timers.Announce, 10 * time.Millisecond, time.Hour},
		{"update delay", c.Timers.UpdateDelay, time.Millisecond, 100 * time.Millisecond},
		{"write time-out", c.Timers.Write, time.Millisecond, time.Hour},
		{"idle time-out", c.Timers.Idle, time.Millisecond, 30 * 24 * time.Hour},
		{"stop time-out", c.Timers.Stop, time.Millisecond, time.Hour},
		{"removal window", c.Limits.RemovalWindow, time.Second, 24 * time.Hour},
		{"hold-back", c.Limits.HoldBack, time.Millisecond, 24 * time.Hour},
		{"tombstone life", c.Limits.Tombstone, time.Second, 30 * 24 * time.Hour},
	} {
		check(d.value >= d.min && d.value <= d.max, "%s %v is not between %v and %v", d.name, d.value, d.min, d.max)
	}
	check(k.Spread >= 0 && k.Spread <= 0.9, "keep-alive spread %v is not between 0 and 0.9", k.Spread)

	l := c.Limits
	for _, n := range []struct {
		name            string
		value, min, max int
	}{
		{"keep-alive misses", k.Misses, 1, 10},
		{"message size", l.MessageSize, 64, transport.MaxMessage},
		{"connections", l.Connections, 1, 1 << 24},
		{"connections per address", l.ConnectionsPerAddress, 1, 1 << 24},
		{"client prefix", l.ClientPrefix6, 1, 128},
		{"inbox", l.Inbox, 1, 1 << 20},
		{"send queue", l.SendQueue, 1, 1 << 16},
		{"elements", l.Elements, 1, 1 << 30},
		{"tombstones", l.Tombstones, 1, 1 << 30},
		{"pools", l.Pools, 1, 1 << 30},
		{"elements per client", l.ElementsPerClient, 1, 1 << 30},
		{"pools per client", l.PoolsPerClient, 1, 1 << 30},
		{"element size", l.ElementSize, 64, 16384},
		{"handle length", l.HandleLength, 1, maxHandle},
		{"addresses", l.Addresses, 1, 4096},
		{"subscriptions", l.Subscriptions, 1, 1 << 30},
		{"subscriptions per connection", l.SubscriptionsPerConnection, 1, 1 << 30},
		{"report burst", l.ReportBurst, 1, 1 << 20},
		{"reporters", l.Reporters, 1, 1 << 24},
		{"bad element reports", l.MaxBadPEReports, 1, 1 << 20},
		{"removal floor", l.RemovalFloor, 1, 1 << 30},
		{"dials", l.Dials, 1, 1 << 16},
		{"table page", l.TablePage, 1400, 65532},
		{"pool labels", l.PoolLabels, 1, 1 << 16},
		{"watchers", l.Watchers, 1, 1 << 16},
	} {
		check(n.value >= n.min && n.value <= n.max, "%s %d is not between %d and %d", n.name, n.value, n.min, n.max)
	}
	check(l.ReportRate > 0, "report rate %v is not positive", l.ReportRate)
	check(l.HoldBackShare > 0 && l.HoldBackShare <= 1, "hold-back share %v is not between 0 and 1", l.HoldBackShare)
	if c.Ring.On() {
		found := time.Duration(float64(k.Interval)*(1+k.Spread)) + time.Duration(k.Misses)*k.Timeout
		check(l.Tombstone > found+l.HoldBack, "tombstone life %v is not more than the %v that it may take to find a dead element and the %v for which it is held back", l.Tombstone, found, l.HoldBack)
	}
	check(l.RemovalShare > 0 && l.RemovalShare <= 1, "removal share %v is not between 0 and 1", l.RemovalShare)
	validatePolicies(c.Policies, check)
	for t, n := range l.Results {
		check(n > 0, "results for policy %#08x: %d is not positive", uint32(t), n)
	}
	return errors.Join(errs...)
}
