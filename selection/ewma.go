package selection

import (
	"math"
	"math/rand/v2"
	"time"

	"rserpool/asap/param"
)

const (
	// ewmaDecay is the time in which a response time loses all but 1/e of its
	// weight: long enough to remember a slow element between two of its
	// requests, short enough to try it again soon.
	ewmaDecay = 10 * time.Second
	// ewmaFailed is what a request that failed counts as at least: an element that
	// fails fast must not look like one that answers fast.
	ewmaFailed = time.Second
	// ewmaKept is how many elements are remembered that may be gone from the
	// list: lists of some policies name others each time.
	ewmaKept = 4096
)

// peakEWMA is peak-sensitive exponentially weighted moving averages of response
// times: of two elements drawn at random that with the smaller product of average
// and requests under way. A slower response than the average counts at once, faster
// ones gradually. A request that failed is a slow response, and one for which nobody
// waited to its end took at least that long.
type peakEWMA struct {
	rand *rand.Rand
	list []param.PoolElement
	seen map[param.PEID]*experience
}

type experience struct {
	average float64 // seconds, as of at
	at      time.Time
	pending int
}

// PickPeakEWMA makes a Picker that goes by the response times that User.Sent,
// User.Answered and User.Unanswered tell, and avoids elements that are slow for this
// user, or fail. Those without a response are tried one request at a time. Without
// measurements it picks at random.
func PickPeakEWMA(r *rand.Rand) Picker {
	return &peakEWMA{rand: r, seen: map[param.PEID]*experience{}}
}

func (p *peakEWMA) Renew(list []param.PoolElement) {
	p.list = list
	if len(p.seen) <= ewmaKept {
		return
	}
	kept := make(map[param.PEID]*experience, len(list))
	for _, e := range list {
		if x := p.seen[e.ID]; x != nil {
			kept[e.ID] = x
		}
	}
	p.seen = kept
}

func (p *peakEWMA) Pick(usable []int, r Request) int {
	a, b := drawTwo(p.rand, len(usable))
	if p.cost(usable[b], r.Now) < p.cost(usable[a], r.Now) {
		a = b
	}
	return usable[a]
}

// cost is what a request to the element at a place of the list is expected to take.
func (p *peakEWMA) cost(place int, now time.Time) float64 {
	x := p.seen[p.list[place].ID]
	switch {
	case x == nil:
		return 0
	case x.average == 0 && x.pending > 0:
		return math.MaxFloat64 // unknown, and being tried
	}
	return x.decayed(now) * float64(x.pending+1)
}

// decayed is the average, less for each time that has passed since, so that an
// element that was slow once is tried again.
func (x *experience) decayed(now time.Time) float64 {
	return x.average * math.Exp(-max(0, now.Sub(x.at).Seconds())/ewmaDecay.Seconds())
}

// Sent implements Meter.
func (p *peakEWMA) Sent(id param.PEID, _ time.Time) { p.of(id).pending++ }

// Answered implements Meter.
func (p *peakEWMA) Answered(id param.PEID, took time.Duration, now time.Time) {
	x := p.of(id)
	x.pending = max(0, x.pending-1)
	took = max(took, time.Nanosecond) // 0 stands for none
	seconds, rest := took.Seconds(), 0.0
	if x.average > 0 {
		rest = math.Exp(-max(0, now.Sub(x.at).Seconds()) / ewmaDecay.Seconds())
	}
	x.average = max(seconds, x.average*rest+seconds*(1-rest))
	x.at = now
}

// Unanswered implements Meter.
func (p *peakEWMA) Unanswered(id param.PEID, took time.Duration, failed bool, now time.Time) {
	x := p.of(id)
	x.pending = max(0, x.pending-1)
	if failed {
		took = max(took, ewmaFailed)
	}
	if seconds := took.Seconds(); seconds > x.decayed(now) {
		x.average, x.at = seconds, now
	}
}

func (p *peakEWMA) of(id param.PEID) *experience {
	x := p.seen[id]
	if x == nil {
		x = &experience{}
		p.seen[id] = x
	}
	return x
}
