package param

import (
	"bytes"
	"errors"
	"fmt"
)

// Kind says why a message was not decoded.
type Kind int

// Kinds of decoding errors.
const (
	// Malformed: lengths, counts or values that the format does not allow, or
	// a mandatory parameter that is missing or misplaced (AMB-14).
	Malformed Kind = iota + 1
	// UnknownParameter: an unknown parameter whose type says that the whole
	// message is to be dropped.
	UnknownParameter
	// UnknownMessage: a message type that is not assigned.
	UnknownMessage
	// LimitExceeded: well-formed so far, but more than Limits allow.
	LimitExceeded
)

// String names the kind in words fit for a log line or a metric label.
func (k Kind) String() string {
	switch k {
	case Malformed:
		return "malformed"
	case UnknownParameter:
		return "unknown parameter"
	case UnknownMessage:
		return "unknown message"
	case LimitExceeded:
		return "limit exceeded"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// Error is returned by decoders. The message it is about must not take effect.
type Error struct {
	Kind Kind
	// Report holds the causes to send back: in the response when the decoder
	// also returned the readable part of a request, else in an error message.
	// Empty means that the sender hears nothing. It is a copy and may be kept.
	Report OperationError

	detail    string
	offending []byte // what cause 0x3 would quote; aliases the input
}

// Error describes what was wrong, for logs.
func (e *Error) Error() string { return e.Kind.String() + ": " + e.detail }

// Settle ends decoding with an error of this package, for message decoders. A
// malformed message is by default dropped silently; with answer, when the sender
// can be told (AMB-14), the report says what was wrong.
func Settle(err error, answer bool) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = Invalid(nil, "%v", err)
	}
	if answer {
		switch e.Kind {
		case Malformed:
			e.Report = OperationError{{Code: CauseInvalidValues, Data: append([]byte(nil), e.offending...)}}
		case LimitExceeded:
			e.Report = OperationError{{Code: CauseLackOfResources}}
		}
	}
	e.offending = nil
	return e
}

// Invalid returns the error for a malformed message; offending is the parameter
// to quote in cause 0x3, nil where there is none.
func Invalid(offending []byte, format string, args ...any) *Error {
	return &Error{Kind: Malformed, detail: fmt.Sprintf(format, args...), offending: offending}
}

// Unrecognized returns the error for a message whose type is not assigned. Only
// types 0x40 to 0x7f are reported (RFC 5354, section 4; AMB-12).
func Unrecognized(m Envelope) *Error {
	e := &Error{Kind: UnknownMessage, detail: fmt.Sprintf("type 0x%02x", m.Type)}
	if m.Type>>6 == 1 {
		e.Report = OperationError{{Code: CauseUnrecognizedMessage, Data: bytes.Clone(m.Raw)}}
	}
	return e
}

// TooMany returns the error for a message that exceeds a limit.
func TooMany(what string, limit int) *Error {
	return &Error{Kind: LimitExceeded, detail: fmt.Sprintf("more than %d %s", limit, what)}
}

// String lists the causes by name, with the policy of those that quote one.
func (e OperationError) String() string {
	var b bytes.Buffer
	for i, c := range e {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(c.Code.String())
		if p, ok := c.Policy(); ok {
			fmt.Fprintf(&b, policyQuoted[c.Code], p.Type)
		}
	}
	return b.String()
}

// policyQuoted is how causes tell the policy that they quote.
var policyQuoted = map[CauseCode]string{
	CauseInvalidValues:      " (%v)",
	CauseInconsistentPolicy: " (the pool's is %v)",
}

// Policy returns the policy that the cause quotes: see PolicyCause.
func (c Cause) Policy() (Policy, bool) {
	if policyQuoted[c.Code] == "" {
		return Policy{}, false
	}
	in := new(Decoding).NewReader(c.Data)
	p, err := in.Policy()
	return p, err == nil
}

// Has reports whether one of the causes has the code.
func (e OperationError) Has(code CauseCode) bool {
	for _, c := range e {
		if c.Code == code {
			return true
		}
	}
	return false
}

// NewCause returns a cause without data.
func NewCause(code CauseCode) Cause { return Cause{Code: code} }

// PolicyCause returns a cause that quotes the policy parameter: 0x5 with the
// pool's policy, 0x3 with one that is not supported.
func PolicyCause(code CauseCode, p Policy) Cause {
	return quote(code, func(w *Writer) { w.Policy(&p) })
}

// TransportCause returns a cause that quotes the transport parameter: 0x7 with a
// transport of the pool's type, 0x3 with one whose addresses won't do.
func TransportCause(code CauseCode, t Transport) Cause {
	return quote(code, func(w *Writer) { w.Transport(&t) })
}

// ElementCause returns a cause that quotes the Pool Element parameter, for
// values of it that have no parameter of their own.
func ElementCause(code CauseCode, e *PoolElement) Cause {
	return quote(code, func(w *Writer) { w.PoolElement(e, true) })
}

// CookieCause returns a cause that quotes the Cookie parameter.
func CookieCause(code CauseCode, cookie []byte) Cause {
	return quote(code, func(w *Writer) { w.Cookie(cookie) })
}

// quote returns a cause with the parameter that write writes. A parameter that
// can't be encoded is left out: the code says the most.
func quote(code CauseCode, write func(*Writer)) Cause {
	var w Writer
	write(&w)
	if w.err != nil {
		return Cause{Code: code}
	}
	return Cause{Code: code, Data: w.buf}
}
