package asap

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"rserpool/asap/param"
	pt "rserpool/asap/param/paramtest"
)

var (
	handleTLV  = pt.TLV(param.TypePoolHandle, []byte("EchoPool"))
	idTLV      = pt.TLV(param.TypePEIdentifier, pt.U32(uint32(peID)))
	sctpTLV    = pt.SCTP(7, 0, pt.IPv4(192, 0, 2, 1))
	policyTLV  = pt.TLV(param.TypePolicy, pt.U32(1))
	elementTLV = pt.TLV(param.TypePoolElement, pt.U32(uint32(peID), 0, 300), sctpTLV, policyTLV)
	errorTLV   = pt.TLV(param.TypeOperationError, []byte{0, 9, 0, 4})
)

// message makes a message by hand.
func message(t MessageType, flags uint8, params ...[]byte) []byte {
	return pt.Message(uint8(t), flags, nil, params...)
}

// refused is the error for bytes that are no message.
func refused(t *testing.T, b []byte) (Message, *param.Error) {
	t.Helper()
	m, report, err := Decode(b)
	var e *param.Error
	if !errors.As(err, &e) || report != nil {
		t.Fatalf("Decode %x: %+v, report %v, error %v", b, m, report, err)
	}
	return m, e
}

// wantDropped checks that a message is dropped silently.
func wantDropped(t *testing.T, b []byte, kind param.Kind) {
	t.Helper()
	if m, e := refused(t, b); m != nil || e.Kind != kind || e.Report != nil {
		t.Errorf("%x: message %+v, %v, report %v", b, m, e, e.Report)
	}
}

// unknown is an unknown parameter of six octets, so that padding follows.
func unknown(typ param.Type) []byte { return pt.TLV(typ, []byte{0xde, 0xad}) }

// places are the places where an unknown parameter can stand in a REGISTRATION:
// at top level and nested at every depth (AMB-05).
var places = map[string]func(u []byte) []byte{
	"first": func(u []byte) []byte { return message(TypeRegistration, 0, u, handleTLV, elementTLV) },
	"between": func(u []byte) []byte {
		return message(TypeRegistration, 0, handleTLV, u, elementTLV)
	},
	"last": func(u []byte) []byte { return message(TypeRegistration, 0, handleTLV, elementTLV, u) },
	"first in the element": func(u []byte) []byte {
		return message(TypeRegistration, 0, handleTLV,
			pt.TLV(param.TypePoolElement, pt.U32(uint32(peID), 0, 300), u, sctpTLV, policyTLV))
	},
	"last in the element": func(u []byte) []byte {
		return message(TypeRegistration, 0, handleTLV,
			pt.TLV(param.TypePoolElement, pt.U32(uint32(peID), 0, 300), sctpTLV, policyTLV, u))
	},
	"first in the transport": func(u []byte) []byte {
		return message(TypeRegistration, 0, handleTLV, pt.TLV(param.TypePoolElement, pt.U32(uint32(peID), 0, 300),
			pt.SCTP(7, 0, u, pt.IPv4(192, 0, 2, 1)), policyTLV))
	},
	"last in the transport": func(u []byte) []byte {
		return message(TypeRegistration, 0, handleTLV, pt.TLV(param.TypePoolElement, pt.U32(uint32(peID), 0, 300),
			pt.SCTP(7, 0, pt.IPv4(192, 0, 2, 1), u), policyTLV))
	},
}

func everyPlace(t *testing.T, types []param.Type, check func(t *testing.T, u, b []byte)) {
	t.Helper()
	for _, typ := range types {
		for name, place := range places {
			t.Run(typ.String()+" "+name, func(t *testing.T) {
				u := unknown(typ)
				check(t, u, place(u))
			})
		}
	}
}

// quoting are the causes that report unknown parameters.
func quoting(unknown ...[]byte) param.OperationError {
	var out param.OperationError
	for _, u := range unknown {
		out = append(out, param.Cause{Code: param.CauseUnrecognizedParameter, Data: u})
	}
	return out
}

func TestPAR_3_01_UnknownTypes00DropSilently(t *testing.T) {
	everyPlace(t, []param.Type{0x0000, 0x0011, 0x3fff}, func(t *testing.T, _, b []byte) {
		wantDropped(t, b, param.UnknownParameter)
	})
}

func TestPAR_3_02_UnknownTypes01DropAndReport(t *testing.T) {
	everyPlace(t, []param.Type{0x4000, 0x4011, 0x7fff}, func(t *testing.T, u, b []byte) {
		m, e := refused(t, b)
		if m != nil || e.Kind != param.UnknownParameter || !reflect.DeepEqual(e.Report, quoting(u)) {
			t.Errorf("%+v, %v, report %x", m, e, e.Report)
		}
	})
}

