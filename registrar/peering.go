package registrar

import (
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/enrp"
	enrppeer "rserpool/enrp/peer"
	"rserpool/registrar/handlespace"
)

// peering is what the owner loop does with registrars outside the ring: it has the
// machine of RFC 5353 react to them, and turns its actions into commands for the
// handlespace and messages, and changes of the handlespace into announcements.
type peering struct {
	o       *owner
	machine *enrppeer.Machine
	links   *peerLinks
	table   peerTable
	view    *clusterView
	// pending counts the commands under way that concern a home's elements.
	pending map[param.RegistrarID]int
	// recalled are own elements that a peer had removed, and that are asked
	// whether they are alive (AMB-77).
	recalled map[elementKey]recalled
	// speaker is whose message is being processed.
	speaker *conn
	// waiting are connections whose messages need not be held any more.
	waiting []*conn
	next    time.Time
}

// recalled is what an element was, and until when it may answer.
type recalled struct {
	element param.PoolElement
	until   time.Time
}

// maxRecalled bounds the elements that are asked at a time after a peer has removed
// them. Others come back when they register again.
const maxRecalled = 4096

func newPeering(o *owner, now time.Time) *peering {
	p := &peering{
		o: o, pending: make(map[param.RegistrarID]int), recalled: make(map[elementKey]recalled),
		view: &clusterView{self: o.home, known: map[param.RegistrarID]bool{}},
	}
	p.table = peerTable{o.r, p.pending}
	p.links = newPeerLinks(p)
	cfg := o.r.cfg.Peering
	p.machine = enrppeer.New(enrppeer.Config{
		Self: o.r.server, Mentors: len(cfg.Mentors), Wait: o.ring != nil, Table: p.table,
		InCluster: p.view.has, Alive: p.view.alive,
		Multicast:           len(cfg.Announce) > 0,
		LowerIDWinsTakeover: o.r.rsplib(),
		Timers:              cfg.Timers,
		Limits:              enrppeer.Limits{Peers: maxRegistrars, Page: o.r.limits().TablePage},
	}, now)
	if o.ring != nil {
		p.machine.Arbitrate(false, now) // until there is a view
	}
	return p
}

// received takes a message of another registrar, or of a tool that passes for one,
// and calls done when it was processed. In a ring what a message changes is applied a
// little later: until then what is not an update waits, because its answer, and what
// it says of checksums, is about the handlespace with these changes.
func (p *peering) received(c *conn, m enrp.Message, done func(), now time.Time) {
	_, update := m.(*enrp.HandleUpdate)
	if len(c.heldENRP) > 0 || c.unsettled > 0 && !update {
		c.heldENRP = append(c.heldENRP, heldMessage{m, done})
		return
	}
	p.process(c, m, now)
	done()
}

// heldMessage is one that waits. The reader of the connection bounds how many.
type heldMessage struct {
	m    enrp.Message
	done func()
}

func (p *peering) process(c *conn, m enrp.Message, now time.Time) {
	if c.gone {
		return
	}
	p.speaker = c
	p.machine.Received(p.links.of(c), m, now)
	p.act(now)
	p.speaker = nil
}

// settled notes that a change that c asked for was applied, or never will be.
func (p *peering) settled(c *conn) {
	if c.unsettled--; c.unsettled == 0 && len(c.heldENRP) > 0 {
		p.waiting = append(p.waiting, c)
	}
}

// release processes what has waited for changes that are applied now.
func (p *peering) release(now time.Time) {
	for len(p.waiting) > 0 {
		c := p.waiting[0]
		p.waiting = p.waiting[1:]
		held := c.heldENRP
		c.heldENRP = nil
		for _, h := range held {
			p.received(c, h.m, h.done, now)
		}
	}
}

// act does what the machine wants to have done.
func (p *peering) act(now time.Time) {
	for {
		actions := p.machine.Ready()
		if len(actions) == 0 {
			break
		}
		for _, a := range actions {
			p.do(a, now)
		}
	}
	p.links.flush()
	p.next = p.machine.Next()
}

func (p *peering) do(action enrppeer.Action, now time.Time) {
	switch a := action.(type) {
	case enrppeer.Send:
		p.links.send(a)
	case enrppeer.Multicast:
		p.o.r.presence.post(a.Message)
	case enrppeer.Dial:
		p.links.dial(a)
	case enrppeer.HangUp:
		p.links.hangUp(a.Link)
	case enrppeer.Import:
		p.store(a, now)
	case enrppeer.Forget:
		p.forget(a, now)
	case enrppeer.TakeOver:
		p.takeOver(a, now)
	case enrppeer.Serve:
		if a.Alone {
			p.o.r.cfg.Log.Warn("no configured registrar gave its handlespace: serving without")
		}
		p.o.mayOpen()
	case enrppeer.Changed:
		log := p.o.r.cfg.Log.WithFields(logrus.Fields{"peer": a.Peer.String(), "state": a.State.String(), "why": a.Why})
		p.o.r.notices.peers.log(log.Info, "peer", now)
		p.o.r.metrics.peerChanges.WithLabelValues(a.State.String()).Inc()
	}
}

