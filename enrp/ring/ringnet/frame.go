package ringnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"rserpool/asap/transport"
	"rserpool/enrp/ring"
)

// ppid tells the ring's messages from ENRP's and ASAP's on SCTP.
const ppid uint32 = 0x52494e47 // "RING"

// Messages of a ring can be longer than those of a transport. They travel in
// frames, each a message for the transport: type, flags (0), length (16 bits,
// header included), body, and padding to four octets.
const (
	frameHello    = 0xf0 // who is there; the first frame in each direction
	frameReady    = 0xf1 // the dialler will use this connection
	frameRefusal  = 0xf2 // why it is closed, for people
	frameWhole    = 0xf3 // a message
	frameBegin    = 0xf4 // length of a message (32 bits), and its beginning
	frameContinue = 0xf5 // more of it
	frameOutside  = 0xf6 // members outside the view that the sender is connected to
	frameClock    = 0xf7 // what time is it, from version 2 on

	headerLen = 4
	beginLen  = headerLen + 4
	// frameLen is the length of all frames of a long message but the last.
	frameLen = 32 << 10
	// reserved is what stands before a message while it is written.
	reserved = headerLen
)

// errFrame: what came is no frame that is expected now.
var errFrame = errors.New("unexpected frame")

func putHeader(b []byte, kind byte, length int) {
	b[0], b[1] = kind, 0
	binary.BigEndian.PutUint16(b[2:], uint16(length))
}

// pad fills b up to a multiple of four octets after start.
func pad(b []byte, start int) []byte {
	for (len(b)-start)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// appendFrame appends a short frame.
func appendFrame(dst []byte, kind byte, body []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, body...)
	putHeader(dst[start:], kind, headerLen+len(body))
	return pad(dst, start)
}

// cut makes frames of the message that stands in b after start and the reserved
// octets, and returns b with them. Long messages are moved once.
func cut(b []byte, start int) []byte {
	length := len(b) - start - reserved
	if length <= frameLen-headerLen {
		putHeader(b[start:], frameWhole, headerLen+length)
		return pad(b, start)
	}
	const first, more = frameLen - beginLen, frameLen - headerLen
	frames := (length - first + more - 1) / more // but for the first
	end := len(b)
	b = append(b, make([]byte, beginLen-reserved+frames*headerLen)...)
	// From the last to the first, each piece makes room for the headers before.
	for i := frames; i > 0; i-- {
		from := start + reserved + first + (i-1)*more
		to := from + beginLen - reserved + i*headerLen
		n := copy(b[to:], b[from:end])
		putHeader(b[to-headerLen:], frameContinue, headerLen+n)
		end = from
	}
	copy(b[start+beginLen:], b[start+reserved:end])
	putHeader(b[start:], frameBegin, frameLen)
	binary.BigEndian.PutUint32(b[start+headerLen:], uint32(length))
	return pad(b, start)
}

// split appends the frames that lie in b, one after the other, to msgs.
func split(msgs []transport.Message, b []byte) []transport.Message {
	for len(b) > 0 {
		n := (int(binary.BigEndian.Uint16(b[2:])) + 3) &^ 3
		msgs = append(msgs, transport.Message{Data: b[:n], PPID: ppid})
		b = b[n:]
	}
	return msgs
}

// frameReader reads frames, and puts messages together.
type frameReader struct {
	conn transport.Conn
	buf  []byte // for one frame; its length is the limit
	max  int    // longest message
	// aside takes frames that come between messages, and returns false for those
	// that it does not expect; nil: none are.
	aside func(kind byte, body []byte) (bool, error)
	// memory is what long messages take from while stranger says so; nil: there is
	// no bound. held is how much of it this reader has.
	memory   *allowance
	stranger func() bool
	held     int64
}

// allowance is memory that many share.
type allowance struct{ left atomic.Int64 }

// strangersMemory is for the long messages of all members outside the view that are
// on their way, and strangersTime for each to arrive.
const (
	strangersMemory = 4 * ring.MaxMessage
	strangersTime   = 10 * time.Second
)

// hold takes memory for a long message.
func (r *frameReader) hold(n int) error {
	if r.memory.left.Add(-int64(n)) < 0 {
		r.memory.left.Add(int64(n))
		return &refusal{refusedMemory, "more and longer messages from outside the view than there is memory for"}
	}
	r.held += int64(n)
	return nil
}

