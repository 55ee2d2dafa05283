package asap

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"rserpool/asap/param"
	"rserpool/asap/param/paramtest"
)

const (
	echoPool = param.PoolHandle("EchoPool")
	peID     = param.PEID(0x11223344)
)

func sctp7() param.Transport {
	return param.Transport{
		Type: param.TypeSCTPTransport, Port: 7, Use: param.DataOnly,
		Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	}
}

func element(home param.RegistrarID) param.PoolElement {
	return param.PoolElement{
		ID: peID, Home: home, Life: 300, User: sctp7(), Policy: param.Policy{Type: param.RoundRobin},
	}
}

// golden are the messages of testdata/golden.hex.
var golden = map[string]Message{
	"V01": &Registration{Handle: echoPool, Element: element(0)},
	"V02": &Deregistration{Handle: echoPool, ID: peID},
	"V03": &RegistrationResponse{Handle: echoPool, ID: peID},
	"V04": &RegistrationResponse{
		Reject: true, Handle: echoPool, ID: peID,
		Error: param.OperationError{param.PolicyCause(param.CauseInconsistentPolicy, param.Policy{Type: param.LeastUsed})},
	},
	"V05": &DeregistrationResponse{Handle: echoPool, ID: peID},
	"V06": &HandleResolution{SendUpdates: true, Handle: "abc"},
	"V07": &HandleResolutionResponse{
		Handle: "abc",
		Error:  param.OperationError{param.NewCause(param.CauseUnknownPoolHandle)},
	},
	"V08": &HandleResolutionResponse{
		AcceptUpdates: true, Handle: echoPool,
		Policy: param.Policy{Type: param.WeightedRoundRobin, Weight: 1},
		Elements: []param.PoolElement{{
			ID: peID, Home: 0x0a0a0a0a, Life: 300,
			User: param.Transport{
				Type: param.TypeTCPTransport, Port: 7,
				Addrs: []netip.Addr{netip.MustParseAddr("2001:db8::1")},
			},
			Policy: param.Policy{Type: param.WeightedRoundRobin, Weight: 5},
		}},
	},
	"V09": &EndpointKeepAlive{Home: true, Registrar: 0x0a0a0a0a, Handle: echoPool},
	"V10": &EndpointKeepAliveAck{Handle: echoPool, ID: peID},
	"V11": &EndpointUnreachable{Handle: echoPool, ID: peID},
	"V12": &ServerAnnounce{Registrar: 0x0a0a0a0a},
	"V13": &Cookie{Cookie: []byte{1, 2, 3, 4, 5}},
	"V14": &CookieEcho{Cookie: []byte{1, 2, 3, 4, 5}},
	"V15": &Error{Causes: param.OperationError{{
		Code: param.CauseUnrecognizedParameter, Data: []byte{0xc0, 0xaa, 0, 6, 0xde, 0xad},
	}}},
	"V28": &BusinessCard{Handle: echoPool, Elements: []param.PoolElement{element(0x0a0a0a0a)}},
}

func TestGoldenVectors(t *testing.T) { paramtest.Golden(t, Decode, golden) }

// invalidFrom is the answer to a malformed REGISTRATION whose offending parameter
// begins at offset from in the message and has n octets.
func invalidFrom(b []byte, from, n int) param.OperationError {
	return param.OperationError{{Code: param.CauseInvalidValues, Data: b[from : from+n]}}
}

func TestHostileVectors(t *testing.T) {
	registration := golden["V01"]
	withElement := func(change func(*param.PoolElement)) Message {
		e := element(0)
		change(&e)
		return &Registration{Handle: echoPool, Element: e}
	}
	partial := func(user param.Transport) Message {
		return &Registration{Handle: echoPool, Element: param.PoolElement{ID: peID, Life: 300, User: user}}
	}
	cause1 := func(typ uint16) param.OperationError {
		return param.OperationError{{
			Code: param.CauseUnrecognizedParameter,
			Data: []byte{byte(typ >> 8), byte(typ), 0, 8, 0, 0, 0, 1},
		}}
	}
	tests := map[string]struct {
		message Message // nil: dropped
		report  func(b []byte) param.OperationError
		kind    param.Kind // 0: no error
	}{
		"N01": {kind: param.UnknownParameter},
		"N02": {kind: param.UnknownParameter, report: func([]byte) param.OperationError { return cause1(0x4011) }},
		"N03": {message: registration},
		"N04": {message: registration, report: func([]byte) param.OperationError { return cause1(0xc011) }},
		"N05": {kind: param.UnknownMessage},
		"N06": {kind: param.UnknownMessage, report: func(b []byte) param.OperationError {
			return param.OperationError{{Code: param.CauseUnrecognizedMessage, Data: b}}
		}},
		"N07": {kind: param.UnknownMessage},
		"N08": {message: registration},
		"N09": {message: &HandleResolution{Handle: "abc"}},
		"N10": {message: &HandleResolution{Handle: "abc"}},
		"N11": {kind: param.Malformed},
		"N12": {kind: param.Malformed},
		"N13": {
			message: partial(param.Transport{Type: param.TypeSCTPTransport, Port: 7}), kind: param.Malformed,
			report: func(b []byte) param.OperationError { return invalidFrom(b, 32, 8) },
		},
		"N14": {
			message: partial(sctp7()), kind: param.Malformed,
			report: func(b []byte) param.OperationError { return invalidFrom(b, 48, 16) },
		},
		"N15": {
			message: partial(sctp7()), kind: param.Malformed,
			report: func(b []byte) param.OperationError { return invalidFrom(b, 48, 8) },
		},
		"N16": {
			message: partial(sctp7()), kind: param.Malformed,
			report: func(b []byte) param.OperationError { return invalidFrom(b, 48, 8) },
		},
		"N17": {
			message: partial(param.Transport{Type: param.TypeSCTPTransport, Port: 7, Use: 2}), kind: param.Malformed,
			report: func(b []byte) param.OperationError { return invalidFrom(b, 32, 16) },
		},
		"N18": {message: withElement(func(e *param.PoolElement) { e.ID = 0 })},
		"N19": {message: withElement(func(e *param.PoolElement) { e.Life = -2 })},
		"N23": {message: &Error{Causes: param.OperationError{{Code: 0x7777}}}},
	}
	vectors := paramtest.ReadVectors(t, "testdata/hostile.hex")
	if len(vectors) != len(tests) {
		t.Fatalf("%d vectors, %d expectations", len(vectors), len(tests))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			want := tests[v.ID()]
			m, report, err := Decode(v.Data)
			var kind param.Kind
			if err != nil {
				var e *param.Error
				if !errors.As(err, &e) {
					t.Fatalf("error %T %v", err, err)
				}
				kind, report = e.Kind, e.Report
			}
			if kind != want.kind {
				t.Errorf("error %v, want %v", err, want.kind)
			}
			if !reflect.DeepEqual(m, want.message) {
				t.Errorf("message\n got %+v\nwant %+v", m, want.message)
			}
			var wantReport param.OperationError
			if want.report != nil {
				wantReport = want.report(v.Data)
			}
			if !reflect.DeepEqual(report, wantReport) {
				t.Errorf("report\n got %x\nwant %x", report, wantReport)
			}
		})
	}
}
