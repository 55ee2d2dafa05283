// Package sim simulates a pool in virtual time: elements that serve requests,
// users that send them, and a registrar between them.
//
// What chooses is the product itself: the registrar is a handlespace, the users
// choose with selection's user part. What is simulated is around them: arrivals,
// sizes, service, and elements that register their load again as poolelement does
// (a step of the load, and a shortest interval).
//
// A simulation is a function of its Config. All users draw from random streams of
// their own, which do not depend on the policy: policies of one seed meet the
// same requests at the same times, and can be compared in pairs.
package sim

import (
	"errors"
	"fmt"

	"rserpool/asap/param"
	"rserpool/selection"
)

// Element is a server in the pool.
type Element struct {
	// Capacity is the work that the element does, in units per second; a
	// request has a size in units. Required.
	Capacity float64
	// Slots is the number of requests that are served at a time; the others
	// wait in the order of their arrival. Default 1.
	Slots int
	// Shared: requests in service share the whole capacity (processor
	// sharing). Otherwise each slot has its fixed part of it.
	Shared bool
	// Full is the number of requests, in service and waiting, at which the
	// element calls itself fully used. Default 10.
	Full float64
	// Weight, Priority and Degradation are the values of policies that have
	// them. Defaults: the capacity, rounded, at least 1; 0; what one more
	// request adds to the load, 1/Full.
	Weight, Priority uint32
	Degradation      float64
	// Distance is the time of one way to the element; each request goes there
	// and back twice, for a connection and for the answer. Penalty is what a
	// millisecond of it costs, a fraction of full load or of one unit of
	// weight. Default 0.
	Distance, Penalty float64
}

// Change is something that happens to an element during the simulation.
type Change struct {
	At      float64 // seconds
	Element int     // place in Config.Elements
	What    What
	Factor  float64 // of Slow
}

// What happens to an element.
type What int

// Changes.
const (
	Leave  What = iota // deregisters, and ends what it has begun
	Return             // registers again
	Slow               // works at Factor times its capacity from now on
)

// Config is one simulation. Times are in seconds.
type Config struct {
	// Seed begins all random streams.
	Seed uint64
	// Policy is the name of the pool's policy, as selection.ByName takes it.
	Policy string
	// Results is the number of elements in a reply (rspd --results). Default
	// the policy's own.
	Results int
	// Stale is how long a user chooses from the same reply (rsppu --stale).
	// Default 0: each request asks the registrar.
	Stale float64

	// Elements are the servers, all registered at the beginning.
	Elements []Element
	// Changes happen to them, in order of time.
	Changes []Change
	// LoadStep and LoadInterval are the smallest change of the load, as a
	// share of full load, that an element registers, and the shortest time
	// between two such registrations (rsppe --load-step and
	// --load-report-interval). Interval 0, the default, registers every
	// change at once. Policies without a load register once.
	LoadStep, LoadInterval float64

	// Users send Rate requests per second together. Required.
	Users int
	Rate  float64
	// Closed: a user sends its next request when the one before is answered
	// and a pause has passed. Otherwise at any time, whatever became of others.
	Closed bool
	// Gaps and Sizes are the distributions of the times between requests of
	// a user (pauses, if Closed) and of sizes, both scaled: gaps to the mean
	// Users/Rate, sizes to a mean of 1 unit. Default Exponential.
	Gaps, Sizes Distribution
	// Keys is the number of different things that requests are about, all
	// alike frequent, for policies that go by a key. Default 0: none.
	Keys int
	// Startup is the time from a choice until the request is at the element:
	// the answer of the registrar and the connection. Default 0.
	Startup float64

	// Warmup is how long the pool runs before measurement begins, Duration
	// how long it goes on. Requests sent within Duration are measured; the
	// simulation ends when all are answered. Duration is required.
	Warmup, Duration float64

	// OnChange, if set, is called when the number of requests at an element,
	// present ones, has changed.
	OnChange func(t float64, element, present int)
	// OnDone, if set, is called for each request that was answered.
	OnDone func(Done)
}

