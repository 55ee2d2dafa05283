package ringnet

import (
	"fmt"
	"time"

	"rserpool/enrp/ring"
)

// Groups meet when a coordinator knows of a member of the other. So who is
// connected to somebody outside the view, and is not the coordinator, tells it of
// them (frameOutside: count, 1 octet, and each member and its contact), and it
// connects to them itself.

// maxOutside bounds the members in one frame.
const maxOutside = 16

func appendOutside(dst []byte, nodes []ring.Node) []byte {
	dst = append(dst, byte(len(nodes)))
	for _, n := range nodes {
		dst = appendContact(appendMember(dst, n.Member), n.Contact)
	}
	return dst
}

func parseOutside(b []byte) ([]ring.Node, error) {
	malformed := fmt.Errorf("%w: members outside the view", errFrame)
	if len(b) == 0 || b[0] > maxOutside {
		return nil, malformed
	}
	nodes := make([]ring.Node, b[0])
	b = b[1:]
	for i := range nodes {
		if len(b) < memberLen {
			return nil, malformed
		}
		nodes[i].Member = parseMember(b)
		var ok bool
		if nodes[i].Contact, b, ok = parseContactText(b[memberLen:]); !ok || nodes[i].ID == 0 {
			return nil, malformed
		}
	}
	return nodes, nil
}

// introduce tells the coordinator of connected members outside the view.
func (p *peers) introduce(connected []ring.Node) {
	view := p.g.loop.machine.View()
	coordinator := p.members[view.ID.Coordinator]
	if coordinator == nil || len(coordinator.conns) == 0 {
		return
	}
	var outside []ring.Node
	for _, n := range connected {
		if !view.Has(n.Member) && n.Contact != "" && len(outside) < maxOutside {
			outside = append(outside, n)
		}
	}
	if c := coordinator.conns[0]; len(outside) > 0 && c.idle() {
		c.putFrames(appendFrame(nil, frameOutside, appendOutside(nil, outside)), 0)
		c.flush(p.g.ctx)
	}
}

// heardOf is called by readers.
func (g *Group) heardOf(body []byte) error {
	nodes, err := parseOutside(body)
	if err != nil {
		return err
	}
	// Fails only when the group ends.
	_ = g.post(func(now time.Time) { g.loop.net.meet(nodes, now) })
	return nil
}

// meet connects to members that another one has found.
func (p *peers) meet(nodes []ring.Node, now time.Time) {
	for _, n := range nodes {
		if n.ID == p.g.self.ID {
			continue
		}
		if m := p.members[n.Member]; m != nil && len(m.conns) > 0 {
			continue
		}
		if m := p.peer(n, heard, now); m != nil {
			p.dialMember(m, now)
		}
	}
}
