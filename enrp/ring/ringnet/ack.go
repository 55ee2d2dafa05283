package ringnet

import (
	"time"

	"rserpool/enrp/ring"
)

// lateAck is an acknowledgement of the token that waits: when there is work, the token
// has gone round and taken others' place long before anybody would miss it.
type lateAck struct {
	ring.Envelope
	ack *ring.TokenAck // nil: there is none
	at  time.Time      // when the first of those it stands for has to go
}

// withhold keeps an acknowledgement for a quarter of HopRetry, and lets go of the one
// before if that was for the same member; false: the message has to go now. Who sends a
// hop again is waiting.
func (g *Group) withhold(e *ring.Envelope) bool {
	ack, ok := e.Message.(*ring.TokenAck)
	if !ok {
		return false
	}
	late := &g.loop.late
	if late.ack != nil && (late.ack.View != ack.View || late.To.Member != e.To.Member || late.ack.Hop >= ack.Hop) {
		g.acknowledge()
		return false
	}
	if late.ack == nil {
		late.at = time.Now().Add(g.cfg.Timers.HopRetry / 4)
	}
	late.Envelope, late.ack = *e, ack
	return true
}

// acknowledge sends the acknowledgement that waits.
func (g *Group) acknowledge() {
	l := &g.loop
	if l.late.ack != nil {
		l.net.send(&l.late.Envelope)
		l.late = lateAck{}
	}
}
