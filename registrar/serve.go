package registrar

import (
	"net/netip"
	"slices"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
)

// Results of requests, as metric labels.
const (
	resultAccepted = "accepted"
	resultRejected = "rejected"
	resultUnknown  = "unknown"
	resultCounted  = "counted"
	resultLimited  = "limited"
)

// register serves a REGISTRATION (RFC 5352, section 3.1).
func (o *owner) register(c *conn, m *asap.Registration, from origin, now time.Time) {
	if o.leaving { // another registrar will answer
		c.done()
		return
	}
	element, warnings, refused := o.r.admission().admit(m.Handle, m.Element, from)
	key := elementKey{Handle: m.Handle, ID: element.ID}
	client := o.r.client(from.addr())
	if refused == nil {
		refused = o.r.policyRefusal(m.Handle, &element)
	}
	known := o.elements[key]
	if refused == nil && !o.clients.fits(known, client, o.r.limits().ElementsPerClient) {
		o.r.exceeded("elements_per_client")
		refused = lackOfResources
	}
	if refused == nil && o.order.full() {
		o.r.exceeded("ring_backlog")
		refused = lackOfResources
	}
	if refused != nil {
		o.rejectRegistration(c, m, refused)
		c.done()
		return
	}
	cmd := handlespace.Register{
		Handle: m.Handle, Element: element, Owner: c.owner,
		Raiser: o.r.id, Incarnation: o.r.incarnation, Now: now.Round(0),
	}
	if client != c.client { // the association has another first address now
		cmd.Owner = client.String()
	}
	if known != nil && known.conn != nil && known.conn != c && !known.conn.gone && !known.conn.peer.has(from.addr()) {
		if stored := o.space.Get(key.Handle, key.ID); stored != nil { // AMB-09
			cmd.Conflict = stored.Generation
		}
	}
	o.propose(cmd, proposal{
		applied: func(events []handlespace.Event, _ time.Time) {
			for _, event := range events {
				if e, ok := event.(handlespace.Registered); ok {
					a := o.attended(e.Record.Key()) // with the pool's own copy of its handle
					o.clients.add(a, client)
					if !c.gone {
						o.bind(a, c)
					}
				}
			}
		},
		answer: func(events []handlespace.Event, _ time.Time) {
			defer c.done()
			for _, event := range events {
				switch e := event.(type) {
				case handlespace.Rejected:
					o.rejectRegistration(c, m, e.Causes)
				case handlespace.Registered:
					o.r.metrics.accepted.Inc()
					c.send(&asap.RegistrationResponse{Handle: m.Handle, ID: m.Element.ID, Error: warnings})
				}
			}
		},
		refused: func(time.Time) {
			defer c.done()
			if !o.leaving {
				o.rejectRegistration(c, m, lackOfResources)
			}
		},
	}, now)
}

// lackOfResources is the error of what is refused for want of room; shared, never
// changed.
var lackOfResources = param.OperationError{param.NewCause(param.CauseLackOfResources)}

func (o *owner) rejectRegistration(c *conn, m *asap.Registration, causes param.OperationError) {
	if causes.Has(param.CauseLackOfResources) {
		o.r.exceeded("handlespace")
	}
	o.r.metrics.registrations.WithLabelValues(resultRejected).Inc()
	o.r.notices.rejected.log(c.log.WithField("causes", causes.String()).Info, "registration rejected", time.Now())
	c.send(&asap.RegistrationResponse{Reject: true, Handle: m.Handle, ID: m.Element.ID, Error: causes})
}

// deregister serves a DEREGISTRATION (section 3.2). What isn't there is granted
// too.
func (o *owner) deregister(c *conn, m *asap.Deregistration, from origin, now time.Time) {
	answer := &asap.DeregistrationResponse{Handle: m.Handle, ID: m.ID}
	reply := func(result string) {
		o.r.metrics.deregistrations.WithLabelValues(result).Inc()
		c.send(answer)
		c.done()
	}
	refuse := func(time.Time) {
		if o.leaving { // another registrar will answer
			c.done()
			return
		}
		answer.Error = lackOfResources
		reply(resultRejected)
	}
	if full := o.order.full(); full || o.leaving {
		if full {
			o.r.exceeded("ring_backlog")
		}
		refuse(now)
		return
	}
	cmd := handlespace.Deregister{
		Handle: m.Handle, ID: m.ID, From: []netip.Addr{from.addr()},
		Raiser: o.r.id, Incarnation: o.r.incarnation, Now: now.Round(0),
	}
	o.propose(cmd, proposal{
		answer: func(events []handlespace.Event, _ time.Time) {
			result := resultAccepted
			for _, event := range events {
				if e, ok := event.(handlespace.Rejected); ok {
					answer.Error = e.Causes
					result = resultRejected
				}
			}
			reply(result)
		},
		refused: refuse,
	}, now)
}

// keepAliveAcked takes an ENDPOINT_KEEP_ALIVE_ACK (section 3.4), if it comes from
// the element itself.
func (o *owner) keepAliveAcked(c *conn, m *asap.EndpointKeepAliveAck, from origin, now time.Time) {
	defer c.done()
	key := elementKey{Handle: m.Handle, ID: m.ID}
	record := o.space.Get(key.Handle, key.ID)
	if record == nil {
		o.unreported(c, m, now)
		return
	}
	a := o.elements[key]
	if (a == nil || a.conn != c) && !slices.Contains(record.ASAP().Addrs, from.addr()) {
		o.r.metrics.keepAlives.WithLabelValues("stray").Inc()
		return
	}
	if a == nil {
		return
	}
	generation, accepted, watched := o.keepAlive.acked(&a.watch, now)
	if !watched {
		return
	}
	o.r.metrics.keepAlives.WithLabelValues("acknowledged").Inc()
	if a.conn == nil || a.conn.gone {
		o.bind(a, c)
	}
	if accepted {
		o.confirm(key, generation, now)
	}
	if record.Suspect {
		o.suggest(handlespace.Alive{Handle: key.Handle, ID: key.ID, Generation: generation, Now: now}, now)
	}
}