func TestPAR_3_03_UnknownTypes10AreSkipped(t *testing.T) {
	everyPlace(t, []param.Type{0x8000, 0x8011, 0x803f, 0xbfff}, func(t *testing.T, _, b []byte) {
		if m := pt.MustDecode(t, Decode, b); !reflect.DeepEqual(m, golden["V01"]) {
			t.Errorf("%+v", m)
		}
	})
}

func TestPAR_3_04_UnknownTypes11AreSkippedAndReported(t *testing.T) {
	everyPlace(t, []param.Type{0xc000, 0xc011, 0xffff}, func(t *testing.T, u, b []byte) {
		m, report, err := Decode(b)
		if err != nil || !reflect.DeepEqual(m, golden["V01"]) || !reflect.DeepEqual(report, quoting(u)) {
			t.Errorf("%+v, report %x, %v", m, report, err)
		}
	})
}

func TestPAR_3_12_2_01_OneCausePerUnknownParameter(t *testing.T) {
	skip1, skip2, stop, silent := unknown(0xc011), unknown(0xc012), unknown(0x4011), unknown(0x0011)
	b := message(TypeHandleResolution, 0, skip1, handleTLV, skip2)
	if _, report, err := Decode(b); err != nil || !reflect.DeepEqual(report, quoting(skip1, skip2)) {
		t.Errorf("report %x, %v", report, err)
	}
	// What was skipped before the end is reported with what ended it, unless
	// that asks for silence.
	if _, e := refused(t, message(TypeHandleResolution, 0, skip1, handleTLV, stop, skip2)); !reflect.DeepEqual(e.Report, quoting(skip1, stop)) {
		t.Errorf("report %x", e.Report)
	}
	wantDropped(t, message(TypeHandleResolution, 0, skip1, handleTLV, silent), param.UnknownParameter)
}

// The reports do not refer to the message, whose buffer is used again.
func TestReportsMayBeKept(t *testing.T) {
	b := message(TypeHandleResolution, 0, handleTLV, unknown(0xc011))
	_, report, err := Decode(b)
	clear(b)
	if err != nil || !reflect.DeepEqual(report, quoting(unknown(0xc011))) {
		t.Errorf("report %x, %v", report, err)
	}
	b = message(TypeRegistration, 0, handleTLV, pt.TLV(param.TypePoolElement, pt.U32(1, 0, 300), pt.SCTP(7, 2)))
	m, e := refused(t, b)
	clear(b)
	want := param.OperationError{{Code: param.CauseInvalidValues, Data: pt.SCTP(7, 2)}}
	if !reflect.DeepEqual(e.Report, want) || m.(*Registration).Handle != echoPool {
		t.Errorf("%+v, report %x", m, e.Report)
	}
}

// Known parameters that nobody expects: behind the expected ones they are skipped,
// before them they make the message malformed.
func TestAMB_06_KnownButUnexpected(t *testing.T) {
	cookie := pt.TLV(param.TypeCookie, []byte("what"))
	for _, b := range [][]byte{
		message(TypeRegistration, 0, handleTLV, elementTLV, cookie),
		message(TypeRegistration, 0, handleTLV, elementTLV, elementTLV, handleTLV),
		message(TypeRegistration, 0, handleTLV, pt.TLV(param.TypePoolElement,
			pt.U32(uint32(peID), 0, 300), sctpTLV, policyTLV, policyTLV, handleTLV)),
	} {
		if m := pt.MustDecode(t, Decode, b); !reflect.DeepEqual(m, golden["V01"]) {
			t.Errorf("%x: %+v", b, m)
		}
	}
	for _, b := range [][]byte{
		message(TypeRegistration, 0, elementTLV, handleTLV),
		message(TypeRegistration, 0, handleTLV, cookie, elementTLV),
		message(TypeRegistration, 0, handleTLV),
		message(TypeRegistration, 0),
		message(TypeDeregistration, 0, idTLV, handleTLV),
		message(TypeDeregistration, 0, handleTLV),
		message(TypeHandleResolution, 0, cookie, handleTLV),
		message(TypeHandleResolution, 0),
		message(TypeCookie, 0),
		message(TypeCookieEcho, 0, handleTLV),
		message(TypeError, 0),
		message(TypeError, 0, handleTLV),
		message(TypeBusinessCard, 0, handleTLV),
		message(TypeEndpointKeepAliveAck, 0, handleTLV),
		message(TypeEndpointUnreachable, 0, idTLV),
		message(TypeRegistrationResponse, 0, handleTLV),
		message(TypeDeregistrationResponse, 0),
		message(TypeHandleResolutionResponse, 0, handleTLV, policyTLV),
		message(TypeEndpointKeepAlive, 0),
		message(TypeEndpointKeepAlive, 0, handleTLV),
		message(TypeServerAnnounce, 0),
		pt.Message(uint8(TypeEndpointKeepAlive), 0, pt.U32(1), idTLV),
		pt.Message(uint8(TypeEndpointKeepAlive), 0, pt.U32(1), handleTLV, pt.TLV(param.TypePEIdentifier, nil)),
		pt.Message(uint8(TypeServerAnnounce), 0, pt.U32(1), pt.SCTP(7, 0)),
		pt.Message(uint8(TypeServerAnnounce), 0, []byte{1, 2, 3}),
	} {
		wantDropped(t, b, param.Malformed)
	}
}

