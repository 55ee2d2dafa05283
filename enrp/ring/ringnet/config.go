package ringnet

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
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
	// are passed over, so that all members can have the same list. A peer that
	// is a single name stands for one member per address of the name, looked up
	// again from time to time; one with several hosts is one member.
	Networks *transport.Networks
	Listen   []transport.Endpoint
	Peers    []transport.Endpoint
	// Advertise is where others reach this member; default: the addresses it
	// listens on, those of the interfaces for an unspecified one.
	Advertise []transport.Endpoint
	Timers    ring.Timers // default ring.LAN()
	Limits    ring.Limits
	// Size and StateDir are for primary mode: the number of configured members,
	// and the folder where fences are kept, which must exist.
	Size     int
	StateDir string
	// MaxUnidentified bounds the accepted connections that have not said who
	// they are; beyond, new ones are closed at once. Default 64.
	MaxUnidentified int
	// HelloTimeout is how long a connection has to say who is there. Default
	// 2 s.
	HelloTimeout time.Duration
	// SendQueue is how many octets wait to be sent on one connection, or for
	// it, before messages are dropped. One message is always taken. Default
	// 4 MiB.
	SendQueue int
	// MaxSkew is by how much the clocks of two members may differ before the log
	// warns. Default 500 ms.
	MaxSkew time.Duration
	// Handler takes the ring's events. Required.
	Handler Handler
	// Log gets the group's log lines. Default: none.
	Log logrus.FieldLogger
}

const (
	// maxCluster is the longest cluster name, octets.
	maxCluster = 64
	// maxContacts bounds the endpoints in one contact.
	maxContacts = 16

	defaultMaxUnidentified = 64
	defaultHelloTimeout    = 2 * time.Second
	defaultSendQueue       = 4 << 20
	defaultMaxSkew         = 500 * time.Millisecond
)

// Validate names everything that is wrong with the configuration.
func (cfg Config) Validate() error {
	var errs []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	refuse(cfg.Cluster == "", "no cluster name")
	refuse(len(cfg.Cluster) > maxCluster, "cluster name of %d octets, at most %d", len(cfg.Cluster), maxCluster)
	refuse(cfg.ID == 0, "no member identifier")
	refuse(cfg.Networks == nil, "no networks")
	refuse(len(cfg.Listen) == 0, "no address to listen on")
	refuse(len(cfg.Advertise) > maxContacts, "%d addresses to advertise, at most %d", len(cfg.Advertise), maxContacts)
	for _, e := range cfg.Advertise {
		refuse(e.Port == 0, "advertised address %s has no port", e)
		refuse(slices.Contains(e.Hosts, ""), "advertised address %s has no host", e)
	}
	for _, e := range cfg.Peers {
		refuse(e.Port == 0, "peer %s has no port", e)
		refuse(slices.Contains(e.Hosts, ""), "peer %s has no host", e)
	}
	refuse(cfg.Size > 0 && cfg.StateDir == "", "primary mode (Size %d) needs a folder for its state", cfg.Size)
	refuse(cfg.MaxUnidentified < 0, "MaxUnidentified is %d, must not be negative", cfg.MaxUnidentified)
	refuse(cfg.HelloTimeout < 0, "HelloTimeout is %s, must not be negative", cfg.HelloTimeout)
	refuse(cfg.SendQueue < 0, "SendQueue is %d, must not be negative", cfg.SendQueue)
	refuse(cfg.MaxSkew < 0, "MaxSkew is %s, must not be negative", cfg.MaxSkew)
	refuse(cfg.Handler == nil, "no handler")
	// Identifier and incarnation are checked above, or not known yet.
	machine := cfg.machine(ring.Node{Member: ring.Member{ID: 1, Incarnation: 1}})
	return errors.Join(append(errs, machine.Validate())...)
}

// machine is the configuration of the machine for one life.
func (cfg Config) machine(self ring.Node) ring.Config {
	return ring.Config{
		Self: self, Timers: cfg.Timers, Limits: cfg.Limits, Size: cfg.Size,
		Rand: rand.New(rand.NewPCG(uint64(self.Incarnation), uint64(self.ID))),
	}
}

func (cfg Config) withDefaults() Config {
	if cfg.Timers == (ring.Timers{}) {
		cfg.Timers = ring.LAN()
	}
	if cfg.MaxUnidentified == 0 {
		cfg.MaxUnidentified = defaultMaxUnidentified
	}
	if cfg.HelloTimeout == 0 {
		cfg.HelloTimeout = defaultHelloTimeout
	}
	if cfg.SendQueue == 0 {
		cfg.SendQueue = defaultSendQueue
	}
	if cfg.MaxSkew == 0 {
		cfg.MaxSkew = defaultMaxSkew
	}
	if cfg.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		cfg.Log = silent
	}
	return cfg
}

// contact writes where others reach this member.
func (g *Group) contact() (string, error) {
	endpoints := g.cfg.Advertise
	if len(endpoints) == 0 {
		var err error
		if endpoints, err = reachable(g.listeners); err != nil {
			return "", err
		}
	}
	texts := make([]string, len(endpoints))
	for i, e := range endpoints {
		texts[i] = e.String()
	}
	contact := strings.Join(texts, " ")
	if len(contact) > ring.MaxContact {
		return "", fmt.Errorf("the addresses to advertise take %d octets, at most %d: %s", len(contact), ring.MaxContact, contact)
	}
	return contact, nil
}

// reachable turns the addresses of listeners into endpoints for others.
func reachable(listeners []transport.Listener) ([]transport.Endpoint, error) {
	var endpoints []transport.Endpoint
	for _, l := range listeners {
		e := transport.Endpoint{Network: l.Network()}
		for _, addr := range l.Addrs() {
			hosts := []netip.Addr{addr.Addr().Unmap()}
			if addr.Addr().IsUnspecified() {
				var err error
				if hosts, err = interfaceAddrs(addr.Addr()); err != nil {
					return nil, err
				}
			}
			e.Port = addr.Port()
			for _, host := range hosts {
				if text := host.String(); !slices.Contains(e.Hosts, text) {
					e.Hosts = append(e.Hosts, text)
				}
			}
		}
		endpoints = append(endpoints, e)
	}
	return endpoints, nil
}

// maxInterfaceAddrs bounds what is advertised without being configured.
const maxInterfaceAddrs = 4

// interfaceAddrs returns addresses that an unspecified one stands for, without
// those that only this machine can use; with nothing else the loopback addresses.
func interfaceAddrs(unspecified netip.Addr) ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses to advertise: %w", err)
	}
	var global, loopback []netip.Addr
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		addr := prefix.Addr().Unmap()
		switch {
		case unspecified.Is4() && !addr.Is4(), addr.IsLinkLocalUnicast():
		case addr.IsLoopback():
			loopback = append(loopback, addr)
		default:
			global = append(global, addr)
		}
	}
	if len(global) == 0 {
		global = loopback
	}
	return global[:min(len(global), maxInterfaceAddrs)], nil
}

// parseContact reads what contact wrote, here or elsewhere. What makes no sense
// is passed over.
func parseContact(contact string) []transport.Endpoint {
	var endpoints []transport.Endpoint
	for text := range strings.FieldsSeq(contact) {
		e, err := transport.ParseEndpoint(text, transport.Auto, 0)
		if err == nil && e.Port != 0 && !slices.Contains(e.Hosts, "") && len(endpoints) < maxContacts {
			endpoints = append(endpoints, e)
		}
	}
	return endpoints
}
