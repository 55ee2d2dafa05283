package asap

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"rserpool/asap/param"
	pt "rserpool/asap/param/paramtest"
)

// sequence returns the types of the parameters at top level of a message.
func sequence(t *testing.T, m Message, fixed int) []param.Type {
	t.Helper()
	b := pt.MustEncode(t, m)[4+fixed:]
	var out []param.Type
	for len(b) >= 4 {
		out = append(out, param.Type(b[0])<<8|param.Type(b[1]))
		n := int(b[2])<<8 | int(b[3])
		b = b[(n+3)&^3:]
	}
	return out
}

func wantSequence(t *testing.T, m Message, fixed int, want ...param.Type) {
	t.Helper()
	if got := sequence(t, m, fixed); !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %v, want %v", m.Type(), got, want)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, m := range corpus() {
		if got := pt.MustDecode(t, Decode, pt.MustEncode(t, m)); !reflect.DeepEqual(got, m) {
			t.Errorf("%s:\n got %+v\nwant %+v", m.Type(), got, m)
		}
	}
}

func TestASAP_2_2_1_01_RegistrationParameters(t *testing.T) {
	wantSequence(t, golden["V01"], 0, param.TypePoolHandle, param.TypePoolElement)
}

func TestASAP_2_2_2_01_DeregistrationParameters(t *testing.T) {
	wantSequence(t, golden["V02"], 0, param.TypePoolHandle, param.TypePEIdentifier)
}

