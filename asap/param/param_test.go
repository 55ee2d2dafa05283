package param_test

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"rserpool/asap/param"
	pt "rserpool/asap/param/paramtest"
)

// element decodes b as one Pool Element parameter and nothing else.
func element(b []byte) (param.PoolElement, error) {
	var d param.Decoding
	r := d.NewReader(b)
	e, _, err := r.PoolElement()
	if err == nil {
		err = r.Finish()
	}
	return e, err
}

// user decodes b as the user transport of a pool element.
func user(b []byte) (param.Transport, error) {
	e, err := element(pt.TLV(param.TypePoolElement, pt.U32(1, 0, 300), b, roundRobin))
	return e.User, err
}

// encode returns what the function writes as the parameters of a message.
func encode(t *testing.T, write func(*param.Writer)) []byte {
	t.Helper()
	w := param.NewMessage(nil, 0, 0)
	write(&w)
	b, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return b[4:]
}

func kind(err error) param.Kind {
	var e *param.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

func wantMalformed(t *testing.T, err error) {
	t.Helper()
	if kind(err) != param.Malformed {
		t.Errorf("error %v, want malformed", err)
	}
}

var (
	roundRobin = pt.TLV(param.TypePolicy, pt.U32(1))
	address4   = pt.IPv4(192, 0, 2, 1)
	address6   = pt.TLV(param.TypeIPv6Address, netip.MustParseAddr("2001:db8::1").AsSlice())
	sctp       = pt.SCTP(7, 0, address4)
)

func TestPAR_2_01_BigEndian(t *testing.T) {
	got := encode(t, func(w *param.Writer) { w.PEIdentifier(0x01020304) })
	if want := []byte{0, 0x0e, 0, 8, 1, 2, 3, 4}; !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestAMB_06_AddressesComeFirstInATransport(t *testing.T) {
	misplaced := pt.TLV(param.TypePEIdentifier, pt.U32(1))
	first := pt.TLV(param.TypeSCTPTransport, []byte{0, 7, 0, 0}, misplaced, address4)
	if _, err := element(pt.TLV(param.TypePoolElement, pt.U32(1, 2, 3), first, roundRobin)); err == nil {
		t.Error("another parameter before the address is accepted")
	}
	then := pt.TLV(param.TypeSCTPTransport, []byte{0, 7, 0, 0}, address4, misplaced)
	if _, err := element(pt.TLV(param.TypePoolElement, pt.U32(1, 2, 3), then, roundRobin)); err != nil {
		t.Errorf("another parameter behind the address: %v", err)
	}
}

// A private policy of five octets leaves three octets of padding wherever it
// stands: between parameters they count, at the end they do not.
func TestPAR_2_02_ContainerLength(t *testing.T) {
	e := pt.Elements()[0]
	e.Policy = param.Policy{Type: 0x80000001, Data: "a"}
	for _, withASAP := range []bool{true, false} {
		got, err := param.AppendPoolElement(nil, &e, withASAP)
		if err != nil {
			t.Fatal(err)
		}
		parts := [][]byte{pt.SCTP(7, 0, address4), pt.TLV(param.TypePolicy, append(pt.U32(0x80000001), 'a'))}
		if withASAP {
			parts = append(parts, pt.SCTP(3863, 0, address4, address6))
		}
		want := pt.Pad(pt.TLV(param.TypePoolElement, pt.U32(uint32(e.ID), uint32(e.Home), uint32(e.Life)), parts...))
		if !bytes.Equal(got, want) {
			t.Errorf("with ASAP transport %v:\n got %x\nwant %x", withASAP, got, want)
		}
	}
}

// PAR-2-02 and AMB-04: a container's length may include the padding at its end.
func TestAMB_04_ContainerLengthWithPadding(t *testing.T) {
	policy := pt.TLV(param.TypePolicy, append(pt.U32(0x80000001), 'a'))
	want, err := element(pt.TLV(param.TypePoolElement, pt.U32(1, 2, 3), sctp, policy))
	if err != nil {
		t.Fatal(err)
	}
	got, err := element(pt.TLV(param.TypePoolElement, pt.U32(1, 2, 3), sctp, pt.Pad(policy)))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	for n := 1; n < 4; n++ {
		zeros, ones := make([]byte, n), bytes.Repeat([]byte{1}, n)
		if _, err := element(pt.TLV(param.TypePoolElement, pt.U32(1, 2, 3), sctp, roundRobin, zeros)); err != nil {
			t.Errorf("%d zero octets at the end: %v", n, err)
		}
		_, err := element(pt.TLV(param.TypePoolElement, pt.U32(1, 2, 3), sctp, roundRobin, ones))
		wantMalformed(t, err)
	}
}

func TestPAR_3_05_LengthCoversHeaderAndValue(t *testing.T) {
	if got := encode(t, func(w *param.Writer) { w.Cookie(nil) }); !bytes.Equal(got, []byte{0, 0x0d, 0, 4}) {
		t.Errorf("empty cookie: %x", got)
	}
	if got := encode(t, func(w *param.Writer) { w.Cookie([]byte{1}) }); !bytes.Equal(got, []byte{0, 0x0d, 0, 5, 1, 0, 0, 0}) {
		t.Errorf("cookie of one octet: %x", got)
	}
}

// The old text of RFC 5354 on the lengths of these two leaves out fields (AMB-65).
func TestAMB_65_LengthsWithAllFields(t *testing.T) {
	dccp := pt.Transports()[5]
	got := encode(t, func(w *param.Writer) { w.Transport(&dccp) })
	if want := pt.TLV(param.TypeDCCPTransport, append(pt.U16(1, 0), pt.U32(0xdeadbeef)...), address4); !bytes.Equal(got, want) {
		t.Errorf("DCCP transport:\n got %x\nwant %x", got, want)
	}
}

func TestPAR_3_06_PaddingOfZeros(t *testing.T) {
	for n := range 9 {
		t.Run("PAR_3_07", func(t *testing.T) {
			got := encode(t, func(w *param.Writer) {
				w.PoolHandle(param.PoolHandle(strings.Repeat("x", n)))
				w.PEIdentifier(1)
			})
			padding := len(got) - 4 - n - 8
			if padding < 0 || padding > 3 || (4+n+padding)%4 != 0 {
				t.Fatalf("%d octets of padding behind a handle of %d", padding, n)
			}
			if !bytes.Equal(got[4+n:4+n+padding], make([]byte, padding)) {
				t.Errorf("padding %x", got[4+n:4+n+padding])
			}
		})
	}
}

func TestPAR_3_08_PaddingIsNotLookedAt(t *testing.T) {
	var d param.Decoding
	r := d.NewReader([]byte{0, 9, 0, 5, 'h', 0xff, 0xaa, 0x55, 0, 0x0e, 0, 8, 0, 0, 0, 1})
	h, err := r.PoolHandle()
	if err != nil || h != "h" {
		t.Errorf("handle %q, %v", h, err)
	}
	if id, err := r.PEIdentifier(); err != nil || id != 1 {
		t.Errorf("identifier %v, %v", id, err)
	}
}

func TestPAR_3_09_BadLengths(t *testing.T) {
	for _, b := range [][]byte{
		{0, 9, 0, 0}, {0, 9, 0, 3}, {0, 9, 0, 5}, {0, 9, 0xff, 0xff, 'a'},
		{0, 9, 0}, {0, 9}, {9}, {0, 9, 0, 5, 'a', 0, 0, 0, 0xc0, 0x11, 0, 3},
	} {
		var d param.Decoding
		r := d.NewReader(b)
		_, err := r.PoolHandle()
		if err == nil {
			err = r.Finish()
		}
		wantMalformed(t, err)
	}
}

// transportWith returns a transport of any type but opaque, with these addresses.
func transportWith(t param.Type, addrs ...[]byte) []byte {
	fixed := pt.U16(7, 0)
	if t == param.TypeDCCPTransport {
		fixed = append(fixed, 0, 0, 0, 9)
	}
	return pt.TLV(t, fixed, addrs...)
}

func oneAddress(t *testing.T, typ param.Type) {
	t.Helper()
	for _, a := range [][]byte{address4, address6} {
		tr, err := user(transportWith(typ, a))
		if err != nil || tr.Type != typ || len(tr.Addrs) != 1 || tr.Port != 7 {
			t.Errorf("one address: %+v, %v", tr, err)
		}
		if tr.Use != param.DataOnly {
			t.Errorf("use %v: such a transport never carries control", tr.Use)
		}
	}
	_, err := user(transportWith(typ))
	wantMalformed(t, err)
	_, err = user(transportWith(typ, address4, address6))
	wantMalformed(t, err)
	for _, n := range []int{0, 2} {
		w := param.NewMessage(nil, 0, 0)
		w.Transport(&param.Transport{Type: typ, Port: 7, Addrs: pt.Transports()[1].Addrs[:n]})
		if _, err := w.Finish(); !errors.Is(err, param.ErrEncode) {
			t.Errorf("encoding %d addresses: %v", n, err)
		}
	}
}

func TestPAR_3_3_01_DCCPHasOneAddress(t *testing.T)    { oneAddress(t, param.TypeDCCPTransport) }
func TestPAR_3_5_01_TCPHasOneAddress(t *testing.T)     { oneAddress(t, param.TypeTCPTransport) }
func TestPAR_3_6_01_UDPHasOneAddress(t *testing.T)     { oneAddress(t, param.TypeUDPTransport) }
func TestPAR_3_7_01_UDPLiteHasOneAddress(t *testing.T) { oneAddress(t, param.TypeUDPLiteTransport) }
func TestPAR_3_3_02_DCCPIsNoControlTransport(t *testing.T) {
	noControl(t, param.TypeDCCPTransport)
}

// noControl shows that the type is read as "data only" whatever stands in the
// place of the use, and not taken for an ASAP transport.
func noControl(t *testing.T, typ param.Type) {
	t.Helper()
	b := transportWith(typ, address4)
	b[6], b[7] = 0, 1
	if tr, err := user(b); err != nil || tr.Use != param.DataOnly {
		t.Errorf("%+v, %v", tr, err)
	}
	e := pt.Elements()[0]
	e.ASAP = param.Transport{Type: typ, Port: 7, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	if _, err := param.AppendPoolElement(nil, &e, true); !errors.Is(err, param.ErrEncode) {
		t.Errorf("%s as ASAP transport: %v", typ, err)
	}
}

// TCP is data only as a user transport; as an ASAP transport it is our extension.
func TestPAR_3_5_02_TCPUserTransportIsDataOnly(t *testing.T) {
	b := transportWith(param.TypeTCPTransport, address4)
	b[7] = 1
	if tr, err := user(b); err != nil || tr.Use != param.DataOnly {
		t.Errorf("%+v, %v", tr, err)
	}
	tcp := param.Transport{
		Type: param.TypeTCPTransport, Port: 7, Use: param.DataAndControl,
		Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	}
	if got := encode(t, func(w *param.Writer) { w.Transport(&tcp) }); got[6] != 0 || got[7] != 0 {
		t.Errorf("reserved field %x", got[6:8])
	}
}

func TestPAR_3_4_01_SCTPAddresses(t *testing.T) {
	tr, err := user(pt.SCTP(7, 1, address4, address6, address4))
	want := param.Transport{Type: param.TypeSCTPTransport, Port: 7, Use: param.DataAndControl, Addrs: []netip.Addr{
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1"),
	}}
	if err != nil || !reflect.DeepEqual(tr, want) {
		t.Errorf("got %+v, %v\nwant %+v", tr, err, want)
	}
	_, err = user(pt.SCTP(7, 1))
	wantMalformed(t, err)
	_, err = user(pt.SCTP(7, 1, roundRobin))
	wantMalformed(t, err)
}

func TestPAR_3_4_02_TransportUse(t *testing.T) {
	for use := range uint16(4) {
		tr, err := user(pt.SCTP(7, use, address4))
		if use > 1 {
			wantMalformed(t, err)
		} else if err != nil || tr.Use != param.TransportUse(use) {
			t.Errorf("use %d: %+v, %v", use, tr, err)
		}
	}
	w := param.NewMessage(nil, 0, 0)
	bad := pt.Transports()[0]
	bad.Use = 2
	w.Transport(&bad)
	if _, err := w.Finish(); !errors.Is(err, param.ErrEncode) {
		t.Errorf("encoding use 2: %v", err)
	}
}

// The use of an ASAP or ENRP endpoint says nothing: sent as zero, ignored.
func TestAMB_72_UseOfControlTransports(t *testing.T) {
	e, err := element(pt.TLV(param.TypePoolElement, pt.U32(1, 0, 3), sctp, roundRobin, pt.SCTP(7, 0xffff, address4)))
	if err != nil || e.ASAP.Use != 0 {
		t.Errorf("%+v, %v", e.ASAP, err)
	}
	e.ASAP.Use = param.DataAndControl
	b, err := param.AppendPoolElement(nil, &e, true)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := element(b); err != nil || again.ASAP.Use != 0 || bytes.Contains(b, []byte{0, 7, 0, 1}) {
		t.Errorf("%x, %v", b, err)
	}
}

// IPv4 in the clothes of IPv6 is IPv4, so that addresses can be compared.
func TestMappedAddresses(t *testing.T) {
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	tr, err := user(pt.SCTP(7, 0, pt.TLV(param.TypeIPv6Address, mapped.AsSlice())))
	if err != nil || tr.Addrs[0] != mapped.Unmap() {
		t.Errorf("%+v, %v", tr, err)
	}
	tr.Addrs[0] = mapped
	if got := encode(t, func(w *param.Writer) { w.Transport(&tr) }); !bytes.Equal(got, sctp) {
		t.Errorf("got %x, want %x", got, sctp)
	}
}

func TestTransportsThatMakeNoSense(t *testing.T) {
	for name, b := range map[string][]byte{
		"port 0":                pt.SCTP(0, 0, address4),
		"no port":               pt.TLV(param.TypeSCTPTransport, nil),
		"half a port":           pt.TLV(param.TypeTCPTransport, []byte{0, 7, 0}),
		"no service code":       pt.TLV(param.TypeDCCPTransport, pt.U16(7, 0)),
		"IPv4 address of 5":     pt.SCTP(7, 0, pt.TLV(param.TypeIPv4Address, make([]byte, 5))),
		"IPv4 address of 16":    pt.SCTP(7, 0, pt.TLV(param.TypeIPv4Address, make([]byte, 16))),
		"IPv6 address of 4":     pt.SCTP(7, 0, pt.TLV(param.TypeIPv6Address, make([]byte, 4))),
		"address past its end":  pt.SCTP(7, 0, []byte{0, 1, 0, 12, 192, 0, 2, 1}),
		"no transport":          roundRobin,
		"address without shell": address4,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := user(b)
			wantMalformed(t, err)
		})
	}
	for name, tr := range map[string]param.Transport{
		"no type":         {},
		"address type":    {Type: param.TypeIPv4Address, Port: 7, Addrs: pt.Transports()[0].Addrs},
		"port 0":          {Type: param.TypeSCTPTransport, Addrs: pt.Transports()[0].Addrs},
		"invalid address": {Type: param.TypeSCTPTransport, Port: 7, Addrs: make([]netip.Addr, 1)},
		"opaque too long": {Type: param.TypeOpaqueTransport, Opaque: make([]byte, 65532)},
	} {
		t.Run("encode "+name, func(t *testing.T) {
			w := param.NewMessage([]byte("before"), 0, 0)
			w.Transport(&tr)
			b, err := w.Finish()
			if !errors.Is(err, param.ErrEncode) || string(b) != "before" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

func TestTransportValues(t *testing.T) {
	if !(param.Transport{}).IsZero() || pt.Transports()[7].IsZero() {
		t.Error("only the zero value is absent")
	}
	want := []netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.1:65535"), netip.MustParseAddrPort("[2001:db8::1]:65535"),
		netip.MustParseAddrPort("198.51.100.9:65535"),
	}
	if got := pt.Transports()[1].AddrPorts(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
