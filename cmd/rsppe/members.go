package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/cmd/internal/registrars"
	"rserpool/cmd/internal/systemd"
	"rserpool/poolelement"
	"rserpool/poolelement/sidecar"
)

// member is a service in its pool.
type member struct {
	service *service
	element *poolelement.Element
	car     sidecar.Config
	final   chan error // holds why the element will do nothing more by itself
	alone   alone
	close   func() error // when it has ended

	policy, life string // as loaded last; of whoever reloads

	up         chan struct{} // closed when the service was up for the first time
	seen       sync.Once
	registered bool // guarded by board.mu
}

type members []*member

// alone bounds the time without a registrar; the zero value sets no bound.
type alone struct {
	limit time.Duration
	timer *time.Timer // calls what is to be done then
}

func (a alone) begin() {
	if a.timer != nil {
		a.timer.Reset(a.limit)
	}
}

func (a alone) end() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// errFinal ends a service because its element will do nothing more by itself.
var errFinal = errors.New("the element is out of its pool for good")

// board tells the service manager how many services are in their pools.
type board struct {
	mu    sync.Mutex
	count int
	of    int
	log   logrus.FieldLogger
}

func (b *board) note(m *member, state poolelement.State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := state == poolelement.Registered; now != m.registered {
		m.registered = now
		if b.count--; now {
			b.count += 2
		}
		b.tell()
	}
}

func (b *board) tell() {
	systemd.Notify(b.log, systemd.Status("%d of %d services registered", b.count, b.of))
}

// open makes the members; close frees what they hold when they have ended.
func (c *settings) open(ctx context.Context, command bool, log logrus.FieldLogger) (list members, err error) {
	found, err := c.Parse()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, list.close())
			list = nil
		}
	}()
	b := &board{of: len(c.services()), log: log}
	for _, s := range c.services() {
		m := &member{service: s, policy: s.Policy, life: s.Life, final: make(chan error, 1), up: make(chan struct{})}
		if m.car, err = s.sidecar(); err != nil {
			return list, err
		}
		m.car.Log = log
		m.car.OnHealth = func(h sidecar.Health) {
			if h == sidecar.Up {
				m.seen.Do(func() { close(m.up) })
			}
		}
		if command {
			m.car.StartInterval = c.CheckStart
		}
		if err = c.openElement(ctx, m, found, b, log); err != nil {
			return list, err
		}
		list = append(list, m)
	}
	b.tell()
	return list, nil
}

// openElement makes the member's element.
func (c *settings) openElement(ctx context.Context, m *member, found registrars.Parsed, b *board, log logrus.FieldLogger) error {
	cfg, err := c.element(m.service, found)
	if err != nil {
		return err
	}
	cfg.Log = log
	cfg.OnEvent = func(e poolelement.Event) {
		b.note(m, e.State)
		m.follow(e)
	}
	if c.GiveUp {
		m.alone = alone{cfg.Hunt.NoRegistrar, time.AfterFunc(cfg.Hunt.NoRegistrar, func() { m.finish(hunt.ErrNoRegistrar) })}
		m.alone.end() // until it runs
	}
	if cfg.Announcers, m.close, err = found.Open(ctx, log); err != nil {
		return err
	}
	if m.element, err = poolelement.New(cfg); err != nil {
		return errors.Join(err, m.close())
	}
	return nil
}

// follow learns from its element's events what ends the member.
func (m *member) follow(e poolelement.Event) {
	switch e.Type {
	case poolelement.RegistrationFailed, poolelement.RegistrationLost:
		if e.Retry.IsZero() {
			m.finish(e.Err)
		}
	case poolelement.HomeFound, poolelement.HomeChanged:
		m.alone.end()
	case poolelement.HomeLost:
		m.alone.begin()
	}
}

// finish ends the member, if it has not ended already.
func (m *member) finish(err error) {
	select {
	case m.final <- fmt.Errorf("%w: %w", errFinal, err):
	default:
	}
}

func (list members) close() error {
	var errs []error
	for _, m := range list {
		errs = append(errs, m.close())
	}
	return errors.Join(errs...)
}

