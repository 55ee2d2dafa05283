package main

import (
	"image/color"

	"rserpool/scripts/poolsim/sim"
	"rserpool/selection"
)

// policy is a policy as figures show it. A further one of selection needs a line
// below, and its name in the figures that shall show it.
type policy struct {
	label string // in legends
	name  string // of selection
	// results is the number of elements in a reply, 0 for the default.
	results int
	color   color.RGBA
	mark    mark
	// blind: does not look at the load. Drawn with dashes.
	blind bool
}

// Colours that people with any kind of colour vision can tell apart (Okabe and
// Ito), with different brightness too.
var (
	black      = color.RGBA{A: 0xff}
	grey       = color.RGBA{R: 0x80, G: 0x80, B: 0x80, A: 0xff}
	orange     = color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff}
	sky        = color.RGBA{R: 0x56, G: 0xb4, B: 0xe9, A: 0xff}
	green      = color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff}
	blue       = color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff}
	vermillion = color.RGBA{R: 0xd5, G: 0x5e, B: 0x00, A: 0xff}
	purple     = color.RGBA{R: 0xcc, G: 0x79, B: 0xa7, A: 0xff}
)

var (
	random      = policy{label: "rand: Random", name: "rand", color: grey, mark: cross, blind: true}
	roundRobin  = policy{label: "rr: Round Robin", name: "rr", color: black, mark: ring, blind: true}
	weightedRR  = policy{label: "wrr: Weighted Round Robin", name: "wrr", color: orange, mark: square, blind: true}
	weightedAny = policy{label: "wrand: Weighted Random", name: "wrand", color: purple, mark: plus, blind: true}
	priority    = policy{label: "prio: Priority", name: "prio", color: vermillion, mark: pyramid, blind: true}
	leastUsed   = policy{label: "lu: Least Used", name: "lu", color: blue, mark: dot}
	degrading   = policy{label: "lud: Least Used with Degradation,\none element in an answer", name: "lud", results: 1, color: green, mark: box}
	looksAhead  = policy{label: "plu: Priority Least Used", name: "plu", color: sky, mark: triangle}
	randomLU    = policy{label: "rlu: Randomized Least Used", name: "rlu", color: vermillion, mark: cross}
	twoChoices  = policy{label: "p2c: Power of Two Choices", name: "p2c", color: purple, mark: pyramid}
	rendezvous  = policy{label: "hrw: Rendezvous Hashing", name: "hrw", color: green, mark: pyramid, blind: true}
	measuring   = policy{label: "ewma: Peak EWMA", name: "ewma", color: orange, mark: ring}

	randomAhead     = policy{label: "rplu: randomized plu", name: "rplu", results: 1, color: orange, mark: plus}
	randomDegrading = policy{label: "rlud: randomized lud", name: "rlud", results: 1, color: purple, mark: square}
	aheadDegrading  = policy{label: "plud: plu with degradation", name: "plud", results: 1, color: black, mark: pyramid}
	randomBoth      = policy{label: "rplud: randomized plud", name: "rplud", results: 1, color: grey, mark: ring}

	weightedNear  = policy{label: "wranddpf: wrand, less if far", name: "wranddpf", results: 1, color: vermillion, mark: square, blind: true}
	usedNear      = policy{label: "ludpf: lu, more if far", name: "ludpf", color: sky, mark: triangle}
	degradingNear = policy{label: "luddpf: lud, more if far", name: "luddpf", results: 1, color: orange, mark: ring}
)

// labelled is the policy under another name in the legend.
func (p policy) labelled(label string) policy {
	p.label = label
	return p
}

// colored is the policy in another colour.
func (p policy) colored(c color.RGBA) policy {
	p.color = c
	return p
}

// replying is the policy with another number of elements in a reply.
func (p policy) replying(n int) policy {
	p.results = n
	return p
}

// reply returns the number of elements in a reply, 0 for the whole pool.
func (p policy) reply() int {
	d, _ := selection.ByName(p.name)
	switch {
	case p.results > 0:
		return p.results
	case d.Limit == selection.Unlimited:
		return 0
	}
	return d.Limit
}

// in puts the policy into a simulation.
func (p policy) in(c sim.Config) sim.Config {
	c.Policy, c.Results = p.name, p.results
	return c
}