// propose puts a command on its way that concerns the elements of a home.
func (p *peering) propose(cmd handlespace.Command, home param.RegistrarID, now time.Time) {
	if p.o.order.full() {
		p.o.r.metrics.drops.WithLabelValues("ring").Inc()
		return // the next audit finds out
	}
	p.pending[home]++
	c := p.speaker
	if c != nil {
		c.unsettled++
	}
	done := func() {
		if p.pending[home]--; p.pending[home] == 0 {
			delete(p.pending, home)
			p.o.mayOpen()
		}
		if c != nil {
			p.settled(c)
		}
	}
	p.o.propose(cmd, proposal{
		applied: func([]handlespace.Event, time.Time) { done() },
		refused: func(time.Time) { done() },
	}, now)
}

// store proposes an element as another registrar knows it, unless it is known so
// here.
func (p *peering) store(a enrppeer.Import, now time.Time) {
	e := a.Element.PoolElement
	if p.o.r.rsplib() {
		e.Life = rsplibLife(e.Life)
	}
	home := handlespace.HomeID{ID: e.Home}
	if r := p.o.space.Get(a.Element.Handle, e.ID); r != nil && r.Home() == home && !r.Suspect && p.pending[e.Home] == 0 {
		if known := r.Element(); sameElement(&known, &e) && sameTransport(known.ASAP, e.ASAP) {
			return
		}
	}
	p.propose(handlespace.Import{Handle: a.Element.Handle, Element: e, Now: now}, e.Home, now)
}

func (p *peering) forget(a enrppeer.Forget, now time.Time) {
	r := p.o.space.Get(a.Key.Handle, a.Key.ID)
	if r == nil || a.Home != 0 && r.Home().ID != a.Home {
		if r == nil && p.pending[a.From] == 0 {
			return // ENRP-3.3.2-06
		}
		p.propose(handlespace.Forget{Handle: a.Key.Handle, ID: a.Key.ID, Home: a.From, Raiser: a.From, Now: now}, a.From, now)
		return
	}
	p.propose(handlespace.Forget{
		Handle: a.Key.Handle, ID: a.Key.ID, Home: a.Home, Generation: r.Generation, Raiser: a.From, Now: now,
	}, r.Home().ID, now)
}

// takeOver has the elements of a registrar that is gone, or of this one if others
// took it for dead (AMB-47), get another home.
func (p *peering) takeOver(a enrppeer.TakeOver, now time.Time) {
	from := handlespace.HomeID{ID: a.Target}
	to := handlespace.HomeID{ID: a.Home}
	switch {
	case a.Target == p.o.r.id:
		from = p.o.home
	case a.Home == p.o.r.id && p.o.ring != nil:
		p.o.ring.foreignDied(from, now) // spreads them over the members
		return
	case a.Home == p.o.r.id:
		to = p.o.home
	}
	p.propose(handlespace.Takeover{From: from, To: []handlespace.HomeID{to}, Now: now}, a.Target, now)
}

// observe announces changes of the handlespace that are for this registrar to
// announce (RFC 5353, section 3.3).
func (p *peering) observe(event handlespace.Event, now time.Time) {
	switch e := event.(type) {
	case handlespace.Registered:
		delete(p.recalled, e.Record.Key())
		if !e.Imported && e.Record.Home() == p.o.home {
			p.announce(enrp.AddPE, e.Record)
		}
	case handlespace.Adopted:
		if e.Record.Home() == p.o.home {
			p.announce(enrp.AddPE, e.Record)
		}
	case handlespace.Rehomed:
		// Alone, TAKEOVER_SERVER says it all (ENRP-3.5.2-08).
		if p.o.ring != nil && e.Record.Home() == p.o.home {
			p.announce(enrp.AddPE, e.Record)
		}
	case handlespace.Removed:
		if e.Cause == handlespace.Withdrawn {
			if e.Record.Home() == p.o.home {
				p.recall(e.Record, now)
			}
			break
		}
		if e.Record.Home() == p.o.home || !p.view.lives(e.Record.Home()) && p.view.coordinates() {
			p.announce(enrp.DelPE, e.Record)
		}
	}
}

