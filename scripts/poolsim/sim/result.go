package sim

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

// Result is what a simulation measured. Times are in seconds.
type Result struct {
	// Sent and Served count all requests, Measured those sent after the
	// warm-up.
	Sent, Served, Measured int
	// Resolutions and Registrations count what the registrar was asked.
	Resolutions, Registrations int
	// Response is the time from a request to its answer, Wait the part of it
	// that the request would not have taken alone at its element, less
	// startup: time in queues, or lost to others.
	Response, Wait Sample
	// Speed is the mean request handling speed: size over response time, in
	// units per second.
	Speed float64
	// Present is the mean number of requests on their way or at elements
	// while measurement ran.
	Present  float64
	Elements []ElementResult

	responses, waits []float64
	speeds           float64
}

// ElementResult is what a simulation measured of one element.
type ElementResult struct {
	Served, Measured int
	// Utilisation is the share of the capacity that was used while
	// measurement ran.
	Utilisation float64
}

// Sample describes many values.
type Sample struct{ Mean, P50, P99 float64 }

func (r *Result) add(response, wait, size float64) {
	r.responses = append(r.responses, response)
	r.waits = append(r.waits, wait)
	r.speeds += size / response
}

func (s *simulation) finish() Result {
	r := s.result
	if n := float64(len(r.responses)); n > 0 {
		r.Response, r.Wait = sample(r.responses), sample(r.waits)
		r.Speed = r.speeds / n
	}
	r.responses, r.waits = nil, nil
	return r
}

func sample(values []float64) Sample {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	slices.Sort(values)
	at := func(q float64) float64 { return values[int(math.Ceil(q*float64(len(values))))-1] }
	return Sample{Mean: sum / float64(len(values)), P50: at(0.5), P99: at(0.99)}
}

// Estimate is a mean over independent runs, and half the width of its confidence
// interval at a level of 95 %, by Student's t.
type Estimate struct{ Mean, Half float64 }

// Estimated estimates the mean behind values of at least two runs.
func Estimated(values []float64) Estimate { return EstimatedAt(values, 0.95) }

// EstimatedAt is Estimated at another level.
func EstimatedAt(values []float64, level float64) Estimate {
	n := float64(len(values))
	mean, squares := 0.0, 0.0
	for _, v := range values {
		mean += v / n
	}
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	t := distuv.StudentsT{Mu: 0, Sigma: 1, Nu: n - 1}.Quantile((1 + level) / 2)
	return Estimate{Mean: mean, Half: t * math.Sqrt(squares/(n-1)/n)}
}
