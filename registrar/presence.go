package registrar

import (
	"context"
	"errors"
	"net"
	"time"

	"rserpool/asap/transport"
	"rserpool/enrp"
)

// presenceGroups are the multicast groups for presence messages: one goroutine
// sends, one for each group listens. Without groups there are none.
type presenceGroups struct {
	r      *Registrar
	groups []transport.Announcer
	due    chan *enrp.Presence
}

func (r *Registrar) newPresenceGroups(ctx context.Context) (*presenceGroups, error) {
	g := &presenceGroups{r: r, due: make(chan *enrp.Presence, 1)}
	for _, open := range r.cfg.Peering.Announce {
		group, err := open(ctx)
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.groups = append(g.groups, group)
	}
	return g, nil
}

func (g *presenceGroups) start() {
	if len(g.groups) == 0 {
		return
	}
	g.r.group.Go(g.send)
	for _, group := range g.groups {
		g.r.group.Go(func() { g.listen(group) })
	}
}

// post has a presence sent; it is dropped while another one waits.
func (g *presenceGroups) post(m *enrp.Presence) {
	select {
	case g.due <- m:
	default:
	}
}

func (g *presenceGroups) close() error {
	var errs []error
	for _, group := range g.groups {
		errs = append(errs, group.Close())
	}
	return errors.Join(errs...)
}

func (g *presenceGroups) send() {
	for {
		select {
		case <-g.r.ctx.Done():
			return
		case m := <-g.due:
			data, err := m.Append(nil)
			if err != nil {
				g.r.cfg.Log.WithError(err).Error("cannot encode a presence")
				continue
			}
			for _, group := range g.groups {
				if err := group.Announce(g.r.ctx, data); err != nil && g.r.ctx.Err() == nil {
					g.r.cfg.Log.WithError(err).Debug("presence not sent")
				}
			}
		}
	}
}

func (g *presenceGroups) listen(group transport.Announcer) {
	buf := make([]byte, announceSize)
	for {
		n, source, err := group.ReceiveAnnouncement(g.r.ctx, buf)
		if err != nil {
			if g.r.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				g.r.cfg.Log.WithError(err).Warn("presence of other registrars is not heard any more")
			}
			return
		}
		// Nothing is ever answered to a multicast datagram (AMB-15).
		m, _, err := enrp.Decode(buf[:n])
		if err != nil {
			g.r.metrics.decodeErrors.WithLabelValues(string(protoENRP), "announcement").Inc()
			continue
		}
		if m, ok := m.(*enrp.Presence); ok {
			g.r.post(func(now time.Time) {
				g.r.owner.peers.machine.Heard(m, source.Addr(), now)
				g.r.owner.peers.act(now)
			})
		}
	}
}
