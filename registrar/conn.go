package registrar

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/registrar/handlespace"
)

// protocol tells ASAP and ENRP apart.
type protocol string

const (
	protoASAP protocol = "asap"
	protoENRP protocol = "enrp"
)

// Reasons why a connection ended, as metric labels.
const (
	reasonPeer     = "peer"     // the other side closed
	reasonError    = "error"    // network error
	reasonTooLong  = "too_long" // message over the limit
	reasonFraming  = "framing"  // framing lost
	reasonSlow     = "slow"     // did not take what was sent to it
	reasonIdle     = "idle"     // silent, or half a message
	reasonRole     = "role"     // a message that its sender may not send there
	reasonShutdown = "shutdown" // this registrar stops
	reasonUnneeded = "unneeded" // a connection to an element that is gone
	reasonLimit    = "too_many" // over a limit when it was accepted
)

// errEnded is the cause of a connection's context; reason is a metric label.
type errEnded struct{ reason string }

func (e errEnded) Error() string { return "connection ended: " + e.reason }

// conn is one association or connection with an element, a user, or a tool.
//
// One goroutine (read) receives: it answers handle resolutions and what is
// malformed by itself and passes everything else to the owner, often doing the
// owner's work itself. What the owner sends goes through the queue, which is emptied
// at the end of its turn (push), or by a second goroutine (write) that is there only
// while the network makes it wait. Both end with ctx.
type conn struct {
	r      *Registrar
	t      transport.Conn
	port   protocol   // what the endpoint is for
	peer   origin     // as it was when the connection came up
	client netip.Addr // under which the peer is counted
	owner  string     // the same, as owner of pools
	ctx    context.Context
	cancel context.CancelCauseFunc
	log    logrus.FieldLogger

	active     atomic.Bool   // received something since the loop looked last
	busy       atomic.Int32  // requests in the loop and answers in the queue
	less       chan struct{} // has a value after busy became less
	subscribed atomic.Bool
	queue      sendQueue
	try        transport.TrySender // nil: the network has none
	kept       int                 // messages that the network has not taken; of the one who empties the queue
	answering  sending             // by the reader
	writing    sending             // from the queue

	// Of the reader.
	decoder  *asap.Decoder
	answers  *answers // waiting to be sent; nil if there are none
	bookmark handlespace.Bookmark
	tallies  tallies
	taking   chan struct{} // bounds the ENRP messages in the loop; made with the first

	// Of the owner loop.
	elements      []*attended                 // reached over it, in no order
	subscriptions map[param.PoolHandle]uint32 // and how many elements were asked for
	silent        int                         // sweeps without a message
	unsettled     int                         // changes that ENRP messages asked for and that are not applied
	heldENRP      []heldMessage
	gone          bool
}

// sendQueueOctets bounds what waits for one peer, besides the number of
// messages.
const sendQueueOctets = 1 << 20

// enrpQueue is how many times as many messages may wait for a registrar as for an
// element or user: each change of an element is one.
const enrpQueue = 64

// batchOctets is how many octets of answers are collected before they are sent.
const batchOctets = 64 << 10

// answers are those of a reader that it sends together. They lie one behind the
// other in memory.
type answers struct {
	octets  []byte
	out     []transport.Message
	scratch scratch
	room    [batchOctets + transport.MaxMessage]byte
}

// spareAnswers are shared by all connections, as few have some at any one time.
var spareAnswers = sync.Pool{New: func() any { return new(answers) }}

func (r *Registrar) newConn(t transport.Conn, port protocol) *conn {
	c := &conn{
		r: r, t: t, port: port,
		peer:          origin{t.Network(), t.RemoteAddrs()},
		less:          make(chan struct{}, 1),
		subscriptions: make(map[param.PoolHandle]uint32),
	}
	c.try, _ = t.(transport.TrySender)
	c.client = r.client(c.peer.addr())
	c.owner = c.client.String()
	c.ctx, c.cancel = context.WithCancelCause(r.ctx)
	c.log = r.cfg.Log.WithFields(logrus.Fields{"peer": c.peer.addr(), "network": c.peer.network})
	c.active.Store(true)
	return c
}

// end ends the connection at once, for the given reason; the reader does the
// rest. Any goroutine may call it.
func (c *conn) end(reason string) {
	c.cancel(errEnded{reason})
	c.queue.close()
	// An error means that it is closed already.
	_ = c.t.Abort()
}

// send queues a message of the owner loop.
func (c *conn) send(m asap.Message) {
	data, err := m.Append(nil)
	if err != nil {
		c.log.WithError(err).Errorf("cannot encode %s", m.Type())
		return
	}
	c.sendEncoded(data)
}

func (c *conn) sendEncoded(data []byte) {
	c.enqueue(transport.Message{Data: data, PPID: transport.PPIDASAP})
}

