package sim

import "math"

// What queueing theory says of pools of servers with exponential sizes of mean 1
// and Poisson arrivals. Waiting times, in seconds.

// WaitMM1 is the mean waiting time at one server of the given capacity.
func WaitMM1(rate, capacity float64) float64 {
	return rate / capacity / (capacity - rate)
}

// WaitMMc is the mean waiting time when c servers of the given capacity each are
// fed from one queue: no policy can do better with servers that serve one request
// at a time (Erlang's C formula).
func WaitMMc(rate, capacity float64, c int) float64 {
	a := rate / capacity
	blocked := 1.0 // Erlang's B formula, by recursion
	for k := 1; k <= c; k++ {
		blocked = a * blocked / (float64(k) + a*blocked)
	}
	waits := blocked / (1 - a/float64(c)*(1-blocked))
	return waits / (float64(c)*capacity - rate)
}

// WaitRoundRobin is the mean waiting time when requests go to n servers of the
// given capacity in turn: each sees every nth arrival of a Poisson process
// (E_n/M/1).
func WaitRoundRobin(rate, capacity float64, n int) float64 {
	// The root below 1 of sigma = A(capacity (1 - sigma)), where A is the
	// Laplace transform of the time between arrivals.
	sigma := 0.0
	for range 10_000 {
		sigma = math.Pow(rate/(rate+capacity*(1-sigma)), float64(n))
	}
	return sigma / (capacity * (1 - sigma))
}
