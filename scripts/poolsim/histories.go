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
	degrading := degrading.labelled("lud: Least Used with Degradation")
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
				"\nOne request is 0.1 of the load scale. One element in an answer, but for the last picture. " + fmt.Sprintf(interval, e.seeds),
			panels: [][]panel{{
				{title: "Least Used: the herd runs on (one line per server)", x: "time, s", y: present, yMax: highest, curves: herd},
				{title: "Least Used with Degradation: smaller herds", x: "time, s", y: present, yMax: highest, curves: calm},
			}, {
				{title: "How much degradation", x: "degradation (load that one more request adds)", y: "mean waiting time, ms", logX: true, yMax: 850, curves: curves(values, ms, meanWait),
					marks: []marker{{0.1, "what a request\nreally adds"}}},
				{title: "Elements in an answer (rspd --results)", x: "elements in an answer", y: "mean waiting time, ms", logY: true, whole: true, curves: curves(sizes, ms, meanWait)},
			}},
		}, nil
	}}
}

func replies(e effort) figure {
	cached := sweep("replies", "stale", []policy{
		random, roundRobin, leastUsed,
		leastUsed.replying(1).labelled("lu: one element in an answer").colored(purple),
		degrading, randomLU.labelled("rlu: three elements in an answer"),
	}, []float64{0.01, 0.1, 0.3, 1, 3, 10, 30}, func(stale float64) sim.Config {
		c := e.at(0.7, eight)
		c.Stale = stale
		return c
	})
	weighted := pool(4, 8, 12, 16) // weights 1 to 4
	shares := append(
		sweep("weights", "results", []policy{weightedRR}, []float64{3}, func(float64) sim.Config { return e.at(0.5, weighted) }),
		sweep("weights", "results", []policy{weightedAny}, []float64{1, 3, 4}, func(float64) sim.Config { return e.at(0.5, weighted) })...)
	for _, r := range shares {
		r.config.Results, r.policy.results = int(r.x), int(r.x)
	}
	return figure{"replies", append(append([]*row(nil), cached...), shares...), func() (sheet, error) {
		series := []bars{
			{label: "what the weights ask for", color: grey, values: []point{{y: 10}, {y: 20}, {y: 30}, {y: 40}}},
		}
		for i, r := range shares {
			label := fmt.Sprintf("%s, %d in an answer", r.policy.name, int(r.x))
			var values []point
			for k := range weighted {
				share := r.of(func(r *sim.Result) float64 { return float64(r.Elements[k].Measured) / float64(r.Measured) })
				values = append(values, point{y: share.Mean * percent, half: share.Half * percent})
			}
			series = append(series, bars{label, []color.RGBA{orange, purple, sky, blue}[i], values})
		}
		return sheet{
			title: "What an answer holds, and how long users choose from it",
			note: "Left: 8 equal servers, one request at a time, 100 ms of work each (exponential), 70 % of the capacity asked for (Poisson) by 40 users; loads are registered at each change.\n" +
				"Right: 4 servers with weights 1 to 4; each request asks the registrar. " + fmt.Sprintf(interval, e.seeds),
			panels: [][]panel{{
				{title: "Users that keep an answer", x: "time for which users keep an answer (rsppu --stale), s", y: "mean waiting time, ms", logX: true, logY: true, xMax: 100,
					curves: curves(cached, ms, meanWait), marks: []marker{{30, "default"}}},
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

// course follows a value of requests through a simulation: its mean over those that
// are answered in each span of so many seconds, over several seeds.
func course(cfg sim.Config, seeds int, begin, span float64, p policy, value func() func(sim.Done) float64) (curve, error) {
	c := curve{policy: p}
	spans := int((cfg.Warmup + cfg.Duration - begin) / span)
	means := make([][]float64, spans)
	for seed := range seeds {
		of := value()
		sums, counts := make([]float64, spans), make([]float64, spans)
		cfg.Seed = uint64(seed + 1)
		cfg.OnDone = func(d sim.Done) {
			v, i := of(d), int(math.Floor((d.Answered-begin)/span))
			if i >= 0 && i < spans {
				sums[i] += v
				counts[i]++
			}
		}
		if _, err := sim.Run(p.in(cfg)); err != nil {
			return c, err
		}
		for i := range spans {
			if counts[i] > 0 {
				means[i] = append(means[i], sums[i]/counts[i])
			}
		}
	}
	for i, list := range means {
		if len(list) < 2 {
			continue
		}
		e := sim.Estimated(list)
		c.points = append(c.points, point{x: (float64(i) + 0.5) * span, y: e.Mean, half: e.Half})
	}
	return c, nil
}

func affinity(e effort) figure {
	rows := sweep("affinity", "keys", []policy{random, roundRobin, rendezvous}, []float64{10, 30, 100, 300, 1000, 10000},
		func(keys float64) sim.Config {
			c := e.at(0.6, eight)
			c.Keys = int(keys)
			return c
		})
	return figure{"affinity", rows, func() (sheet, error) {
		c := e.at(0.6, eight)
		c.Warmup, c.Duration, c.Keys = 60, 120, 200
		c.Changes = []sim.Change{{At: 100, Element: 2, What: sim.Leave}, {At: 140, Element: 2, What: sim.Return}}
		var again []curve
		for _, p := range []policy{rendezvous, roundRobin, leastUsed} {
			line, err := course(c, e.seeds, c.Warmup, 4, p, func() func(sim.Done) float64 {
				last := map[string]int{}
				return func(d sim.Done) float64 {
					before, known := last[d.Key]
					last[d.Key] = d.Element
					if known && before == d.Element {
						return percent
					}
					return 0
				}
			})
			if err != nil {
				return sheet{}, err
			}
			again = append(again, line)
		}
		return sheet{
			title: "Rendezvous hashing: the same key goes to the same server, and few keys move",
			note: "8 equal servers, one request at a time, 100 ms of work each (exponential), 60 % of the capacity asked for (Poisson) by 40 users. Left: 200 keys, all alike frequent.\n" +
				"Of 8 servers each has an eighth of the keys: only these move when it leaves, and only these move back. " + fmt.Sprintf(interval, e.seeds),
			panels: [][]panel{{
				{title: "Affinity, while a server leaves and returns", x: "time, s", y: "requests at the server that had their key before, %", yMax: 115, curves: again,
					marks: []marker{{40, "leaves"}, {80, "returns"}}},
				{title: "Balance, its price", x: "number of keys", y: "mean waiting time, ms", logX: true, logY: true, yMin: 30, yMax: 10000, curves: curves(rows, ms, meanWait)},
			}},
		}, nil
	}}
}

func slowdown(e effort) figure {
	rows := sweep("slowdown", "users", []policy{weightedRR, twoChoices, leastUsed, measuring}, []float64{1, 3, 10, 30, 100, 300},
		func(users float64) sim.Config {
			c := e.at(0.6, mixed)
			c.Users, c.LoadInterval = int(users), 1
			return c
		})
	return figure{"slowdown", rows, func() (sheet, error) {
		c := e.at(0.5, eight)
		c.LoadInterval, c.Users, c.Warmup, c.Duration = 1, 10, 60, 100
		c.Changes = []sim.Change{{At: 80, Element: 2, What: sim.Slow, Factor: 0.2}, {At: 120, Element: 2, What: sim.Slow, Factor: 1}}
		var times []curve
		for _, p := range []policy{roundRobin, leastUsed, measuring} {
			line, err := course(c, e.seeds, c.Warmup, 4, p, func() func(sim.Done) float64 {
				return func(d sim.Done) float64 { return (d.Answered - d.Sent) * ms }
			})
			if err != nil {
				return sheet{}, err
			}
			times = append(times, line)
		}
		return sheet{
			title: "Peak EWMA: users that measure need no reports",
			note: "Left: 8 servers, 100 ms of work per request (exponential), 10 users that ask for 50 % of the capacity (Poisson). Right: 4 slow servers (200 ms) and 2 fast ones (50 ms), 60 %.\n" +
				"One request at a time; servers register a load every second at most.\n" +
				"Each user knows only what it measured itself: the fewer users share the work, the more each of them knows. " + fmt.Sprintf(interval, e.seeds),
			panels: [][]panel{{
				{title: "One of the servers works at a fifth of its speed", x: "time, s", y: "mean response time, ms", logY: true, yMin: 100, yMax: 10000, curves: times,
					marks: []marker{{20, "slow"}, {60, "as before"}}},
				{title: "Unequal servers", x: "number of users that share the work", y: "mean response time, ms", logX: true, logY: true, yMin: 50, yMax: 2000, curves: curves(rows, ms, meanResponse)},
			}},
		}, nil
	}}
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
				{title: "Server 1 leaves, and returns", x: "time, s", y: "answered requests per second", yMax: 13, curves: rates,
					marks: []marker{{20, "server 1 leaves"}, {40, "server 1 is back"}}},
				{title: "Response time", x: "work offered, % of the pool's capacity", y: "mean response time, ms", logY: true, yMin: 50, yMax: 20000,
					curves: percentOfX(curves(rows, ms, meanResponse)), marks: []marker{{100.0 / 3, "one server's capacity"}}},
			}},
		}, err
	}}
}