func (c *conn) enqueue(m transport.Message) {
	c.busy.Add(1)
	limit := c.r.limits().SendQueue
	if m.PPID == transport.PPIDENRP {
		limit *= enrpQueue
	}
	start, ok := c.queue.put(m, limit, sendQueueOctets)
	switch {
	case !ok:
		c.r.metrics.drops.WithLabelValues("send").Inc()
		c.r.notices.cut.log(c.log.Warn, "peer does not read, connection cut: send queue full", time.Now())
		c.end(reasonSlow)
	case start:
		c.r.owner.unsent = append(c.r.owner.unsent, c)
	}
}

// push sends what waits in the queue, as far as that goes without waiting, else has
// it sent.
func (c *conn) push() {
	if c.try == nil {
		c.r.write(c)
		return
	}
	for {
		items := c.queue.take()
		if len(items) == 0 {
			return
		}
		done, err := c.try.TrySend(c.ctx, items...)
		if err != nil {
			c.sendFailed(err)
		} else if !done {
			c.kept = len(items)
			c.r.write(c)
			return
		}
		c.settled(len(items))
	}
}

// spareWriters is how many goroutines wait for something to write: a new one for
// each answer would have to grow its stack each time.
const spareWriters = 64

// spareGauge shows how many there are, so that who looks for goroutines that nobody
// ends can leave these out.
func spareGauge(spare *atomic.Int32) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rserpool_spare_writers", Help: "Goroutines that wait for something to write.",
	}, func() float64 { return float64(spare.Load()) })
}

// write has somebody empty a connection's queue.
func (r *Registrar) write(c *conn) {
	select {
	case r.writers <- c:
	default:
		r.group.Go(func() { r.writer(c) })
	}
}

func (r *Registrar) writer(c *conn) {
	for c != nil {
		c.write()
		c = nil
		if r.spare.Add(1) <= spareWriters {
			select {
			case c = <-r.writers:
			case <-r.ctx.Done():
			}
		}
		r.spare.Add(-1)
	}
}

// write empties the queue.
func (c *conn) write() {
	if c.kept > 0 {
		c.deliver(&c.writing, nil)
		c.settled(c.kept)
		c.kept = 0
	}
	for {
		items := c.queue.take()
		if len(items) == 0 {
			return
		}
		c.deliver(&c.writing, items)
		c.settled(len(items))
	}
}

// writeLooks is how often the owner loop looks at a send within the write
// time-out. A timer for each send would cost a system call or two per answer.
const writeLooks = 4

// sending is 0 while nothing is being sent, else 1 and how often the owner loop
// has seen this send.
type sending struct{ atomic.Int32 }

// stuck is called by the owner loop, writeLooks times within the write time-out:
// it reports whether the send has taken longer than that.
func (s *sending) stuck() bool {
	seen := s.Load()
	if seen > 0 && seen <= writeLooks {
		s.CompareAndSwap(seen, seen+1) // fails when the send has just ended
	}
	return seen > writeLooks
}

// deliver sends within the write time-out, or a quarter of it more. Errors need no handling here: the
// connection is dead then and the reader notices.
func (c *conn) deliver(s *sending, msgs []transport.Message) {
	s.Store(1)
	err := c.t.Send(c.ctx, msgs...)
	s.Store(0)
	if err != nil {
		c.sendFailed(err)
	}
}

func (c *conn) sendFailed(err error) {
	if c.ctx.Err() == nil {
		c.log.WithError(err).Debug("send failed")
		c.end(reasonError)
	}
}

// cutIfStuck ends the connection when its peer does not take what is sent to it.
func (c *conn) cutIfStuck() {
	if c.answering.stuck() || c.writing.stuck() {
		c.r.notices.cut.log(c.log.Warn, "peer does not read, connection cut: write time-out", time.Now())
		c.end(reasonSlow)
	}
}

// read is the connection's reader. It returns when the connection is at its end.
func (c *conn) read() {
	defer c.r.leave(c)
	limits := c.r.limits()
	size := limits.MessageSize
	if c.port == protoENRP {
		size = transport.MaxMessage // parts of handle tables are long
	}
	buf := make([]byte, size)
	c.decoder = asap.NewDecoder(param.Limits{Addresses: limits.Addresses}, 0)
	for {
		m, err := c.t.Receive(c.ctx, buf)
		if err != nil {
			c.received(err)
			return
		}
		if !c.active.Load() {
			c.active.Store(true)
		}
		c.handle(m)
		if !c.t.Buffered() {
			c.r.help()
			c.pathChanges()
			c.flush()
		} else if c.answers != nil && len(c.answers.octets) >= batchOctets {
			c.flush()
		}
	}
}

