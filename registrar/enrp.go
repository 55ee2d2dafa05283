package registrar

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/enrp"
)

// reasonIdentity: a registrar that spoke as another than its certificate is for.
const reasonIdentity = "identity"

// handleENRP takes a message of another registrar, or of a tool that reads the
// handle table as registrars do. What is malformed is answered here, everything else
// by the owner loop.
func (c *conn) handleENRP(data []byte) {
	m, report, err := enrp.Decode(data)
	if err != nil {
		var bad *param.Error
		if errors.As(err, &bad) {
			c.r.metrics.decodeErrors.WithLabelValues(string(protoENRP), bad.Kind.String()).Inc()
			report = bad.Report
		}
		if s, ok := enrp.ReadServers(data); ok {
			c.reportENRP(s.Sender, report)
		}
		return
	}
	ids := m.IDs()
	if ids.Sender == 0 || ids.Sender == c.r.id || ids.Receiver != 0 && ids.Receiver != c.r.id { // AMB-48
		c.r.metrics.decodeErrors.WithLabelValues(string(protoENRP), "identifier").Inc()
		return
	}
	if err := transport.CheckIdentity(c.t, ids.Sender); err != nil {
		if c.r.cfg.Refusals != nil {
			c.r.cfg.Refusals.Refused(netip.AddrPortFrom(c.peer.addr(), 0), reasonIdentity, err)
		}
		c.end(reasonIdentity)
		return
	}
	c.r.metrics.messages.WithLabelValues(string(protoENRP), strings.ToLower(m.Type().String())).Inc()
	c.reportENRP(ids.Sender, report)
	c.flush()
	c.toPeering(m)
}

// toPeering passes a message to the owner loop. Unlike requests of elements it does not
// wait until answers have left: two registrars that have much to tell each other
// would wait for each other.
func (c *conn) toPeering(m enrp.Message) {
	if c.taking == nil {
		c.taking = make(chan struct{}, outstandingENRP)
	}
	slots := c.taking
	select {
	case slots <- struct{}{}:
	case <-c.ctx.Done():
		return
	}
	c.r.post(func(now time.Time) {
		c.r.owner.peers.received(c, m, func() { <-slots }, now)
	})
}

// reportENRP tells the sender of a message what was wrong with it, if anything.
func (c *conn) reportENRP(to param.RegistrarID, causes param.OperationError) {
	if len(causes) > 0 {
		c.collect(&enrp.Error{Servers: enrp.Servers{Sender: c.r.id, Receiver: to}, Causes: causes}, transport.PPIDENRP)
	}
}

// endpoint describes where this registrar speaks a protocol, SCTP if it does so
// there; absent if it doesn't.
func (r *Registrar) endpoint(of protocol) param.Transport {
	var t param.Transport
	for _, l := range r.listeners {
		if l.port != of || !t.IsZero() && l.Network() == transport.TCP {
			continue
		}
		if addrs, err := usable(l.Addrs(), interfaceAddrs); err == nil {
			t = endpointTransport(l.Network(), addrs)
		}
	}
	return t
}
