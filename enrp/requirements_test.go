package enrp

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"rserpool/asap/param"
	pt "rserpool/asap/param/paramtest"
)

var (
	ids        = pt.U32(0x0a0a0a0a, 0x0b0b0b0b)
	handleTLV  = pt.TLV(param.TypePoolHandle, []byte("EchoPool"))
	sctpTLV    = pt.SCTP(7, 0, pt.IPv4(192, 0, 2, 1))
	asapTLV    = pt.SCTP(5001, 0, pt.IPv4(192, 0, 2, 1))
	policyTLV  = pt.TLV(param.TypePolicy, pt.U32(1))
	elementTLV = pt.TLV(param.TypePoolElement, pt.U32(0x11223344, 0x0a0a0a0a, 300), sctpTLV, policyTLV, asapTLV)
	serverTLV  = pt.TLV(param.TypeServerInformation, pt.U32(0x0a0a0a0a), pt.SCTP(9901, 0, pt.IPv4(192, 0, 2, 10)))
	checksum   = pt.TLV(param.TypePEChecksum, pt.U16(0x7e3b))
	errorTLV   = pt.TLV(param.TypeOperationError, []byte{0, 2, 0, 8, 0x45, 0, 0, 4})
)

// message makes a message by hand, from 0x0a0a0a0a to 0x0b0b0b0b.
func message(t MessageType, flags uint8, params ...[]byte) []byte {
	return pt.Message(uint8(t), flags, ids, params...)
}

func wantNotEncoded(t *testing.T, m Message) {
	t.Helper()
	if b, err := m.Append([]byte("dst")); !errors.Is(err, param.ErrEncode) || string(b) != "dst" {
		t.Errorf("%+v: %q, %v", m, b, err)
	}
}

