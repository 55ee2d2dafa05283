package param

import (
	"encoding/binary"
	"net/netip"
)

// Transport parameters (RFC 5354, sections 3.3 to 3.7 and 3.16):
//
//	SCTP              port(2) use(2)      address TLV...
//	TCP, UDP, UDP-L.  port(2) reserved(2) address TLV
//	DCCP              port(2) reserved(2) service code(4) address TLV
//	opaque            octets

// role is the place of a transport in a message: what types it may have and
// whether its Transport Use means anything.
type role int

const (
	userTransport    role = iota // any type
	controlTransport             // ASAP or ENRP endpoint: SCTP, or TCP as an extension; no use
)

func (t Type) fits(ro role) bool {
	if ro == controlTransport {
		return t == TypeSCTPTransport || t == TypeTCPTransport
	}
	return t.transport()
}

// Transport takes the next parameter, which must be the transport of an ASAP
// endpoint.
func (r *Reader) Transport() (Transport, error) {
	return r.transport(controlTransport)
}

func (r *Reader) transport(ro role) (Transport, error) {
	for {
		t, err := r.Peek()
		switch {
		case err != nil:
			return Transport{}, err
		case t.fits(ro):
			return r.parseTransport(r.Next(), ro)
		case t == 0:
			return Transport{}, Invalid(r.outer, "no transport")
		case t == TypeHandleResolutionOption:
			r.Next()
		default:
			return Transport{}, Invalid(r.next.raw, "%s where a transport should be", t)
		}
	}
}

func (r *Reader) parseTransport(p Param, ro role) (Transport, error) {
	t := Transport{Type: p.Type}
	if p.Type == TypeOpaqueTransport {
		t.Opaque = append([]byte(nil), p.value()...)
		return t, nil
	}
	fixed := 4
	if p.Type == TypeDCCPTransport {
		fixed = 8
	}
	if len(p.value()) < fixed {
		return t, Invalid(p.raw, "%s of %d octets", p.Type, len(p.raw))
	}
	t.Port = binary.BigEndian.Uint16(p.value())
	if t.Port == 0 {
		return t, Invalid(p.raw, "%s with port 0", p.Type)
	}
	switch {
	case p.Type == TypeDCCPTransport:
		t.ServiceCode = binary.BigEndian.Uint32(p.value()[4:])
	case p.Type == TypeSCTPTransport && ro == userTransport:
		t.Use = TransportUse(binary.BigEndian.Uint16(p.value()[2:]))
		if t.Use > DataAndControl {
			return t, Invalid(p.raw, "transport use 0x%04x", uint16(t.Use))
		}
	}
	var err error
	t.Addrs, err = r.addresses(p, p.value()[fixed:])
	return t, err
}

// addresses reads the address parameters in b, the end of p's value. They are
// counted before anything is allocated for them.
func (r *Reader) addresses(p Param, b []byte) ([]netip.Addr, error) {
	count := 0
	for scan := b; ; {
		q, rest, err := split(scan)
		if err != nil {
			return nil, err
		}
		if q.raw == nil {
			break
		}
		if q.Type == TypeIPv4Address || q.Type == TypeIPv6Address {
			count++
		}
		scan = rest
	}
	if count > r.d.Limits.Addresses {
		return nil, TooMany("addresses in a transport", r.d.Limits.Addresses)
	}
	if count > 1 && p.Type != TypeSCTPTransport {
		return nil, Invalid(p.raw, "%s with %d addresses", p.Type, count)
	}
	addrs := make([]netip.Addr, 0, count)
	in := r.nested(p, b)
	for {
		t, err := in.Peek()
		if err != nil {
			return nil, err
		}
		q := in.Next()
		switch t {
		case TypeIPv4Address, TypeIPv6Address:
			a, ok := netip.AddrFromSlice(q.value())
			if !ok || a.Is4() != (t == TypeIPv4Address) {
				return nil, Invalid(p.raw, "%s of %d octets", t, len(q.raw))
			}
			addrs = append(addrs, a.Unmap())
		case 0:
			if count == 0 {
				return nil, Invalid(p.raw, "%s without address", p.Type)
			}
			return addrs, nil
		default:
			if len(addrs) == 0 && t != TypeHandleResolutionOption {
				return nil, Invalid(p.raw, "%s where an address should be", t)
			}
		}
	}
}

// Transport appends a transport parameter.
func (w *Writer) Transport(t *Transport) { w.transport(t, userTransport) }

// ControlTransport appends the transport of an ASAP or ENRP endpoint: SCTP or
// TCP. Transport Use has no meaning there and is sent as zero (AMB-72).
func (w *Writer) ControlTransport(t *Transport) { w.transport(t, controlTransport) }

func (w *Writer) transport(t *Transport, ro role) {
	if !t.Type.fits(ro) {
		w.Fail("%s as transport", t.Type)
		return
	}
	at := w.begin(uint16(t.Type))
	if t.Type == TypeOpaqueTransport {
		w.buf = append(w.buf, t.Opaque...)
		w.end(at)
		return
	}
	if t.Port == 0 {
		w.Fail("%s with port 0", t.Type)
	}
	w.Uint16(t.Port)
	if t.Type == TypeSCTPTransport && ro == userTransport {
		if t.Use > DataAndControl {
			w.Fail("transport use 0x%04x", uint16(t.Use))
		}
		w.Uint16(uint16(t.Use))
	} else {
		w.Uint16(0)
	}
	if t.Type == TypeDCCPTransport {
		w.Uint32(t.ServiceCode)
	}
	if n := len(t.Addrs); n == 0 || n > 1 && t.Type != TypeSCTPTransport {
		w.Fail("%s with %d addresses", t.Type, n)
	}
	for _, a := range t.Addrs {
		w.address(a)
	}
	w.end(at)
}

func (w *Writer) address(a netip.Addr) {
	switch a = a.Unmap(); {
	case a.Is4():
		at := w.begin(uint16(TypeIPv4Address))
		b := a.As4()
		w.buf = append(w.buf, b[:]...)
		w.end(at)
	case a.Is6():
		at := w.begin(uint16(TypeIPv6Address))
		b := a.As16()
		w.buf = append(w.buf, b[:]...)
		w.end(at)
	default:
		w.Fail("invalid address")
	}
}
