package param_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"rserpool/asap/param"
	pt "rserpool/asap/param/paramtest"
)

// Every policy has its layout, the nine that of RFC 5356, in the parameter of RFC
// 5354.
func TestPAR_3_8_01_PolicyLayouts(t *testing.T) {
	const w, p, l, d, f, dist = 0x01020304, 0x11121314, 0x21222324, 0x31323334, 0x41424344, 0x51525354
	full := param.Policy{Weight: w, Priority: p, Load: l, Degradation: d, Penalty: f, Distance: dist}
	tests := []struct {
		policy param.PolicyType
		words  []uint32
		back   param.Policy // what is read back: only the fields of the type
	}{
		{param.RoundRobin, nil, param.Policy{}},
		{param.WeightedRoundRobin, []uint32{w}, param.Policy{Weight: w}},
		{param.Random, nil, param.Policy{}},
		{param.WeightedRandom, []uint32{w}, param.Policy{Weight: w}},
		{param.Priority, []uint32{p}, param.Policy{Priority: p}},
		{param.LeastUsed, []uint32{l}, param.Policy{Load: l}},
		{param.LeastUsedDegradation, []uint32{l, d}, param.Policy{Load: l, Degradation: d}},
		{param.PriorityLeastUsed, []uint32{l, d}, param.Policy{Load: l, Degradation: d}},
		{param.RandomizedLeastUsed, []uint32{l}, param.Policy{Load: l}},
		{param.RandomizedPriorityLeastUsed, []uint32{l, d}, param.Policy{Load: l, Degradation: d}},
		{param.RandomizedLeastUsedDegradation, []uint32{l, d}, param.Policy{Load: l, Degradation: d}},
		{param.PriorityLeastUsedDegradation, []uint32{l, d}, param.Policy{Load: l, Degradation: d}},
		{param.RandomizedPriorityLeastUsedDegradation, []uint32{l, d}, param.Policy{Load: l, Degradation: d}},
		{param.WeightedRandomDPF, []uint32{w, f, dist}, param.Policy{Weight: w, Penalty: f, Distance: dist}},
		{param.LeastUsedDPF, []uint32{l, f, dist}, param.Policy{Load: l, Penalty: f, Distance: dist}},
		{param.LeastUsedDegradationDPF, []uint32{l, d, f, dist}, param.Policy{Load: l, Degradation: d, Penalty: f, Distance: dist}},
		{param.PowerOfTwoChoices, []uint32{l}, param.Policy{Load: l}},
		{param.RendezvousHashing, []uint32{w}, param.Policy{Weight: w}},
		{param.PeakEWMA, nil, param.Policy{}},
	}
	for _, test := range tests {
		t.Run(test.policy.String(), func(t *testing.T) {
			in := full
			in.Type = test.policy
			got := encode(t, func(w *param.Writer) { w.Policy(&in) })
			want := pt.TLV(param.TypePolicy, pt.U32(append([]uint32{uint32(test.policy)}, test.words...)...))
			if !bytes.Equal(got, want) {
				t.Errorf("got %x, want %x", got, want)
			}
			test.back.Type = test.policy
			if back, err := policy(got); err != nil || back != test.back {
				t.Errorf("read back %+v, %v", back, err)
			}
			for _, n := range []int{-4, -1, 1, 4} { // octets more or less
				value := append(bytes.Clone(want[4:]), make([]byte, 4)...)[:len(want)-4+n]
				octets := pt.TLV(param.TypePolicy, value)
				other, err := policy(octets)
				if test.policy.Standard() || len(value) < 4 {
					wantMalformed(t, err)
					continue
				}
				// Somebody else's format of a private type is kept.
				want := param.Policy{Type: test.policy, Misfit: true, Data: string(value[4:])}
				if other != want || err != nil {
					t.Errorf("%x: %+v, %v", octets, other, err)
				}
				if again := encode(t, func(w *param.Writer) { w.Policy(&other) }); !bytes.HasPrefix(again, octets) { // padded
					t.Errorf("%x became %x", octets, again)
				}
			}
			if test.policy.Standard() == test.policy.Private() || !test.policy.Valid() {
				t.Errorf("standard %v, private %v", test.policy.Standard(), test.policy.Private())
			}
		})
	}
}

func policy(b []byte) (param.Policy, error) {
	var d param.Decoding
	r := d.NewReader(b)
	return r.Policy()
}