// unreachable takes an ENDPOINT_UNREACHABLE (section 3.5) of anybody about any
// element: it is counted, once per reporter, and the element is probed.
func (o *owner) unreachable(c *conn, m *asap.EndpointUnreachable, now time.Time) {
	defer c.done()
	key := elementKey{Handle: m.Handle, ID: m.ID}
	record := o.space.Get(key.Handle, key.ID)
	if record == nil {
		o.r.metrics.reports.WithLabelValues(resultUnknown).Inc()
		return
	}
	o.r.metrics.reports.WithLabelValues(resultCounted).Inc()
	o.suggest(handlespace.Report{
		Handle: key.Handle, ID: key.ID, Generation: record.Generation,
		Reporter: c.client.String(), Now: now,
	}, now)
	o.keepAlive.probe(o.watched(key), now)
}

// resolve serves a HANDLE_RESOLUTION that concerns updates, or that has to wait
// for its turn.
func (o *owner) resolve(c *conn, q asap.HandleResolution, now time.Time) {
	updates := false
	pool, exists := o.space.Pool(q.Handle)
	if !exists && o.r.unsure.Load() {
		o.withhold(c, q, now)
		return
	}
	defer c.done()
	if q.SendUpdates && exists && !o.r.rsplib() {
		updates = o.subscribe(c, pool.Handle, q.Items)
	} else {
		o.unsubscribe(c, q.Handle)
	}
	answer, found := o.r.appendResolution(nil, &q, updates, new(handlespace.Bookmark), &o.r.loopScratch)
	tally := o.r.metrics.tally(q.Handle)
	tally.end(time.Time{}, found)
	tally.settle()
	if !found {
		o.unsubscribe(c, q.Handle)
	}
	c.sendEncoded(answer)
}

// subscribe lets c know of changes of a pool from now on; false when a limit is
// reached.
func (o *owner) subscribe(c *conn, handle param.PoolHandle, items uint32) bool {
	if c.gone {
		return false
	}
	if _, again := c.subscriptions[handle]; !again {
		if len(c.subscriptions) >= o.r.limits().SubscriptionsPerConnection {
			o.r.exceeded("subscriptions_per_connection")
			return false
		}
		if !o.subscriptions.add(handle, c) {
			o.r.exceeded("subscriptions")
			return false
		}
	}
	c.subscriptions[handle] = items
	c.subscribed.Store(true)
	return true
}

// scratch is what answering a resolution needs besides room for the answer.
type scratch struct{ elements [][]byte }

// unknownHandle is the error of a negative answer; shared, never changed.
var unknownHandle = param.OperationError{param.NewCause(param.CauseUnknownPoolHandle)}

// allItems is rsplib's wish for as many elements as possible.
const allItems = 0xffffffff

// appendResolution appends the answer to a handle resolution. It returns false
// when that is negative. Any goroutine may call it, with a bookmark and a scratch
// of its own; once warm it allocates nothing.
func (r *Registrar) appendResolution(dst []byte, q *asap.HandleResolution, updates bool, at *handlespace.Bookmark, s *scratch) ([]byte, bool) {
	query := handlespace.Query{Room: param.MaxLength - answerOverhead - len(q.Handle)}
	switch {
	case q.Items == allItems:
		query.Items = param.MaxLength // more than fit into a message
	case q.Items > 0:
		query.Items = int(min(q.Items, param.MaxLength))
	}
	if r.rsplib() {
		query.Items = min(query.Items, rsplibItems)
	}
	elements, policy, ok := r.space.ResolveEncoded(s.elements[:0], at, q.Handle, query)
	s.elements = elements
	if !ok {
		answer := asap.HandleResolutionResponse{Handle: q.Handle, Error: unknownHandle}
		out, err := answer.Append(dst)
		if err != nil {
			r.cfg.Log.WithError(err).Error("cannot encode a negative answer")
		}
		return out, false
	}
	if policy.Type == param.RoundRobin && !r.rsplib() {
		policy = nil // absent stands for Round Robin
	}
	var answer asap.Resolution
	answer.Begin(dst, updates, q.Handle, policy)
	for _, encoded := range elements {
		if !answer.Elements(encoded) {
			break
		}
	}
	clear(elements) // not to keep removed elements alive
	out, err := answer.Finish()
	if err != nil {
		r.cfg.Log.WithError(err).Error("cannot encode an answer")
	}
	return out, true
}

// rsplibItems is the number of elements beyond which rsplib's users refuse an
// answer.
const rsplibItems = 128

// answerOverhead is the most that a resolution response needs besides handle and
// elements: headers, padding, policy parameter.
const answerOverhead = 32

// sameElement reports whether pool users see no difference between two records
// of an element.
func sameElement(a, b *param.PoolElement) bool {
	return a.Home == b.Home && a.Life == b.Life && a.Policy == b.Policy &&
		sameTransport(a.User, b.User)
}

func sameTransport(a, b param.Transport) bool {
	return a.Type == b.Type && a.Port == b.Port && a.Use == b.Use && a.ServiceCode == b.ServiceCode &&
		slices.Equal(a.Addrs, b.Addrs) && string(a.Opaque) == string(b.Opaque)
}
