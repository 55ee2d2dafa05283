// Package pingpong is the ping-pong service of rsplib, as an element and as a user: a
// user sends pings, an element answers each by a pong that says how many it has
// answered in this session. The number survives the element: it is the session's
// state, in its cookie.
//
// Messages and cookies are those of rsplib's rspserver and pingpongclient, octet for
// octet, so that each end works with either.
package pingpong

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// PPID is the payload protocol identifier of ping-pong messages.
const PPID uint32 = 33

// Pool is the pool handle that rsplib's programs use.
const Pool = "PingPongPool"

// MaxData is the longest data of a ping; a pong carries it back.
const MaxData = 65535 - pongHeader

// Message types and lengths, in octets.
const (
	typePing   = 1
	typePong   = 2
	pingHeader = 4 + 8
	pongHeader = 4 + 8 + 8
)

// ErrMalformed says that octets are no ping, pong or cookie. It comes wrapped.
var ErrMalformed = errors.New("malformed ping-pong message")

// Ping asks for a pong.
type Ping struct {
	Number uint64 // counts the user's pings
	Data   []byte // comes back with the pong
}

// Pong answers a Ping.
type Pong struct {
	Number uint64 // that of the ping
	Reply  uint64 // counts the pongs of the session
	Data   []byte // that of the ping
}

// Append appends the encoded ping to dst. Data must not be longer than MaxData.
func (p Ping) Append(dst []byte) []byte {
	dst = header(dst, typePing, pingHeader+len(p.Data))
	dst = binary.BigEndian.AppendUint64(dst, p.Number)
	return append(dst, p.Data...)
}

// Append appends the encoded pong to dst. Data must not be longer than MaxData.
func (p Pong) Append(dst []byte) []byte {
	dst = header(dst, typePong, pongHeader+len(p.Data))
	dst = binary.BigEndian.AppendUint64(dst, p.Number)
	dst = binary.BigEndian.AppendUint64(dst, p.Reply)
	return append(dst, p.Data...)
}

func header(dst []byte, kind byte, length int) []byte {
	return binary.BigEndian.AppendUint16(append(dst, kind, 0), uint16(length))
}

// ParsePing decodes a ping. Its Data lies in b. Errors wrap ErrMalformed.
func ParsePing(b []byte) (Ping, error) {
	if err := check(b, typePing, pingHeader); err != nil {
		return Ping{}, err
	}
	if len(b)-pingHeader > MaxData {
		return Ping{}, fmt.Errorf("%w: no pong can carry %d octets of data", ErrMalformed, len(b)-pingHeader)
	}
	return Ping{Number: binary.BigEndian.Uint64(b[4:]), Data: b[pingHeader:]}, nil
}

// ParsePong decodes a pong. Its Data lies in b. Errors wrap ErrMalformed.
func ParsePong(b []byte) (Pong, error) {
	if err := check(b, typePong, pongHeader); err != nil {
		return Pong{}, err
	}
	return Pong{
		Number: binary.BigEndian.Uint64(b[4:]),
		Reply:  binary.BigEndian.Uint64(b[12:]),
		Data:   b[pongHeader:],
	}, nil
}

// check tells whether b is one message of this type. Flags don't matter.
func check(b []byte, kind byte, least int) error {
	switch {
	case len(b) < least:
		return fmt.Errorf("%w: %d octets", ErrMalformed, len(b))
	case b[0] != kind:
		return fmt.Errorf("%w: type %d, not %d", ErrMalformed, b[0], kind)
	case int(binary.BigEndian.Uint16(b[2:])) != len(b):
		return fmt.Errorf("%w: length field %d in %d octets", ErrMalformed, binary.BigEndian.Uint16(b[2:]), len(b))
	}
	return nil
}

// magic begins every cookie.
const magic = "<PP-TD1>"

// State is what a session's cookie holds.
type State struct {
	// Next is the number of the next pong. The first is 1.
	Next uint64
}

// Cookie encodes the state.
func (s State) Cookie() []byte {
	return binary.BigEndian.AppendUint64([]byte(magic), s.Next)
}

// ParseCookie decodes a cookie. Errors wrap ErrMalformed.
func ParseCookie(b []byte) (State, error) {
	if len(b) != len(magic)+8 || string(b[:len(magic)]) != magic {
		return State{}, fmt.Errorf("%w: cookie %x", ErrMalformed, b)
	}
	return State{Next: binary.BigEndian.Uint64(b[len(magic):])}, nil
}