// release gives the memory of a long message back.
func (r *frameReader) release() {
	if r.held > 0 {
		r.memory.left.Add(r.held)
		r.held = 0
	}
}

// parseFrame returns type and body of a frame.
func parseFrame(b []byte) (kind byte, body []byte, err error) {
	if len(b) < headerLen {
		return 0, nil, fmt.Errorf("%w of %d octets", errFrame, len(b))
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < headerLen || n > len(b) || len(b)-n > 3 {
		return 0, nil, fmt.Errorf("%w: length field %d on %d octets", errFrame, n, len(b))
	}
	return b[0], b[headerLen:n], nil
}

// frame returns the next frame, which is valid until the next call.
func (r *frameReader) frame(ctx context.Context) (kind byte, body []byte, err error) {
	m, err := r.conn.Receive(ctx, r.buf)
	if err != nil {
		return 0, nil, err
	}
	if m.PPID != 0 && m.PPID != ppid {
		return 0, nil, fmt.Errorf("%w with payload protocol identifier %d", errFrame, m.PPID)
	}
	return parseFrame(m.Data)
}

// message returns the next message, in memory of its own. What comes between the
// messages goes to aside, if there is one.
func (r *frameReader) message(ctx context.Context) ([]byte, error) {
	kind, body, err := r.frame(ctx)
	for taken := r.aside != nil; err == nil && taken && kind != frameWhole; {
		if taken, err = r.aside(kind, body); err == nil && taken {
			kind, body, err = r.frame(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	switch kind {
	case frameWhole:
		return append([]byte(nil), body...), nil
	case frameBegin:
		return r.assemble(ctx, body)
	case frameRefusal:
		return nil, &refusal{reason: refusedByPeer, text: printable(body)}
	}
	return nil, fmt.Errorf("%w of type 0x%02x", errFrame, kind)
}

// ahead is how much memory a message gets on the strength of its length field
// alone.
const ahead = 1 << 20

// assemble puts the frames of a long message together. They are received to
// where they belong, each with its header over the end of the one before.
func (r *frameReader) assemble(ctx context.Context, body []byte) ([]byte, error) {
	if len(body) != frameLen-headerLen {
		return nil, fmt.Errorf("%w: message begins with %d octets", errFrame, len(body))
	}
	length := int(binary.BigEndian.Uint32(body))
	body = body[4:]
	if length <= frameLen-headerLen {
		return nil, fmt.Errorf("%w: message of %d octets in pieces", errFrame, length)
	}
	if length > r.max {
		return nil, fmt.Errorf("message of %d octets, limit %d: %w", length, r.max, transport.ErrTooLong)
	}
	bounded := r.memory != nil && r.stranger()
	if bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, strangersTime, &refusal{refusedSlow, fmt.Sprintf("a message took more than %s", strangersTime)})
		defer cancel()
		if err := r.hold(min(length, ahead)); err != nil {
			return nil, err
		}
	}
	const slack = 3 // the padding of the last frame
	data := make([]byte, len(body), min(length, ahead)+slack)
	copy(data, body)
	for len(data) < length {
		n := len(data)
		want := min(length-n, frameLen-headerLen)
		if cap(data) < n+want+slack {
			if bounded {
				if err := r.hold(min(length, 2*cap(data)) - cap(data)); err != nil {
					return nil, err
				}
			}
			grown := make([]byte, n, min(length, 2*cap(data))+slack)
			copy(grown, data)
			data = grown
		}
		var saved [headerLen]byte
		at := n - headerLen
		copy(saved[:], data[at:n])
		m, err := r.conn.Receive(ctx, data[at:n+want+slack:n+want+slack])
		if err != nil {
			return nil, err
		}
		kind, body, err := parseFrame(m.Data)
		if err != nil {
			return nil, err
		}
		if kind != frameContinue || len(body) != want {
			return nil, fmt.Errorf("%w of type 0x%02x and %d octets in the middle of a message", errFrame, kind, len(body))
		}
		copy(data[at:], saved[:])
		data = data[:n+want]
	}
	return data, nil
}

// printable makes what a peer says fit for a log.
func printable(b []byte) string {
	const longest = 300
	text := []rune(string(b[:min(len(b), longest)]))
	for i, c := range text {
		if c < ' ' || c == 0x7f {
			text[i] = '?'
		}
	}
	return string(text)
}
