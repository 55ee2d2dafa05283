package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// ErrMalformed says that octets are no message.
var ErrMalformed = errors.New("ring: malformed message")

// ErrVersion says that a message has a version that this one can't work with.
var ErrVersion = errors.New("ring: version not supported")

// Decode reads the wire form of one message. The message refers to data, which
// must not be changed any more.
func Decode(data []byte) (Message, error) {
	if len(data) > MaxMessage {
		return nil, fmt.Errorf("%w: %d octets", ErrMalformed, len(data))
	}
	d := decoder{b: data}
	if v := d.byte(); d.err == nil && (v == 0 || v > Version+1) {
		return nil, fmt.Errorf("%w: %d, this is %d", ErrVersion, v, Version)
	}
	kind := d.byte()
	var h Header
	d.header(&h)
	msg := d.body(kind, h)
	d.bytes(MaxMessage) // extension
	if d.err == nil && len(d.b) > 0 {
		d.fail("something behind the end")
	}
	if d.err != nil {
		return nil, d.err
	}
	return msg, nil
}

func (d *decoder) body(kind byte, h Header) Message {
	switch kind {
	case typePing:
		return &Ping{Header: h, Nonce: d.uint(), Candidates: d.nodes()}
	case typePong:
		msg := &Pong{Header: h, Nonce: d.uint(), Answer: d.uint(), View: d.view(), Hop: d.uint(),
			Age: d.duration(), State: State(d.byte()), Promised: d.viewID()}
		if n := d.count(memberSize); n > 0 {
			msg.Heard = make([]Member, n)
			for i := range msg.Heard {
				msg.Heard[i] = d.member()
			}
		}
		msg.HoldOff = d.duration()
		return msg
	case typeHear:
		return &Hear{Header: h}
	case typeCall:
		return &Call{Header: h, View: d.view(), Cause: Cause(d.byte()), Installed: d.viewID(), Hop: d.uint(), Proof: d.uint()}
	case typePromise:
		msg := &Promise{Header: h, View: d.viewID(), Installed: d.viewID(), Synced: d.viewID(), With: d.member(), Delivered: d.uint()}
		if d.flag() {
			msg.Copy = new(Copy)
			d.copy(msg.Copy)
		}
		return msg
	case typeRefuse:
		return &Refuse{Header: h, View: d.viewID(), Reason: Reason(d.byte()), Promised: d.viewID()}
	case typeToken:
		msg := &Token{Header: h}
		d.copy(&msg.Copy)
		return msg
	case typeTokenAck:
		return &TokenAck{Header: h, View: d.viewID(), Hop: d.uint()}
	case typeWant:
		return &Want{Header: h, View: d.viewID(), Hop: d.uint()}
	case typeLeave:
		return &Leave{Header: h, View: d.viewID()}
	}
	d.fail("unknown type")
	return nil
}

// Least sizes on the wire.
const (
	memberSize = 12
	nodeSize   = memberSize + 1
	viewIDSize = memberSize + 1
	originSize = 2*memberSize + 2*viewIDSize
	runSize    = 2 + 2 + memberSize + 1
)

// decoder reads from b. After the first error all that it returns is zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("too short")
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) flag() bool {
	v := d.byte()
	if v > 1 {
		d.fail("flag")
	}
	return v == 1
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes reads a length of at most limit and so many octets, without copying.
func (d *decoder) bytes(limit int) []byte {
	n := d.uint()
	if n > uint64(limit) || n > uint64(len(d.b)) {
		d.fail("length")
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// count reads the length of a list of members or the like.
func (d *decoder) count(size int) int {
	n := d.uint()
	if n > maxMembers || n*uint64(size) > uint64(len(d.b)) {
		d.fail("list length")
		return 0
	}
	return int(n)
}

func (d *decoder) duration() time.Duration {
	v := d.uint()
	if v > math.MaxInt64/uint64(time.Microsecond) {
		d.fail("duration")
		return 0
	}
	return time.Duration(v) * time.Microsecond
}

func (d *decoder) member() Member {
	if len(d.b) < memberSize {
		d.fail("too short")
		return Member{}
	}
	m := Member{NodeID(binary.BigEndian.Uint32(d.b)), Incarnation(binary.BigEndian.Uint64(d.b[4:]))}
	d.b = d.b[memberSize:]
	return m
}

func (d *decoder) viewID() ViewID { return ViewID{Counter: d.uint(), Coordinator: d.member()} }

func (d *decoder) node() Node {
	return Node{Member: d.member(), Contact: string(d.bytes(MaxContact))}
}

func (d *decoder) nodes() []Node {
	n := d.count(nodeSize)
	if n == 0 {
		return nil
	}
	list := make([]Node, n)
	for i := range list {
		list[i] = d.node()
	}
	return list
}

func (d *decoder) view() View { return View{ID: d.viewID(), Members: d.nodes()} }

func (d *decoder) header(h *Header) {
	h.From = d.node()
	h.To = d.member()
}

func (d *decoder) copy(c *Copy) {
	c.View, c.Hop, c.Seq, c.Rush, c.Yield = d.viewID(), d.uint(), d.uint(), d.uint(), d.uint()
	if d.flag() {
		in := &Install{View: d.view(), Cause: Cause(d.byte()), Exchange: d.flag()}
		if n := d.count(originSize); n > 0 {
			in.Origins = make([]Origin, n)
			for i := range in.Origins {
				in.Origins[i] = Origin{Member: d.member(), Installed: d.viewID(), Synced: d.viewID(), With: d.member()}
			}
		}
		c.Install = in
	}
	n := d.uint()
	if n > maxRuns || n > uint64(len(d.b)/runSize) {
		d.fail("number of runs")
		return
	}
	if n > 0 {
		c.Runs = make([]Run, n)
		for i := range c.Runs {
			d.run(c.View, &c.Runs[i])
		}
	}
}

func (d *decoder) run(view ViewID, r *Run) {
	flags := d.byte()
	if flags&^(runHead|runOmitted) != 0 {
		d.fail("flags of a run")
	}
	r.Kind, r.Seq, r.Count = Kind(d.byte()), d.uint(), d.uint()
	r.Origin, r.OriginSeq = view, r.Seq
	if flags&runHead != 0 {
		r.Origin, r.OriginSeq = d.viewID(), d.uint()
		if r.Origin == view {
			d.fail("head of the own view")
		}
	}
	r.From, r.Proposal, r.Omitted = d.member(), d.uint(), flags&runOmitted != 0
	if !r.Omitted {
		r.Data = d.bytes(MaxMessage)
	}
	if d.err == nil && (r.Count == 0 || r.Count > MaxMessage || !r.wellFormed()) {
		d.fail("entries")
	}
}
