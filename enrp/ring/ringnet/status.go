package ringnet

import (
	"time"

	"rserpool/enrp/ring"
)

// Status is a member's status with that of its driver.
type Status struct {
	ring.Status
	Cluster string
	Peers   []PeerStatus
	// Unidentified are the accepted connections that have not said who they
	// are yet. Refused counts connections and messages that were refused, by
	// reason.
	Unidentified int
	Refused      map[string]uint64
	// Waiting are requests for which the machine has no room, WaitingOctets
	// their size, beyond what Status.Queue counts.
	Waiting, WaitingOctets int
}

// PeerStatus is one member with its connection, or an address where nobody could
// be reached.
type PeerStatus struct {
	Member    ring.Member // zero: not known yet
	Addr      string
	Connected bool
	Dialled   bool // by this side
	Version   int  // of the protocol that is spoken
	Since     time.Time
	LastError string
	// Counts over all connections to this member.
	SentOctets, ReceivedOctets,
	SentMessages, ReceivedMessages uint64
	Dropped     uint64 // messages not sent because the queue was full, or there was no connection
	Connections uint64 // so far
	Skew        Skew   // of the member's clock
}

func (s *PeerStatus) add(c *conn) {
	s.SentOctets += c.counts.sentOctets.Load()
	s.SentMessages += c.counts.sentMessages.Load()
	s.ReceivedOctets += c.counts.receivedOctets.Load()
	s.ReceivedMessages += c.counts.receivedMessages.Load()
	s.Dropped += c.counts.dropped.Load()
	s.Connections++
}

// status is called by the owner.
func (g *Group) status() Status {
	l := &g.loop
	s := Status{Status: l.machine.Status(), Cluster: g.cfg.Cluster, Refused: g.refusals.snapshot()}
	s.Unidentified = g.unidentified.len()
	s.Waiting, s.WaitingOctets = g.proposals.waiting()
	for _, m := range l.net.sorted() {
		p := m.past
		p.Member, p.Addr = m.node.Member, m.node.Contact
		p.Dropped += m.dropped
		for i, c := range m.conns {
			p.add(c)
			if i == 0 {
				p.Connected, p.Dialled, p.Version, p.Since = true, c.dialled, int(c.version), c.since
				p.Addr, p.Skew = c.remote(), c.skew()
			}
		}
		if m.dial.err != nil && !p.Connected {
			p.LastError = m.dial.err.Error()
		}
		s.Peers = append(s.Peers, p)
	}
	for _, t := range l.net.missing() {
		p := PeerStatus{Addr: t.endpoint.String()}
		if t.dial.err != nil {
			p.LastError = t.dial.err.Error()
		}
		s.Peers = append(s.Peers, p)
	}
	return s
}
