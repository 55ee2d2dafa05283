package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"rserpool/scripts/poolsim/sim"
	"rserpool/selection"
)

// own is a pool that the command line describes.
type own struct {
	capacities, policies, sizes string
	load, interval, stale       float64
	users, results, slots       int
	shared                      bool
}

func ownPool(fs *flag.FlagSet) *own {
	o := &own{}
	fs.StringVar(&o.capacities, "capacities", "", "compare policies for a pool of these servers: average requests per second that each can do, a `list` with commas")
	fs.StringVar(&o.policies, "policies", "", "a `list` with commas (default all)")
	fs.StringVar(&o.sizes, "sizes", "exponential", "how sizes of requests are distributed: constant, uniform, exponential, pareto")
	fs.Float64Var(&o.load, "load", 0.7, "work asked for, as a share of the pool's capacity")
	fs.Float64Var(&o.interval, "load-report-interval", 1, "shortest time between two reports of a load, in seconds, as of rsppe")
	fs.Float64Var(&o.stale, "stale", 0, "time for which users keep an answer, in seconds, as of rsppu")
	fs.IntVar(&o.users, "users", 40, "users")
	fs.IntVar(&o.results, "results", 0, "elements in an answer, as of rspd (default that of the policy)")
	fs.IntVar(&o.slots, "slots", 1, "requests that a server serves at a time")
	fs.BoolVar(&o.shared, "shared", false, "requests at a server share all its capacity, instead of a fixed part for each")
	return o
}

// compare prints one line for each policy.
func (o *own) compare(e effort, out io.Writer) error {
	var capacities []float64
	for _, field := range strings.Split(o.capacities, ",") {
		c, err := strconv.ParseFloat(strings.TrimSpace(field), 64)
		if err != nil {
			return fmt.Errorf("capacities: %q is not a number", field)
		}
		capacities = append(capacities, c)
	}
	sizes, known := sim.Distributions[o.sizes]
	if !known {
		return fmt.Errorf("sizes: unknown distribution %q", o.sizes)
	}
	if !(o.load > 0) {
		return errors.New("load must be positive")
	}
	wanted := strings.Split(strings.ReplaceAll(o.policies, " ", ""), ",")
	c := e.at(o.load, pool(capacities...))
	c.Sizes, c.LoadInterval, c.Stale, c.Users, c.Keys = sizes, o.interval, o.stale, o.users, 1000
	for i := range c.Elements {
		c.Elements[i].Slots, c.Elements[i].Shared = o.slots, o.shared
		c.Elements[i].Full = max(1, c.Elements[i].Full)
		c.Elements[i].Priority = uint32(100 * c.Elements[i].Capacity)
	}
	var rows []*row
	for _, d := range selection.All() {
		if o.policies != "" && !slices.Contains(wanted, d.Name) {
			continue
		}
		p := policy{label: d.Name, name: d.Name, results: o.results}
		rows = append(rows, &row{figure: "capacities " + o.capacities, policy: p, name: "load", x: o.load, config: p.in(c)})
	}
	if len(rows) == 0 || o.policies != "" && len(rows) != len(wanted) {
		return fmt.Errorf("policies: not all known, or one twice, of %q: know %s", o.policies, strings.Join(selection.Names(), ", "))
	}
	if err := measure(rows, e.seeds); err != nil {
		return err
	}
	return writeTable(out, rows)
}
