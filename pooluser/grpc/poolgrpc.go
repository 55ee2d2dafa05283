// Package poolgrpc lets gRPC clients use pools, by the name rserpool:///POOL:
//
//	conn, err := grpc.NewClient("rserpool:///echo", append(poolgrpc.DialOptions(resolver),
//		grpc.WithTransportCredentials(creds))...)
//
// POOL is the pool handle, escaped as in the path of a URL where it needs to be. It is a
// module of its own, so that gRPC comes only to those who use it.
//
// # What it does
//
// A name resolver watches the pool (pooluser.Resolver.Watch), so that elements that
// come and go, and their loads, reach the balancer. The balancer "rserpool" selects the
// element of each call by the pool's policy, for policies with a key that of
// pooluser.WithKey in the call's context, and measures response times for those that go
// by them. It connects to an element when it is first selected. Connections are made by
// the pooluser.Resolver, over all addresses of the element and TCP or SCTP as the
// element has it; an element that can't be connected to is reported to the registrar and
// left out until gRPC has got a connection to it again.
//
// # What becomes of calls
//
// Calls that did not leave the client, or that the server says it did not process, go to
// another element without a word; that is gRPC's doing, and so is that all others fail
// with codes.Unavailable when their connection breaks. A retry policy sends those again,
// and should be set for methods that are idempotent:
//
//	grpc.WithDefaultServiceConfig(`{
//		"loadBalancingConfig": [{"rserpool": {}}],
//		"methodConfig": [{"name": [{"service": "cache.Cache"}], "retryPolicy": {
//			"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.1s",
//			"backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`)
//
// Calls wait for a first answer about the pool; without one, and for a pool that the
// registrar does not know, they fail with codes.Unavailable, unless they are told to
// wait (grpc.WaitForReady). A hung element is noticed by gRPC's keep-alives
// (grpc.WithKeepaliveParams).
package poolgrpc

import (
	"context"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"

	"rserpool/asap/param"
	"rserpool/pooluser"
)

// Scheme is the scheme of names that stand for pools.
const Scheme = "rserpool"

// ServiceConfig selects the balancer and nothing else. It is the default with
// DialOptions.
const ServiceConfig = `{"loadBalancingConfig": [{"` + balancerName + `": {}}]}`

// DialOptions returns what a grpc.ClientConn needs to use pools: name resolver, dialer
// and balancer. The resolver must run for as long as the connections do. The options may
// be used for several connections; a grpc.WithDefaultServiceConfig that follows them has
// to name the balancer again.
func DialOptions(r *pooluser.Resolver) []grpc.DialOption {
	b := &builder{resolver: r, watches: map[*watch]bool{}}
	return []grpc.DialOption{
		grpc.WithResolvers(b),
		grpc.WithContextDialer(b.dial),
		grpc.WithDefaultServiceConfig(ServiceConfig),
	}
}

// builder makes the name resolvers and the connections.
type builder struct {
	resolver *pooluser.Resolver

	mu      sync.Mutex
	watches map[*watch]bool
}

// Scheme is that of the names.
func (b *builder) Scheme() string { return Scheme }

// Build starts to watch the pool.
func (b *builder) Build(to resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	pool := param.PoolHandle(to.Endpoint())
	if pool == "" || to.URL.Host != "" {
		return nil, fmt.Errorf("%w: %q is not of the form %s:///POOL", pooluser.ErrHandle, to.URL.String(), Scheme)
	}
	w := &watch{builder: b, pool: pool, cc: cc, again: make(chan struct{}, 1)}
	b.mu.Lock()
	b.watches[w] = true
	b.mu.Unlock()
	w.start()
	return w, nil
}

// dial connects to an element by the address that its endpoint has.
func (b *builder) dial(ctx context.Context, address string) (net.Conn, error) {
	pool, element, ok := b.find(address)
	if !ok {
		return nil, fmt.Errorf("%w: %q has left the pool", pooluser.ErrUnknownElement, address)
	}
	return b.resolver.DialTo(ctx, pool, element)
}

func (b *builder) find(address string) (param.PoolHandle, param.PoolElement, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.watches {
		if e, ok := w.elements[address]; ok {
			return w.pool, e, true
		}
	}
	return "", param.PoolElement{}, false
}
