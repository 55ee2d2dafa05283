package poolgrpc

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"

	"rserpool/asap/param"
	"rserpool/pooluser"
)

// renewPause is the least time between two requests that gRPC asks for, which it does
// whenever a connection is lost or fails.
const renewPause = time.Second

// watch is the name resolver of one connection. It has a goroutine that watches the
// pool and one that renews the answer; Close ends both.
type watch struct {
	builder *builder
	pool    param.PoolHandle
	cc      resolver.ClientConn
	again   chan struct{}
	cancel  context.CancelFunc
	work    sync.WaitGroup

	elements map[string]param.PoolElement // by address; guarded by builder.mu
}

func (w *watch) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.work.Go(func() {
		for answer, err := range w.builder.resolver.Watch(ctx, w.pool) {
			if err != nil {
				w.cc.ReportError(err)
				continue
			}
			// The error would say that the balancer wants another answer, which
			// comes when there is one.
			_ = w.cc.UpdateState(w.state(answer))
		}
	})
	w.work.Go(func() { w.renew(ctx) })
}

// renew asks the registrar again when a connection has failed.
func (w *watch) renew(ctx context.Context) {
	for {
		select {
		case <-w.again:
		case <-ctx.Done():
			return
		}
		// What it brings, the other goroutine is told.
		_, _ = w.builder.resolver.Renew(ctx, w.pool)
		select {
		case <-time.After(renewPause):
		case <-ctx.Done():
			return
		}
	}
}

// ResolveNow is asked for when connections fail.
func (w *watch) ResolveNow(resolver.ResolveNowOptions) {
	select {
	case w.again <- struct{}{}:
	default: // one is asked for already
	}
}

// Close ends the watch.
func (w *watch) Close() {
	w.cancel()
	w.work.Wait()
	w.builder.mu.Lock()
	defer w.builder.mu.Unlock()
	delete(w.builder.watches, w)
}

// knowledge is what the balancer has to know of the pool.
type knowledge struct {
	resolver *pooluser.Resolver
	answer   pooluser.Answer
}

type (
	knowledgeKey struct{} // attribute of a resolver.State: knowledge
	elementKey   struct{} // attribute of a resolver.Endpoint: the identifier
)

// state turns an answer into what gRPC understands: an endpoint per element. Its
// address names the element too, because gRPC tells endpoints apart by that.
func (w *watch) state(answer pooluser.Answer) resolver.State {
	var usable []param.PoolElement
	var endpoints []resolver.Endpoint
	elements := map[string]param.PoolElement{}
	for _, e := range answer.Elements {
		at := e.User.AddrPorts()
		if len(at) == 0 {
			continue // nothing that one could connect to
		}
		address := fmt.Sprintf("%s/%08x@%v", pooluser.Host(w.pool), uint32(e.ID), at[0])
		if _, twice := elements[address]; twice {
			continue
		}
		elements[address] = e
		usable = append(usable, e)
		endpoints = append(endpoints, resolver.Endpoint{
			Addresses:  []resolver.Address{{Addr: address}},
			Attributes: attributes.New(elementKey{}, e.ID),
		})
	}
	w.builder.mu.Lock()
	w.elements = elements
	w.builder.mu.Unlock()
	answer.Elements = usable
	return resolver.State{
		Endpoints:  endpoints,
		Attributes: attributes.New(knowledgeKey{}, &knowledge{resolver: w.builder.resolver, answer: answer}),
	}
}
