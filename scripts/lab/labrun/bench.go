package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	benchRuns     = 7
	benchDuration = 2 * time.Second
	benchNoise    = 0.05
)

// benchResult is what loadgen prints about one server.
type benchResult struct {
	Target      string
	Elements    int
	Rate        float64 `json:"answers_per_second"`
	P50         float64 `json:"p50_seconds"`
	P99         float64 `json:"p99_seconds"`
	CPU         float64 `json:"cpu_seconds_per_answer"`
	RateRatio   float64 `json:"rate_ratio"`
	CPURatio    float64 `json:"cpu_ratio"`
	Connections int
	Outstanding int
}

// bench asks our registrar and rsplib's for the same pools in turns, in one boot.
// Both send keep-alives as often and answer with as many elements: without the
// private option that asks for a number, rsplib's and, with --compat rsplib, ours
// give up to three.
func bench(l *lab) {
	ours := l.registrar(pr1, "rspd", "--compat", "rsplib", "--timers", "rsplib", "--admin", "off", "--log-level", "error")
	theirs := l.rsplibRegistrar(pr2, "rspregistrar", "-loglevel=1")
	time.Sleep(6 * time.Second) // its start
	for _, elements := range []int{1, 100, 1000} {
		for _, outstanding := range []int{1, 16} {
			for _, connections := range []int{1, 8} {
				l.compare(ours, theirs, elements, connections, outstanding)
			}
		}
	}
}

func (l *lab) compare(ours, theirs *process, elements, connections, outstanding int) {
	name := fmt.Sprintf("%d elements, %d x %d outstanding", elements, connections, outstanding)
	file := fmt.Sprintf("load-%d-%d-%d", elements, connections, outstanding)
	out, err := l.output(5*time.Minute, pu1, file, l.bin("loadgen"), "--compat", "rsplib",
		"--target", "rspd=sctp://"+pr1.asap(), "--pid", strconv.Itoa(ours.cmd.Process.Pid),
		"--target", "rspregistrar=sctp://"+pr2.asap(), "--pid", strconv.Itoa(theirs.cmd.Process.Pid),
		"--pool", fmt.Sprintf("bench%d", elements), "--register", strconv.Itoa(elements),
		"--connections", strconv.Itoa(connections), "--outstanding", strconv.Itoa(outstanding),
		"--runs", strconv.Itoa(benchRuns), "--duration", benchDuration.String(), "--json")
	var results []benchResult
	if err == nil {
		// A complaint about the deregistration may follow.
		err = json.NewDecoder(strings.NewReader(out)).Decode(&results)
	}
	if err == nil && len(results) != 2 {
		err = errors.New("no two results")
	}
	if err != nil {
		l.check(name, fmt.Errorf("%w: %s", err, tail(out)))
		return
	}
	for _, r := range results {
		l.note("%s: %-12s %6.0f answers/s, p50 %4.0f us, p99 %5.0f us, CPU %4.0f us per answer of %d elements", name, r.Target, r.Rate, r.P50*1e6, r.P99*1e6, r.CPU*1e6, r.Elements)
	}
	r := results[1]
	if results[0].Elements != r.Elements {
		err = fmt.Errorf("answers of %d and %d elements", results[0].Elements, r.Elements)
	}
	l.check(name+": same size of answers", err)
	l.check(fmt.Sprintf("%s: throughput %.2f of rsplib's", name, r.RateRatio), unless(r.RateRatio >= 1-benchNoise, "less than 1"))
	l.check(fmt.Sprintf("%s: CPU per answer %.2f of rsplib's", name, r.CPURatio), unless(r.CPURatio <= 1+benchNoise, "more than 1"))
}

func unless(good bool, complaint string) error {
	if good {
		return nil
	}
	return errors.New(complaint)
}
