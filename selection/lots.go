package selection

import (
	"math/bits"
	"math/rand/v2"
)

// lotsAhead is how many numbers are drawn at a time.
const lotsAhead = 16

// cached is of how many elements the processor's cache has everything.
const cached = 10_000

// lots are random numbers for the next elements of a large pool. What is going to be
// chosen is read beforehand, for all of them at a time: else the processor waits for the
// memory of one element after the other, of many in no order.
//
// A number means the same whatever comes and goes meanwhile: which part of all places, or
// of all weight, is drawn.
type lots struct {
	numbers [lotsAhead]uint64
	left    int
	touched uint64 // what is read ends here, so that it is read
}

// foresee draws numbers if there is none left, and reports whether it did: the caller
// reads what they are going to choose.
func foresee(ahead **lots, r *rand.Rand) bool {
	if *ahead == nil {
		*ahead = new(lots)
	}
	l := *ahead
	if l.left > 0 {
		return false
	}
	for i := range l.numbers {
		l.numbers[i] = r.Uint64()
	}
	l.left = len(l.numbers)
	return true
}

// next returns the next number as one below n.
func (l *lots) next(n uint64) uint64 {
	l.left--
	return below(l.numbers[l.left], n)
}

// below makes a number below n of any one.
func below(number, n uint64) uint64 {
	high, _ := bits.Mul64(number, n)
	return high
}
