package param

import "encoding/binary"

// PoolHandle takes the next parameter, which must be a pool handle. It may be
// empty; whether that will do is the message's business.
func (r *Reader) PoolHandle() (PoolHandle, error) {
	p, err := r.Expect(TypePoolHandle)
	if err != nil {
		return "", err
	}
	return r.d.Handles.Handle(p.value()), nil
}

// PoolHandle appends a pool handle parameter.
func (w *Writer) PoolHandle(h PoolHandle) {
	at := w.begin(uint16(TypePoolHandle))
	w.buf = append(w.buf, h...)
	w.end(at)
}

// PEIdentifier takes the next parameter, which must be a PE identifier.
func (r *Reader) PEIdentifier() (PEID, error) {
	p, err := r.Expect(TypePEIdentifier)
	if err != nil {
		return 0, err
	}
	return p.PEIdentifier()
}

// PEIdentifier decodes a PE Identifier parameter.
func (p Param) PEIdentifier() (PEID, error) {
	if len(p.value()) != 4 {
		return 0, Invalid(p.raw, "%s of %d octets", p.Type, len(p.raw))
	}
	return PEID(binary.BigEndian.Uint32(p.value())), nil
}

// PEIdentifier appends a PE Identifier parameter.
func (w *Writer) PEIdentifier(id PEID) {
	at := w.begin(uint16(TypePEIdentifier))
	w.Uint32(uint32(id))
	w.end(at)
}

// Pool Element parameter (RFC 5354, section 3.10):
//
//	id(4) home(4) life(4) user transport TLV | policy TLV | [ASAP transport TLV]
//
// The transport before the policy is the user's, the one behind it is ASAP's.
const elementFixed = 12

// PoolElement takes the next parameter, which must be a pool element. Together
// with an error it returns what it had read of the element, and true if that
// includes the identifier.
func (r *Reader) PoolElement() (PoolElement, bool, error) {
	p, err := r.Expect(TypePoolElement)
	if err != nil {
		return PoolElement{}, false, err
	}
	if err := r.d.element(); err != nil {
		return PoolElement{}, false, err
	}
	var e PoolElement
	if len(p.value()) < 4 {
		return e, false, Invalid(p.raw, "%s of %d octets", p.Type, len(p.raw))
	}
	e.ID = PEID(binary.BigEndian.Uint32(p.value()))
	if len(p.value()) < elementFixed {
		return e, true, Invalid(p.raw, "%s of %d octets", p.Type, len(p.raw))
	}
	e.Home = RegistrarID(binary.BigEndian.Uint32(p.value()[4:]))
	e.Life = Life(binary.BigEndian.Uint32(p.value()[8:]))
	in := r.nested(p, p.value()[elementFixed:])
	if e.User, err = in.transport(userTransport); err != nil {
		return e, true, err
	}
	if e.Policy, err = in.Policy(); err != nil {
		return e, true, err
	}
	e.ASAP, err = in.asapTransport()
	return e, true, err
}

// asapTransport reads the optional transport at the end of a pool element. A
// transport of a type that carries no ASAP is a second user transport and
// malformed (PAR-3.10-01); other known parameters are skipped.
func (r *Reader) asapTransport() (Transport, error) {
	var out Transport
	for {
		t, err := r.Peek()
		if t == 0 || err != nil {
			return out, err
		}
		p := r.Next()
		if !t.transport() || !out.IsZero() {
			continue
		}
		if !t.fits(controlTransport) {
			return out, Invalid(p.raw, "%s as ASAP transport", t)
		}
		if out, err = r.parseTransport(p, controlTransport); err != nil {
			return out, err
		}
	}
}

// PoolElement appends a pool element parameter; its ASAP transport is left out
// when it is absent or withASAP is false.
func (w *Writer) PoolElement(e *PoolElement, withASAP bool) {
	at := w.begin(uint16(TypePoolElement))
	w.Uint32(uint32(e.ID))
	w.Uint32(uint32(e.Home))
	w.Uint32(uint32(e.Life))
	w.transport(&e.User, userTransport)
	w.Policy(&e.Policy)
	if withASAP && !e.ASAP.IsZero() {
		w.transport(&e.ASAP, controlTransport)
	}
	w.end(at)
}

// AppendPoolElement appends an encoded pool element parameter to dst, padding
// included, to be stored and copied into messages later (Writer.Encoded). The
// ASAP transport is left out when it is absent or withASAP is false, as in
// answers to pool users. In case of an error, which wraps ErrEncode, it returns
// dst.
func AppendPoolElement(dst []byte, e *PoolElement, withASAP bool) ([]byte, error) {
	w := Writer{buf: room(dst), base: len(dst)}
	w.PoolElement(e, withASAP)
	if w.err != nil {
		return dst, w.err
	}
	w.pad()
	return w.buf, nil
}

// ServerInformation decodes the next parameter, which must be a server
// information (RFC 5354, section 3.11).
func (r *Reader) ServerInformation() (ServerInformation, error) {
	p, err := r.Expect(TypeServerInformation)
	if err != nil {
		return ServerInformation{}, err
	}
	if err := r.d.element(); err != nil {
		return ServerInformation{}, err
	}
	if len(p.value()) < 4 {
		return ServerInformation{}, Invalid(p.raw, "%s of %d octets", p.Type, len(p.raw))
	}
	s := ServerInformation{ID: RegistrarID(binary.BigEndian.Uint32(p.value()))}
	in := r.nested(p, p.value()[4:])
	if s.Transport, err = in.transport(controlTransport); err != nil {
		return s, err
	}
	return s, in.Finish()
}

// ServerInformation appends a server information parameter.
func (w *Writer) ServerInformation(s *ServerInformation) {
	at := w.begin(uint16(TypeServerInformation))
	w.Uint32(uint32(s.ID))
	w.transport(&s.Transport, controlTransport)
	w.end(at)
}

// Cookie takes the next parameter, which must be a cookie. The result is a copy.
func (r *Reader) Cookie() ([]byte, error) {
	p, err := r.Expect(TypeCookie)
	if err != nil {
		return nil, err
	}
	return append([]byte(nil), p.value()...), nil
}

// Cookie appends a cookie parameter.
func (w *Writer) Cookie(cookie []byte) {
	at := w.begin(uint16(TypeCookie))
	w.buf = append(w.buf, cookie...)
	w.end(at)
}

// PEChecksum decodes a PE Checksum parameter (RFC 5354, section 3.15).
func (p Param) PEChecksum() (uint16, error) {
	if len(p.value()) != 2 {
		return 0, Invalid(p.raw, "%s of %d octets", p.Type, len(p.raw))
	}
	return binary.BigEndian.Uint16(p.value()), nil
}

// PEChecksum appends a PE Checksum parameter.
func (w *Writer) PEChecksum(sum uint16) {
	at := w.begin(uint16(TypePEChecksum))
	w.Uint16(sum)
	w.end(at)
}

// HandleResolutionOption decodes rsplib's private parameter. A value of another
// size than expected counts as no wish.
func (p Param) HandleResolutionOption() uint32 {
	if len(p.value()) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(p.value())
}

// HandleResolutionOption appends rsplib's private parameter.
func (w *Writer) HandleResolutionOption(items uint32) {
	at := w.begin(uint16(TypeHandleResolutionOption))
	w.Uint32(items)
	w.end(at)
}
