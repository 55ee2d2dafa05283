package asap

import (
	"fmt"
	"testing"

	"rserpool/asap/param"
	"rserpool/asap/param/paramtest"
)

// expected returns what tshark should show of a message.
func expected(m Message) *paramtest.Expectation {
	x := func(flags uint8) *paramtest.Expectation {
		return paramtest.Expect("asap", uint8(m.Type()), flags)
	}
	switch m := m.(type) {
	case *Registration:
		return x(0).Handle(m.Handle).Element(m.Element)
	case *Deregistration:
		return x(0).Handle(m.Handle).PEIdentifier(m.ID)
	case *RegistrationResponse:
		if m.Reject {
			return x(1).Handle(m.Handle).PEIdentifier(m.ID).Error(m.Error)
		}
		return x(0).Handle(m.Handle).PEIdentifier(m.ID).Error(m.Error)
	case *DeregistrationResponse:
		return x(0).Handle(m.Handle).PEIdentifier(m.ID).Error(m.Error)
	case *HandleResolution:
		if m.SendUpdates {
			return x(1).Handle(m.Handle)
		}
		return x(0).Handle(m.Handle).Option(m.Items)
	case *HandleResolutionResponse:
		e := x(0)
		if m.AcceptUpdates {
			e = x(1)
		}
		e.Handle(m.Handle)
		if m.Policy.Type != 0 {
			e.Policy(m.Policy)
		}
		for _, el := range m.Elements {
			e.Element(el)
		}
		return e.Error(m.Error)
	case *EndpointKeepAlive:
		if m.Home {
			return x(1).Add("server_identifier", "%s", m.Registrar).Handle(m.Handle)
		}
		return x(0).Add("server_identifier", "%s", m.Registrar).Handle(m.Handle).PEIdentifier(m.ID)
	case *EndpointKeepAliveAck:
		return x(0).Handle(m.Handle).PEIdentifier(m.ID)
	case *EndpointUnreachable:
		return x(0).Handle(m.Handle).PEIdentifier(m.ID)
	case *ServerAnnounce:
		e := x(0).Add("server_identifier", "%s", m.Registrar)
		for _, t := range m.Transports {
			e.Transport(t)
		}
		return e
	case *Cookie:
		return x(0).Cookie(m.Cookie)
	case *CookieEcho:
		return x(0).Cookie(m.Cookie)
	case *BusinessCard:
		e := x(0).Handle(m.Handle)
		for _, el := range m.Elements {
			e.Element(el)
		}
		return e
	case *Error:
		return x(0).Error(m.Causes)
	}
	panic(fmt.Sprintf("%T", m))
}

// TestTshark has tshark read every message type with every parameter.
func TestTshark(t *testing.T) { paramtest.Tshark(t, 11, corpus(), expected) }

// TestTsharkOperationErrors lists the Operation Errors that tshark calls
// malformed, although RFC 5354 knows no other form for them: it takes the data of
// a cause for a whole parameter or message, padding included.
func TestTsharkOperationErrors(t *testing.T) {
	tests := []struct {
		reason string
		cause  param.Cause
	}{
		{
			"a quoted message that does not fill its last word: the padding belongs to the cause",
			param.Cause{Code: param.CauseUnrecognizedMessage, Data: []byte{0x45, 0, 0, 5, 1}},
		},
		{
			"a quoted parameter that runs past its container, quoted as far as it goes",
			param.Cause{Code: param.CauseInvalidValues, Data: []byte{0, 9, 0, 64, 'a', 'b', 'c', 'd'}},
		},
		{
			"a parameter that is missing: nothing to quote",
			param.Cause{Code: param.CauseInvalidValues},
		},
	}
	var encoded [][]byte
	for _, test := range tests {
		encoded = append(encoded, paramtest.MustEncode(t, &Error{Causes: param.OperationError{test.cause}}))
	}
	for i, p := range paramtest.Dissect(t, 11, encoded) {
		code := fmt.Sprintf("0x%04x", uint16(tests[i].cause.Code))
		if got := p.Fields["asap.cause_code"]; len(got) != 1 || got[0] != code {
			t.Errorf("%s: cause code %q, want %s", tests[i].reason, got, code)
		}
		if !p.Malformed {
			t.Logf("this tshark reads it: %s", tests[i].reason)
		}
	}
}
