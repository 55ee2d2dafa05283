package registrar

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"rserpool/asap/param"
	"rserpool/registrar/admin"
)

// notices are the lines of the log that peers can cause as often as they like, by
// kind.
type notices struct {
	rejected, removed, rehomed, peers, suspected, recovered, slow, cut, refused, paths, accepts, dials notice
}

// Lines of one kind: so many at once, and then so many per second.
const (
	noticeBurst = 200
	noticeRate  = 5
)

// notice writes lines of one kind as far as they are not too many. What is left
// out is counted in the next line. It may be used concurrently.
type notice struct {
	burst, rate float64 // 0: noticeBurst, noticeRate

	mu      sync.Mutex
	spent   float64 // of the burst
	last    time.Time
	omitted int
}

// log writes a line by say, a method of a logger, unless there were too many.
func (n *notice) log(say func(...any), text string, now time.Time) {
	n.logBy(func() func(...any) { return say }, text, now)
}

// logBy is log for what happens often: the logger is made only for a line that is
// written.
func (n *notice) logBy(logger func() (say func(...any)), text string, now time.Time) {
	omitted, ok := n.allow(now)
	switch {
	case !ok:
	case omitted > 0:
		logger()(fmt.Sprintf("%s (%d more of these were not logged)", text, omitted))
	default:
		logger()(text)
	}
}

func (n *notice) allow(now time.Time) (omitted int, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.spent = max(0, n.spent-cmp.Or(n.rate, noticeRate)*now.Sub(n.last).Seconds())
	n.last = now
	if n.spent > cmp.Or(n.burst, noticeBurst)-1 {
		n.omitted++
		return 0, false
	}
	n.spent++
	omitted, n.omitted = n.omitted, 0
	return omitted, true
}

// loggedHandle is how many octets of a pool handle are logged.
const loggedHandle = 64

// handleText is a pool handle as it is logged.
func handleText(h param.PoolHandle) string {
	if len(h) > loggedHandle {
		return admin.EscapeHandle(h[:loggedHandle]) + "..."
	}
	return admin.EscapeHandle(h)
}
