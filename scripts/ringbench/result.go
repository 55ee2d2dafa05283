package main

import (
	"cmp"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// result is what one member measured between the warm-up and the end, as it prints
// it. Rivals print the same.
type result struct {
	Member  int     `json:"member"`
	Seconds float64 `json:"seconds"`
	// Ordered are the messages delivered here in order, of all senders.
	Ordered int64 `json:"ordered"`
	// Sent are the messages that this member handed in, Full how often there was
	// no room.
	Sent int64 `json:"sent"`
	Full int64 `json:"full"`
	// From handing in to the own delivery, and until all members have it; nil
	// where nothing was sent or it can't be told.
	Agreed *latency `json:"agreed,omitempty"`
	Stable *latency `json:"stable,omitempty"`
	// CPU is the time that the member used, daemons included.
	CPU float64 `json:"cpu_seconds"`
}

// latency in seconds.
type latency struct {
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
	Count int64   `json:"count"`
}

func latencyOf(h *hdrhistogram.Histogram) *latency {
	if h.TotalCount() == 0 {
		return nil
	}
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e9 }
	return &latency{P50: at(50), P99: at(99), P999: at(99.9), Max: float64(h.Max()) / 1e9, Count: h.TotalCount()}
}

// outcome is what one run of a group found.
type outcome struct {
	rate           float64 // ordered messages per second
	cpu            float64 // seconds of all members, per ordered message
	agreed, stable latency // of the median sender
}

// summarize puts the results of a group's members together.
func summarize(results []result) outcome {
	var o outcome
	var rates []float64
	var agreed, stable []latency
	cpu, ordered := 0.0, 0.0
	for _, r := range results {
		rates = append(rates, float64(r.Ordered)/r.Seconds)
		cpu += r.CPU
		ordered += float64(r.Ordered) / float64(len(results))
		if r.Agreed != nil {
			agreed = append(agreed, *r.Agreed)
		}
		if r.Stable != nil {
			stable = append(stable, *r.Stable)
		}
	}
	o.rate = slices.Min(rates)
	if ordered > 0 {
		o.cpu = cpu / ordered
	}
	o.agreed, o.stable = middle(agreed), middle(stable)
	return o
}

func middle(all []latency) latency {
	return latency{
		P50: median(all, func(l latency) float64 { return l.P50 }),
		P99: median(all, func(l latency) float64 { return l.P99 }),
	}
}

// median is 0 without values.
func median[T any, V cmp.Ordered](all []T, get func(T) V) (zero V) {
	values := make([]V, len(all))
	for i, x := range all {
		values[i] = get(x)
	}
	if len(values) == 0 {
		return zero
	}
	slices.Sort(values)
	return values[len(values)/2]
}
