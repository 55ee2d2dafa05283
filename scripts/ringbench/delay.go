package main

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"rserpool/asap/transport"
)

// delayed is a network over which each message takes longer.
type delayed struct {
	transport.Network
	delay time.Duration
}

func (n delayed) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	c, err := n.Network.Dial(ctx, local, remote, opt)
	if err != nil {
		return nil, err
	}
	return newLateConn(c, n.delay)
}

func (n delayed) Listen(ctx context.Context, local []netip.AddrPort, opt transport.Options) (transport.Listener, error) {
	l, err := n.Network.Listen(ctx, local, opt)
	return delayedListener{l, n.delay}, err
}

type delayedListener struct {
	transport.Listener
	delay time.Duration
}

func (l delayedListener) Accept(ctx context.Context) (transport.Conn, error) {
	c, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return newLateConn(c, l.delay)
}

// lateConn keeps what it sends for a while. Its goroutine ends with the connection.
type lateConn struct {
	transport.Conn
	delay  time.Duration
	queue  chan late
	ended  chan struct{}
	end    func()
	alarms *alarm
}

type late struct {
	due  time.Time
	msgs []transport.Message
}

func newLateConn(c transport.Conn, delay time.Duration) (transport.Conn, error) {
	a, err := newAlarm()
	if err != nil {
		return nil, err
	}
	l := &lateConn{Conn: c, delay: delay, queue: make(chan late, 1024), ended: make(chan struct{}), alarms: a}
	l.end = sync.OnceFunc(func() { close(l.ended) })
	go l.run()
	return l, nil
}

func (l *lateConn) run() {
	defer l.alarms.close()
	for {
		select {
		case s := <-l.queue:
			if wait := time.Until(s.due); wait > 0 && l.alarms.sleep(wait) != nil {
				return
			}
			if l.Conn.Send(context.Background(), s.msgs...) != nil {
				return // the reader learns of it
			}
		case <-l.ended:
			return
		}
	}
}

func (l *lateConn) Send(ctx context.Context, msgs ...transport.Message) error {
	s := late{due: time.Now().Add(l.delay), msgs: slices.Clone(msgs)}
	for i := range s.msgs {
		s.msgs[i].Data = slices.Clone(s.msgs[i].Data)
	}
	select {
	case l.queue <- s:
		return nil
	case <-l.ended:
		return net.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *lateConn) Close() error {
	l.end()
	return l.Conn.Close()
}

func (l *lateConn) Abort() error {
	l.end()
	return l.Conn.Abort()
}
