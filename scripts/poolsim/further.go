package main

import (
	"fmt"

	"rserpool/scripts/poolsim/sim"
)

// The policies that rsplib has beyond RFC 5356.

func combined(e effort) figure {
	all := []policy{leastUsed, degrading, looksAhead, aheadDegrading, randomLU.replying(1), randomAhead, randomDegrading, randomBoth}
	old := sweep("combined", "load-report-interval", all, ages, func(age float64) sim.Config {
		c := e.at(0.7, eight)
		c.LoadInterval = age
		return c
	})
	unequal := sweep("combined, unequal", "load", all, []float64{0.2, 0.4, 0.6, 0.8, 0.9}, func(load float64) sim.Config {
		c := e.at(load, mixed)
		c.LoadInterval = 0.2
		return c
	})
	return figure{"combined", append(append([]*row(nil), old...), unequal...), func() (sheet, error) {
		return sheet{
			title: "rsplib's combinations: random, looking ahead, degrading",
			note: "One element in an answer; 40 users (Poisson, exponential). Left: 8 equal servers, 100 ms of work each, 70 % of the capacity asked for.\n" +
				"Right: 4 slow servers (200 ms per request) and 2 fast ones (50 ms), loads registered every 200 ms at most. " + fmt.Sprintf(interval, e.seeds),
			panels: [][]panel{{
				{title: "Equal servers, old loads", x: "--load-report-interval, s (a request takes 0.1 s)", y: "mean waiting time, ms", logX: true, logY: true,
					yMin: 5, yMax: 10000, curves: curves(old, ms, meanWait), marks: []marker{{1, "default"}}},
				{title: "Unequal servers", x: "work offered, % of the pool's capacity", y: "mean response time, ms", logY: true, yMin: 40, yMax: 2000,
					curves: percentOfX(curves(unequal, ms, meanResponse))},
			}},
		}, nil
	}}
}

func distance(e effort) figure {
	// Two servers here, two far away. What the way costs in time is about what
	// the load of two requests costs.
	spread := pool(10, 10, 10, 10)
	for i := range spread {
		spread[i].Weight, spread[i].Distance, spread[i].Penalty = 10, 0.001, 0.004
		if i >= 2 {
			spread[i].Distance = 0.05
		}
	}
	far := append([]sim.Element(nil), spread...)
	for i := range far {
		far[i].Penalty = 0.15 // of a unit of weight: 10 - 50 ms x 0.15 is 2.5
	}
	load := []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
	rows := sweep("distance", "load", []policy{weightedAny.replying(1), leastUsed, usedNear, degradingNear}, load, func(load float64) sim.Config { return e.at(load, spread) })
	weighted := sweep("distance", "load", []policy{weightedNear}, load, func(load float64) sim.Config { return e.at(load, far) })
	rows = append(rows, weighted...)
	return figure{"distance", rows, func() (sheet, error) {
		near := curves(rows, percent, func(r *sim.Result) float64 {
			return float64(r.Elements[0].Measured+r.Elements[1].Measured) / float64(r.Measured)
		})
		return sheet{
			title: "Distance: near servers first, far ones when the near ones are busy",
			note: "2 near servers (1 ms one way) and 2 far ones (50 ms), one request at a time, 100 ms of work each (exponential); a request goes there and back twice. 40 users (Poisson).\n" +
				"Penalty 0.004 per ms (50 ms cost as much as two requests), 0.15 of a unit of weight for wranddpf with weights of 10. " + fmt.Sprintf(interval, e.seeds),
			panels: [][]panel{{
				{title: "Response time", x: "work offered, % of the pool's capacity", y: "mean response time, ms", logY: true, yMin: 100, yMax: 2000, curves: percentOfX(curves(rows, ms, meanResponse))},
				{title: "Requests at the near servers", x: "work offered, % of the pool's capacity", y: "% of all requests", yMax: 105, curves: percentOfX(near)},
			}},
		}, nil
	}}
}