// pathChanges counts what happened to the paths of a multi-homed association
// since the last message.
func (c *conn) pathChanges() {
	for {
		select {
		case e := <-c.t.Events():
			state := "up"
			switch e.Type {
			case transport.PathUp:
			case transport.PathDown:
				state = "down"
			default:
				continue
			}
			c.r.metrics.pathChanges.WithLabelValues(state).Inc()
			c.r.notices.paths.log(c.log.WithFields(logrus.Fields{"address": e.Addr.Addr(), "state": state}).Info, "path to the peer changed", time.Now())
		default:
			return
		}
	}
}

// received ends the connection after an error of Receive.
func (c *conn) received(err error) {
	c.tallies.settle(c.r.metrics)
	var ended errEnded
	reason := reasonError
	switch {
	case errors.Is(err, transport.ErrTooLong):
		reason = reasonTooLong
		c.r.exceeded("message_size")
	case errors.Is(err, transport.ErrMalformed):
		reason = reasonFraming
		c.r.metrics.decodeErrors.WithLabelValues(string(c.port), "framing").Inc()
	case errors.As(context.Cause(c.ctx), &ended):
		reason = ended.reason
	case c.ctx.Err() != nil:
		reason = reasonShutdown
	case errors.Is(err, io.EOF):
		reason = reasonPeer
	case errors.Is(err, net.ErrClosed):
		reason = reasonShutdown
	}
	c.log.WithField("reason", reason).WithError(err).Debug("connection ended")
	c.r.metrics.closed.WithLabelValues(reason).Inc()
	c.cancel(errEnded{reason})
	c.queue.close()
	// It is dead already.
	_ = c.t.Close()
}

// handle takes one message. The PPID decides on SCTP, the port where there is
// none (AMB-83).
func (c *conn) handle(m transport.Message) {
	p := c.port
	switch m.PPID {
	case 0:
	case transport.PPIDASAP:
		p = protoASAP
	case transport.PPIDENRP:
		p = protoENRP
	default:
		c.r.metrics.decodeErrors.WithLabelValues(string(p), "ppid").Inc()
		return
	}
	if p == protoASAP {
		c.handleASAP(m.Data)
	} else {
		c.handleENRP(m.Data)
	}
}

func (c *conn) handleASAP(data []byte) {
	msg, report, err := c.decoder.Decode(data)
	if err != nil {
		c.refuseMalformed(msg, err)
		return
	}
	c.tallies.received(msg.Type())
	switch m := msg.(type) {
	case *asap.HandleResolution:
		c.resolve(m)
	case *asap.Registration:
		c.fromElement(func(from origin, now time.Time) { c.r.owner.register(c, m, from, now) })
	case *asap.Deregistration:
		c.fromElement(func(from origin, now time.Time) { c.r.owner.deregister(c, m, from, now) })
	case *asap.EndpointKeepAliveAck:
		c.fromElement(func(from origin, now time.Time) { c.r.owner.keepAliveAcked(c, m, from, now) })
	case *asap.EndpointUnreachable:
		c.report(m)
	case *asap.Error:
		c.log.WithField("causes", m.Causes.String()).Debug("peer reports an error")
	default:
		// What only registrars send, and what belongs between elements and
		// users: nothing to do with it.
		c.log.WithField("type", msg.Type()).Debug("message ignored")
	}
	if len(report) > 0 && !c.r.rsplib() {
		c.answer(&asap.Error{Causes: report})
	}
}

// refuseMalformed answers what could not be decoded: a request that is readable
// as far as needed by its negative response, others by an error message if the
// rules ask for one.
func (c *conn) refuseMalformed(msg asap.Message, err error) {
	var bad *param.Error
	if !errors.As(err, &bad) {
		bad = param.Invalid(nil, "%v", err)
	}
	c.r.metrics.decodeErrors.WithLabelValues(string(protoASAP), bad.Kind.String()).Inc()
	c.log.WithError(err).Debug("message dropped")
	switch m := msg.(type) {
	case *asap.Registration:
		c.r.metrics.registrations.WithLabelValues(resultRejected).Inc()
		c.answer(&asap.RegistrationResponse{Reject: true, Handle: m.Handle, ID: m.Element.ID, Error: bad.Report})
	case *asap.Deregistration:
		c.answer(&asap.DeregistrationResponse{Handle: m.Handle, ID: m.ID, Error: bad.Report})
	case *asap.HandleResolution:
		c.answer(&asap.HandleResolutionResponse{Handle: m.Handle, Error: bad.Report})
	default:
		if len(bad.Report) > 0 {
			c.answer(&asap.Error{Causes: bad.Report})
		}
	}
}