// wantRefused checks that bytes are no message, and what the sender hears.
func wantRefused(t *testing.T, b []byte, kind param.Kind, want param.OperationError) {
	t.Helper()
	m, report, err := Decode(b)
	var e *param.Error
	if !errors.As(err, &e) || e.Kind != kind || m != nil || report != nil {
		t.Errorf("%x: %+v, report %v, error %v", b, m, report, err)
		return
	}
	if !reflect.DeepEqual(e.Report, want) {
		t.Errorf("%x: report %x, want %x", b, e.Report, want)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, m := range corpus() {
		if got := pt.MustDecode(t, Decode, pt.MustEncode(t, m)); !reflect.DeepEqual(got, m) {
			t.Errorf("%s:\n got %+v\nwant %+v", m.Type(), got, m)
		}
	}
}

// A handle of three octets and a policy of five, in the middle of a table.
func TestENRP_2_01_PaddingBetweenParameters(t *testing.T) {
	odd := element1
	odd.Policy = param.Policy{Type: 0x80000001, Data: "x"}
	m := &HandleTableResponse{Pools: []Pool{
		{Handle: "abc", Elements: []param.PoolElement{odd, odd}}, {Handle: "abcde", Elements: []param.PoolElement{odd}},
	}}
	e := pt.TLV(param.TypePoolElement, pt.U32(0x11223344, 0x0a0a0a0a, 300),
		sctpTLV, pt.TLV(param.TypePolicy, append(pt.U32(0x80000001), 'x')), asapTLV)
	want := pt.Message(uint8(TypeHandleTableResponse), 0, pt.U32(0, 0),
		pt.TLV(param.TypePoolHandle, []byte("abc")), e, e, pt.TLV(param.TypePoolHandle, []byte("abcde")), e)
	if got := pt.MustEncode(t, m); !bytes.Equal(got, want) {
		t.Errorf("got %x\nwant %x", got, want)
	}
}

func TestENRP_2_1_01_ReceiverOfGroupCast(t *testing.T) {
	for _, m := range []Message{golden["V17"], golden["V21"], golden["V24"], golden["V26"]} {
		if b := pt.MustEncode(t, m); !bytes.Equal(b[8:12], []byte{0, 0, 0, 0}) || m.IDs().Receiver != 0 {
			t.Errorf("%s: %x", m.Type(), b)
		}
	}
}

// The checksum is always sent, also the one of a registrar without elements, and
// a message without it is understood (AMB-67).
func TestENRP_2_1_02_PresenceHasChecksum(t *testing.T) {
	if b := pt.MustEncode(t, &Presence{}); len(b) != 20 || b[3] != 18 {
		t.Errorf("%x", b)
	}
	t.Run("AMB_67", func(t *testing.T) {
		want := &Presence{Servers: fromA, NoChecksum: true}
		if m := pt.MustDecode(t, Decode, message(TypePresence, 0)); !reflect.DeepEqual(m, want) {
			t.Errorf("%+v", m)
		}
	})
	wantRefused(t, message(TypePresence, 0, pt.TLV(param.TypePEChecksum, pt.U32(1))), param.Malformed, nil)
	wantRefused(t, message(TypePresence, 0, checksum, pt.TLV(param.TypeServerInformation, pt.U32(1))), param.Malformed, nil)
}

func TestAMB_01_ReplyRequired(t *testing.T) {
	if b := pt.MustEncode(t, &Presence{ReplyRequired: true}); b[1] != 0x01 {
		t.Errorf("%x", b)
	}
	for flags, want := range map[uint8]bool{0x00: false, 0x01: true, 0xfe: false, 0xff: true} {
		if m := pt.MustDecode(t, Decode, message(TypePresence, flags, checksum)).(*Presence); m.ReplyRequired != want {
			t.Errorf("flags 0x%02x: %v", flags, m.ReplyRequired)
		}
	}
}

func TestENRP_2_2_01_OwnChildrenOnly(t *testing.T) {
	for _, own := range []bool{false, true} {
		b := pt.MustEncode(t, &HandleTableRequest{OwnOnly: own})
		if (b[1] == 1) != own || len(b) != 12 {
			t.Errorf("%x", b)
		}
		if m := pt.MustDecode(t, Decode, b).(*HandleTableRequest); m.OwnOnly != own {
			t.Errorf("%+v", m)
		}
	}
}

func TestENRP_2_3_01_RejectingTableIsEmpty(t *testing.T) {
	wantNotEncoded(t, &HandleTableResponse{Reject: true, Pools: []Pool{{Handle: "a", Elements: pt.Elements()}}})
	m := pt.MustDecode(t, Decode, message(TypeHandleTableResponse, 0x01, handleTLV, elementTLV)).(*HandleTableResponse)
	if !m.Reject || m.Pools != nil {
		t.Errorf("%+v", m)
	}
}

func TestENRP_2_3_03_PoolsInATable(t *testing.T) {
	wantNotEncoded(t, &HandleTableResponse{Pools: []Pool{{Handle: "a"}}})
	wantNotEncoded(t, &HandleTableResponse{Pools: []Pool{{Elements: pt.Elements()}}})
	for _, b := range [][]byte{
		message(TypeHandleTableResponse, 0, elementTLV),
		message(TypeHandleTableResponse, 0, handleTLV),
		message(TypeHandleTableResponse, 0, handleTLV, elementTLV, handleTLV),
		message(TypeHandleTableResponse, 0, handleTLV, handleTLV, elementTLV),
		message(TypeHandleTableResponse, 0, pt.TLV(param.TypePoolHandle, nil), elementTLV),
	} {
		wantRefused(t, b, param.Malformed, nil)
	}
	extra := message(TypeHandleTableResponse, 0, checksum, handleTLV, elementTLV, checksum, elementTLV)
	if m := pt.MustDecode(t, Decode, extra).(*HandleTableResponse); len(m.Pools) != 1 || len(m.Pools[0].Elements) != 2 {
		t.Errorf("%+v", m)
	}
}

func update2(action, reserved uint16, params ...[]byte) []byte {
	return pt.Message(uint8(TypeHandleUpdate), 0, append(slices.Clone(ids), pt.U16(action, reserved)...), params...)
}

func TestENRP_2_4_01_UpdateAction(t *testing.T) {
	for _, action := range []UpdateAction{AddPE, DelPE} {
		if m := pt.MustDecode(t, Decode, update2(uint16(action), 0, handleTLV, elementTLV)).(*HandleUpdate); m.Action != action {
			t.Errorf("%+v", m)
		}
	}
	for _, action := range []uint16{2, 0x0100, 0xffff} {
		wantRefused(t, update2(action, 0, handleTLV, elementTLV), param.Malformed, nil)
		wantNotEncoded(t, &HandleUpdate{Action: UpdateAction(action), Handle: "a", Element: element1})
	}
}

func TestENRP_2_4_02_ReservedField(t *testing.T) {
	want := pt.MustDecode(t, Decode, update2(1, 0, handleTLV, elementTLV))
	if got := pt.MustDecode(t, Decode, update2(1, 0xffff, handleTLV, elementTLV)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if b := pt.MustEncode(t, want); b[14] != 0 || b[15] != 0 {
		t.Errorf("%x", b)
	}
}

func TestTakeoverSuggested(t *testing.T) {
	b := update2(0, 0, handleTLV, elementTLV)
	b[1] = 0x01
	if m := pt.MustDecode(t, Decode, b).(*HandleUpdate); !m.TakeoverSuggested || pt.MustEncode(t, m)[1] != 0x01 {
		t.Errorf("%+v", m)
	}
}

func TestENRP_2_6_01_RejectingListIsEmpty(t *testing.T) {
	wantNotEncoded(t, &ListResponse{Reject: true, Peers: golden["V23"].(*ListResponse).Peers})
	m := pt.MustDecode(t, Decode, message(TypeListResponse, 0x01, serverTLV)).(*ListResponse)
	if !m.Reject || m.Peers != nil {
		t.Errorf("%+v", m)
	}
}

func TestENRP_2_10_01_ErrorMessage(t *testing.T) {
	b := pt.MustEncode(t, &Error{Servers: fromA, Causes: pt.Error()})
	if !bytes.Equal(b[4:12], ids) || b[12] != 0 || b[13] != byte(param.TypeOperationError) {
		t.Errorf("%x", b)
	}
	wantNotEncoded(t, &Error{Servers: fromA})
	wantRefused(t, message(TypeError, 0), param.Malformed, nil)
	wantRefused(t, pt.Message(uint8(TypeError), 0, nil, errorTLV)[:8], param.Malformed, nil)
}

// Between registrars an element has its ASAP transport.
func TestAMB_25_ASAPTransportBetweenRegistrars(t *testing.T) {
	e := element1
	e.ASAP = param.Transport{}
	wantNotEncoded(t, &HandleUpdate{Handle: "a", Element: e})
	wantNotEncoded(t, &HandleTableResponse{Pools: []Pool{{Handle: "a", Elements: []param.PoolElement{e}}}})
	bare := pt.TLV(param.TypePoolElement, pt.U32(1, 2, 3), sctpTLV, policyTLV)
	wantRefused(t, update2(0, 0, handleTLV, bare), param.Malformed, nil)
	wantRefused(t, message(TypeHandleTableResponse, 0, handleTLV, bare), param.Malformed, nil)
}

// Unknown parameters and messages: the rules of RFC 5354, as in ASAP.
func TestUnknown(t *testing.T) {
	u := func(typ param.Type) []byte { return pt.TLV(typ, []byte{1}) }
	quoting := func(b []byte) param.OperationError {
		return param.OperationError{{Code: param.CauseUnrecognizedParameter, Data: b}}
	}
	wantRefused(t, message(TypeListRequest, 0, u(0x0011)), param.UnknownParameter, nil)
	wantRefused(t, message(TypeListRequest, 0, u(0x4011)), param.UnknownParameter, quoting(u(0x4011)))
	want := &ListRequest{Servers: fromA}
	if m := pt.MustDecode(t, Decode, message(TypeListRequest, 0, u(0x8011), serverTLV)); !reflect.DeepEqual(m, want) {
		t.Errorf("%+v", m)
	}
	m, report, err := Decode(message(TypeListRequest, 0, u(0xc011)))
	if err != nil || !reflect.DeepEqual(m, want) || !reflect.DeepEqual(report, quoting(u(0xc011))) {
		t.Errorf("%+v, report %x, %v", m, report, err)
	}
	for typ := range 256 {
		if MessageType(typ) >= TypePresence && MessageType(typ) <= TypeError {
			continue
		}
		b := pt.Message(byte(typ), 0, ids)
		var want param.OperationError
		if typ>>6 == 1 {
			want = param.OperationError{{Code: param.CauseUnrecognizedMessage, Data: b}}
		}
		wantRefused(t, b, param.UnknownMessage, want)
	}
}

// Nothing in an ENRP_ERROR is worth an answer.
func TestAMB_15_NoErrorAnswersAnError(t *testing.T) {
	u := pt.TLV(0xc011, nil)
	if m, report, err := Decode(message(TypeError, 0, u, errorTLV)); m == nil || report != nil || err != nil {
		t.Errorf("%+v, report %v, %v", m, report, err)
	}
	wantRefused(t, message(TypeError, 0, errorTLV, pt.TLV(0x4011, nil)), param.UnknownParameter, nil)
}

func TestMalformed(t *testing.T) {
	for _, b := range [][]byte{
		nil, {1}, {1, 0, 0, 4}, pt.Message(1, 0, pt.U32(1)), {1, 0, 0, 3}, append(message(TypeListRequest, 0), 0, 0, 0, 0),
		message(TypeInitTakeover, 0), message(TypeInitTakeoverAck, 0, []byte{1, 2}), message(TypeTakeoverServer, 0),
		message(TypeHandleUpdate, 0), update2(0, 0), update2(0, 0, handleTLV), update2(0, 0, elementTLV),
		update2(0, 0, pt.TLV(param.TypePoolHandle, nil), elementTLV),
		message(TypeListResponse, 0, pt.TLV(param.TypeServerInformation, nil)),
		message(TypeListRequest, 0, []byte{0, 9, 0, 9}),
	} {
		wantRefused(t, b, param.Malformed, nil)
	}
	d := Decoder{Limits: param.Limits{Elements: 1}}
	for _, b := range [][]byte{
		message(TypeHandleTableResponse, 0, handleTLV, elementTLV, elementTLV), message(TypeListResponse, 0, serverTLV, serverTLV),
	} {
		_, _, err := d.Decode(b)
		var e *param.Error
		if !errors.As(err, &e) || e.Kind != param.LimitExceeded || e.Report != nil {
			t.Errorf("%v", err)
		}
	}
}

func TestReadServers(t *testing.T) {
	if s, ok := ReadServers(message(0x45, 0, []byte{1})); !ok || s != fromA {
		t.Errorf("%+v, %v", s, ok)
	}
	for _, b := range [][]byte{nil, pt.Message(0x45, 0, pt.U32(1)), {0x45, 0, 0, 13, 0, 0, 0, 1, 0, 0, 0, 2}} {
		if s, ok := ReadServers(b); ok {
			t.Errorf("%x: %+v", b, s)
		}
	}
}

// A table is cut between elements, the next message repeats the handle, and a list
// holds as many peers as fit.
func TestAMB_75_LongTablesAndLists(t *testing.T) {
	var tlvs [][]byte
	for _, e := range pt.Elements() {
		tlv, err := param.AppendPoolElement(nil, &e, true)
		if err != nil {
			t.Fatal(err)
		}
		tlvs = append(tlvs, tlv)
	}
	var pools []Pool // what arrives
	for next := 0; next < len(tlvs); {
		table := BeginTable([]byte("dst"), fromA, 300)
		start := next
		for next < len(tlvs) && table.Element("pool", tlvs[next]) {
			next++
		}
		b, err := table.Finish(next < len(tlvs))
		if err != nil || next == start || len(b) > 3+300 {
			t.Fatalf("%d octets, %d elements, %v", len(b), next-start, err)
		}
		m := pt.MustDecode(t, Decode, b[3:]).(*HandleTableResponse)
		if m.More != (next < len(tlvs)) || len(m.Pools) != 1 || m.Pools[0].Handle != "pool" || m.Servers != fromA {
			t.Fatalf("%+v", m)
		}
		pools = append(pools, m.Pools...)
	}
	var got []param.PoolElement
	for _, p := range pools {
		got = append(got, p.Elements...)
	}
	if len(pools) < 3 || !reflect.DeepEqual(got, pt.Elements()) {
		t.Errorf("%d messages, %d elements", len(pools), len(got))
	}

	// One element alone may be longer than the wish, not longer than a message.
	table := BeginTable(nil, fromA, 20)
	if !table.Element("pool", tlvs[0]) || table.Element("pool", tlvs[1]) {
		t.Error("one element")
	}
	if _, err := table.Finish(true); err != nil {
		t.Error(err)
	}

	list := &ListResponse{Peers: slices.Repeat(golden["V23"].(*ListResponse).Peers, 3000)}
	m := pt.MustDecode(t, Decode, pt.MustEncode(t, list)).(*ListResponse)
	if fit := (param.MaxLength - 12) / 24; len(m.Peers) != fit {
		t.Errorf("%d peers, want %d", len(m.Peers), fit)
	}
}

// The names of RFC 5353 in its figures, not the older ones of its prose.
func TestAMB_64_Names(t *testing.T) {
	for want, got := range map[string]string{
		"ENRP_HANDLE_TABLE_REQUEST": TypeHandleTableRequest.String(),
		"ENRP message 0x0b":         MessageType(0x0b).String(),
		"ADD_PE":                    AddPE.String(),
		"DEL_PE":                    DelPE.String(),
		"update action 0x0002":      UpdateAction(2).String(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
