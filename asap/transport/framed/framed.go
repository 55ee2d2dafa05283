// Package framed carries a session's messages over byte streams: TCP, TLS, or
// anything else that is a net.Conn. It gives these streams what SCTP has by
// itself, a payload protocol identifier on each message, so that the ASAP control
// channel runs beside the data, and heartbeats that find a peer whose process has
// stopped although its kernel goes on.
//
// It is this project's own, for a pool user and a pool element that both have it.
// docs/sessions.md gives the octets.
package framed

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"rserpool/asap/transport"
)

// PPIDHeartbeat marks what belongs to the channel itself; no application and no
// other protocol may use it.
const PPIDHeartbeat uint32 = 0xffffffff

const (
	magic       = "RSPS"
	version     = 1
	preambleLen = 8
	headerLen   = 8
	// maxMaxMessage bounds Options.MaxMessage.
	maxMaxMessage = 16 << 20
)

// Errors of framed connections. They come wrapped, as do those of package
// transport; test with errors.Is.
var (
	// ErrNoFraming: the peer does not speak the session framing, or another
	// version of it. The connection has been closed.
	ErrNoFraming = errors.New("peer does not speak the session framing")
	// ErrCut: the stream ended without the peer's word that it would. Its
	// process died, or something between cut the connection.
	ErrCut = errors.New("connection cut off")
	// ErrNotSent: no octet of the messages has left. A message whose Send
	// failed otherwise may have arrived.
	ErrNotSent = errors.New("nothing was sent")
	// ErrReserved: a message to send carries the heartbeats' identifier.
	ErrReserved = fmt.Errorf("PPID 0x%x belongs to the session framing", PPIDHeartbeat)
)

// Options adjust one end. The zero value means defaults.
type Options struct {
	// MaxMessage is the longest message to receive, in octets; a longer one
	// ends the connection before any memory is taken for it. Default 65536,
	// maximum 16 MiB.
	MaxMessage int
	// DefaultPPID is the PPID of messages that are sent with PPID 0.
	DefaultPPID uint32

	// Handshake bounds the exchange of preambles at a Listener. Default 5 s.
	Handshake time.Duration
	// MaxHandshakes bounds the connections of a Listener that have not been
	// accepted yet; more wait in the kernel's queue. Default 128.
	MaxHandshakes int
	// Refused, if set, hears of connections that a Listener closed because
	// their preamble did not come or was none, such as those of health checks
	// that connect and close. It is called by several goroutines.
	Refused func(from net.Addr, err error)
}

func (o Options) withDefaults() Options {
	if o.MaxMessage <= 0 {
		o.MaxMessage = transport.MaxMessage
	}
	o.MaxMessage = min(o.MaxMessage, maxMaxMessage)
	if o.Handshake <= 0 {
		o.Handshake = 5 * time.Second
	}
	if o.MaxHandshakes <= 0 {
		o.MaxHandshakes = 128
	}
	return o
}

// Client makes a connection of a stream to a pool element: it sends its preamble
// and waits for the element's, within ctx. It owns the stream from now on and
// closes it in case of an error, which wraps ErrNoFraming where the peer answered
// something else.
func Client(ctx context.Context, stream net.Conn, opt Options) (*Conn, error) {
	c := newConn(stream, opt)
	if err := c.secure(ctx); err != nil {
		return nil, c.refuse(err)
	}
	if err := c.sendPreamble(ctx); err != nil {
		return nil, c.refuse(err)
	}
	if err := c.receivePreamble(ctx); err != nil {
		return nil, c.refuse(err)
	}
	return c, nil
}

// Server is Client for the element's end: it waits for the preamble and answers.
func Server(ctx context.Context, stream net.Conn, opt Options) (*Conn, error) {
	c := newConn(stream, opt)
	if err := c.secure(ctx); err != nil {
		return nil, c.refuse(err)
	}
	if err := c.receivePreamble(ctx); err != nil {
		return nil, c.refuse(err)
	}
	if err := c.sendPreamble(ctx); err != nil {
		return nil, c.refuse(err)
	}
	return c, nil
}