// Policies without a known format are kept as they are.
func TestOtherPoliciesAreKept(t *testing.T) {
	for _, typ := range []param.PolicyType{0x00000006, 0x40000005, 0x80000000, 0xb0002004, 0xc0000000, 0xffffffff} {
		for _, data := range []string{"", "a", "four", "\x00\x01\x02\x03\x04\x05\x06\x07\x08"} {
			b := pt.TLV(param.TypePolicy, append(pt.U32(uint32(typ)), data...))
			p, err := policy(b)
			if err != nil || p != (param.Policy{Type: typ, Data: data}) {
				t.Errorf("%s %q: %+v, %v", typ, data, p, err)
			}
			if got := encode(t, func(w *param.Writer) { w.Policy(&p) }); !bytes.Equal(got, pt.Pad(b)) {
				t.Errorf("%s %q: encoded %x", typ, data, got)
			}
			if typ.Standard() {
				t.Errorf("%s is standard?", typ)
			}
		}
	}
}

// The octets of whole parameters, as rsplib lays them out: load before degradation
// before penalty before distance.
func TestPrivatePolicyOctets(t *testing.T) {
	for octets, want := range map[string]param.Policy{
		"00080010b0001003400000011999999a":         {Type: param.PriorityLeastUsedDegradation, Load: 0x40000001, Degradation: 0x1999999a},
		"00080014b0002001000000070041893700000064": {Type: param.WeightedRandomDPF, Weight: 7, Penalty: 0x00418937, Distance: 100},
		"00080014b0002002400000010041893700000064": {Type: param.LeastUsedDPF, Load: 0x40000001, Penalty: 0x00418937, Distance: 100},
		"00080018b0002003400000011999999a0041893700000064": {
			Type: param.LeastUsedDegradationDPF, Load: 0x40000001, Degradation: 0x1999999a, Penalty: 0x00418937, Distance: 100},
		"0008000cc052530180000000": {Type: param.PowerOfTwoChoices, Load: 0x80000000},
		"0008000c8052530200000003": {Type: param.RendezvousHashing, Weight: 3},
		"00080008c0525303":         {Type: param.PeakEWMA},
	} {
		b, err := hex.DecodeString(octets)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := policy(b); err != nil || p != want {
			t.Errorf("%s: %+v, %v", octets, p, err)
		}
		if got := encode(t, func(w *param.Writer) { w.Policy(&want) }); !bytes.Equal(got, b) {
			t.Errorf("%v: %x, want %s", want.Type, got, octets)
		}
	}
}

