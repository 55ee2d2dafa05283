package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"rserpool/scripts/poolsim/sim"
)

// row is one configuration of one figure, measured over several seeds.
type row struct {
	figure string
	policy policy
	// x is the value of what the figure varies, which the name says: "load".
	name string
	x    float64

	config  sim.Config
	results []*sim.Result
}

// of estimates something of the results.
func (r *row) of(what func(*sim.Result) float64) sim.Estimate {
	values := make([]float64, len(r.results))
	for i, result := range r.results {
		values[i] = what(result)
	}
	return sim.Estimated(values)
}

func meanWait(r *sim.Result) float64     { return r.Wait.Mean }
func meanResponse(r *sim.Result) float64 { return r.Response.Mean }
func p99Response(r *sim.Result) float64  { return r.Response.P99 }
func speed(r *sim.Result) float64        { return r.Speed }

// utilisation returns the share of the capacity in use of elements from up to
// before, together.
func utilisation(capacities []sim.Element, from, before int) func(*sim.Result) float64 {
	return func(r *sim.Result) float64 {
		used, all := 0.0, 0.0
		for i := from; i < before; i++ {
			used += r.Elements[i].Utilisation * capacities[i].Capacity
			all += capacities[i].Capacity
		}
		return used / all
	}
}

// measure runs all rows with seeds from 1 on, as many at a time as there are cores.
// The order of rows and seeds in the results does not depend on that.
func measure(rows []*row, seeds int) error {
	type job struct {
		row  *row
		seed int
	}
	jobs := make(chan job)
	var (
		group sync.WaitGroup
		mutex sync.Mutex
		first error
	)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for j := range jobs {
				cfg := j.row.config
				cfg.Seed = uint64(j.seed + 1)
				result, err := sim.Run(cfg)
				if err != nil {
					mutex.Lock()
					if first == nil {
						first = fmt.Errorf("%s, %s at %s %v: %w", j.row.figure, j.row.policy.label, j.row.name, j.row.x, err)
					}
					mutex.Unlock()
				}
				j.row.results[j.seed] = result
			}
		})
	}
	for _, r := range rows {
		r.results = make([]*sim.Result, seeds)
		for seed := range seeds {
			jobs <- job{r, seed}
		}
	}
	close(jobs)
	group.Wait()
	return first
}

var header = []string{
	"figure", "policy", "results", "varied", "value", "seeds",
	"wait_mean_s", "wait_mean_ci95", "wait_p50_s", "wait_p99_s",
	"response_mean_s", "response_mean_ci95", "response_p50_s", "response_p99_s",
	"speed_units_per_s", "speed_ci95", "registrations", "utilisation",
}

// fields are those of header.
func (r *row) fields() []string {
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', 5, 64) }
	var fields []string
	results := "all"
	if n := r.policy.reply(); n > 0 {
		results = strconv.Itoa(n)
	}
	fields = append(fields, r.figure, r.policy.name, results, r.name, number(r.x), strconv.Itoa(len(r.results)))
	for _, of := range []func(*sim.Result) sim.Sample{
		func(r *sim.Result) sim.Sample { return r.Wait }, func(r *sim.Result) sim.Sample { return r.Response },
	} {
		mean := r.of(func(r *sim.Result) float64 { return of(r).Mean })
		p50 := r.of(func(r *sim.Result) float64 { return of(r).P50 })
		p99 := r.of(func(r *sim.Result) float64 { return of(r).P99 })
		fields = append(fields, number(mean.Mean), number(mean.Half), number(p50.Mean), number(p99.Mean))
	}
	s := r.of(speed)
	registrations := r.of(func(r *sim.Result) float64 { return float64(r.Registrations) })
	fields = append(fields, number(s.Mean), number(s.Half), number(registrations.Mean))
	var used []string
	for i := range r.config.Elements {
		used = append(used, strconv.FormatFloat(r.of(utilisation(r.config.Elements, i, i+1)).Mean, 'f', 3, 64))
	}
	return append(fields, strings.Join(used, " "))
}

func writeCSV(w io.Writer, rows []*row) error {
	out := csv.NewWriter(w)
	if err := out.Write(header); err != nil {
		return err
	}
	for _, r := range rows {
		if err := out.Write(r.fields()); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// writeTable prints what a person wants to compare.
func writeTable(w io.Writer, rows []*row) error {
	var b strings.Builder
	figure := ""
	for _, r := range rows {
		if r.figure != figure {
			figure = r.figure
			fmt.Fprintf(&b, "\n%s\n%-22s %22s %17s %9s %9s %9s  %-7s %s\n", figure, "policy", "", "wait, ms", "p99", "response", "p99", "speed", "utilisation")
		}
		ms := func(what func(*sim.Result) float64) float64 { return r.of(what).Mean * 1000 }
		wait := r.of(meanWait)
		fields := r.fields()
		fmt.Fprintf(&b, "%-22s %22s %9.4g ± %-5.2g %9.4g %9.4g %9.4g  %-7.3g %s\n", r.policy.label,
			fmt.Sprintf("%s %.4g", r.name, r.x), wait.Mean*1000, wait.Half*1000, ms(func(r *sim.Result) float64 { return r.Wait.P99 }),
			ms(meanResponse), ms(p99Response), r.of(speed).Mean, fields[len(fields)-1])
	}
	_, err := io.WriteString(w, b.String())
	return err
}
