package poolgrpc

import (
	"sync"
	"time"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/lazy"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"rserpool/asap/param"
	"rserpool/pooluser"
	"rserpool/selection"
)

const balancerName = "rserpool"

func init() { balancer.Register(balancerBuilder{}) }

type balancerBuilder struct{}

// Name is what service configurations call the balancer.
func (balancerBuilder) Name() string { return balancerName }

// Build makes the balancer of one connection. One child per element keeps the
// connection to it, which begins when the element is first selected.
func (balancerBuilder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	b := &poolBalancer{ClientConn: cc}
	child := func(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
		return lazy.NewBalancer(cc, opts, balancer.Get(pickfirst.Name).Build)
	}
	b.children = endpointsharding.NewBalancer(b, opts, child, endpointsharding.Options{DisableAutoReconnect: true})
	return b
}

// poolBalancer is the balancer to gRPC, and to its children the connection that they
// tell their states.
type poolBalancer struct {
	balancer.ClientConn
	children balancer.Balancer
	chooser  chooser
}

// UpdateClientConnState takes in a new answer.
func (b *poolBalancer) UpdateClientConnState(s balancer.ClientConnState) error {
	known, ok := s.ResolverState.Attributes.Value(knowledgeKey{}).(*knowledge)
	if !ok {
		return balancer.ErrBadResolverState // not of our name resolver
	}
	first := b.chooser.renew(known)
	s.BalancerConfig = nil
	err := b.children.UpdateClientConnState(s)
	if first {
		b.chooser.connect() // for who waits for a connection before the first call
	}
	return err
}

// ResolverError is told when there is no answer. Connections that work stay in use.
func (b *poolBalancer) ResolverError(err error) { b.children.ResolverError(err) }

// UpdateSubConnState is not called any more by gRPC, but part of its interface.
func (b *poolBalancer) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle connects to the element that is to be used next.
func (b *poolBalancer) ExitIdle() { b.chooser.connect() }

// Close closes all connections.
func (b *poolBalancer) Close() { b.children.Close() }

// UpdateState takes in the states of the children.
func (b *poolBalancer) UpdateState(s balancer.State) {
	b.chooser.setStates(endpointsharding.ChildStatesFromPicker(s.Picker))
	b.ClientConn.UpdateState(balancer.State{ConnectivityState: s.ConnectivityState, Picker: &picker{chooser: &b.chooser, none: s.Picker}})
}

// chooser selects elements by the pool's policy. Its memory outlives answers and
// pickers.
type chooser struct {
	mu     sync.Mutex
	policy param.PolicyType
	user   *selection.User // nil until there is an answer
	states map[param.PEID]endpointsharding.ChildState
}

// renew takes in an answer and tells whether it is the first.
func (c *chooser) renew(known *knowledge) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first = c.user == nil
	if first || c.policy != known.answer.Policy {
		c.user, c.policy = known.resolver.NewUser(known.answer), known.answer.Policy
	} else {
		c.user.Renew(known.answer.Elements)
	}
	return first
}

// setStates takes in how the connections are.
func (c *chooser) setStates(children []endpointsharding.ChildState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states = map[param.PEID]endpointsharding.ChildState{}
	for _, child := range children {
		id, ok := child.Endpoint.Attributes.Value(elementKey{}).(param.PEID)
		if !ok {
			continue
		}
		c.states[id] = child
		if c.user != nil && child.State.ConnectivityState != connectivity.TransientFailure {
			c.user.Recovered(id)
		}
	}
}

// next selects an element among those that have not failed. found is false where none is
// left, ready where what is known of connections is older than the answer.
func (c *chooser) next(r selection.Request) (id param.PEID, child endpointsharding.ChildState, ready, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.user == nil {
		return 0, child, false, false
	}
	for {
		element, ok := c.user.NextFor(r)
		if !ok {
			return 0, child, false, false
		}
		child, ok := c.states[element.ID]
		if ok && child.State.ConnectivityState == connectivity.TransientFailure {
			c.user.Failed(element.ID)
			continue
		}
		return element.ID, child, ok, true
	}
}

// connect begins a connection to the next element.
func (c *chooser) connect() {
	if _, child, ready, _ := c.next(selection.Request{Now: time.Now()}); ready {
		child.ExitIdle()
	}
}

// measure tells the policy about a call, if it wants to know.
func (c *chooser) measure(id param.PEID) (done func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := time.Now()
	c.user.Sent(id, sent)
	return func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		now := time.Now()
		switch code := status.Code(err); code {
		case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Unimplemented, codes.ResourceExhausted,
			codes.Internal, codes.DataLoss, codes.Unknown:
			c.user.Unanswered(id, now.Sub(sent), code != codes.Canceled, now)
		default: // the others say something about the request, not the element
			c.user.Answered(id, now.Sub(sent), now)
		}
	}
}

// picker picks for calls.
type picker struct {
	chooser *chooser
	none    balancer.Picker // where no element is left: says why
}

// Pick selects an element for the call. A call waits while the connection to it is
// made, and is asked for again when that has succeeded or failed.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	id, child, ready, found := p.chooser.next(selection.Request{Key: pooluser.KeyOf(info.Ctx), Now: time.Now()})
	switch {
	case !found:
		_, err := p.none.Pick(info)
		if err == nil {
			err = status.Error(codes.Unavailable, "the pool has no element left to try")
		}
		return balancer.PickResult{}, err
	case !ready:
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	}
	result, err := child.State.Picker.Pick(info)
	if err != nil {
		return result, err
	}
	answered, done := p.chooser.measure(id), result.Done
	result.Done = func(i balancer.DoneInfo) {
		answered(i.Err)
		if done != nil {
			done(i)
		}
	}
	return result, nil
}