func (c *Conn) refuse(err error) error {
	_ = c.Abort() // it was no connection of ours
	return fmt.Errorf("session with %v: %w", c.stream.RemoteAddr(), err)
}

// secure makes the handshake of TLS, which reads and writes whatever is called, so that
// the deadline of one direction would not end it.
func (c *Conn) secure(ctx context.Context) error {
	secured, ok := c.stream.(*tls.Conn)
	if !ok {
		return nil
	}
	return secured.HandshakeContext(ctx)
}

func (c *Conn) sendPreamble(ctx context.Context) error {
	if err := c.writes.Arm(ctx); err != nil {
		return err
	}
	preamble := [preambleLen]byte{4: version}
	copy(preamble[:], magic)
	_, err := c.stream.Write(preamble[:])
	return c.writes.Cause(ctx, err)
}

// receivePreamble refuses as soon as an octet is wrong, and reads none more.
func (c *Conn) receivePreamble(ctx context.Context) error {
	if err := c.reads.Arm(ctx); err != nil {
		return err
	}
	var b [preambleLen]byte
	for n := 0; n < len(b); {
		k, err := c.stream.Read(b[n:])
		n += k
		if seen := min(n, len(magic)); string(b[:seen]) != magic[:seen] {
			return fmt.Errorf("%w: it begins with %q", ErrNoFraming, b[:n])
		}
		switch {
		case n == len(b):
		case err == io.EOF && n == 0:
			return ErrCut
		case err == io.EOF:
			return fmt.Errorf("%w: closed after %d octets", ErrNoFraming, n)
		case err != nil:
			return c.reads.Cause(ctx, err)
		}
	}
	if b[4] != version {
		return fmt.Errorf("%w: version %d, here %d", ErrNoFraming, b[4], version)
	}
	c.hear()
	return nil
}

// frames cuts a stream into frames:
//
//	PPID(4) length(4) octets
type frames struct {
	limit      int // longest message
	buf        []byte
	start, end int // buf[start:end] has been read and not taken
}

// initialBuffer holds most messages of request and response. A longer one makes
// the buffer grow with what has really come.
const initialBuffer = 1024

// frame is one frame; data lies in the buffer.
type frame struct {
	ppid uint32
	data []byte
}

// next returns the first frame, and false while it is not all there.
func (f *frames) next() (frame, bool, error) {
	b := f.buf[f.start:f.end]
	if len(b) < headerLen {
		return frame{}, false, nil
	}
	ppid, n := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	switch {
	case ppid == PPIDHeartbeat && n != 0 && n != beatLen:
		return frame{}, false, fmt.Errorf("%w: heartbeat of %d octets", transport.ErrMalformed, n)
	case uint64(n) > uint64(f.limit):
		return frame{}, false, fmt.Errorf("%w: %d octets, limit %d", transport.ErrTooLong, n, f.limit)
	case len(b)-headerLen < int(n):
		return frame{}, false, nil
	}
	return frame{ppid: ppid, data: b[headerLen : headerLen+int(n)]}, true, nil
}

// take takes the first frame away; its data stays valid until fill.
func (f *frames) take(fr frame) {
	f.start += headerLen + len(fr.data)
	if f.start == f.end {
		f.start, f.end = 0, 0
		if len(f.buf) > initialBuffer && len(fr.data) <= initialBuffer/2 {
			f.buf = nil // it grew for a long message; now they are short again
		}
	}
}

// fill reads once from r. It is called when no whole frame is there.
func (f *frames) fill(r io.Reader) error {
	if f.buf == nil {
		f.buf = make([]byte, initialBuffer)
	}
	if f.start > 0 {
		f.start, f.end = 0, copy(f.buf, f.buf[f.start:f.end])
	}
	if f.end == len(f.buf) {
		f.buf = append(f.buf, make([]byte, min(len(f.buf), headerLen+f.limit-len(f.buf)))...)
	}
	n, err := r.Read(f.buf[f.end:])
	f.end += n
	if n > 0 {
		return nil // an error will come again
	}
	return err
}

// appendFrame adds a frame to dst.
func appendFrame(dst []byte, ppid uint32, data []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, ppid)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(data)))
	return append(dst, data...)
}