// Rejected and warned are two things.
func TestASAP_2_2_3_03_RejectBitAndError(t *testing.T) {
	for _, reject := range []bool{false, true} {
		for _, e := range []param.OperationError{nil, {{Code: param.CauseInvalidValues}}} {
			want := &RegistrationResponse{Reject: reject, Handle: "a", ID: 1, Error: e}
			if got := pt.MustDecode(t, Decode, pt.MustEncode(t, want)); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
	}
}

func TestASAP_2_2_6_03_NoPolicyParameter(t *testing.T) {
	m := pt.MustDecode(t, Decode, message(TypeHandleResolutionResponse, 0, handleTLV, elementTLV)).(*HandleResolutionResponse)
	if m.Policy.Type != 0 || len(m.Elements) != 1 {
		t.Errorf("%+v", m)
	}
	wantSequence(t, m, 0, param.TypePoolHandle, param.TypePoolElement)
}

func TestASAP_2_2_6_04_NegativeHasNeitherPolicyNorElement(t *testing.T) {
	failure := param.OperationError{param.NewCause(param.CauseUnknownPoolHandle)}
	wantSequence(t, &HandleResolutionResponse{Handle: "a", Error: failure}, 0,
		param.TypePoolHandle, param.TypeOperationError)
	for _, m := range []*HandleResolutionResponse{
		{Handle: "a", Error: failure, Policy: param.Policy{Type: param.Random}},
		{Handle: "a", Error: failure, Elements: pt.Elements()},
	} {
		if _, err := m.Append(nil); !errors.Is(err, param.ErrEncode) {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

func TestASAP_2_2_6_06_PositiveHasAnElement(t *testing.T) {
	m := &HandleResolutionResponse{Handle: "a", Policy: param.Policy{Type: param.Random}}
	if b, err := m.Append([]byte("dst")); !errors.Is(err, param.ErrEncode) || string(b) != "dst" {
		t.Errorf("%q, %v", b, err)
	}
	wantDropped(t, message(TypeHandleResolutionResponse, 0, handleTLV), param.Malformed)
}

// An error makes the response negative, whatever else it holds, wherever it is.
func TestASAP_2_2_6_07_ErrorMeansNegative(t *testing.T) {
	want := &HandleResolutionResponse{Handle: echoPool, Error: param.OperationError{{Code: param.CauseUnknownPoolHandle}}}
	for _, b := range [][]byte{
		message(TypeHandleResolutionResponse, 0, handleTLV, errorTLV),
		message(TypeHandleResolutionResponse, 0, handleTLV, errorTLV, policyTLV, elementTLV, errorTLV),
		message(TypeHandleResolutionResponse, 0, handleTLV, policyTLV, elementTLV, errorTLV),
	} {
		if m := pt.MustDecode(t, Decode, b); !reflect.DeepEqual(m, want) {
			t.Errorf("%x: %+v", b, m)
		}
	}
}

func TestHandleResolutionResponseExtras(t *testing.T) {
	want := &HandleResolutionResponse{
		Handle: echoPool, Policy: param.Policy{Type: param.RoundRobin},
		Elements: []param.PoolElement{element(0), element(0)},
	}
	b := message(TypeHandleResolutionResponse, 0,
		handleTLV, idTLV, policyTLV, policyTLV, elementTLV, policyTLV, idTLV, elementTLV, handleTLV)
	if m := pt.MustDecode(t, Decode, b); !reflect.DeepEqual(m, want) {
		t.Errorf("%+v", m)
	}
}

func TestASAP_2_2_10_01_AnnouncedTransports(t *testing.T) {
	for i, tr := range pt.Transports() {
		m := &ServerAnnounce{Registrar: 1, Transports: []param.Transport{tr}}
		_, err := m.Append(nil)
		control := tr.Type == param.TypeSCTPTransport || tr.Type == param.TypeTCPTransport
		if control != (err == nil) {
			t.Errorf("transport %d, %s: %v", i, tr.Type, err)
		}
	}
	udp := pt.TLV(param.TypeUDPTransport, pt.U16(7, 0), pt.IPv4(192, 0, 2, 1))
	b := pt.Message(uint8(TypeServerAnnounce), 0, pt.U32(9), udp, sctpTLV, udp, sctpTLV)
	if m := pt.MustDecode(t, Decode, b).(*ServerAnnounce); len(m.Transports) != 2 {
		t.Errorf("%+v", m)
	}
}

func TestASAP_2_2_13_01_BusinessCard(t *testing.T) {
	elements := pt.Elements()
	m := &BusinessCard{Handle: "a", Elements: elements}
	got := pt.MustDecode(t, Decode, pt.MustEncode(t, m)).(*BusinessCard)
	if !reflect.DeepEqual(got.Elements, elements) {
		t.Error("another order of elements")
	}
	if _, err := (&BusinessCard{Handle: "a"}).Append(nil); !errors.Is(err, param.ErrEncode) {
		t.Error(err)
	}
	b := message(TypeBusinessCard, 0, handleTLV, elementTLV, idTLV, elementTLV)
	if m := pt.MustDecode(t, Decode, b).(*BusinessCard); len(m.Elements) != 2 {
		t.Errorf("%+v", m)
	}
}

// One Operation Error with the causes, in the form that ASAP_ERROR wants.
func TestASAP_2_2_14_02_ErrorMessage(t *testing.T) {
	m := &Error{Causes: pt.Error()}
	wantSequence(t, m, 0, param.TypeOperationError)
	if _, err := new(Error).Append(nil); !errors.Is(err, param.ErrEncode) {
		t.Errorf("without cause: %v", err)
	}
}

// Nothing in an ASAP_ERROR is worth an answer (AMB-15).
func TestASAP_2_2_14_03_NoErrorAnswersAnError(t *testing.T) {
	m, report, err := Decode(message(TypeError, 0, unknown(0xc011), errorTLV, unknown(0xc012)))
	if m == nil || report != nil || err != nil {
		t.Errorf("%+v, report %v, %v", m, report, err)
	}
	wantDropped(t, message(TypeError, 0, errorTLV, unknown(0x4011)), param.UnknownParameter)
	wantDropped(t, message(TypeError, 0, unknown(0xc011), unknown(0x4011)), param.UnknownParameter)
	wantDropped(t, message(TypeError, 0, []byte{0, 0x0c, 0, 3}), param.Malformed)
	wantDropped(t, message(TypeError, 0, pt.TLV(param.TypeOperationError, nil)), param.Malformed)
}

// Both with and without the ASAP transport an element is understood.
func TestAMB_25_ASAPTransportIsOptional(t *testing.T) {
	with := pt.Elements()[0]
	without := with
	without.ASAP = param.Transport{}
	for _, e := range []param.PoolElement{with, without} {
		for _, want := range []Message{
			&Registration{Handle: "a", Element: e},
			&HandleResolutionResponse{Handle: "a", Elements: []param.PoolElement{e}},
		} {
			if got := pt.MustDecode(t, Decode, pt.MustEncode(t, want)); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
	}
}

// As many elements as fit go into an answer, and never a part of one.
func TestAMB_75_LongAnswers(t *testing.T) {
	e := element(1)
	tlv, err := param.AppendPoolElement(nil, &e, false)
	if err != nil {
		t.Fatal(err)
	}
	fit := (param.MaxLength - 4 - 12) / len(tlv)
	many := make([]param.PoolElement, fit+10)
	for i := range many {
		many[i] = e
		many[i].ID = param.PEID(i)
	}
	plain := pt.MustEncode(t, &HandleResolutionResponse{Handle: echoPool, Elements: many})
	if got := pt.MustDecode(t, Decode, plain).(*HandleResolutionResponse).Elements; !reflect.DeepEqual(got, many[:fit]) {
		t.Errorf("%d elements, want the first %d", len(got), fit)
	}
	var r Resolution
	r.Begin([]byte("dst"), false, echoPool, nil)
	for i := range many {
		tlv, err := param.AppendPoolElement(nil, &many[i], false)
		if err != nil {
			t.Fatal(err)
		}
		if r.Elements(tlv) != (i < fit) {
			t.Fatalf("element %d of %d", i, fit)
		}
	}
	copied, err := r.Finish()
	if err != nil || !bytes.Equal(copied, append([]byte("dst"), plain...)) {
		t.Errorf("copied elements make another message, %v", err)
	}
	together := plain[len(plain)-fit*len(tlv):]
	r.Begin(nil, false, echoPool, nil)
	if r.Elements(append(slices.Clone(together), tlv...)) || !r.Elements(together) {
		t.Error("all together: what fits is refused, or what does not fit isn't")
	}
	if copied, err := r.Finish(); err != nil || !bytes.Equal(copied, plain) {
		t.Errorf("elements copied together make another message, %v", err)
	}
	long := param.PoolHandle(bytes.Repeat([]byte{'x'}, 65532))
	if b, err := (&HandleResolution{Handle: long}).Append([]byte("dst")); !errors.Is(err, param.ErrEncode) || string(b) != "dst" {
		t.Errorf("%d octets, %v", len(b), err)
	}
}

// A message of the longest length that there is, 65535, and its padding.
func TestLongestMessage(t *testing.T) {
	m := &Cookie{Cookie: bytes.Repeat([]byte{0xab}, 65535-8)}
	b := pt.MustEncode(t, m)
	if len(b) != 65536 || b[2] != 0xff || b[3] != 0xff {
		t.Errorf("%d octets, header %x", len(b), b[:4])
	}
	if got := pt.MustDecode(t, Decode, b); !reflect.DeepEqual(got, m) {
		t.Error("another cookie")
	}
	m.Cookie = append(m.Cookie, 0)
	if _, err := m.Append(nil); !errors.Is(err, param.ErrEncode) {
		t.Errorf("longer still: %v", err)
	}
}

// Elements that end within a word keep their padding out of the message length.
func TestResolutionOfOddElements(t *testing.T) {
	e := element(1)
	e.Policy = param.Policy{Type: 0x80000001, Data: "odd"}
	elements := []param.PoolElement{e, e}
	want := pt.MustEncode(t, &HandleResolutionResponse{Handle: "a", Elements: elements})
	tlv, err := param.AppendPoolElement(nil, &e, false)
	if err != nil {
		t.Fatal(err)
	}
	var r Resolution
	r.Begin(nil, false, "a", nil)
	r.Elements(tlv)
	r.Elements(tlv)
	got, err := r.Finish()
	if err != nil || !bytes.Equal(got, want) || got[3]%4 == 0 {
		t.Errorf("got %x, %v\nwant %x", got, err, want)
	}
	for _, bad := range [][]byte{nil, {0, 0x0a, 0}, {0, 0x0a, 0, 3}, {0, 0x0a, 0, 9, 1, 2, 3, 4}} {
		var r Resolution
		r.Begin(nil, false, "a", nil)
		r.Elements(bad)
		if _, err := r.Finish(); !errors.Is(err, param.ErrEncode) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

// A Decoder gives the same results as Decode; only resolutions are used again.
func TestDecoder(t *testing.T) {
	d := NewDecoder(param.Limits{}, 2)
	var kept []Message
	messages := corpus()
	for _, m := range messages {
		b := pt.MustEncode(t, m)
		got, report, err := d.Decode(b)
		if err != nil || report != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("got %+v, report %v, %v\nwant %+v", got, report, err, m)
		}
		clear(b)
		kept = append(kept, got)
	}
	for i, m := range messages {
		if m.Type() != TypeHandleResolution && !reflect.DeepEqual(kept[i], m) {
			t.Errorf("%s changed afterwards", m.Type())
		}
	}
}

// What a Decoder took last makes no difference to what it says next.
func TestDecoderRepeats(t *testing.T) {
	option := func(b ...byte) []byte {
		return pt.Message(uint8(TypeHandleResolution), 0, handleTLV, pt.TLV(param.TypeHandleResolutionOption, b))
	}
	messages := map[string][]byte{
		"plain":          pt.MustEncode(t, &HandleResolution{Handle: echoPool}),
		"updates":        pt.MustEncode(t, &HandleResolution{Handle: echoPool, SendUpdates: true}),
		"another pool":   pt.MustEncode(t, &HandleResolution{Handle: "x"}),
		"long":           pt.MustEncode(t, &HandleResolution{Handle: param.PoolHandle(bytes.Repeat([]byte{'x'}, 2*latestLength))}),
		"items":          option(0, 0, 0, 3),
		"report":         pt.Message(uint8(TypeHandleResolution), 0, handleTLV, pt.TLV(0xc0aa, nil)),
		"refused":        pt.Message(uint8(TypeHandleResolution), 0, handleTLV, pt.TLV(0x40aa, nil)),
		"empty handle":   pt.Message(uint8(TypeHandleResolution), 0, pt.TLV(param.TypePoolHandle, nil)),
		"another type":   pt.MustEncode(t, &EndpointUnreachable{Handle: echoPool, ID: 1}),
		"nothing at all": nil,
	}
	for first, a := range messages {
		for second, b := range messages {
			d := NewDecoder(param.Limits{}, 0)
			for i, raw := range [][]byte{a, a, b, a, b, b} {
				got, report, err := d.Decode(raw)
				want, wantReport, wantErr := Decode(raw)
				if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(report, wantReport) || !reflect.DeepEqual(err, wantErr) {
					t.Errorf("%s and %s, message %d: %+v, %v, %v; want %+v, %v, %v",
						first, second, i, got, report, err, want, wantReport, wantErr)
				}
			}
		}
	}
}

func TestMessageNames(t *testing.T) {
	if s := TypeHandleResolution.String(); s != "ASAP_HANDLE_RESOLUTION" {
		t.Error(s)
	}
	if s := MessageType(0x45).String(); s != "ASAP message 0x45" {
		t.Error(s)
	}
}
