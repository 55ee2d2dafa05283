package selection

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"rserpool/asap/param"
)

// Sums grow and shrink over several levels and pieces, and find what a pass over the
// weights finds.
func TestSums(t *testing.T) {
	r := rand.New(rand.NewPCG(seed, 7))
	var s sums
	var weights []uint32
	for _, target := range []int{5, 300, 17, 16, 9000, 4096, 1, 257, 0, 40} {
		for len(weights) != target {
			if len(weights) < target {
				weights = append(weights, r.Uint32()>>r.IntN(32))
				s.push(weights[len(weights)-1])
			} else {
				weights = weights[:len(weights)-1]
				s.pop()
			}
			if len(weights) > 0 && r.IntN(2) == 0 {
				i, w := r.IntN(len(weights)), r.Uint32()>>r.IntN(32)
				weights[i] = w
				s.set(i, w)
			}
		}
		ends := make([]uint64, len(weights)) // of what finds each
		total := uint64(0)
		for i, w := range weights {
			total += uint64(w)
			ends[i] = total
		}
		if s.total != total || s.len() != len(weights) {
			t.Fatalf("%d weights: total %d of %d, want %d", target, s.total, s.len(), total)
		}
		var draws []uint64
		var places []int
		for range min(total, 1000) {
			draw := r.Uint64N(total)
			want, found := slices.BinarySearch(ends, draw)
			for found && ends[want] == draw { // also past weights of 0
				want++
			}
			if got := s.find(draw); got != want {
				t.Fatalf("%d weights: %d of %d is at %d, want %d", target, draw, total, got, want)
			}
			places = append(places, want)
			if draws = append(draws, draw); len(draws) == lotsAhead {
				if got, _ := s.findAll([lotsAhead]uint64(draws)); !slices.Equal(got[:], places) {
					t.Fatalf("%d weights: %v of %d are at %v, want %v", target, draws, total, got, places)
				}
				draws, places = nil, nil
			}
		}
	}
	if s.weights.n != 40 || len(s.nodes) != 1 {
		t.Errorf("%d weights in %d levels", s.weights.n, len(s.nodes))
	}
}

// What an element has been handed out for never makes it look idle.
func TestMeasuresStopAtTheLargestNumber(t *testing.T) {
	for _, c := range []struct{ base, served, step, want uint64 }{
		{5, 3, 1 << 32, 5 + 3<<32},
		{1, 1 << 32, 1<<32 - 1, 1 + (1<<32-1)<<32},
		{math.MaxUint64, 1, 1, math.MaxUint64},
		{0, 1 << 32, 1 << 32, math.MaxUint64},
		{7, 1 << 40, 1<<32 - 1, math.MaxUint64},
	} {
		if got := (&Item{base: c.base, served: c.served, step: c.step}).sum(); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// Weights of one's own may be any number.
func TestDrawnByLargeWeights(t *testing.T) {
	c := Drawn(func(p param.Policy) uint64 { return uint64(p.Weight) << 32 })(newRand())
	for weight, name := range []string{"A", "B", "C"} {
		c.Put(&Item{Value: name, Size: 1}, param.Policy{Weight: uint32(weight)})
	}
	follows(t, map[string]float64{"B": .5, "C": .5}, func() string { return reply(c, 1) })
}