// fromElement passes a message to the owner loop that only elements send. To the
// letter of the RFCs they do so over SCTP only, and a connection that does it
// over TCP is closed (ASAP-2.1-01, AMB-02).
func (c *conn) fromElement(do func(origin, time.Time)) {
	if c.r.cfg.Strict && c.peer.network == transport.TCP {
		c.r.notices.refused.log(c.log.Warn, "registration over TCP refused: --rfc-strict", time.Now())
		c.end(reasonRole)
		return
	}
	// Associations may gain and lose addresses.
	from := origin{c.peer.network, c.t.RemoteAddrs()}
	if len(from.remote) == 0 {
		from = c.peer
	}
	c.toLoop(func(now time.Time) { do(from, now) })
}

// report passes a report to the owner loop unless its sender makes too many.
func (c *conn) report(m *asap.EndpointUnreachable) {
	if !c.r.reports.allow(c.client, time.Now()) {
		c.r.metrics.reports.WithLabelValues(resultLimited).Inc()
		c.r.exceeded("report_rate")
		return
	}
	c.toLoop(func(now time.Time) { c.r.owner.unreachable(c, m, now) })
}

// outstandingRequests bounds the requests of one connection that are in the loop
// or wait to be answered, so that one can't fill the inbox, nor its send queue (half
// of it is the bound if that is less) if it asks faster than it reads.
const outstandingRequests = 32

// outstandingENRP bounds the ENRP messages of one connection in the loop, which are
// longer.
const outstandingENRP = 8

// toLoop passes work to the owner; answers given before go out first. The owner calls
// c.done when the request has its answer. It waits while the connection has too many
// outstanding requests. The work is done when the reader has no more messages at hand.
func (c *conn) toLoop(do func(time.Time)) {
	c.flush()
	most := int32(max(1, min(outstandingRequests, c.r.limits().SendQueue/2)))
	for c.busy.Load() >= most {
		c.r.help()
		select {
		case <-c.less:
		case <-c.ctx.Done():
			return
		}
	}
	c.busy.Add(1)
	if !c.r.file(do) {
		c.settled(1)
	}
}

// done ends a request that toLoop passed.
func (c *conn) done() { c.settled(1) }

// settled counts n fewer requests and answers.
func (c *conn) settled(n int) {
	c.busy.Add(int32(-n))
	select {
	case c.less <- struct{}{}:
	default:
	}
}

// resolve answers a handle resolution directly, unless it concerns updates or an
// earlier request of this connection still waits for its answer.
func (c *conn) resolve(q *asap.HandleResolution) {
	if q.SendUpdates || c.subscribed.Load() || c.busy.Load() > 0 {
		c.resolveInLoop(*q)
		return
	}
	// Read before the handlespace is: what is told at the end of an exchange is
	// in it then.
	unsure := c.r.unsure.Load()
	tally := c.tallies.of(c.r.metrics, q.Handle)
	start := tally.begin()
	a := c.collecting()
	octets, found := c.r.appendResolution(a.octets, q, false, &c.bookmark, &a.scratch)
	if !found && unsure {
		c.resolveInLoop(*q)
		return
	}
	tally.end(start, found)
	a.add(octets, transport.PPIDASAP)
}

func (c *conn) resolveInLoop(q asap.HandleResolution) {
	c.toLoop(func(now time.Time) { c.r.owner.resolve(c, q, now) })
}

// answer queues an answer of the reader, behind what the loop still owes.
func (c *conn) answer(m asap.Message) {
	if c.busy.Load() > 0 {
		c.toLoop(func(time.Time) { c.send(m); c.done() })
		return
	}
	c.collect(m, transport.PPIDASAP)
}

// collecting returns the answers that wait to be sent, to be added to.
func (c *conn) collecting() *answers {
	if c.answers == nil {
		c.answers = spareAnswers.Get().(*answers)
		c.answers.octets = c.answers.room[:0]
	}
	return c.answers
}

// add takes what was appended to a.octets as one more answer.
func (a *answers) add(octets []byte, ppid uint32) {
	a.out = append(a.out, transport.Message{Data: octets[len(a.octets):], PPID: ppid})
	a.octets = octets
}

// collect puts a message behind the answers that wait to be sent.
func (c *conn) collect(m interface{ Append([]byte) ([]byte, error) }, ppid uint32) {
	a := c.collecting()
	octets, err := m.Append(a.octets)
	if err != nil {
		c.log.WithError(err).Errorf("cannot encode %T", m)
		return
	}
	a.add(octets, ppid)
}

// flush counts what was received and sends the collected answers at once.
func (c *conn) flush() {
	c.tallies.settle(c.r.metrics)
	a := c.answers
	if a == nil {
		return
	}
	c.answers = nil
	if len(a.out) > 0 {
		c.deliver(&c.answering, a.out)
	}
	a.out = a.out[:0]
	spareAnswers.Put(a)
}
