package huntnet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/transport"
)

// loop owns the machine until ctx ends.
func (c *Client) loop(ctx context.Context, calls chan<- func()) {
	defer close(calls)
	defer c.shutDown()
	timer := time.NewTimer(0)
	defer timer.Stop()
	c.machine.Start(time.Now())
	for {
		c.act(ctx)
		if at, ok := c.machine.Deadline(); ok {
			timer.Reset(time.Until(at))
		} else {
			timer.Stop()
		}
		var callee chan<- func()
		var call func()
		if len(c.callbacks) > 0 {
			callee, call = calls, c.callbacks[0]
		}
		select {
		case <-ctx.Done():
			return
		case op := <-c.ops:
			op(time.Now())
		case <-timer.C:
			c.machine.Tick(time.Now())
		case callee <- call:
			c.callbacks = c.callbacks[1:]
		}
	}
}

// shutDown lets the writers finish and wakes everybody who waits.
func (c *Client) shutDown() {
	for _, link := range slices.Sorted(maps.Keys(c.conns)) {
		c.close(link)
	}
	c.home.Store(nil)
	close(c.done)
}

// act does what the machine asks for, until it asks for nothing.
func (c *Client) act(ctx context.Context) {
	for {
		out := c.machine.Ready()
		if out.Empty() {
			break
		}
		for _, link := range out.Close {
			c.close(link)
		}
		if out.Lookup {
			c.lookUp(ctx)
		}
		for _, d := range out.Dials {
			c.dial(ctx, d)
		}
		for _, s := range out.Sends {
			if err := c.write(s.Link, s.Message, time.Now()); err != nil {
				c.log.WithError(err).Warn("message to registrar not sent")
			}
		}
		for _, r := range out.Results {
			if ch := c.waiting[r.Request]; ch != nil {
				delete(c.waiting, r.Request)
				if errors.Is(r.Err, hunt.ErrNoRegistrar) {
					r.Err = c.noRegistrar(r.Err)
				}
				ch <- r
			}
		}
		for _, e := range out.Events {
			c.tell(e)
		}
	}
	c.publishHome()
}

func (c *Client) publishHome() {
	h, ok := c.machine.Home()
	if !ok {
		c.home.Store(nil)
		return
	}
	old := c.home.Load()
	if old != nil && old.Link == h.Link && old.Registrar == h.ID {
		return
	}
	p := c.peer(h.Link)
	if p.Since = time.Now(); old != nil && old.Link == h.Link {
		p.Since = old.Since
	}
	c.home.Store(&p)
}

func (c *Client) peer(link hunt.Link) Peer {
	p := Peer{Link: link}
	if conn := c.conns[link]; conn != nil {
		p = conn.peer
	}
	if h, ok := c.machine.Home(); ok && h.Link == link {
		p.Registrar = h.ID
	}
	return p
}

// tell logs an event and passes it on.
func (c *Client) tell(e hunt.Event) {
	switch e.Kind {
	case hunt.Round:
		log := c.log.WithFields(logrus.Fields{"round": e.Round, "t5": e.T5})
		if e.Round != 2 { // the first in vain is worth a word
			log.Debug("hunt for a registrar")
			break
		}
		if err := c.Unreached(); err != nil {
			log = log.WithError(err)
		}
		log.Warn("no registrar found, still looking")
	case hunt.HomeFound:
		c.unreached.Store(nil)
		before := c.home.Load()
		c.publishHome()
		p := c.home.Load()
		if p == nil || p.Link != e.Link {
			return // lost again meanwhile
		}
		what := "home registrar found"
		if before != nil {
			what = "home registrar changed"
		}
		c.log.WithField("registrar", p.String()).Info(what)
		c.tellHome(HomeEvent{Found: true, Peer: *p})
	case hunt.HomeLost:
		log := c.log
		if p := c.home.Load(); p != nil {
			log = log.WithField("registrar", p.String())
		}
		log.Warn("home registrar lost")
		c.publishHome()
		c.tellHome(HomeEvent{Peer: Peer{Link: e.Link}})
	}
}

func (c *Client) tellHome(e HomeEvent) {
	if c.cfg.OnHome != nil {
		// These are few: two connections to one registrar are Redial apart.
		c.callbacks = append(c.callbacks, func() { c.cfg.OnHome(e) })
	}
}

// received takes a message from a connection's reader.
func (c *Client) received(link hunt.Link, msg asap.Message, now time.Time) {
	p := c.conns[link]
	if p == nil {
		return
	}
	p.heard = now
	if ka, ok := msg.(*asap.EndpointKeepAlive); ok {
		c.machine.Identify(link, ka.Registrar)
		p.peer.Registrar = ka.Registrar
	}
	if c.machine.Receive(link, msg, now) || c.cfg.Handler == nil {
		return
	}
	if len(c.callbacks) >= c.cfg.InboundQueue {
		if c.dropped.Add(1) == 1 {
			c.log.WithField("queue", c.cfg.InboundQueue).Warn("messages from registrars are dropped: the handler is too slow")
		}
		return
	}
	in := Inbound{Message: msg, From: c.peer(link), client: c}
	c.callbacks = append(c.callbacks, func() { c.cfg.Handler(in) })
}

