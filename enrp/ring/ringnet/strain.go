package ringnet

import (
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/enrp/ring"
)

// strainEvery is the least time between two warnings.
const strainEvery = 10 * time.Second

// strain warns when members come close to being left out.
type strain struct {
	last ring.Strain
	at   time.Time // of the last warning
}

// report warns of what is new since the last warning.
func (s *strain) report(g *Group, now ring.Strain, at time.Time) {
	if at.Sub(s.at) < strainEvery || now.LateHops == s.last.LateHops && now.Stalls == s.last.Stalls {
		return
	}
	limit := g.cfg.Timers.HopTimeout
	log := g.cfg.Log.WithField("limit", limit.String())
	if n := now.LateHops - s.last.LateHops; n > 0 {
		log.WithFields(logrus.Fields{"hops": n, "longest": now.LongestHop.String()}).
			Warn("ring: hops of the token took more than half of the time after which a member is left out")
	}
	if n := now.Stalls - s.last.Stalls; n > 0 {
		log.WithFields(logrus.Fields{"times": n, "longest": now.LongestStall.String()}).
			Warn("ring: this process was held up; its machine is overloaded, or the ring's time-outs are too short for it")
	}
	s.last, s.at = now, at
}
