package transport

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
)

// MaxMessage is the default and the upper limit of Options.MaxMessage.
const MaxMessage = 65536

// DefaultStreams is the default of Options.Streams.
const DefaultStreams = 16

// WithDefaults returns o with defaults filled in and limits kept.
func (o Options) WithDefaults() Options {
	if o.MaxMessage <= 0 || o.MaxMessage > MaxMessage {
		o.MaxMessage = MaxMessage
	}
	if o.Streams == 0 {
		o.Streams = DefaultStreams
	}
	return o
}

// autoOrder is what Auto stands for, best first. Mem is there only in tests.
var autoOrder = []string{SCTP, TCP, Mem}

// listenTries is how often Listen looks for a free port that all networks have.
const listenTries = 8

// Networks are the networks a program has, by name. It may be used concurrently
// and must not be changed after its first use.
type Networks struct {
	// Resolver finds the addresses of names; nil means net.DefaultResolver. A
	// Network that is a Resolver itself resolves its own names.
	Resolver Resolver

	byName map[string]Network
}

// NewNetworks puts networks together.
func NewNetworks(networks ...Network) *Networks {
	n := &Networks{byName: make(map[string]Network)}
	for _, network := range networks {
		n.byName[network.Name()] = network
	}
	return n
}

// Get returns the network of this name if this machine has it, else an error
// that wraps ErrUnsupported and says why.
func (n *Networks) Get(name string) (Network, error) {
	network, ok := n.byName[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, ErrUnsupported)
	}
	if err := network.Available(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return network, nil
}

// Available returns the names of the networks that this machine has, in the
// order in which Auto prefers them.
func (n *Networks) Available() []string {
	var names []string
	for _, name := range autoOrder {
		if _, err := n.Get(name); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// choose returns the networks that name stands for.
func (n *Networks) choose(name string) ([]Network, error) {
	if name != Auto {
		network, err := n.Get(name)
		if err != nil {
			return nil, err
		}
		return []Network{network}, nil
	}
	var networks []Network
	for _, name := range n.Available() {
		networks = append(networks, n.byName[name])
	}
	if networks == nil {
		return nil, fmt.Errorf("auto: %w", ErrUnsupported)
	}
	return networks, nil
}

// Resolve returns e's addresses on network.
func (n *Networks) Resolve(ctx context.Context, network Network, e Endpoint) ([]netip.AddrPort, error) {
	if r, ok := network.(Resolver); ok {
		return e.Resolve(ctx, r)
	}
	return e.Resolve(ctx, n.Resolver)
}

// Dial connects to e. With Auto it tries SCTP where this machine has it, for at
// most half of the time that ctx leaves, and then TCP.
func (n *Networks) Dial(ctx context.Context, local []netip.AddrPort, e Endpoint, opt Options) (Conn, error) {
	networks, err := n.choose(e.Network)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", e, err)
	}
	var errs []error
	for i, network := range networks {
		conn, err := n.dialOne(ctx, network, local, e, opt, i == len(networks)-1)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("dial %s by %s: %w", e, network.Name(), err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (n *Networks) dialOne(ctx context.Context, network Network, local []netip.AddrPort, e Endpoint, opt Options, last bool) (Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && !last {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
	}
	remote, err := n.Resolve(ctx, network, e)
	if err != nil {
		return nil, err
	}
	return network.Dial(ctx, local, remote, opt)
}

// Listen listens at e. With Auto it listens on every network that this machine
// has, on the same port; Network() of the listeners tells which these are.
func (n *Networks) Listen(ctx context.Context, e Endpoint, opt Options) ([]Listener, error) {
	networks, err := n.choose(e.Network)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", e, err)
	}
	var lastErr error
	for range listenTries {
		listeners, err := n.listenAll(ctx, networks, e, opt)
		if err == nil {
			return listeners, nil
		}
		lastErr = err
		// A port that is free on one network can be taken on the next.
		if e.Port != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, fmt.Errorf("listen on %s: %w", e, lastErr)
}

func (n *Networks) listenAll(ctx context.Context, networks []Network, e Endpoint, opt Options) ([]Listener, error) {
	var listeners []Listener
	for _, network := range networks {
		local, err := n.Resolve(ctx, network, e)
		var l Listener
		if err == nil {
			l, err = network.Listen(ctx, local, opt)
		}
		if err != nil {
			errs := []error{fmt.Errorf("%s: %w", network.Name(), err)}
			for _, l := range listeners {
				errs = append(errs, l.Close())
			}
			return nil, errors.Join(errs...)
		}
		listeners = append(listeners, l)
		e.Port = l.Addrs()[0].Port()
	}
	return listeners, nil
}