// Done is an answered request.
type Done struct {
	Sent, Answered float64 // seconds
	Size           float64 // units
	User, Element  int
	Key            string
}

func (c Config) withDefaults() Config {
	elements := make([]Element, len(c.Elements))
	for i, e := range c.Elements {
		if e.Slots == 0 {
			e.Slots = 1
		}
		if e.Full == 0 {
			e.Full = 10
		}
		if e.Weight == 0 {
			e.Weight = max(1, uint32(e.Capacity+0.5))
		}
		if e.Degradation == 0 {
			e.Degradation = 1 / e.Full
		}
		elements[i] = e
	}
	c.Elements = elements
	if c.Gaps == nil {
		c.Gaps = Exponential
	}
	if c.Sizes == nil {
		c.Sizes = Exponential
	}
	return c
}

// Validate names all that is wrong.
func (c Config) Validate() error {
	var errs []error
	positive := func(name string, v float64) {
		if !(v > 0) {
			errs = append(errs, fmt.Errorf("%s is %v, must be positive", name, v))
		}
	}
	notNegative := func(name string, v float64) {
		if !(v >= 0) {
			errs = append(errs, fmt.Errorf("%s is %v, must not be negative", name, v))
		}
	}
	if _, ok := selection.ByName(c.Policy); !ok {
		errs = append(errs, fmt.Errorf("unknown policy %q", c.Policy))
	}
	positive("Elements", float64(len(c.Elements)))
	for i, e := range c.Elements {
		positive(fmt.Sprintf("Elements[%d].Capacity", i), e.Capacity)
		notNegative(fmt.Sprintf("Elements[%d].Slots", i), float64(e.Slots))
		if e.Full != 0 && !(e.Full >= 1) {
			errs = append(errs, fmt.Errorf("Elements[%d].Full is %v, must be 1 or more", i, e.Full))
		}
		notNegative(fmt.Sprintf("Elements[%d].Degradation", i), e.Degradation)
		notNegative(fmt.Sprintf("Elements[%d].Distance", i), e.Distance)
		notNegative(fmt.Sprintf("Elements[%d].Penalty", i), e.Penalty)
	}
	for i, change := range c.Changes {
		notNegative(fmt.Sprintf("Changes[%d].At", i), change.At)
		if change.Element < 0 || change.Element >= len(c.Elements) {
			errs = append(errs, fmt.Errorf("Changes[%d] is of element %d, which does not exist", i, change.Element))
		}
		if change.What == Slow {
			positive(fmt.Sprintf("Changes[%d].Factor", i), change.Factor)
		}
	}
	positive("Users", float64(c.Users))
	positive("Rate", c.Rate)
	positive("Duration", c.Duration)
	for _, v := range []struct {
		name  string
		value float64
	}{{"Results", float64(c.Results)}, {"Keys", float64(c.Keys)}, {"Stale", c.Stale}, {"LoadStep", c.LoadStep}, {"LoadInterval", c.LoadInterval}, {"Startup", c.Startup}, {"Warmup", c.Warmup}} {
		notNegative(v.name, v.value)
	}
	return errors.Join(errs...)
}

// policyOf returns the policy parameter of an element at a load.
func (e Element) policyOf(d selection.Definition, load float64) param.Policy {
	p := selection.Neutral(d.Type)
	for _, v := range d.Values {
		switch v {
		case selection.Weight:
			p.Weight = e.Weight
		case selection.PriorityValue:
			p.Priority = e.Priority
		case selection.Degradation:
			p.Degradation = fraction(e.Degradation)
		case selection.Load:
			p.Load = fraction(load)
		case selection.Penalty:
			p.Penalty = fraction(e.Penalty)
		case selection.Distance:
			p.Distance = uint32(e.Distance*1000 + 0.5)
		}
	}
	return p
}

// fraction is a value of the load scale.
func fraction(f float64) uint32 { return uint32(min(f, 1) * float64(param.MaxLoad)) }
