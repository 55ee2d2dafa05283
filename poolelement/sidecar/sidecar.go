// Package sidecar puts a server that knows nothing of pools into one: it
// registers the server's address for it, checks the server's health, takes it
// out of the pool while it is not well, and reports its load. No data of the
// server passes through.
package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/poolelement"
)

// Element is what a side-car needs of a pool element: *poolelement.Element.
type Element interface {
	SetServing(serving bool)
	SetLoad(load float64)
	Run(ctx context.Context) error
}

var _ Element = (*poolelement.Element)(nil)

// Config says how one service is looked after. A zero field means its default.
type Config struct {
	// Service names the service in the log, such as "tcp://127.0.0.1:8080".
	Service string
	// Check looks after the service. Default none: it counts as well.
	Check Check
	// Interval is the time from the start of a check to that of the next.
	// Default 2 s.
	Interval time.Duration
	// StartInterval, if not 0, is the time between checks until the first that
	// passes, and failures before it do not count: the service is still
	// starting. Default 0: there is no such time.
	StartInterval time.Duration
	// Timeout is how long a check may take; then it has failed. It must not
	// be longer than Interval. Default 1 s, or Interval if that is shorter.
	Timeout time.Duration
	// Rise and Fall are how many passes bring the service into the pool, and
	// how many failures take it out, each in a row. At the start one pass is
	// enough. Default 2 and 3.
	Rise, Fall int
	// Gauge, if set, reads the service's load while it is up.
	Gauge Gauge
	// GaugeInterval is the time between two readings, each of which may take
	// Timeout. Default 1 s. How much of them is reported to the registrar is
	// decided by poolelement.Config's LoadStep and LoadInterval.
	GaugeInterval time.Duration
	// OnHealth, if set, is called for each change of health. It must not
	// block.
	OnHealth func(Health)
	// Log gets each change of health with its reason, and the failure of the
	// gauge. Default: nothing is logged.
	Log logrus.FieldLogger
}

// WithDefaults returns a copy with defaults filled in.
func (c Config) WithDefaults() Config {
	c.Interval = cmp.Or(c.Interval, 2*time.Second)
	c.Timeout = cmp.Or(c.Timeout, min(time.Second, c.Interval))
	c.GaugeInterval = cmp.Or(c.GaugeInterval, time.Second)
	c.Rise = cmp.Or(c.Rise, 2)
	c.Fall = cmp.Or(c.Fall, 3)
	if c.Log == nil {
		log := logrus.New()
		log.SetLevel(logrus.PanicLevel)
		c.Log = log
	}
	return c
}

// Validate names everything that is wrong with the configuration.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var errs []error
	for _, f := range []struct {
		name string
		ok   bool
		v    any
	}{
		{"Interval", c.Interval > 0, c.Interval}, {"Timeout", c.Timeout > 0, c.Timeout},
		{"GaugeInterval", c.GaugeInterval > 0, c.GaugeInterval}, {"StartInterval", c.StartInterval >= 0, c.StartInterval},
		{"Rise", c.Rise > 0, c.Rise}, {"Fall", c.Fall > 0, c.Fall},
	} {
		if !f.ok {
			errs = append(errs, fmt.Errorf("%s is %v, must be positive", f.name, f.v))
		}
	}
	if c.Timeout > c.Interval {
		errs = append(errs, fmt.Errorf("Timeout is %v, must not be longer than Interval, which is %v", c.Timeout, c.Interval))
	}
	return errors.Join(errs...)
}

// Run keeps the element in its pool while the service is up, until ctx ends or
// the element does. The element must have been made withdrawn; Run registers and
// deregisters it and returns what its Run returns, after everything it started
// has ended.
func Run(ctx context.Context, cfg Config, element Element) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("side-car for %s: %w", cfg.Service, err)
	}
	watching, cancel := context.WithCancel(ctx)
	var watches sync.WaitGroup
	watches.Go(func() { newSidecar(cfg, element).watch(watching) })
	err := element.Run(ctx)
	cancel()
	watches.Wait()
	return err
}

// Watch keeps the element in its pool while the service is up, until ctx ends, and
// then takes it out: ctx is the life of a server that comes and goes, while the
// element, made withdrawn, is run by somebody else. It returns after everything it
// started has ended.
func Watch(ctx context.Context, cfg Config, element Element) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("side-car for %s: %w", cfg.Service, err)
	}
	newSidecar(cfg, element).watch(ctx)
	element.SetServing(false)
	return nil
}

type sidecar struct {
	cfg     Config
	element Element
	log     logrus.FieldLogger

	hysteresis hysteresis // of watchHealth
}

func newSidecar(cfg Config, element Element) *sidecar {
	cfg = cfg.WithDefaults()
	return &sidecar{
		cfg: cfg, element: element, log: cfg.Log.WithField("service", cfg.Service),
		hysteresis: hysteresis{rise: cfg.Rise, fall: cfg.Fall},
	}
}

// watch looks after health and load until ctx ends.
func (s *sidecar) watch(ctx context.Context) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	if s.cfg.Gauge != nil {
		tasks.Go(func() { s.watchLoad(ctx) })
	}
	s.watchHealth(ctx)
}

// set tells the element and whoever wants to know of the service's health.
func (s *sidecar) set(h Health) {
	s.element.SetServing(h == Up)
	if s.cfg.OnHealth != nil {
		s.cfg.OnHealth(h)
	}
}

func (s *sidecar) watchHealth(ctx context.Context) {
	if s.cfg.Check == nil {
		s.set(Up)
		<-ctx.Done()
		return
	}
	log := s.log.WithField("check", s.cfg.Check)
	if s.cfg.StartInterval > 0 {
		s.awaitStart(ctx, log)
	}
	every(ctx, s.cfg.Interval, func() {
		err := within(ctx, s.cfg.Timeout, s.cfg.Check.Check)
		if ctx.Err() != nil {
			return
		}
		was := s.hysteresis.health
		switch changed := s.hysteresis.observe(err == nil); {
		case changed && err == nil:
			log.WithField("was", was).Info("service is up")
			s.set(Up)
		case changed:
			log.WithField("was", was).WithError(err).Warn("service is down")
			s.set(Down)
		case err != nil:
			log.WithError(err).Debug("check failed")
		}
	})
}

// awaitStart waits until a check passes.
func (s *sidecar) awaitStart(ctx context.Context, log logrus.FieldLogger) {
	starting, passed := context.WithCancel(ctx)
	defer passed()
	every(starting, s.cfg.StartInterval, func() {
		err := within(ctx, s.cfg.Timeout, s.cfg.Check.Check)
		if err == nil {
			passed()
			return
		}
		log.WithError(err).Debug("not started yet")
	})
}

func (s *sidecar) watchLoad(ctx context.Context) {
	log := s.log.WithField("load", s.cfg.Gauge)
	failing := false
	every(ctx, s.cfg.GaugeInterval, func() {
		var load float64
		err := within(ctx, s.cfg.Timeout, func(ctx context.Context) (err error) {
			load, err = s.cfg.Gauge.Load(ctx)
			return err
		})
		switch {
		case ctx.Err() != nil:
		case err == nil:
			if failing {
				log.Info("load can be read again")
			}
			failing = false
			s.element.SetLoad(load)
		case !failing:
			failing = true
			log.WithError(err).Warn("load can't be read, the last one stays")
		}
	})
}

// within runs f with a time limit.
func within(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %v", limit))
	defer cancel()
	err := f(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return err
}

// every calls f at once and then at each interval, until ctx ends. Calls that a
// slow f missed are left out.
func every(ctx context.Context, interval time.Duration, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		f()
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}