// run keeps the members in their pools until ctx ends or all are out for good. Each
// has left its pool when it returns; the error is the first member's that has one.
func (list members) run(ctx context.Context, command bool, log logrus.FieldLogger) error {
	errs := make([]error, len(list))
	var running sync.WaitGroup
	for i, m := range list {
		running.Go(func() {
			errs[i] = m.run(ctx, command)
			if len(list) > 1 && errs[i] != nil && ctx.Err() == nil {
				log.WithError(errs[i]).WithFields(logrus.Fields{"pool": m.service.Pool, "service": m.service.Service}).Error("service given up")
			}
		})
	}
	running.Wait()
	for i, err := range errs {
		if err != nil && len(list) > 1 {
			err = fmt.Errorf("%s in pool %q: %w", list[i].service.Service, list[i].service.Pool, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// run runs the member. With a command somebody else watches the service.
func (m *member) run(ctx context.Context, command bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.alone.begin()
	defer m.alone.end()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer cancel(nil)
	waiting.Go(func() {
		select {
		case err := <-m.final:
			cancel(err)
		case <-ctx.Done():
		}
	})
	var err error
	if command {
		err = m.element.Run(ctx)
	} else {
		err = sidecar.Run(ctx, m.car, m.element)
	}
	if cause := context.Cause(ctx); errors.Is(cause, errFinal) {
		return cause
	}
	return err
}

// awaitUp returns when each service was up for the first time, or ctx has ended.
func (list members) awaitUp(ctx context.Context) {
	for _, m := range list {
		select {
		case <-m.up:
		case <-ctx.Done():
			return
		}
	}
}

// drain waits until no client is connected to the services, at most for limit.
func (list members) drain(ctx context.Context, limit time.Duration, log logrus.FieldLogger) {
	if limit <= 0 || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var ports []uint16
	for _, m := range list {
		at, err := m.service.parseService()
		if err != nil || transports[at.network] != param.TypeTCPTransport || !here(at.Hosts[0]) {
			ports = nil
			break
		}
		ports = append(ports, at.Port)
	}
	log = log.WithField("at_most", limit.String())
	if ports == nil {
		log.Info("waiting for clients to end")
		<-ctx.Done()
		return
	}
	n, err := sidecar.Connections(ports...)
	if n > 0 {
		log.WithField("connections", n).Info("waiting for clients to end")
		n, err = sidecar.AwaitNone(ctx, func() (int, error) { return sidecar.Connections(ports...) })
	}
	switch {
	case err != nil:
		log.WithError(err).Info("connections can't be counted, waiting for clients to end")
		<-ctx.Done()
	case n > 0:
		log.WithField("connections", n).Warn("clients are still connected")
	}
}

// here reports whether a host is this machine, whose connections can be counted.
func here(host string) bool {
	if host == "" || host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if addr = addr.Unmap(); addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(a net.Addr) bool {
		ip, ok := a.(*net.IPNet)
		return ok && ip.IP.Equal(addr.AsSlice())
	})
}

// reload applies new settings to the members. What is neither policy nor life waits
// for the next start.
func (list members) reload(next settings, log *logrus.Logger) {
	found, err := next.Parse()
	if err != nil {
		log.WithError(err).Error("configuration not reloaded, the old one stays")
		return
	}
	for _, m := range list {
		s := next.find(m.service)
		if s == nil {
			continue
		}
		config, err := next.element(s, found)
		if err != nil {
			log.WithError(err).Error("service not reloaded, its old configuration stays")
			continue
		}
		if s.Policy != m.policy {
			m.policy = s.Policy
			m.element.Update(config.Policy)
		}
		if s.Life != m.life {
			m.life = s.Life
			if err := m.element.SetLife(config.Life); err != nil {
				log.WithError(err).Error("registration life not changed")
			}
		}
	}
}

// find returns the service that is the same but for its settings, or nil.
func (c *settings) find(like *service) *service {
	for _, s := range c.services() {
		if s.Pool == like.Pool && s.Service == like.Service && s.Advertise == like.Advertise {
			return s
		}
	}
	return nil
}
