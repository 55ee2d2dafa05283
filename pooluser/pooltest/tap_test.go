package pooltest

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"rserpool/asap"
	"rserpool/asap/transport"
	"rserpool/pooluser"
)

// mistake is something wrong that is planted between the library and the network, to
// show that the properties find it.
type mistake int

const (
	none           mistake = iota
	staleCookie            // the second newest cookie is handed over
	noCookie               // none is
	resend                 // the last request of a connection goes out on the next one, too
	swallow                // the first request on a connection does not go out
	repeatedAnswer         // an answer is told twice
)

func (m mistake) String() string {
	return [...]string{"none", "stale cookie", "no cookie", "resend", "swallow", "repeated answer"}[m]
}

// tap writes down what passes between a user and the elements. It sees connections of
// both kinds as PPIDs with data.
type tap struct {
	h       *history
	open    func(cookie []byte) ([]byte, error)
	mistake mistake

	mu      sync.Mutex
	cookies [][]byte // that came, for mistakes
	last    []byte   // request that went out
}

// tapConn is one connection of a tap.
type tapConn struct {
	t        *tap
	number   int
	requests int
}

// toElement: something goes out, of which an octet has left, or all of it.
func (c *tapConn) toElement(ppid uint32, data []byte) {
	switch ppid {
	case transport.PPIDASAP:
		if msg, _, err := asap.Decode(data); err == nil {
			if echo, ok := msg.(*asap.CookieEcho); ok {
				if s, err := c.t.open(echo.Cookie); err == nil {
					c.t.h.echo(c.number, decodeState(s))
				}
			}
		}
	case 0:
		c.t.h.leaves(c.number, requestOf(data))
	}
}

// fromElement: something has come.
func (c *tapConn) fromElement(ppid uint32, data []byte) {
	switch ppid {
	case transport.PPIDASAP:
		if msg, _, err := asap.Decode(data); err == nil {
			if cookie, ok := msg.(*asap.Cookie); ok {
				if s, err := c.t.open(cookie.Cookie); err == nil {
					c.t.h.gotCookie(decodeState(s))
				}
			}
		}
	case 0:
		c.t.h.gotAnswer(requestOf(data))
	}
}

// requestOf reads the number at the begin of requests and answers.
func requestOf(data []byte) uint64 {
	n, _ := strconv.ParseUint(string(data[:bytes.IndexByte(append(data, ' '), ' ')]), 10, 64)
	return n
}

// install puts the tap between a user and its networks.
func (t *tap) install(cfg *pooluser.Config) {
	dial := cfg.DialStream
	cfg.DialStream = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &tapStream{Conn: c, c: &tapConn{t: t, number: t.h.connected()}}, nil
	}
	sctp, err := cfg.Networks.Get(transport.SCTP)
	if err != nil {
		panic(err)
	}
	cfg.Networks = transport.NewNetworks(tapNetwork{sctp, sctp.(transport.Resolver), t})
}

// tapStream is a connection by TCP with the session framing.
type tapStream struct {
	net.Conn
	c *tapConn

	mu      sync.Mutex
	in, out frames
}

func (s *tapStream) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.feed(p, n, s.c.toElement)
	return n, err
}

func (s *tapStream) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in.feed(p[:n], n, s.c.fromElement)
	return n, err
}

// SetLinger lets the library reset the connection.
func (s *tapStream) SetLinger(sec int) error {
	return s.Conn.(interface{ SetLinger(int) error }).SetLinger(sec)
}

// frames cuts octets into the frames of the session framing.
type frames struct {
	begun bool // the preamble is over
	rest  []byte
}

// feed takes octets of which the first n have passed, and calls f for each frame of
// which one octet has.
func (f *frames) feed(p []byte, n int, call func(ppid uint32, data []byte)) {
	passed := len(f.rest) + n
	f.rest = append(f.rest, p...)
	if !f.begun {
		if len(f.rest) < 8 {
			return
		}
		f.begun, f.rest = true, f.rest[8:]
		passed -= 8
	}
	for len(f.rest) >= 8 && passed > 0 {
		length := 8 + int(binary.BigEndian.Uint32(f.rest[4:]))
		if len(f.rest) < length {
			return
		}
		call(binary.BigEndian.Uint32(f.rest), f.rest[8:length])
		f.rest = f.rest[length:]
		passed -= length
	}
}

// tapNetwork is the network for SCTP.
type tapNetwork struct {
	transport.Network
	transport.Resolver
	t *tap
}

func (n tapNetwork) Dial(ctx context.Context, local, remote []netip.AddrPort, opt transport.Options) (transport.Conn, error) {
	c, err := n.Network.Dial(ctx, local, remote, opt)
	if err != nil || remote[0].Port() != servicePort {
		return c, err
	}
	return &tapMessages{Conn: c, c: &tapConn{t: n.t, number: n.t.h.connected()}}, nil
}

// tapMessages is a connection by SCTP, with the mistakes.
type tapMessages struct {
	transport.Conn
	c      *tapConn
	repeat *transport.Message // to be received once more
}

func (m *tapMessages) Send(ctx context.Context, msgs ...transport.Message) error {
	for _, msg := range msgs {
		var more []transport.Message
		msg, more = m.c.mistaken(msg)
		if msg.Data != nil {
			more = slices.Insert(more, 0, msg)
		}
		for _, msg := range more {
			if err := m.Conn.Send(ctx, msg); err != nil {
				return err // nothing of it has left
			}
			m.c.toElement(msg.PPID, msg.Data)
		}
	}
	return nil
}

// mistaken returns what goes out in place of a message, and what more.
func (c *tapConn) mistaken(msg transport.Message) (transport.Message, []transport.Message) {
	t := c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	if msg.PPID == transport.PPIDASAP {
		if t.mistake == noCookie {
			return transport.Message{}, nil
		}
		if k := len(t.cookies); k > 1 && t.mistake == staleCookie {
			msg.Data, _ = (&asap.CookieEcho{Cookie: t.cookies[k-2]}).Append(nil)
		}
		return msg, nil
	}
	if msg.PPID != 0 {
		return msg, nil
	}
	c.requests++
	former := t.last
	t.last = bytes.Clone(msg.Data)
	if c.requests == 1 && former != nil {
		switch t.mistake {
		case resend:
			return msg, []transport.Message{{Data: former}}
		case swallow:
			return transport.Message{}, nil
		}
	}
	return msg, nil
}

func (m *tapMessages) Receive(ctx context.Context, buf []byte) (transport.Message, error) {
	if r := m.repeat; r != nil {
		m.repeat = nil
		return transport.Message{PPID: r.PPID, Data: buf[:copy(buf, r.Data)]}, nil
	}
	msg, err := m.Conn.Receive(ctx, buf)
	if err != nil {
		return msg, err
	}
	m.c.fromElement(msg.PPID, msg.Data)
	t := m.c.t
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case msg.PPID == transport.PPIDASAP:
		if got, _, err := asap.Decode(msg.Data); err == nil {
			if cookie, ok := got.(*asap.Cookie); ok {
				t.cookies = append(t.cookies, bytes.Clone(cookie.Cookie))
			}
		}
	case msg.PPID == 0 && t.mistake == repeatedAnswer && requestOf(msg.Data)%10 == 0:
		m.repeat = &transport.Message{PPID: msg.PPID, Data: bytes.Clone(msg.Data)}
	}
	return msg, nil
}
