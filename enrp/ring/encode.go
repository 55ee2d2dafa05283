package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The wire form of a message is
//
//	version (1 octet), type (1 octet), header, body, extension
//
// Numbers are uvarints but for identifiers and incarnations (4 and 8 octets, big
// endian); lists and texts have their length before them; durations count
// microseconds. The extension is a length and so many octets: what a later version
// adds goes there, and an earlier one passes over it. That is how neighbours among
// versions work together.

// Version is the version of the wire form. Decode takes the next one, too.
const Version = 1

// MaxMessage is the longest encoded message, octets.
const MaxMessage = 16 << 20

// maxMembers and maxRuns bound lists on the wire.
const (
	maxMembers = 256
	maxRuns    = 1 << 16
)

// ErrEncode says that a message has no wire form.
var ErrEncode = errors.New("ring: message can't be encoded")

const (
	typePing = iota + 1
	typePong
	typeHear
	typeCall
	typePromise
	typeRefuse
	typeToken
	typeTokenAck
	typeWant
	typeLeave
)

// Append appends the wire form of a message to dst.
func Append(dst []byte, msg Message) ([]byte, error) {
	start := len(dst)
	dst = slices.Grow(dst, roughSize(msg))
	e := encoder{b: append(dst, Version, 0)}
	e.header(msg.Head())
	kind := e.body(msg)
	if kind == 0 {
		return dst, fmt.Errorf("%w: %T", ErrEncode, msg)
	}
	e.b[start+1] = kind
	e.uint(0) // no extension
	if n := len(e.b) - start; n > MaxMessage {
		return dst, fmt.Errorf("%w: %d octets", ErrEncode, n)
	}
	return e.b, nil
}

// roughSize is about how long the wire form gets, so that it grows once.
func roughSize(msg Message) int {
	const small, run = 512, 64
	c := (*Copy)(nil)
	switch msg := msg.(type) {
	case *Token:
		c = &msg.Copy
	case *Promise:
		c = msg.Copy
	}
	size := small
	if c != nil {
		for i := range c.Runs {
			size += run + len(c.Runs[i].Data)
		}
	}
	return size
}

func (e *encoder) body(msg Message) byte {
	switch msg := msg.(type) {
	case *Ping:
		e.uint(msg.Nonce)
		e.nodes(msg.Candidates)
		return typePing
	case *Pong:
		e.uint(msg.Nonce)
		e.uint(msg.Answer)
		e.view(&msg.View)
		e.uint(msg.Hop)
		e.duration(msg.Age)
		e.byte(byte(msg.State))
		e.viewID(msg.Promised)
		e.uint(uint64(len(msg.Heard)))
		for _, member := range msg.Heard {
			e.member(member)
		}
		e.duration(msg.HoldOff)
		return typePong
	case *Hear:
		return typeHear
	case *Call:
		e.view(&msg.View)
		e.byte(byte(msg.Cause))
		e.viewID(msg.Installed)
		e.uint(msg.Hop)
		e.uint(msg.Proof)
		return typeCall
	case *Promise:
		e.viewID(msg.View)
		e.viewID(msg.Installed)
		e.viewID(msg.Synced)
		e.member(msg.With)
		e.uint(msg.Delivered)
		e.flag(msg.Copy != nil)
		if msg.Copy != nil {
			e.copy(msg.Copy)
		}
		return typePromise
	case *Refuse:
		e.viewID(msg.View)
		e.byte(byte(msg.Reason))
		e.viewID(msg.Promised)
		return typeRefuse
	case *Token:
		e.copy(&msg.Copy)
		return typeToken
	case *TokenAck:
		e.viewID(msg.View)
		e.uint(msg.Hop)
		return typeTokenAck
	case *Want:
		e.viewID(msg.View)
		e.uint(msg.Hop)
		return typeWant
	case *Leave:
		e.viewID(msg.View)
		return typeLeave
	}
	return 0
}

type encoder struct{ b []byte }

func (e *encoder) byte(v byte)   { e.b = append(e.b, v) }
func (e *encoder) uint(v uint64) { e.b = binary.AppendUvarint(e.b, v) }

func (e *encoder) flag(v bool) {
	if v {
		e.byte(1)
	} else {
		e.byte(0)
	}
}

func (e *encoder) bytes(v []byte) {
	e.uint(uint64(len(v)))
	e.b = append(e.b, v...)
}

func (e *encoder) duration(v time.Duration) { e.uint(uint64(max(v, 0) / time.Microsecond)) }

func (e *encoder) member(m Member) {
	e.b = binary.BigEndian.AppendUint32(e.b, uint32(m.ID))
	e.b = binary.BigEndian.AppendUint64(e.b, uint64(m.Incarnation))
}

func (e *encoder) viewID(v ViewID) {
	e.uint(v.Counter)
	e.member(v.Coordinator)
}

func (e *encoder) node(n *Node) {
	e.member(n.Member)
	e.uint(uint64(len(n.Contact)))
	e.b = append(e.b, n.Contact...)
}

func (e *encoder) nodes(list []Node) {
	e.uint(uint64(len(list)))
	for i := range list {
		e.node(&list[i])
	}
}

func (e *encoder) view(v *View) {
	e.viewID(v.ID)
	e.nodes(v.Members)
}

func (e *encoder) header(h *Header) {
	e.node(&h.From)
	e.member(h.To)
}

func (e *encoder) copy(c *Copy) {
	e.viewID(c.View)
	e.uint(c.Hop)
	e.uint(c.Seq)
	e.uint(c.Rush)
	e.uint(c.Yield)
	e.flag(c.Install != nil)
	if in := c.Install; in != nil {
		e.view(&in.View)
		e.byte(byte(in.Cause))
		e.flag(in.Exchange)
		e.uint(uint64(len(in.Origins)))
		for i := range in.Origins {
			o := &in.Origins[i]
			e.member(o.Member)
			e.viewID(o.Installed)
			e.viewID(o.Synced)
			e.member(o.With)
		}
	}
	e.uint(uint64(len(c.Runs)))
	for i := range c.Runs {
		e.run(c.View, &c.Runs[i])
	}
}

// Flags of a run.
const (
	runHead    = 1 << iota // has an origin of its own
	runOmitted             // has no data
)

func (e *encoder) run(view ViewID, r *Run) {
	var flags byte
	if r.Origin != view {
		flags |= runHead
	}
	if r.Omitted {
		flags |= runOmitted
	}
	e.byte(flags)
	e.byte(byte(r.Kind))
	e.uint(r.Seq)
	e.uint(r.Count)
	if flags&runHead != 0 {
		e.viewID(r.Origin)
		e.uint(r.OriginSeq)
	}
	e.member(r.From)
	e.uint(r.Proposal)
	if !r.Omitted {
		e.bytes(r.Data)
	}
}
