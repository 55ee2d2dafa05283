package poolelement

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrHandlersHang says that handlers have not returned although their sessions
// have ended.
// Test with errors.Is.
var ErrHandlersHang = errors.New("handlers hang")

// drain leaves the pools, stops listening and tells the sessions.
func (s *Server) drain(stopListening func() error) {
	if s.controlled() {
		// While there is still a registrar to ask.
		s.cards.renew(s.ctx, s)
	}
	s.departure = s.stopElements(s.elements)
	s.departure = errors.Join(s.departure, stopListening())
	sessions := make(chan []*Session, 1)
	s.post(func() {
		s.stopping = true
		all := make([]*Session, 0, len(s.sessions))
		for c := range s.sessions {
			all = append(all, c)
		}
		sessions <- all
	})
	select {
	case all := <-sessions:
		if s.cfg.HandOver && s.controlled() {
			s.handOver(all)
		}
	case <-s.done:
	}
	close(s.draining)
}

// stopElements deregisters all, at the same time.
func (s *Server) stopElements(elements []*Element) error {
	errs := make([]error, len(elements))
	var all sync.WaitGroup
	for i, e := range elements {
		all.Go(func() { errs[i] = e.Stop(context.Background()) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// handOver sends the sessions' cards, all at the same time: users that do not read take
// answerTime, however many they are.
func (s *Server) handOver(sessions []*Session) {
	var all sync.WaitGroup
	for _, c := range sessions {
		all.Go(func() {
			if c.greet() == nil {
				c.carded.Store(true)
			}
		})
	}
	all.Wait()
}

// expel ends the sessions that are left.
func (s *Server) expel() {
	s.stopping = true
	for c := range s.sessions {
		s.stats.expelled.Add(1)
		c.expelled.Store(true)
		c.mute.Store(true)
		c.in.fail(ErrDrained)
		c.cancel(ErrDrained)
		if c.conn == nil {
			s.workers.Go(func() { _ = c.close(true) }) // wakes the handler
			continue
		}
		s.workers.Go(func() {
			// The handler should stop before its user goes on elsewhere.
			select {
			case <-c.gone:
				return
			case <-time.After(answerTime):
			case <-s.done:
			}
			c.dismiss()
			_ = c.close(true) // once more by the handler's goroutine, which logs it
		})
	}
	if n := len(s.sessions); n > 0 {
		s.log.WithField("sessions", n).Warn("sessions are ended: they have not drained in time")
	}
}
