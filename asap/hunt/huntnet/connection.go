package huntnet

import (
	"errors"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// batch is how many queued messages are written in one go.
const batch = 32

// connection is one established connection; the loop owns it. queue is closed
// by the loop to end the writer, which then closes conn and so ends the reader.
type connection struct {
	peer     Peer
	conn     transport.Conn
	queue    chan []byte
	incoming bool
	heard    time.Time // when the latest message came, or it was opened
}

// open starts the reader and the writer of a connection.
func (c *Client) open(link hunt.Link, conn transport.Conn, incoming bool, now time.Time) {
	p := &connection{
		peer:     Peer{Link: link, Network: conn.Network(), Local: conn.LocalAddrs(), Remote: conn.RemoteAddrs()},
		conn:     conn,
		queue:    make(chan []byte, c.cfg.SendQueue),
		incoming: incoming,
		heard:    now,
	}
	c.conns[link] = p
	c.workers.Go(func() { c.writeQueued(link, p) })
	c.workers.Go(func() { c.read(link, p) })
}

// close ends an attempt or a connection for the machine, which knows.
func (c *Client) close(link hunt.Link) {
	if cancel := c.attempts[link]; cancel != nil {
		delete(c.attempts, link)
		cancel()
	}
	p := c.conns[link]
	if p == nil {
		return
	}
	delete(c.conns, link)
	if p.incoming {
		c.incoming--
	}
	close(p.queue)
}

// dropSilent makes room for an incoming connection. It reports whether there is
// some.
func (c *Client) dropSilent(now time.Time) bool {
	home, _ := c.machine.Home()
	var silent *connection
	for link, p := range c.conns {
		if p.incoming && link != home.Link && (silent == nil || p.heard.Before(silent.heard)) {
			silent = p
		}
	}
	if silent == nil {
		return false
	}
	c.log.WithFields(logrus.Fields{"from": silent.peer.String(), "silent": now.Sub(silent.heard), "limit": c.cfg.MaxIncoming}).
		Warn("connection dropped for a new one: too many from registrars")
	c.lost(silent.peer.Link, now)
	return true
}

// lost ends a connection and tells the machine.
func (c *Client) lost(link hunt.Link, now time.Time) {
	if c.conns[link] != nil {
		c.close(link)
		c.machine.Down(link, now)
	}
}

// read passes on what arrives until the connection fails.
func (c *Client) read(link hunt.Link, p *connection) {
	buf := make([]byte, transport.MaxMessage)
	for {
		m, err := p.conn.Receive(c.ctx, buf)
		if err != nil {
			// Fails only when the client stops.
			_ = c.post(func(now time.Time) {
				if c.conns[link] == p {
					c.log.WithError(err).WithField("registrar", p.peer.String()).Debug("connection to registrar ended")
				}
				c.lost(link, now)
			})
			return
		}
		if m.PPID != 0 && m.PPID != transport.PPIDASAP {
			continue // AMB-83
		}
		msg, report, err := asap.Decode(m.Data)
		if bad := (*param.Error)(nil); errors.As(err, &bad) {
			report = bad.Report
		}
		if c.post(func(now time.Time) {
			c.complain(link, report, err, now)
			if err == nil {
				c.received(link, msg, now)
			}
		}) != nil {
			return
		}
	}
}

// complain tells a registrar what was wrong with its message, if it is to hear
// that; one that answers in order, as rsplib's, would take it amiss.
func (c *Client) complain(link hunt.Link, report param.OperationError, err error, now time.Time) {
	if err == nil && len(report) == 0 {
		return
	}
	log := c.log.WithField("registrar", c.peer(link).String())
	log.WithError(err).WithField("causes", len(report)).Debug("bad message from registrar")
	if len(report) == 0 || c.cfg.Hunt.Ordered {
		return
	}
	if err := c.write(link, &asap.Error{Causes: report}, now); err != nil {
		log.WithError(err).Debug("error report not sent")
	}
}

// writeQueued writes what is queued, then closes the connection.
func (c *Client) writeQueued(link hunt.Link, p *connection) {
	defer c.closeConn(p.conn)
	ok := true
	messages := make([]transport.Message, 0, batch)
	for data := range p.queue {
		messages = append(messages[:0], transport.Message{Data: data, PPID: transport.PPIDASAP})
	more:
		for len(messages) < batch {
			select {
			case next, open := <-p.queue:
				if !open {
					break more
				}
				messages = append(messages, transport.Message{Data: next, PPID: transport.PPIDASAP})
			default:
				break more
			}
		}
		if !ok {
			continue // the loop will close the queue
		}
		if err := p.conn.Send(c.ctx, messages...); err != nil {
			ok = false
			c.log.WithError(err).WithField("registrar", p.peer.String()).Debug("send to registrar failed")
			c.fail(link)
		}
	}
}

// fail reports a connection as lost without waiting for the loop, which may be
// waiting for the writer's queue to drain.
func (c *Client) fail(link hunt.Link) {
	c.workers.Go(func() {
		_ = c.post(func(now time.Time) { c.lost(link, now) })
	})
}

func (c *Client) closeConn(conn transport.Conn) {
	if err := conn.Close(); err != nil {
		c.log.WithError(err).Debug("close connection to registrar")
	}
}
