package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport"
)

const (
	// life of the registrations in seconds: longer than any measurement.
	life = 6 * 3600
	// window is how many registrations wait for their response.
	window = 32
	// ackPause limits how often all elements are acknowledged together, for
	// keep-alives that don't say which is meant.
	ackPause = 2 * time.Second
)

// elements are registered over one connection. A goroutine reads it until
// deregister, which waits for it.
type elements struct {
	conn      transport.Conn
	pool      param.PoolHandle
	count     int
	responses chan asap.Message
	closing   chan struct{} // closed when nobody takes responses any more
	failed    chan struct{} // closed when the reader has ended
	err       error         // why; read after failed
	running   sync.WaitGroup
	ackedAll  time.Time // of the reader
}

func register(ctx context.Context, networks *transport.Networks, at transport.Endpoint, s *settings) (*elements, error) {
	dialCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := networks.Dial(dialCtx, nil, at, transport.Options{DefaultPPID: transport.PPIDASAP})
	if err != nil {
		return nil, err
	}
	e := &elements{conn: conn, pool: s.pool, count: s.register, responses: make(chan asap.Message, window), closing: make(chan struct{}), failed: make(chan struct{})}
	e.running.Go(e.read)
	err = e.exchange(ctx, func(id param.PEID) asap.Message {
		return &asap.Registration{Handle: s.pool, Element: element(id, conn, s.rsplib)}
	}, checkRegistered)
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func checkRegistered(m asap.Message) error {
	if r, ok := m.(*asap.RegistrationResponse); !ok || r.Reject || r.Error != nil {
		return fmt.Errorf("a registration was answered by %s %+v", m.Type(), m)
	}
	return nil
}

// element describes an element whose address is that of the association.
func element(id param.PEID, conn transport.Conn, rsplib bool) param.PoolElement {
	own := conn.LocalAddrs()[0]
	e := param.PoolElement{
		ID:     id,
		Life:   life,
		User:   param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: []netip.Addr{own.Addr()}},
		Policy: param.Policy{Type: param.RoundRobin},
	}
	if rsplib {
		e.Life *= 1000
	}
	if conn.Network() == transport.SCTP {
		e.User.Type = param.TypeSCTPTransport
	}
	return e
}

// exchange sends a request for every element, some at a time, and checks the
// responses.
func (e *elements) exchange(ctx context.Context, request func(param.PEID) asap.Message, check func(asap.Message) error) error {
	sent, answered := 0, 0
	for answered < e.count {
		if sent < e.count && sent-answered < window {
			sent++
			b, err := request(param.PEID(sent)).Append(nil)
			if err != nil {
				return err
			}
			if err := e.conn.Send(ctx, transport.Message{Data: b}); err != nil {
				return err
			}
			continue
		}
		select {
		case m := <-e.responses:
			if err := check(m); err != nil {
				return err
			}
			answered++
		case <-e.failed:
			return e.err
		case <-time.After(patience):
			return fmt.Errorf("no response within %s", patience)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// read answers keep-alives and hands over everything else.
func (e *elements) read() {
	defer close(e.failed)
	buf := make([]byte, transport.MaxMessage)
	for {
		m, err := e.conn.Receive(context.Background(), buf)
		if err != nil {
			e.err = err
			return
		}
		message, _, err := asap.Decode(m.Data)
		if err != nil {
			e.err = fmt.Errorf("registrar's message % x: %w", m.Data, err)
			return
		}
		if k, ok := message.(*asap.EndpointKeepAlive); ok {
			if e.err = e.acknowledge(k.ID); e.err != nil {
				return
			}
			continue
		}
		select {
		case e.responses <- message:
		case <-e.closing:
			return
		}
	}
}

// acknowledge answers a keep-alive for one element, or for all of them when it
// names none.
func (e *elements) acknowledge(id param.PEID) error {
	first, last := id, id
	if id == 0 {
		if time.Since(e.ackedAll) < ackPause {
			return nil
		}
		e.ackedAll = time.Now()
		first, last = 1, param.PEID(e.count)
	}
	var acks []transport.Message
	for id := first; id <= last; id++ {
		b, err := (&asap.EndpointKeepAliveAck{Handle: e.pool, ID: id}).Append(nil)
		if err != nil {
			return err
		}
		acks = append(acks, transport.Message{Data: b})
	}
	return e.send(acks...)
}

func (e *elements) send(msgs ...transport.Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return e.conn.Send(ctx, msgs...)
}

func (e *elements) deregister() error {
	// Also after an interrupt: what is left behind would be probed.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := e.exchange(ctx, func(id param.PEID) asap.Message {
		return &asap.Deregistration{Handle: e.pool, ID: id}
	}, func(m asap.Message) error {
		if r, ok := m.(*asap.DeregistrationResponse); !ok || r.Error != nil {
			return fmt.Errorf("a deregistration was answered by %s %+v", m.Type(), m)
		}
		return nil
	})
	return errors.Join(err, e.close())
}

func (e *elements) close() error {
	err := e.conn.Close()
	close(e.closing)
	e.running.Wait()
	return err
}

// churn has elements register again and again, in an open loop: so many each second,
// whether or not answers come. Each has another lifetime than before.
type churn struct {
	elements *elements
	rate     int // per second
	rsplib   bool
	sent     int
}

const (
	// churnPause is the time between two bursts.
	churnPause = time.Millisecond
	// churnLag is how long answers may be late.
	churnLag = time.Second
)

// during runs the churn while do runs. What goes wrong ends the other, and it is an
// error if a registration is not answered within churnLag.
func (c *churn) during(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.run(over); err != nil {
			cancel(fmt.Errorf("re-registrations: %w", err))
		}
	})
	err := do(ctx)
	close(over)
	running.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (c *churn) run(over <-chan struct{}) error {
	e := c.elements
	pause := time.NewTicker(churnPause)
	defer pause.Stop()
	var burst []transport.Message
	var octets []byte
	begin, sent, answered := time.Now(), 0, 0
	for {
		select {
		case m := <-e.responses:
			if err := checkRegistered(m); err != nil {
				return err
			}
			if answered++; answered == sent && over == nil {
				return nil
			}
			continue
		case <-e.failed:
			return e.err
		case <-over:
			over = nil
			if answered == sent {
				return nil
			}
		case <-pause.C:
		}
		due := int(time.Since(begin).Seconds() * float64(c.rate))
		if late := due - int(churnLag.Seconds()*float64(c.rate)); answered < late {
			return fmt.Errorf("%d of %d are answered after %s", answered, sent, time.Since(begin).Round(time.Millisecond))
		}
		if over == nil {
			continue // the rest of the answers
		}
		burst, octets = burst[:0], octets[:0]
		for ; sent < due; sent++ {
			registration := asap.Registration{Handle: e.pool, Element: element(param.PEID(c.sent%e.count+1), e.conn, c.rsplib)}
			registration.Element.Life += param.Life(1 + c.sent/e.count%2)
			c.sent++
			start := len(octets)
			var err error
			if octets, err = registration.Append(octets); err != nil {
				return err
			}
			burst = append(burst, transport.Message{Data: octets[start:]})
		}
		if err := e.send(burst...); err != nil {
			return err
		}
	}
}
