package main

import (
	"fmt"
	"image/color"
	"math"

	"rserpool/scripts/poolsim/sim"
)

// history follows the requests at each server through one simulation, from begin
// on, with time 0 there.
func history(cfg sim.Config, begin float64, style func(server int) policy) ([]curve, error) {
	list := make([]curve, len(cfg.Elements))
	for i := range list {
		list[i] = curve{policy: style(i), steps: true, thin: true, points: []point{{}}}
	}
	end := cfg.Warmup + cfg.Duration
	cfg.Seed = 1
	cfg.OnChange = func(t float64, server, present int) {
		c := &list[server]
		switch {
		case t < begin:
			c.points[0].y = float64(present)
		case t <= end:
			c.points = append(c.points, point{x: t - begin, y: float64(present)})
		}
	}
	_, err := sim.Run(cfg)
	for i := range list {
		last := list[i].points[len(list[i].points)-1]
		list[i].points = append(list[i].points, point{x: end - begin, y: last.y})
	}
	return list, err
}

// server is the style of a server's curve. It needs no label where it matters only
// that they differ.
func server(i int) policy {
	return policy{color: []color.RGBA{blue, orange, green, vermillion, sky, purple}[i]}
}

func degradation(e effort) figure {
	const late = 2 // seconds between registrations
	stale := func(load float64) sim.Config {
		c := e.at(load, four)
		c.LoadInterval = late
		return c
	}
	byDegradation := func(policies ...policy) []*row {
		return sweep("degradation", "degradation", policies, []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1},
			func(d float64) sim.Config {
				c := stale(0.7)
				c.Elements = append([]sim.Element(nil), four...)
				for i := range c.Elements {
					c.Elements[i].Degradation = d
				}
				return c
			})
	}
	values := byDegradation(leastUsed, degrading)
	sizes := sweep("reply size", "results", []policy{leastUsed, degrading}, []float64{1, 2, 3, 4}, func(float64) sim.Config { return stale(0.7) })
	for _, r := range sizes {
		r.config.Results = int(r.x)
		r.policy.results = int(r.x)
	}
	return figure{"degradation", append(append([]*row(nil), values...), sizes...), func() (sheet, error) {
		c := stale(0.7)
		c.Warmup, c.Duration = 60, 30
		herd, err := history(leastUsed.in(c), c.Warmup, server)
		if err != nil {
			return sheet{}, err
		}
		calm, err := history(degrading.in(c), c.Warmup, server)
		if err != nil {
			return sheet{}, err
		}
		highest := 0.0
		for _, c := range append(append([]curve(nil), herd...), calm...) {
			for _, p := range c.points {
				highest = math.Max(highest, p.y)
			}
		}
		present := "requests at the server"
		return sheet{
			title: "What degradation does: each answer makes the element it names look busier, until its next report",
			note: "4 equal servers, one request at a time, 100 ms of work each (exponential), 70 % of the capacity asked for (Poisson); a load is registered every 2 s at most. " +
				"\nOne request is 0.1 of the load scale. " + fmt.Sprintf(interval, e.seeds),
			panels: [][]panel{{
				{title: "Least Used: the herd runs on (one line per server)", x: "time, s", y: present, yMax: highest, curves: herd},
				{title: "Least Used with Degradation: smaller herds", x: "time, s", y: present, yMax: highest, curves: calm},
			}, {
				{title: "How much degradation", x: "degradation (load that one more request adds)", y: "mean waiting time, ms", logX: true, curves: curves(values, ms, meanWait),
					marks: []marker{{0.1, "what a request\nreally adds"}}},
				{title: "Elements in an answer (rspd --results)", x: "elements in an answer", y: "mean waiting time, ms", logY: true, whole: true, curves: curves(sizes, ms, meanWait)},
			}},
		}, nil
	}}
}

