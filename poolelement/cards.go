package poolelement

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
)

const (
	// cardAge is how old what is known of the pools' other elements may be.
	cardAge = 5 * time.Second
	// resolveTime bounds a handle resolution for cards.
	resolveTime = 2 * time.Second
	// maxOnCard bounds the elements on a card.
	maxOnCard = 8
)

// cards are the business cards that name the pools' other elements.
type cards struct {
	pools    []param.PoolHandle
	elements []*Element

	running atomic.Bool // a renewal
	mu      sync.Mutex
	asked   time.Time // the registrar
	others  map[param.PoolHandle][]param.PoolElement
	policy  map[param.PoolHandle]param.PolicyType
}

func (c *cards) init(pools []param.PoolHandle, elements []*Element) {
	c.pools, c.elements = pools, elements
}

// refresh renews what is older than cardAge, by a goroutine of the server.
func (c *cards) refresh(s *Server) {
	c.mu.Lock()
	fresh := !c.asked.IsZero() && time.Since(c.asked) < cardAge
	c.mu.Unlock()
	if fresh || !c.running.CompareAndSwap(false, true) {
		return
	}
	s.workers.Go(func() {
		defer c.running.Store(false)
		c.renew(s.ctx, s)
	})
}

// renew asks the registrar for the pools' elements. What it does not answer stays
// as it is known.
func (c *cards) renew(ctx context.Context, s *Server) {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	c.mu.Lock()
	c.asked = time.Now()
	c.mu.Unlock()
	own := map[param.PEID]bool{}
	for _, e := range c.elements {
		own[e.Status().ID] = true
	}
	for _, pool := range c.pools {
		answer, err := c.elements[0].Do(ctx, &asap.HandleResolution{Handle: pool})
		if err != nil {
			s.log.WithError(err).Debug("other elements of the pool not known")
			return
		}
		r, ok := answer.(*asap.HandleResolutionResponse)
		if !ok || len(r.Error) > 0 {
			continue
		}
		others := slices.DeleteFunc(r.Elements, func(e param.PoolElement) bool { return own[e.ID] })
		c.mu.Lock()
		if c.others == nil {
			c.others = map[param.PoolHandle][]param.PoolElement{}
			c.policy = map[param.PoolHandle]param.PolicyType{}
		}
		c.others[pool] = others
		c.policy[pool] = r.Policy.Type
		c.mu.Unlock()
	}
}

// evenly are the policies under which elements take turns: there the users of an
// element that fails should not all go to the same one.
var evenly = []param.PolicyType{0, param.RoundRobin, param.WeightedRoundRobin, param.Random, param.WeightedRandom}

// get returns a card for each pool that has other elements, for the session with
// this number.
func (c *cards) get(number uint64) []asap.BusinessCard {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []asap.BusinessCard
	for _, pool := range c.pools {
		others := c.others[pool]
		if len(others) == 0 {
			continue
		}
		turn := 0
		if slices.Contains(evenly, c.policy[pool]) {
			turn = int(number % uint64(len(others)))
		}
		named := slices.Concat(others[turn:], others[:turn])
		out = append(out, asap.BusinessCard{Handle: pool, Elements: named[:min(len(named), maxOnCard)]})
	}
	return out
}
