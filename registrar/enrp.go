package registrar

import (
	"errors"
	"strings"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/enrp"
	"rserpool/registrar/handlespace"
)

// This file lets tools and other registrars read the handle table by ENRP (RFC
// 5353, sections 3.2.2 and 3.2.3). Who asks does not become a peer, and updates
// are not taken. All of it happens in the connection's reader, from the
// handlespace's reading side.

// tables are the positions of the downloads of one association, one per kind
// (AMB-39).
type tables struct{ all, own *tablePosition }

// tablePosition is the last element sent, and when.
type tablePosition struct {
	after handlespace.Key
	at    time.Time
}

// tableSession is how long a position is kept for the next request:
// MAX-TIME-NO-RESPONSE.
const tableSession = 5 * time.Second

// tableChunk is how many elements are looked up at a time.
const tableChunk = 64

func (c *conn) handleENRP(data []byte) {
	m, report, err := enrp.Decode(data)
	if err != nil {
		var bad *param.Error
		if errors.As(err, &bad) {
			c.r.metrics.decodeErrors.WithLabelValues(string(protoENRP), bad.Kind.String()).Inc()
			report = bad.Report
		}
		if s, ok := enrp.ReadServers(data); ok && len(report) > 0 {
			c.collect(&enrp.Error{Servers: c.to(s.Sender), Causes: report}, transport.PPIDENRP)
		}
		return
	}
	ids := m.IDs()
	if ids.Sender == 0 || ids.Sender == c.r.id || ids.Receiver != 0 && ids.Receiver != c.r.id { // AMB-48
		c.r.metrics.decodeErrors.WithLabelValues(string(protoENRP), "identifier").Inc()
		return
	}
	c.r.metrics.messages.WithLabelValues(string(protoENRP), strings.ToLower(m.Type().String())).Inc()
	switch m := m.(type) {
	case *enrp.Presence:
		if m.ReplyRequired {
			c.collect(&enrp.Presence{
				Servers:  c.to(ids.Sender),
				Checksum: c.r.space.Home(c.r.id).Checksum(),
				Server:   c.r.server,
			}, transport.PPIDENRP)
		}
	case *enrp.ListRequest:
		c.collect(&enrp.ListResponse{Servers: c.to(ids.Sender)}, transport.PPIDENRP)
	case *enrp.HandleTableRequest:
		c.tablePage(m, time.Now())
	default:
		c.log.WithField("type", m.Type()).Debug("message of a registrar that is no peer ignored")
	}
	if len(report) > 0 {
		c.collect(&enrp.Error{Servers: c.to(ids.Sender), Causes: report}, transport.PPIDENRP)
	}
}

func (c *conn) to(peer param.RegistrarID) enrp.Servers {
	return enrp.Servers{Sender: c.r.id, Receiver: peer}
}

// tablePage answers with the next part of the handle table.
func (c *conn) tablePage(m *enrp.HandleTableRequest, now time.Time) {
	position := &c.tables.all
	if m.OwnOnly {
		position = &c.tables.own
	}
	var after handlespace.Key
	if p := *position; p != nil && now.Sub(p.at) <= tableSession {
		after = p.after
	}
	a := c.collecting()
	page := enrp.BeginTable(a.octets, c.to(m.Sender), c.r.limits().TablePage)
	more := false
	var encoded []byte
read:
	for {
		records := c.r.elementsAfter(after, m.OwnOnly)
		for _, record := range records {
			var err error
			element := record.Element
			if c.r.rsplib() {
				element.Life = rsplibMilliseconds(element.Life)
			}
			if element.ASAP.IsZero() {
				// Between registrars the parameter is mandatory (AMB-25). An
				// administrator's element has none: its registrar stands for it.
				element.ASAP = c.r.asap
			}
			if encoded, err = param.AppendPoolElement(encoded[:0], &element, true); err != nil {
				c.log.WithError(err).Error("cannot encode an element")
			} else if !page.Element(record.Handle, encoded) {
				more = true
				break read
			}
			after = record.Key()
		}
		if len(records) == 0 {
			break
		}
	}
	*position = nil
	if more {
		*position = &tablePosition{after, now}
	}
	octets, err := page.Finish(more)
	if err != nil {
		c.log.WithError(err).Error("cannot encode a part of the handle table")
		return
	}
	a.add(octets, transport.PPIDENRP)
}

// elementsAfter returns some elements behind a key, in the order of keys: those
// this registrar is home to, or all.
func (r *Registrar) elementsAfter(after handlespace.Key, own bool) []*handlespace.Record {
	if own {
		return r.space.Owned(nil, r.id, after, tableChunk)
	}
	records := r.space.Elements(nil, after.Handle, after.ID, tableChunk)
	for len(records) == 0 {
		pools := r.space.Pools(nil, after.Handle, 1)
		if len(pools) == 0 {
			return nil
		}
		after.Handle = pools[0].Handle
		records = r.space.Elements(nil, after.Handle, 0, tableChunk)
	}
	return records
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