func replies(e effort) figure {
	cached := sweep("replies", "stale", []policy{
		random, roundRobin, leastUsed,
		leastUsed.replying(1).labelled("lu, one element in an answer").colored(purple),
		degrading.labelled("lud, one element in an answer"), randomLU.labelled("rlu, three in an answer"),
	}, []float64{0.01, 0.1, 0.3, 1, 3, 10, 30}, func(stale float64) sim.Config {
		c := e.at(0.7, eight)
		c.Stale = stale
		return c
	})
	weighted := pool(4, 8, 12, 16) // weights 1 to 4
	shares := sweep("reply size", "results", []policy{weightedRR, weightedAny}, []float64{1, 3, 4},
		func(float64) sim.Config { return e.at(0.5, weighted) })
	for _, r := range shares {
		r.config.Results, r.policy.results = int(r.x), int(r.x)
	}
	return figure{"replies", append(append([]*row(nil), cached...), shares...), func() (sheet, error) {
		series := []bars{
			{label: "what the weights ask for", color: grey, values: []point{{y: 10}, {y: 20}, {y: 30}, {y: 40}}},
		}
		for _, r := range shares {
			label := fmt.Sprintf("%s, %d in an answer", r.policy.name, int(r.x))
			shade := map[string][]color.RGBA{"wrr": {orange}, "wrand": {purple, sky, blue}}[r.policy.name]
			n := len(series) - 1
			if r.policy.name == "wrand" {
				n -= 1
			} else if n > 0 {
				continue // the number makes no difference to wrr
			} else {
				label = "wrr, any number in an answer"
			}
			var values []point
			for i := range weighted {
				share := r.of(func(r *sim.Result) float64 { return float64(r.Elements[i].Measured) / float64(r.Measured) })
				values = append(values, point{y: share.Mean * percent, half: share.Half * percent})
			}
			series = append(series, bars{label, shade[n], values})
		}
		return sheet{
			title: "What an answer holds, and how long users choose from it",
			note: "Left: 8 equal servers, one request at a time, 100 ms of work each (exponential), 70 % of the capacity asked for (Poisson) by 40 users; loads are registered at each change.\n" +
				"Right: 4 servers with weights 1 to 4; each request asks the registrar. " + fmt.Sprintf(interval, e.seeds),
			panels: [][]panel{{
				{title: "Users that keep an answer", x: "time for which users keep an answer (rsppu --stale), s", y: "mean waiting time, ms", logX: true, logY: true,
					curves: curves(cached, ms, meanWait), marks: []marker{{30, ""}}},
				{title: "Weights, and elements in an answer (rspd --results)", y: "share of the requests, %", groups: []string{"weight 1", "weight 2", "weight 3", "weight 4"}, yMax: 65, bars: series},
			}},
		}, nil
	}}
}

// answered gives the rate at which each server answers, by spans of so many seconds.
func answered(cfg sim.Config, begin, span float64, style func(server int) policy) ([]curve, error) {
	list := make([]curve, len(cfg.Elements))
	end := cfg.Warmup + cfg.Duration
	spans := int((end - begin) / span)
	for i := range list {
		list[i] = curve{policy: style(i), steps: true, points: make([]point, spans+1)}
		for k := range list[i].points {
			list[i].points[k].x = float64(k) * span
		}
	}
	cfg.Seed = 1
	cfg.OnDone = func(d sim.Done) {
		if d.Answered >= begin && d.Answered < end {
			list[d.Element].points[int((d.Answered-begin)/span)].y += 1 / span
		}
	}
	_, err := sim.Run(cfg)
	for i := range list {
		list[i].points[spans].y = list[i].points[spans-1].y // the right end of the last step
	}
	return list, err
}

func hotStandby(e effort) figure {
	ranked := pool(10, 10, 10)
	for i := range ranked {
		ranked[i].Priority = uint32(3 - i)
	}
	rows := sweep("priority", "load", []policy{roundRobin, priority}, []float64{0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5},
		func(load float64) sim.Config { return e.at(load, ranked) })
	return figure{"priority", rows, func() (sheet, error) {
		c := e.at(0.25, ranked)
		c.Warmup, c.Duration = 20, 60
		c.Changes = []sim.Change{{At: 40, Element: 0, What: sim.Leave}, {At: 60, Element: 0, What: sim.Return}}
		rates, err := answered(priority.in(c), c.Warmup, 4, func(i int) policy {
			return policy{label: fmt.Sprintf("server %d, priority %d", i+1, 3-i), color: []color.RGBA{blue, orange, green}[i]}
		})
		return sheet{
			title: "Priority: the best one does it all, the next one stands by",
			note: "3 equal servers, one request at a time, 100 ms of work each (exponential); 40 users (Poisson); each request asks the registrar. " + fmt.Sprintf(interval, e.seeds) + "\n" +
				"Priority does not share: what one server cannot do it does not do.",
			panels: [][]panel{{
				{title: "Server 1 leaves, and returns", x: "time, s", y: "answered requests per second", curves: rates,
					marks: []marker{{20, "server 1 leaves"}, {40, "server 1 is back"}}},
				{title: "Response time", x: "work offered, % of the pool's capacity", y: "mean response time, ms", logY: true, yMin: 50, yMax: 20000,
					curves: percentOfX(curves(rows, ms, meanResponse)), marks: []marker{{100.0 / 3, "one server's capacity"}}},
			}},
		}, err
	}}
}