// A malformed request whose sender can be told is answered.
func TestAMB_14_AnswerToMalformedRequests(t *testing.T) {
	broken := []byte{0, 9, 0, 64, 'x', 'y', 'z', 0}
	short := pt.TLV(param.TypePoolElement, pt.U32(uint32(peID), 7))
	tests := map[string]struct {
		b      []byte
		want   Message
		quoted []byte
	}{
		"registration, something broken behind": {
			message(TypeRegistration, 0, handleTLV, elementTLV, broken), golden["V01"], broken,
		},
		"registration, element cut off": {
			message(TypeRegistration, 0, handleTLV, short),
			&Registration{Handle: echoPool, Element: param.PoolElement{ID: peID}}, short,
		},
		"deregistration, something broken behind": {
			message(TypeDeregistration, 0, handleTLV, idTLV, broken), golden["V02"], broken,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			m, e := refused(t, test.b)
			want := param.OperationError{{Code: param.CauseInvalidValues, Data: test.quoted}}
			if e.Kind != param.Malformed || !reflect.DeepEqual(m, test.want) || !reflect.DeepEqual(e.Report, want) {
				t.Errorf("%+v, %v, report %x", m, e, e.Report)
			}
		})
	}
	for name, b := range map[string][]byte{
		"identifier not readable": message(TypeRegistration, 0, handleTLV, pt.TLV(param.TypePoolElement, []byte{1, 2, 3})),
		"identifier too long":     message(TypeDeregistration, 0, handleTLV, pt.TLV(param.TypePEIdentifier, pt.U32(1, 2))),
		"handle not readable":     message(TypeRegistration, 0, []byte{0, 9, 0, 3}, elementTLV),
		"resolution":              message(TypeHandleResolution, 0, handleTLV, broken),
		"no message":              nil,
		"half a header":           {1, 0, 0},
		"length below a header":   {1, 0, 0, 3},
		"length beyond the end":   {5, 0, 0, 5},
		"octets behind the end":   append(pt.MustEncode(t, golden["V02"]), 0, 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) { wantDropped(t, b, param.Malformed) })
	}
}

// Too much is refused as such, so that it can be told from nonsense.
func TestLimitsAreAnswered(t *testing.T) {
	d := NewDecoder(param.Limits{Addresses: 1}, 0)
	m, _, err := d.Decode(message(TypeRegistration, 0, handleTLV, pt.TLV(param.TypePoolElement,
		pt.U32(uint32(peID), 0, 300), pt.SCTP(7, 0, pt.IPv4(192, 0, 2, 1), pt.IPv4(192, 0, 2, 2)), policyTLV)))
	var e *param.Error
	if !errors.As(err, &e) || e.Kind != param.LimitExceeded || !e.Report.Has(param.CauseLackOfResources) {
		t.Fatalf("%v", err)
	}
	if r, ok := m.(*Registration); !ok || r.Element.ID != peID {
		t.Errorf("%+v", m)
	}
	tooMany := pt.Message(uint8(TypeServerAnnounce), 0, pt.U32(1), sctpTLV, sctpTLV)
	if _, _, err := d.Decode(tooMany); !errors.As(err, &e) || e.Kind != param.LimitExceeded || e.Report != nil {
		t.Errorf("%v", err)
	}
}

// The empty handle is refused with cause 0x3, in the answer to the request.
func TestAMB_71_EmptyHandle(t *testing.T) {
	empty := pt.TLV(param.TypePoolHandle, nil)
	for _, b := range [][]byte{
		message(TypeRegistration, 0, empty, elementTLV),
		message(TypeDeregistration, 0, empty, idTLV),
		message(TypeHandleResolution, 0, empty),
	} {
		m, e := refused(t, b)
		want := param.OperationError{{Code: param.CauseInvalidValues, Data: empty}}
		if m == nil || !reflect.DeepEqual(e.Report, want) {
			t.Errorf("%x: %+v, report %x", b, m, e.Report)
		}
	}
	for _, m := range []Message{
		&Registration{Element: element(0)}, &Deregistration{}, &HandleResolution{}, &EndpointKeepAlive{},
		&EndpointKeepAliveAck{}, &EndpointUnreachable{}, &BusinessCard{Elements: []param.PoolElement{element(0)}},
	} {
		if b, err := m.Append([]byte("dst")); !errors.Is(err, param.ErrEncode) || string(b) != "dst" {
			t.Errorf("%s: %q, %v", m.Type(), b, err)
		}
	}
	// The answer echoes it.
	answer := &RegistrationResponse{Reject: true, ID: 1}
	if m := pt.MustDecode(t, Decode, pt.MustEncode(t, answer)); !reflect.DeepEqual(m, answer) {
		t.Errorf("%+v", m)
	}
}