func (p *peering) announce(action enrp.UpdateAction, r *handlespace.Record) {
	if !p.machine.Alone() {
		p.machine.Update(action, p.table.element(r))
	}
}

// lives reports whether a registrar outside the ring may be home to elements: not
// when it was taken over, nor when it turned out to be a member. Before members met
// they may have taken each other for outsiders.
func (p *peering) lives(id param.RegistrarID) bool {
	return !p.machine.Won(id) && !p.view.has(id) && id != p.o.r.id
}

// rehomed tells peers that a takeover in the ring has begun: the target's elements
// are the coordinator's to them, until the other members announce theirs.
func (p *peering) rehomed(from handlespace.HomeID) {
	switch {
	case from.Incarnation == 0:
		p.machine.Gone(from.ID)
	case p.o.ring != nil && p.view.coordinates() && !p.view.alive(from.ID):
		p.machine.Rehomed(from.ID)
	}
}

// recall asks an element that a peer had removed whether it is alive (AMB-77). Its
// connection is still bound.
func (p *peering) recall(r *handlespace.Record, now time.Time) {
	c := p.o.reach(r.Key())
	if c == nil || c.gone || len(p.recalled) >= maxRecalled {
		return
	}
	p.recalled[r.Key()] = recalled{r.Element(), now.Add(p.o.r.timers().KeepAlive.Timeout)}
	p.o.probes.keepAlive(c, r.Key())
}

// acknowledged takes the acknowledgement of an element that is not registered, and
// reports whether it was recalled.
func (p *peering) acknowledged(c *conn, key elementKey, now time.Time) bool {
	r, ok := p.recalled[key]
	if !ok || c.client != p.o.r.client(r.element.ASAP.Addrs[0]) {
		return false
	}
	delete(p.recalled, key)
	p.o.propose(handlespace.Register{
		Handle: key.Handle, Element: r.element, Owner: c.client.String(),
		Raiser: p.o.r.id, Incarnation: p.o.r.incarnation, Now: now,
	}, proposal{applied: func(events []handlespace.Event, _ time.Time) {
		for _, event := range events {
			if e, ok := event.(handlespace.Registered); ok && !c.gone {
				a := p.o.attended(e.Record.Key())
				p.o.clients.add(a, c.client)
				p.o.bind(a, c)
			}
		}
	}}, now)
	return true
}

// regroup follows the ring's view.
func (p *peering) regroup(now time.Time) {
	if p.o.ring == nil || !p.view.follow(p.o.ring.members) {
		return
	}
	p.machine.Regroup(now)
	p.machine.Arbitrate(p.view.coordinates(), now)
	p.act(now)
}

// synced says that the ring's members know the same. When they know nothing, mentors
// are asked.
func (p *peering) synced(now time.Time) {
	p.regroup(now)
	if len(p.view.members) > 1 && p.o.space.Counts().Elements > 0 {
		p.machine.Serve(now)
	} else {
		p.machine.Begin(now)
	}
	p.act(now)
}

// tick does what is due.
func (p *peering) tick(now time.Time) {
	p.release(now)
	if !now.Before(p.next) {
		p.machine.Tick(now)
	}
	p.act(now)
	for key, r := range p.recalled {
		if now.After(r.until) {
			delete(p.recalled, key)
		}
	}
}

// known describes the peers.
func (r *Registrar) known() []enrppeer.Info {
	result := make(chan []enrppeer.Info, 1)
	if !r.post(func(time.Time) { result <- r.owner.peers.machine.Peers() }) {
		return nil
	}
	select {
	case peers := <-result:
		return peers
	case <-r.ctx.Done():
		return nil
	}
}

// left notes the end of a connection.
func (p *peering) left(c *conn, now time.Time) {
	if l, ok := p.links.forget(c); ok {
		p.machine.LinkDown(l, now)
		p.act(now)
	}
}

// mayOpen lets elements and users in, once the handlespace is here: from the ring
// and from mentors, where there are such.
func (o *owner) mayOpen() {
	if o.opening || o.ring != nil && !o.synced || !o.peers.machine.Serving() || len(o.peers.pending) > 0 {
		return
	}
	o.opening = true
	o.r.group.Go(o.r.open)
}

// unreported is where an acknowledgement of an element goes that is not registered.
func (o *owner) unreported(c *conn, m *asap.EndpointKeepAliveAck, now time.Time) {
	if !o.peers.acknowledged(c, elementKey{Handle: m.Handle, ID: m.ID}, now) {
		o.r.metrics.keepAlives.WithLabelValues("stray").Inc()
	}
}
