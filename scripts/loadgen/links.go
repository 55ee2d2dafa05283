package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"

	"rserpool/asap"
	"rserpool/asap/transport"
)

// stream cuts what comes over bare TCP into messages.
type stream struct {
	net.Conn
	buf        []byte
	start, end int
}

// dialStream opens a connection. For whom it is measured beside others, what it
// costs must not depend on our own transport.
func dialStream(ctx context.Context, address string) (stream, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	return stream{Conn: c, buf: make([]byte, 2*transport.MaxMessage)}, err
}

// each waits for octets and hands over the messages that are whole, with their
// padding.
func (s *stream) each(take func([]byte) error) error {
	n, err := s.Read(s.buf[s.end:])
	if err != nil {
		return err
	}
	s.end += n
	for s.end-s.start >= 4 {
		size := paddedSize(s.buf[s.start:])
		if s.end-s.start < size {
			break
		}
		if err := take(s.buf[s.start : s.start+size]); err != nil {
			return err
		}
		s.start += size
	}
	s.end = copy(s.buf, s.buf[s.start:s.end])
	s.start = 0
	return nil
}

// paddedSize is the length of the message at the beginning of b.
func paddedSize(b []byte) int {
	return max(4, (int(binary.BigEndian.Uint16(b[2:]))+3)&^3)
}

// resolutions is a link over bare TCP, the same for registrars and for the echo. It
// looks at no more of an answer than type and length.
type resolutions struct {
	stream
	requests []byte
	size     int // of one
	answers  int // in one receive
}

func openResolutions(ctx context.Context, address string, request []byte, outstanding int) (link, error) {
	s, err := dialStream(ctx, address)
	if err != nil {
		return nil, err
	}
	return &resolutions{stream: s, requests: bytes.Repeat(request, outstanding), size: len(request)}, nil
}

func (r *resolutions) send(n int) error {
	if n == 0 {
		return nil
	}
	_, err := r.Write(r.requests[:n*r.size])
	return err
}

func (r *resolutions) receive() (int, error) {
	r.answers = 0
	err := r.each(r.take)
	return r.answers, err
}

func (r *resolutions) take(message []byte) error {
	r.answers++
	return checkAnswer(message)
}

// association is a link over SCTP.
type association struct {
	transport.Conn
	requests []transport.Message
	buf      []byte
}

func (a *association) send(n int) error {
	return a.Send(context.Background(), a.requests[:n]...)
}

func (a *association) receive() (int, error) {
	m, err := a.Receive(context.Background(), a.buf)
	if err != nil {
		return 0, err
	}
	if len(m.Data) < 4 {
		return 0, fmt.Errorf("answer of %d octets", len(m.Data))
	}
	return 1, checkAnswer(m.Data)
}

func checkAnswer(b []byte) error {
	if t := asap.MessageType(b[0]); t != asap.TypeHandleResolutionResponse {
		return fmt.Errorf("the answer is a %s", t)
	}
	return nil
}

// openLink connects to a server that is asked the same again and again.
func openLink(ctx context.Context, networks *transport.Networks, e transport.Endpoint, request []byte, outstanding int) (link, error) {
	if e.Network == transport.TCP {
		addrs, err := e.Resolve(ctx, networks.Resolver)
		if err != nil {
			return nil, err
		}
		return openResolutions(ctx, addrs[0].String(), request, outstanding)
	}
	c, err := networks.Dial(ctx, nil, e, transport.Options{DefaultPPID: transport.PPIDASAP})
	if err != nil {
		return nil, err
	}
	a := &association{Conn: c, buf: make([]byte, transport.MaxMessage)}
	for range outstanding {
		a.requests = append(a.requests, transport.Message{Data: request})
	}
	return a, nil
}