func TestPAR_4_01_UnknownTypes00DropSilently(t *testing.T) {
	for _, typ := range []byte{0x00, 0x0f, 0x20, 0x3f} {
		wantDropped(t, pt.Message(typ, 0, nil, handleTLV), param.UnknownMessage)
	}
}

func TestPAR_4_02_UnknownTypes01AreReported(t *testing.T) {
	for _, typ := range []byte{0x40, 0x4f, 0x7f} {
		b := pt.Message(typ, 0xa5, nil, []byte{1, 2, 3, 4, 5})
		m, e := refused(t, b)
		t.Run("PAR_3_12_3_01", func(t *testing.T) {
			want := param.OperationError{{Code: param.CauseUnrecognizedMessage, Data: b[:9]}}
			if m != nil || e.Kind != param.UnknownMessage || !reflect.DeepEqual(e.Report, want) {
				t.Errorf("%+v, %v, report %x", m, e, e.Report)
			}
		})
	}
}

func TestAMB_12_ReservedTypesAreDropped(t *testing.T) {
	for _, typ := range []byte{0x80, 0xbf, 0xc5, 0xff} {
		wantDropped(t, pt.Message(typ, 0, nil), param.UnknownMessage)
	}
}

func TestAMB_13_AssignedTypes(t *testing.T) {
	for typ := range 256 {
		_, named := messageNames[MessageType(typ)]
		_, e := refused(t, pt.Message(byte(typ), 0, nil))
		if assigned := typ >= 1 && typ <= 14; named != assigned || (e.Kind == param.UnknownMessage) == assigned {
			t.Errorf("0x%02x: %s, %v", typ, MessageType(typ), e)
		}
	}
}

func TestPAR_4_03_Flags(t *testing.T) {
	for _, m := range corpus() {
		b := pt.MustEncode(t, m)
		if b[1] > 1 {
			t.Errorf("%s sent with flags 0x%02x", m.Type(), b[1])
		}
		b[1] |= 0xfe
		if got := pt.MustDecode(t, Decode, b); !reflect.DeepEqual(got, m) {
			t.Errorf("with undefined flags:\n got %+v\nwant %+v", got, m)
		}
	}
}

func TestPAR_4_04_Length(t *testing.T) {
	b := pt.MustEncode(t, &HandleResolution{Handle: "abc"})
	if len(b) != 12 || b[3] != 11 {
		t.Errorf("%x", b)
	}
	for _, m := range corpus() {
		b := pt.MustEncode(t, m)
		if n := int(b[2])<<8 | int(b[3]); len(b) != (n+3)&^3 {
			t.Errorf("%s: length %d in %d octets", m.Type(), n, len(b))
		}
	}
}

// The length may include the padding, and the padding may be missing.
func TestAMB_03_LengthTolerance(t *testing.T) {
	want := &HandleResolution{Handle: "abc"}
	for _, b := range [][]byte{
		{5, 0, 0, 11, 0, 9, 0, 7, 'a', 'b', 'c', 0},
		{5, 0, 0, 12, 0, 9, 0, 7, 'a', 'b', 'c', 0},
		{5, 0, 0, 12, 0, 9, 0, 7, 'a', 'b', 'c', 0xff},
		{5, 0, 0, 11, 0, 9, 0, 7, 'a', 'b', 'c'},
	} {
		if m := pt.MustDecode(t, Decode, b); !reflect.DeepEqual(m, want) {
			t.Errorf("%x: %+v", b, m)
		}
	}
}

func TestPAR_4_05_MessagePadding(t *testing.T) {
	for n := range 8 {
		b := pt.MustEncode(t, &Cookie{Cookie: bytes.Repeat([]byte{0xff}, n)})
		end := 4 + 4 + n
		if len(b)%4 != 0 || len(b)-end > 3 || !bytes.Equal(b[end:], make([]byte, len(b)-end)) {
			t.Errorf("%x", b)
		}
		for i := end; i < len(b); i++ {
			b[i] = 0xaa
		}
		if m := pt.MustDecode(t, Decode, b).(*Cookie); len(m.Cookie) != n {
			t.Errorf("%+v", m)
		}
	}
}
