package sim

import (
	"container/heap"
	"math"
)

// request is one request on its way.
type request struct {
	user, element int
	sent, size    float64
	key           string
	measured      bool
}

// server serves the requests of one element. All requests in service get on at the
// same pace, which changes when one comes or goes: it is enough to know how much
// work a request that was always in service would have got, and at what value of
// that each one is done.
type server struct {
	Element
	factor  float64 // of Capacity: Slow
	queue   []*request
	running jobs
	got     float64 // by each request in service, units
	at      float64 // time of got
	done    float64 // work of all requests, units
	turn    uint64  // counts what made an announced end of service void
}

// job is a request in service that is done when each has got so much.
type job struct {
	end float64
	seq uint64
	*request
}

type jobs []job

func (h jobs) Len() int { return len(h) }
func (h jobs) Less(i, k int) bool {
	return h[i].end < h[k].end || h[i].end == h[k].end && h[i].seq < h[k].seq
}
func (h jobs) Swap(i, k int) { h[i], h[k] = h[k], h[i] }
func (h *jobs) Push(x any)   { *h = append(*h, x.(job)) }
func (h *jobs) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// pace is what each request in service gets, in units per second.
func (s *server) pace() float64 {
	if s.Shared {
		return s.factor * s.Capacity / float64(max(1, len(s.running)))
	}
	return s.factor * s.Capacity / float64(s.Slots)
}

// advance brings the work up to a time.
func (s *server) advance(t float64) {
	work := (t - s.at) * s.pace()
	s.got += work
	s.done += work * float64(len(s.running))
	s.at = t
}

// arrive takes in a request.
func (s *server) arrive(t float64, r *request) {
	s.advance(t)
	s.queue = append(s.queue, r)
	s.fill()
}

// complete ends the service of the request that is done at t.
func (s *server) complete(t float64) *request {
	s.advance(t)
	j := heap.Pop(&s.running).(job)
	s.fill()
	return j.request
}

// fill puts waiting requests into free slots.
func (s *server) fill() {
	for len(s.queue) > 0 && len(s.running) < s.Slots {
		heap.Push(&s.running, job{s.got + s.queue[0].size, s.turn, s.queue[0]})
		s.queue = s.queue[1:]
		s.turn++
	}
	s.turn++
}

// next returns when the next request is done; never, without one.
func (s *server) next() float64 {
	if len(s.running) == 0 {
		return math.Inf(1)
	}
	return s.at + max(0, s.running[0].end-s.got)/s.pace()
}

// present is the number of requests in service and waiting.
func (s *server) present() int { return len(s.running) + len(s.queue) }
