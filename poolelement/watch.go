package poolelement

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"rserpool/asap/param"
)

// Why keep-alives are not answered.
var (
	errHandlersHang = errors.New("no handler gets on")
	errHealthHangs  = errors.New("the health check does not return")
)

// maxHeld bounds the answers to keep-alives that wait for the loop.
const maxHeld = 64

// keepAlive takes the answer to a registrar's keep-alive from an element's
// goroutine. The loop gives it: one that hangs is found.
func (s *Server) keepAlive(answer func()) {
	select {
	case s.answers <- answer:
	default: // the loop has not come to a minute's worth of them: it hangs
	}
}

// answer answers a keep-alive, or keeps the answer for when the handlers go on.
func (s *Server) answer(answer func()) {
	s.judge()
	if s.hung == nil {
		answer()
		return
	}
	s.stats.keepAlivesHeld.Add(1)
	if len(s.held) < maxHeld {
		s.held = append(s.held, answer)
	}
}

// tickInterval is how often the loop looks after everything.
func (s *Server) tickInterval() time.Duration {
	interval := s.cfg.Element.LoadInterval
	if s.cfg.HandlerLimit > 0 {
		interval = min(interval, s.cfg.HandlerLimit/4)
	}
	return max(interval, time.Millisecond)
}

// watch finds handlers that hang.
func (s *Server) watch() {
	now, limit := s.now(), int64(s.cfg.HandlerLimit)
	for c := range s.sessions {
		if c.beat.overdue(now, limit) && c.beat.pause() {
			s.stats.overdue.Add(1)
			s.warn("overdue", &c.Control, nil, fmt.Sprintf("handler is busy for more than %v: its user's heartbeats are not answered", s.cfg.HandlerLimit))
			if !c.beat.overdue(s.now(), limit) {
				c.beat.resume() // it has gone on meanwhile
			}
		}
	}
	s.judge()
}

func (s *Server) now() int64 { return int64(time.Since(s.born)) + 1 }

// judge decides whether the service hangs.
func (s *Server) judge() {
	err := s.hangs()
	switch {
	case err != nil && s.hung == nil:
		s.log.WithError(err).Warn("service hangs: keep-alives are not answered")
	case err == nil && s.hung != nil:
		s.log.Info("service goes on: keep-alives are answered")
		for _, answer := range s.held {
			answer()
		}
		s.held = nil
	}
	s.hung = err
}

// hangs says why the service is taken to hang.
func (s *Server) hangs() error {
	if s.check.hangs(s.cfg.HealthTimeout) {
		return errHealthHangs
	}
	now, limit := s.now(), int64(s.cfg.HandlerLimit)
	overdue, worked := false, s.worked
	for c := range s.sessions {
		overdue = overdue || c.beat.overdue(now, limit)
		worked = max(worked, c.beat.worked.Load())
	}
	if overdue && (worked == 0 || now-worked > limit) {
		return errHandlersHang
	}
	return nil
}

// gauge reports the load, at the tick and when it comes to the full or leaves it.
func (s *Server) gauge(tick bool) {
	if !s.cfg.Element.Policy.Type.Has(param.FieldLoad) {
		return
	}
	full := len(s.sessions) >= s.cfg.MaxSessions
	if !tick && full == (s.load == 1) {
		return
	}
	load := float64(len(s.sessions)) / float64(s.cfg.MaxSessions)
	switch {
	case full:
		load = 1
	case s.cfg.Load != nil:
		load = s.cfg.Load()
	}
	if load == s.load {
		return
	}
	s.load = load
	for _, e := range s.elements {
		e.SetLoad(load)
	}
}

// healthCheck is what is known of the application's own check.
type healthCheck struct {
	began atomic.Int64 // when the call that runs began, in Unix ns; 0 = none runs
}

func (h *healthCheck) hangs(limit time.Duration) bool {
	began := h.began.Load()
	return began != 0 && time.Since(time.Unix(0, began)) > limit
}

// watchHealth calls Config.Health, one call at a time, and takes the elements out
// of their pools while it fails.
func (s *Server) watchHealth() {
	tick := time.NewTicker(s.cfg.HealthInterval)
	defer tick.Stop()
	healthy := false
	for {
		err := s.callHealth()
		if s.ctx.Err() != nil {
			return
		}
		if pass := err == nil; pass != healthy {
			healthy = pass
			s.post(func() { s.setHealthy(err) })
		}
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Server) callHealth() (err error) {
	s.check.began.Store(time.Now().UnixNano())
	defer s.check.began.Store(0)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("health check panics: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(s.ctx, s.cfg.HealthTimeout)
	defer cancel()
	return s.cfg.Health(ctx)
}

func (s *Server) setHealthy(err error) {
	if err != nil {
		s.log.WithError(err).Warn("not healthy: leaves its pools")
	} else {
		s.log.Info("healthy: joins its pools")
	}
	for _, e := range s.elements {
		e.SetServing(err == nil)
	}
}
