package main

import (
	"fmt"

	"rserpool/scripts/poolsim/sim"
)

// figure is one picture of docs/policies.md: what is measured for it, and how that
// is shown.
type figure struct {
	name  string
	rows  []*row
	sheet func() (sheet, error)
}

var figures = []func(effort) figure{
	equalServers, unequalServers, oldLoads, degradation, replies, hotStandby, affinity, slowdown, combined, distance,
}

// effort says how long to measure.
type effort struct{ seeds, requests int }

// A request takes 100 ms on a server of medium speed.
const medium = 10 // units per second

func pool(capacities ...float64) []sim.Element {
	elements := make([]sim.Element, len(capacities))
	for i, c := range capacities {
		elements[i] = sim.Element{Capacity: c, Full: c}
	}
	return elements
}

var (
	eight = pool(10, 10, 10, 10, 10, 10, 10, 10)
	four  = pool(10, 10, 10, 10)
	mixed = pool(5, 5, 5, 5, 20, 20)
)

func capacity(elements []sim.Element) float64 {
	sum := 0.0
	for _, e := range elements {
		sum += e.Capacity
	}
	return sum
}

// at is a simulation of a pool that is asked for a share of its capacity.
func (e effort) at(load float64, elements []sim.Element) sim.Config {
	rate := load * capacity(elements)
	duration := float64(e.requests) / rate
	return sim.Config{
		Elements: elements, Users: 40, Rate: rate,
		LoadStep: 0.02, Warmup: 0.2 * duration, Duration: duration,
	}
}

// sweep makes rows for each policy and value.
func sweep(figure, name string, policies []policy, values []float64, config func(float64) sim.Config) []*row {
	var rows []*row
	for _, p := range policies {
		for _, x := range values {
			rows = append(rows, &row{figure: figure, policy: p, name: name, x: x, config: p.in(config(x))})
		}
	}
	return rows
}

// curves makes a curve of each policy.
func curves(rows []*row, scale float64, what func(*sim.Result) float64) []curve {
	var list []curve
	for _, r := range rows {
		if len(list) == 0 || list[len(list)-1].label != r.policy.label {
			list = append(list, curve{policy: r.policy})
		}
		e := r.of(what)
		c := &list[len(list)-1]
		c.points = append(c.points, point{r.x, e.Mean * scale, e.Half * scale})
	}
	return list
}

// theory is a curve of a formula.
func theory(label string, from, to float64, f func(float64) float64) curve {
	c := curve{policy: policy{label: label, color: grey}, plain: true}
	const steps = 60
	for i := range steps + 1 {
		x := from + (to-from)*float64(i)/steps
		c.points = append(c.points, point{x: x, y: f(x)})
	}
	return c
}

const (
	ms       = 1000.0
	percent  = 100.0
	interval = "Vertical bars: 95 %% confidence intervals over %d runs."
)

var loads = []float64{0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95}

// percentOfX turns shares on the x axis into percent.
func percentOfX(list []curve) []curve {
	for _, c := range list {
		for i := range c.points {
			c.points[i].x *= percent
		}
	}
	return list
}

func equalServers(e effort) figure {
	rows := sweep("equal", "load", []policy{random, roundRobin, twoChoices, leastUsed}, loads,
		func(load float64) sim.Config { return e.at(load, eight) })
	return figure{"equal", rows, func() (sheet, error) {
		total := capacity(eight)
		wait := percentOfX(append(curves(rows, ms, meanWait),
			theory("theory, from above:\nM/M/1, E8/M/1, M/M/8", 0.2, 0.95, func(x float64) float64 { return ms * sim.WaitMM1(x*medium, medium) }),
			theory("", 0.2, 0.95, func(x float64) float64 { return ms * sim.WaitRoundRobin(x*total, medium, len(eight)) }),
			theory("", 0.2, 0.95, func(x float64) float64 { return ms * sim.WaitMMc(x*total, medium, len(eight)) }),
		))
		return sheet{
			title: "Equal servers: Least Used waits least, Random most",
			note: "8 servers, one request at a time, 100 ms of work each (exponential), from 40 users (Poisson). Loads are registered at each change. " +
				fmt.Sprintf(interval, e.seeds) + "\nNo policy can wait less than the lowest dotted line, one queue before all servers.",
			panels: [][]panel{{
				{title: "Waiting time", x: "work offered, % of the pool's capacity", y: "mean waiting time, ms", logY: true, yMin: 0.5, yMax: 3000, curves: wait},
				{title: "Request handling speed", x: "work offered, % of the pool's capacity", y: "size / response time, units per second",
					yMax: medium, curves: percentOfX(curves(rows, 1, speed))},
			}},
		}, nil
	}}
}

