package param

import (
	"bytes"
	"encoding/binary"
	"slices"
)

const (
	headerLen = 4
	// MaxLength is the largest value of a Length field, in octets.
	MaxLength = 65535
)

func pad4(n int) int { return (n + 3) &^ 3 }

// Limits bounds what one message may hold. A message that has more is dropped
// with an Error of kind LimitExceeded before anything is allocated for it. Zero
// fields stand for the defaults.
type Limits struct {
	// Addresses is the number of addresses per transport, and of transports
	// per SERVER_ANNOUNCE. Default 128: no host has more that matter, and
	// every one is kept in memory for each element.
	Addresses int
	// Elements is the number of Pool Element parameters, or of Server
	// Information parameters, per message. Default 4096, more than fit into
	// a message.
	Elements int
	// Causes is the number of causes per Operation Error, and of unknown
	// parameters reported per message; further ones are not reported.
	// Default 64.
	Causes int
}

func (l Limits) withDefaults() Limits {
	if l.Addresses == 0 {
		l.Addresses = 128
	}
	if l.Elements == 0 {
		l.Elements = 4096
	}
	if l.Causes == 0 {
		l.Causes = 64
	}
	return l
}

// Envelope is a message split into its header and its value.
type Envelope struct {
	Type, Flags uint8
	Value       []byte // behind the header, without padding at the end
	Raw         []byte // the whole message without padding at the end
}

// Open splits a message at its header (RFC 5354, section 4). b is one message as
// a transport delivers it, with the padding behind it or without.
func Open(b []byte) (Envelope, error) {
	if len(b) < headerLen {
		return Envelope{}, Invalid(nil, "message of %d octets", len(b))
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < headerLen || n > len(b) || len(b) > pad4(n) {
		return Envelope{}, Invalid(nil, "message length %d in %d octets", n, len(b))
	}
	return Envelope{Type: b[0], Flags: b[1], Value: b[headerLen:n], Raw: b[:n]}, nil
}

// Decoding is the state of decoding one message, shared by the Readers of all
// nesting levels. The zero value is ready, with default limits.
type Decoding struct {
	Limits Limits
	// Handles, if not nil, supplies the strings of pool handles.
	Handles *Interner
	// Report collects the causes for parameters that were skipped but have
	// to be reported.
	Report OperationError

	elements int
}

// NewReader returns a Reader for the parameters in b.
func (d *Decoding) NewReader(b []byte) Reader {
	d.Limits = d.Limits.withDefaults()
	return Reader{rest: b, d: d}
}

// Unknown parameter: the two highest bits of the type say what to do (RFC 5354,
// section 3).
const (
	actionDrop = iota
	actionDropAndReport
	actionSkip
	actionSkipAndReport
)

// unknown applies the rule for an unknown parameter; nil means skip it.
func (d *Decoding) unknown(p Param) error {
	switch p.Type >> 14 {
	case actionSkip:
		return nil
	case actionSkipAndReport:
		d.report(p)
		return nil
	}
	e := &Error{Kind: UnknownParameter, detail: p.Type.String()}
	if p.Type>>14 == actionDropAndReport {
		d.report(p)
		e.Report = d.Report
	}
	d.Report = nil
	return e
}

func (d *Decoding) report(p Param) {
	if len(d.Report) < d.Limits.Causes {
		d.Report = append(d.Report, Cause{Code: CauseUnrecognizedParameter, Data: bytes.Clone(p.raw)})
	}
}

// element counts one more repeated parameter against the limit.
func (d *Decoding) element() error {
	if d.elements++; d.elements > d.Limits.Elements {
		return TooMany("elements in a message", d.Limits.Elements)
	}
	return nil
}

// Param is one parameter as it stands in a message. It is small enough for split to
// return it in registers.
type Param struct {
	Type Type
	raw  []byte // header and value, without padding
}

func (p *Param) value() []byte { return p.raw[min(headerLen, len(p.raw)):] }

// split takes the first parameter off b. At the end of b it returns a Param with
// Type 0 and raw nil; up to three zero octets there are padding that the
// container's length includes.
func split(b []byte) (p Param, rest []byte, err error) {
	if len(b) < headerLen {
		for _, o := range b {
			if o != 0 {
				return Param{}, nil, Invalid(b, "%d octets where a parameter should be", len(b))
			}
		}
		return Param{}, nil, nil
	}
	t, n := Type(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:]))
	if n < headerLen {
		return Param{}, nil, Invalid(b[:headerLen], "%s of length %d", t, n)
	}
	if n > len(b) {
		return Param{}, nil, Invalid(b, "%s of length %d in %d octets", t, n, len(b))
	}
	return Param{Type: t, raw: b[:n]}, b[min(pad4(n), len(b)):], nil
}

// Reader is a cursor over the parameters of a message or of a container. It
// deals with unknown parameters by itself, so that its user sees known ones only.
// Methods that return an error return an *Error, after which the Reader must not
// be used any more.
type Reader struct {
	rest  []byte
	next  Param  // already split off, if raw is not nil
	outer []byte // the container, to be quoted when something is missing
	d     *Decoding
}

func (r *Reader) nested(p Param, b []byte) Reader {
	return Reader{rest: b, outer: p.raw, d: r.d}
}

// Peek returns the type of the next known parameter, 0 at the end.
func (r *Reader) Peek() (Type, error) {
	for r.next.raw == nil {
		p, rest, err := split(r.rest)
		if err != nil || p.raw == nil {
			return 0, err
		}
		r.rest = rest
		if p.Type.known() {
			r.next = p
			break
		}
		if err := r.d.unknown(p); err != nil {
			return 0, err
		}
	}
	return r.next.Type, nil
}

// Next takes the parameter that Peek showed; with Peek at the end it returns the
// zero Param.
func (r *Reader) Next() Param {
	p := r.next
	r.next = Param{}
	return p
}

// Expect takes the next parameter, which must be of the given type.
func (r *Reader) Expect(want Type) (Param, error) {
	for {
		t, err := r.Peek()
		switch {
		case err != nil:
			return Param{}, err
		case t == want:
			return r.Next(), nil
		case t == 0:
			return Param{}, Invalid(r.outer, "no %s", want)
		case t == TypeHandleResolutionOption: // private: as if unknown
			r.Next()
		default:
			return Param{}, Invalid(r.next.raw, "%s where %s should be", t, want)
		}
	}
}

// Accept takes the next parameter if it is of the given type.
func (r *Reader) Accept(want Type) (Param, bool, error) {
	t, err := r.Peek()
	if err != nil || t != want {
		return Param{}, false, err
	}
	return r.Next(), true, nil
}

// SkipTo skips known parameters up to one of the wanted types, which it leaves to
// be taken; false at the end.
func (r *Reader) SkipTo(want ...Type) (bool, error) {
	for {
		t, err := r.Peek()
		if t == 0 || err != nil {
			return false, err
		}
		if slices.Contains(want, t) {
			return true, nil
		}
		r.Next()
	}
}

// Finish skips known parameters up to the end (AMB-06) and applies the rule for
// unknown ones.
func (r *Reader) Finish() error {
	_, err := r.SkipTo()
	return err
}

// Uint32 takes a fixed field of 32 bits that stands before the parameters.
func (r *Reader) Uint32() (uint32, error) {
	if len(r.rest) < 4 {
		return 0, Invalid(r.outer, "%d octets where a 32-bit field should be", len(r.rest))
	}
	v := binary.BigEndian.Uint32(r.rest)
	r.rest = r.rest[4:]
	return v, nil
}