func TestDefinePolicy(t *testing.T) {
	const own param.PolicyType = 0x80007001
	want := param.Policy{Type: own, Load: 3, Weight: 4}
	octets := pt.TLV(param.TypePolicy, pt.U32(uint32(own), 3, 4))
	if _, known := own.Format(); !known { // else this is a further run in one process
		if p, err := policy(octets); err != nil || p.Data == "" {
			t.Errorf("before: %+v, %v", p, err)
		}
		if err := param.DefinePolicy(own, "Own", param.FieldLoad, param.FieldWeight); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := policy(octets); err != nil || p != want {
		t.Errorf("%+v, %v", p, err)
	}
	if got := encode(t, func(w *param.Writer) { w.Policy(&want) }); !bytes.Equal(got, octets) {
		t.Errorf("encoded %x, want %x", got, octets)
	}
	// What was written by those who lack the policy.
	for _, n := range []int{0, 1, 4, 7, 12} {
		octets := pt.TLV(param.TypePolicy, append(pt.U32(uint32(own)), make([]byte, n)...))
		p, err := policy(octets)
		if want := (param.Policy{Type: own, Misfit: true, Data: string(make([]byte, n))}); p != want || err != nil {
			t.Errorf("%d octets: %+v, %v", n, p, err)
		}
		if got := encode(t, func(w *param.Writer) { w.Policy(&p) }); !bytes.HasPrefix(got, octets) { // padded
			t.Errorf("%x became %x", octets, got)
		}
	}
	if own.String() != "Own" || !own.Has(param.FieldWeight) || own.Has(param.FieldDegradation) {
		t.Errorf("%v", own)
	}
	for name, define := range map[string]func() error{
		"defined":       func() error { return param.DefinePolicy(own, "Again") },
		"rsplib's":      func() error { return param.DefinePolicy(param.LeastUsedDPF, "LU") },
		"the RFC's":     func() error { return param.DefinePolicy(param.LeastUsed, "LU") },
		"for the IETF":  func() error { return param.DefinePolicy(0x40000009, "New") },
		"value twice":   func() error { return param.DefinePolicy(0x80007002, "New", param.FieldLoad, param.FieldLoad) },
		"value unknown": func() error { return param.DefinePolicy(0x80007002, "New", 77) },
	} {
		if err := define(); !errors.Is(err, param.ErrPolicyType) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPOL_7_1_01_PolicyTypes(t *testing.T) {
	for _, typ := range []param.PolicyType{
		param.RoundRobin, param.WeightedRoundRobin, param.Random, param.WeightedRandom, param.Priority,
	} {
		if typ.Private() || typ.Adaptive() {
			t.Errorf("%s 0x%08x", typ, uint32(typ))
		}
	}
	for _, typ := range []param.PolicyType{
		param.LeastUsed, param.LeastUsedDegradation, param.PriorityLeastUsed, param.RandomizedLeastUsed,
	} {
		if typ.Private() || !typ.Adaptive() {
			t.Errorf("%s 0x%08x", typ, uint32(typ))
		}
	}
	for _, typ := range []param.PolicyType{0, 0x40000000} {
		_, err := policy(pt.TLV(param.TypePolicy, pt.U32(uint32(typ))))
		wantMalformed(t, err)
		w := param.NewMessage(nil, 0, 0)
		w.Policy(&param.Policy{Type: typ})
		if _, err := w.Finish(); !errors.Is(err, param.ErrEncode) {
			t.Errorf("encoding policy type 0x%08x: %v", uint32(typ), err)
		}
	}
	if !param.PolicyType(0x80000000).Valid() {
		t.Error("0x80000000 is for private use")
	}
}

func TestPAR_3_9_01_HandlesAreOctets(t *testing.T) {
	for _, h := range []param.PoolHandle{"a", "a\x00", "\x00a", "\x00", "\xff\xfe", "ä", ""} {
		var d param.Decoding
		r := d.NewReader(encode(t, func(w *param.Writer) { w.PoolHandle(h) }))
		if got, err := r.PoolHandle(); err != nil || got != h {
			t.Errorf("%q became %q, %v", h, got, err)
		}
	}
}

func TestPoolElements(t *testing.T) {
	for _, e := range pt.Elements() {
		for _, withASAP := range []bool{true, false} {
			b, err := param.AppendPoolElement([]byte("dst"), &e, withASAP)
			if err != nil || !bytes.HasPrefix(b, []byte("dst")) || (len(b)-3)%4 != 0 {
				t.Fatalf("%q, %v", b, err)
			}
			want := e
			if !withASAP {
				want.ASAP = param.Transport{}
			}
			if got, err := element(b[3:]); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, %v\nwant %+v", got, err, want)
			}
		}
	}
	bad := pt.Elements()[0]
	bad.Policy.Type = 0
	if b, err := param.AppendPoolElement([]byte("dst"), &bad, true); !errors.Is(err, param.ErrEncode) || string(b) != "dst" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestPAR_3_10_01_OneUserTransport(t *testing.T) {
	ids := pt.U32(1, 0, 300)
	udp := transportWith(param.TypeUDPTransport, address4)
	for name, b := range map[string][]byte{
		"none":              pt.TLV(param.TypePoolElement, ids, roundRobin),
		"two":               pt.TLV(param.TypePoolElement, ids, sctp, udp, roundRobin),
		"second one behind": pt.TLV(param.TypePoolElement, ids, sctp, roundRobin, udp),
		"no policy":         pt.TLV(param.TypePoolElement, ids, sctp),
		"no transport":      pt.TLV(param.TypePoolElement, ids),
		"too short":         pt.TLV(param.TypePoolElement, pt.U32(1, 0)),
		"empty":             pt.TLV(param.TypePoolElement, nil),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := element(b)
			wantMalformed(t, err)
		})
	}
}

func TestPAR_3_10_02_ASAPTransport(t *testing.T) {
	ids := pt.U32(1, 0, 300)
	for _, typ := range []param.Type{param.TypeSCTPTransport, param.TypeTCPTransport} { // TCP: our extension
		e, err := element(pt.TLV(param.TypePoolElement, ids, sctp, roundRobin, transportWith(typ, address4)))
		if err != nil || e.ASAP.Type != typ {
			t.Errorf("%s: %+v, %v", typ, e, err)
		}
	}
	for _, typ := range []param.Type{param.TypeDCCPTransport, param.TypeUDPTransport, param.TypeUDPLiteTransport, param.TypeOpaqueTransport} {
		_, err := element(pt.TLV(param.TypePoolElement, ids, sctp, roundRobin, transportWith(typ, address4)))
		wantMalformed(t, err)
	}
	// The transport behind the first ASAP transport is just one too many.
	e, err := element(pt.TLV(param.TypePoolElement, ids, sctp, roundRobin, pt.SCTP(8, 0, address4), pt.SCTP(9, 0, address4)))
	if err != nil || e.ASAP.Port != 8 {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestPAR_3_10_03_HomeUndetermined(t *testing.T) {
	e := pt.Elements()[0]
	e.Home = 0
	b, err := param.AppendPoolElement(nil, &e, false)
	if err != nil || !bytes.Equal(b[8:12], []byte{0, 0, 0, 0}) {
		t.Errorf("%x, %v", b, err)
	}
}

func TestPAR_3_10_04_LifeIsSigned(t *testing.T) {
	for life, want := range map[param.Life][]byte{
		300: {0, 0, 1, 0x2c}, param.InfiniteLife: {0xff, 0xff, 0xff, 0xff}, 0: {0, 0, 0, 0},
		-2: {0xff, 0xff, 0xff, 0xfe}, 0x7fffffff: {0x7f, 0xff, 0xff, 0xff}, -0x80000000: {0x80, 0, 0, 0},
	} {
		e := pt.Elements()[0]
		e.Life = life
		b, err := param.AppendPoolElement(nil, &e, false)
		if err != nil || !bytes.Equal(b[12:16], want) {
			t.Errorf("life %d: %x, %v", life, b, err)
		}
		if got, err := element(b); err != nil || got.Life != life {
			t.Errorf("life %d: %d, %v", life, got.Life, err)
		}
	}
	if _, finite := param.InfiniteLife.Duration(); finite {
		t.Error("-1 is finite")
	}
	if d, finite := param.Life(300).Duration(); !finite || d.Seconds() != 300 {
		t.Errorf("300 is %v", d)
	}
}

func server(b []byte) (param.ServerInformation, error) {
	var d param.Decoding
	r := d.NewReader(b)
	return r.ServerInformation()
}

func TestPAR_3_11_01_ServerInformation(t *testing.T) {
	for _, tr := range pt.ControlTransports() {
		in := param.ServerInformation{ID: 0x0a0b0c0d, Transport: tr}
		b := encode(t, func(w *param.Writer) { w.ServerInformation(&in) })
		if !bytes.Equal(b[4:8], []byte{0x0a, 0x0b, 0x0c, 0x0d}) {
			t.Errorf("%x", b)
		}
		if got, err := server(b); err != nil || !reflect.DeepEqual(got, in) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for name, nested := range map[string][]byte{
		"no transport": nil, "UDP": transportWith(param.TypeUDPTransport, address4), "policy": roundRobin,
	} {
		_, err := server(pt.TLV(param.TypeServerInformation, pt.U32(1), nested))
		if kind(err) != param.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := server(pt.TLV(param.TypeServerInformation, []byte{0, 0, 1}))
	wantMalformed(t, err)
}

func TestPAR_3_15_01_Checksum(t *testing.T) {
	got := encode(t, func(w *param.Writer) { w.PEChecksum(0x7e3b) })
	if want := []byte{0, 0x0f, 0, 6, 0x7e, 0x3b, 0, 0}; !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	for _, n := range []int{0, 1, 3, 4} {
		var d param.Decoding
		r := d.NewReader(pt.TLV(param.TypePEChecksum, make([]byte, n)))
		p, err := r.Expect(param.TypePEChecksum)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.PEChecksum()
		wantMalformed(t, err)
	}
}

func TestPEIdentifierLength(t *testing.T) {
	for _, n := range []int{0, 3, 5, 8} {
		var d param.Decoding
		r := d.NewReader(pt.TLV(param.TypePEIdentifier, make([]byte, n)))
		_, err := r.PEIdentifier()
		wantMalformed(t, err)
	}
}

func TestHandleResolutionOption(t *testing.T) {
	for n, want := range map[int]uint32{0: 0, 3: 0, 4: 0x01010101, 8: 0} {
		var d param.Decoding
		r := d.NewReader(pt.TLV(param.TypeHandleResolutionOption, bytes.Repeat([]byte{1}, n)))
		p, err := r.Expect(param.TypeHandleResolutionOption)
		if err != nil || p.HandleResolutionOption() != want {
			t.Errorf("%d octets: %x, %v", n, p.HandleResolutionOption(), err)
		}
	}
}

func TestPAR_4_04_EncodedElementsEndWithoutPadding(t *testing.T) {
	for _, data := range []string{"", "abcd", "a", "abcdefg"} {
		e := param.PoolElement{
			ID: 1, Life: 300, Policy: param.Policy{Type: 0x80000001, Data: data},
			User: param.Transport{Type: param.TypeTCPTransport, Port: 80, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		}
		tlv, err := param.AppendPoolElement(nil, &e, false)
		if err != nil {
			t.Fatal(err)
		}
		if want := len(data)%4 != 0; param.Padded(tlv) != want {
			t.Errorf("%d octets of data: padded %v, want %v", len(data), param.Padded(tlv), want)
		}
		w := param.NewMessage(nil, 1, 0)
		w.Encoded(tlv)
		w.Encoded(tlv)
		if want := 4 + len(tlv) + 40 + len(data); w.Len() != want {
			t.Errorf("%d octets of data: message of %d octets, want %d", len(data), w.Len(), want)
		}
	}
}
