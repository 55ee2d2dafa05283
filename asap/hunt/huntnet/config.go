// Package huntnet drives the registrar hunt of package hunt over real networks:
// it dials, reads and writes, keeps time, and matches answers to callers. Pool
// elements and pool users each have one Client.
package huntnet

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// Errors of Client. Those of package hunt come wrapped in errors of Do:
// hunt.ErrNoRegistrar, hunt.ErrTimeout, hunt.ErrTooMany, hunt.ErrNotRequest.
var (
	// ErrStopped: the client was stopped, or not started yet.
	ErrStopped = errors.New("client is not running")
	// ErrGone: the connection that a reply was for is closed.
	ErrGone = errors.New("connection is gone")
	// ErrTooManyConnections: Attach found MaxIncoming connections and none
	// that can go.
	ErrTooManyConnections = errors.New("too many connections")
)

// Config describes a Client. Networks and either Registrars or Announcers are
// required, the rest has defaults.
type Config struct {
	// Registrars are the static registrars. An endpoint that is a single
	// name stands for one registrar per address of the name, looked up again
	// in each hunt round; several hosts are one multi-homed registrar. Auto
	// stands for each network that the machine has.
	Registrars []transport.Endpoint
	// Networks are the networks to dial on.
	Networks *transport.Networks
	// Options are the sockets' options. An element that is to be found where
	// it dials from sets ReusePort, here and for its listener.
	Options transport.Options
	// Local are the addresses to dial from, by name of the network; none for
	// a network leaves the choice to the system.
	Local map[string][]netip.AddrPort
	// Announcers bring in registrars' announcements. The caller closes them,
	// after Stop.
	Announcers []transport.Announcer
	// Hunt sets timers and limits. A nil Rand is replaced by a random one.
	Hunt hunt.Config

	// Handler gets the messages that answer no request: keep-alives, updates
	// of subscribed pools, late answers. Calls come one at a time, in order,
	// from a goroutine of the client; a Handler may use the client but should
	// not wait for answers in it. nil drops the messages.
	Handler func(Inbound)
	// OnHome is told when a home registrar is found and when it is lost, from
	// the same goroutine, in order with the messages. nil for nobody.
	OnHome func(HomeEvent)
	// Prepare may change a message for the connection that it is about to be
	// sent on, for example fill in its addresses; it returns the message to
	// send, of the same type, and must not change msg itself or block. It is
	// asked again when a request moves to another registrar (RFC 5352,
	// section 3.7.1). nil sends messages as they are.
	Prepare func(msg asap.Message, via Peer) asap.Message

	// MaxIncoming bounds the connections taken by Attach, which drops others
	// for new ones when there are so many. Default 64.
	MaxIncoming int
	// SendQueue bounds the messages that wait to be written on one
	// connection; when it is full, the connection is given up. Default 256.
	SendQueue int
	// InboundQueue bounds the messages that wait for Handler; when it is
	// full, further ones are dropped, counted and logged. Default 256.
	InboundQueue int
	// Log gets the client's log lines. Default: none.
	Log logrus.FieldLogger
}

// Peer describes one connection to a registrar.
type Peer struct {
	Link          hunt.Link
	Network       string
	Local, Remote []netip.AddrPort
	// Registrar is the registrar's identifier, 0 until known.
	Registrar param.RegistrarID
	// Since is when it became the home registrar; zero for others.
	Since time.Time
}

// String returns the registrar's end as network://addr,addr.
func (p Peer) String() string { return hunt.Endpoint{Network: p.Network, Addrs: p.Remote}.String() }

// HomeEvent tells that a home registrar was found or lost. A change from one
// home directly to another is one event with Found.
type HomeEvent struct {
	Found bool
	Peer  Peer
}

// Inbound is a message that answers no request.
type Inbound struct {
	Message asap.Message
	From    Peer
	client  *Client
}

// Reply sends a message on the connection that the inbound one came on. It does
// not wait until it is sent; it fails with ErrGone when the connection is closed.
func (in Inbound) Reply(msg asap.Message) error { return in.client.SendTo(in.From.Link, msg) }

// Adopt makes the registrar that sent the message the home registrar, as
// ENDPOINT_KEEP_ALIVE with H=1 asks for. It reports whether the home changed:
// not if this registrar is the home already, or the connection is gone.
func (in Inbound) Adopt(id param.RegistrarID) (bool, error) {
	return in.client.Adopt(in.From.Link, id)
}

const (
	defaultMaxIncoming  = 64
	defaultSendQueue    = 256
	defaultInboundQueue = 256
	// flushTime is how long Stop waits for queued messages to be written.
	flushTime = time.Second
	// maxPerName bounds the addresses taken from one name.
	maxPerName = 64
)

// Validate names everything that is wrong with the configuration.
func (cfg Config) Validate() error {
	var errs []error
	if cfg.Networks == nil {
		errs = append(errs, errors.New("no networks"))
	}
	if len(cfg.Registrars) == 0 && len(cfg.Announcers) == 0 {
		errs = append(errs, errors.New("neither registrars nor announcements: no registrar can be found"))
	}
	for _, f := range []struct {
		name string
		n    int
	}{{"MaxIncoming", cfg.MaxIncoming}, {"SendQueue", cfg.SendQueue}, {"InboundQueue", cfg.InboundQueue}} {
		if f.n < 0 {
			errs = append(errs, fmt.Errorf("%s is %d, must not be negative", f.name, f.n))
		}
	}
	return errors.Join(append(errs, cfg.Hunt.Validate())...)
}
