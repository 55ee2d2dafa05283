package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// summary is the median of each figure over all runs.
type summary struct {
	Target       string    `json:"target"`
	Elements     int       `json:"elements,omitempty"` // in an answer
	RequestSize  int       `json:"request_octets"`
	ResponseSize int       `json:"response_octets"`
	Connections  int       `json:"connections"`
	Outstanding  int       `json:"outstanding"`
	Rate         float64   `json:"answers_per_second"`
	P50          float64   `json:"p50_seconds"`
	P99          float64   `json:"p99_seconds"`
	CPU          float64   `json:"cpu_seconds_per_answer,omitempty"`
	Rates        []float64 `json:"runs"`
	// Of the first target's figures to this one's.
	RateRatio float64 `json:"rate_ratio,omitempty"`
	CPURatio  float64 `json:"cpu_ratio,omitempty"`
}

func median[R any, T cmp.Ordered](results []R, get func(R) T) T {
	values := make([]T, len(results))
	for i, r := range results {
		values[i] = get(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func summarize(s *settings, requestSize int) []summary {
	var all []summary
	for _, t := range s.targets {
		sum := summary{
			Target: t.name, Elements: t.elements,
			RequestSize: requestSize, ResponseSize: t.responseSize,
			Connections: s.connections, Outstanding: s.outstanding,
			Rate: median(t.results, func(r result) float64 { return r.rate }),
			P50:  median(t.results, func(r result) time.Duration { return r.p50 }).Seconds(),
			P99:  median(t.results, func(r result) time.Duration { return r.p99 }).Seconds(),
			CPU:  median(t.results, func(r result) time.Duration { return r.cpu }).Seconds(),
		}
		for _, r := range t.results {
			sum.Rates = append(sum.Rates, r.rate)
		}
		if len(all) > 0 {
			sum.RateRatio = all[0].Rate / sum.Rate
			if all[0].CPU > 0 && sum.CPU > 0 {
				sum.CPURatio = all[0].CPU / sum.CPU
			}
		}
		all = append(all, sum)
	}
	return all
}

func report(w io.Writer, s *settings, requestSize int) error {
	all := summarize(s, requestSize)
	if s.format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(all)
	}
	micro := func(seconds float64) string {
		if seconds == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f µs", seconds*1e6)
	}
	for _, m := range all {
		var err error
		if s.format == "markdown" {
			elements := "-"
			if m.Elements > 0 {
				elements = fmt.Sprint(m.Elements)
			}
			_, err = fmt.Fprintf(w, "| %s | %s | %d | %d | %d | %.0f | %s | %s | %s |\n", m.Target, elements,
				m.ResponseSize, m.Connections, m.Outstanding, m.Rate, micro(m.P50), micro(m.P99), micro(m.CPU))
		} else {
			_, err = fmt.Fprintf(w, "%s: %.0f answers/s, p50 %s, p99 %s, CPU per answer %s (%d connections, %d outstanding, %d elements, %d octets)\n",
				m.Target, m.Rate, micro(m.P50), micro(m.P99), micro(m.CPU), m.Connections, m.Outstanding, m.Elements, m.ResponseSize)
		}
		if err != nil {
			return err
		}
	}
	for _, m := range all[1:] {
		line := fmt.Sprintf("ratio %s to %s: throughput %.2f", all[0].Target, m.Target, m.RateRatio)
		if m.CPURatio > 0 {
			line += fmt.Sprintf(", CPU per answer %.2f", m.CPURatio)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}