// dial starts an attempt.
func (c *Client) dial(ctx context.Context, d hunt.Dial) {
	ctx, cancel := context.WithCancel(ctx)
	c.attempts[d.Link] = cancel
	c.workers.Go(func() {
		defer cancel()
		conn, err := c.connect(ctx, d.Endpoint)
		posted := c.post(func(now time.Time) {
			wanted := c.attempts[d.Link] != nil
			delete(c.attempts, d.Link)
			switch {
			case err == nil && !wanted:
				c.closeConn(conn)
				return
			case err != nil:
				err = fmt.Errorf("registrar %v not reached: %w", d.Endpoint, err)
				c.unreached.Store(&err)
				c.log.Debug(err)
				c.machine.Failed(d.Link, now)
				return
			}
			c.open(d.Link, conn, false, now)
			c.machine.Up(d.Link, now)
		})
		if posted != nil && err == nil {
			c.closeConn(conn)
		}
	})
}

func (c *Client) connect(ctx context.Context, e hunt.Endpoint) (transport.Conn, error) {
	network, err := c.cfg.Networks.Get(e.Network)
	if err != nil {
		return nil, err
	}
	return network.Dial(ctx, c.cfg.Local[e.Network], e.Addrs, c.cfg.Options)
}

// lookUp finds the addresses of the static registrars. A name that can't be
// found now keeps the addresses that it had, and holds nobody else up.
func (c *Client) lookUp(ctx context.Context) {
	var addresses []int
	for i, e := range c.cfg.Registrars {
		switch {
		case c.looking[i]:
		case slices.ContainsFunc(e.Hosts, isName):
			c.lookUpThese(ctx, i)
		default:
			addresses = append(addresses, i)
		}
	}
	c.lookUpThese(ctx, addresses...)
}

func isName(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil
}

// lookUpThese looks up registrars by their index in the configuration.
func (c *Client) lookUpThese(ctx context.Context, registrars ...int) {
	if len(registrars) == 0 {
		return
	}
	for _, i := range registrars {
		c.looking[i] = true
	}
	c.workers.Go(func() {
		found := map[int][]hunt.Endpoint{}
		for _, i := range registrars {
			endpoints, err := c.expand(ctx, c.cfg.Registrars[i])
			if err != nil && ctx.Err() == nil {
				c.log.WithError(err).WithField("registrar", c.cfg.Registrars[i].String()).Warn("registrar's address not found")
			}
			if len(endpoints) > 0 {
				found[i] = endpoints
			}
		}
		// Fails only when the client stops.
		_ = c.post(func(now time.Time) {
			for _, i := range registrars {
				delete(c.looking, i)
			}
			maps.Copy(c.resolved, found)
			var all []hunt.Endpoint
			for i := range c.cfg.Registrars {
				all = append(all, c.resolved[i]...)
			}
			c.machine.SetStatic(all, now)
		})
	})
}

// expand turns a configured registrar into the endpoints to try.
func (c *Client) expand(ctx context.Context, e transport.Endpoint) ([]hunt.Endpoint, error) {
	names := []string{e.Network}
	if e.Network == transport.Auto {
		names = c.cfg.Networks.Available()
	}
	var out []hunt.Endpoint
	var errs []error
	for _, name := range names {
		network, err := c.cfg.Networks.Get(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		addrs, err := c.cfg.Networks.Resolve(ctx, network, e)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(e.Hosts) > 1 {
			out = append(out, hunt.Endpoint{Network: name, Addrs: addrs})
			continue
		}
		for _, a := range addrs[:min(len(addrs), maxPerName)] {
			out = append(out, hunt.Endpoint{Network: name, Addrs: []netip.AddrPort{a}})
		}
	}
	return out, errors.Join(errs...)
}

// listen takes in announcements until ctx ends.
func (c *Client) listen(ctx context.Context, announcer transport.Announcer) {
	buf := make([]byte, transport.MaxMessage)
	for {
		n, source, err := announcer.ReceiveAnnouncement(ctx, buf)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.log.WithError(err).Warn("no announcements any more")
			return
		}
		msg, _, err := asap.Decode(buf[:n])
		announce, ok := msg.(*asap.ServerAnnounce)
		if err != nil || !ok {
			c.log.WithField("source", source).Debug("datagram is no announcement") // and gets no answer (AMB-15)
			continue
		}
		if c.post(func(now time.Time) { c.machine.Announce(announce, source, now) }) != nil {
			return
		}
	}
}

// write queues a message on a connection. A full queue ends the connection.
func (c *Client) write(link hunt.Link, msg asap.Message, now time.Time) error {
	p := c.conns[link]
	if p == nil {
		return nil // lost; the machine knows or will know
	}
	if c.cfg.Prepare != nil {
		msg = c.cfg.Prepare(msg, c.peer(link))
	}
	data, err := msg.Append(nil)
	if err != nil {
		return fmt.Errorf("encode %T: %w", msg, err)
	}
	select {
	case p.queue <- data:
		return nil
	default:
	}
	c.lost(link, now)
	return fmt.Errorf("connection to %v given up: %d messages queued", p.peer.Remote, cap(p.queue))
}