func unequalServers(e effort) figure {
	all := []policy{random, roundRobin, weightedAny.replying(1), weightedRR, randomLU.replying(1), twoChoices, leastUsed, looksAhead, degrading}
	rows := sweep("unequal", "load", all, []float64{0.2, 0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95},
		func(load float64) sim.Config { return e.at(load, mixed) })
	return figure{"unequal", rows, func() (sheet, error) {
		const shown = 0.6
		var slow, fast []point
		var names []string
		for _, r := range rows {
			if r.x != shown {
				continue
			}
			names = append(names, r.policy.name)
			for _, part := range []struct {
				to         *[]point
				from, upTo int
			}{{&slow, 0, 4}, {&fast, 4, 6}} {
				u := r.of(utilisation(mixed, part.from, part.upTo))
				*part.to = append(*part.to, point{y: u.Mean * percent, half: u.Half * percent})
			}
		}
		load := "work offered, % of the pool's capacity"
		return sheet{
			title: "Unequal servers: policies that know nothing of the servers drown the slow ones",
			note: "4 slow servers (200 ms per request) and 2 fast ones (50 ms), one request at a time; 40 users (Poisson, exponential). " +
				"Weights are the capacities. Loads are registered at each change;\na server with requests for one second calls itself full. wrand and rlu: one element in an answer. " + fmt.Sprintf(interval, e.seeds),
			panels: [][]panel{{
				{title: "Response time", x: load, y: "mean response time, ms", logY: true, yMin: 40, yMax: 10000, curves: percentOfX(curves(rows, ms, meanResponse))},
				{title: "The slowest 1 %", x: load, y: "99th percentile of response time, ms", logY: true, yMin: 200, yMax: 20000, curves: percentOfX(curves(rows, ms, p99Response))},
			}, {
				{title: "Request handling speed", x: load, y: "size / response time, units per second", curves: percentOfX(curves(rows, 1, speed))},
				{title: "Who works, when 60 % of the capacity is asked for", y: "utilisation, %", groups: names, yMax: 140,
					bars: []bars{{"slow servers", orange, slow}, {"fast servers", sky, fast}}},
			}},
		}, nil
	}}
}

var ages = []float64{0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5, 10}

func oldLoads(e effort) figure {
	rows := sweep("stale", "load-report-interval", []policy{random, roundRobin, randomLU.replying(1), twoChoices, leastUsed, degrading}, ages,
		func(age float64) sim.Config {
			c := e.at(0.7, eight)
			c.LoadInterval = age
			return c
		})
	return figure{"stale", rows, func() (sheet, error) {
		return sheet{
			title: "An old load value misleads: everybody runs to the server that was idle a second ago",
			note: "8 equal servers, one request at a time, 100 ms of work each (exponential), 70 % of the capacity asked for (Poisson). " + fmt.Sprintf(interval, e.seeds) +
				"\nThe default of --load-report-interval is 1 s: too long for requests of 100 ms. Priority Least Used does on equal servers what Least Used does. rlu: one element in an answer.",
			panels: [][]panel{{
				{title: "Waiting time", x: "--load-report-interval, s (a request takes 0.1 s)", y: "mean waiting time, ms", logX: true, logY: true,
					yMin: 5, yMax: 10000, curves: curves(rows, ms, meanWait), marks: []marker{{1, "default"}}},
				{title: "The slowest 1 %", x: "--load-report-interval, s (a request takes 0.1 s)", y: "99th percentile of response time, ms", logX: true, logY: true,
					yMin: 200, yMax: 50000, curves: curves(rows, ms, p99Response), marks: []marker{{1, "default"}}},
			}},
		}, nil
	}}
}
