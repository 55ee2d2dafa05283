package asap

import (
	"bytes"

	"rserpool/asap/param"
)

// Decode decodes one message. b is a message as a transport delivers it, with its
// padding or without; nothing in the results refers to it.
//
// The causes are to be reported to the sender in an ASAP_ERROR although the
// message takes effect: unknown parameters that were skipped but whose type asks
// for a report (RFC 5354, section 3). They are nil nearly always.
//
// An error is always a *param.Error; the message must not take effect, and the
// error's Report holds the causes to send back, if any. When it comes with a
// message, that is the readable part of a request that was malformed: of a
// Registration, Deregistration or HandleResolution the handle and, for the first
// two, the identifier. Such a request is answered by its negative response, with
// the Report as its Error (AMB-14). Without a message the Report goes into an
// ASAP_ERROR. Never answer a multicast datagram: this function can't know.
func Decode(b []byte) (Message, param.OperationError, error) {
	return decode(b, new(param.Decoding), nil)
}

// Decoder decodes messages like Decode, for one goroutine that does so all the
// time: once warm, decoding a HandleResolution allocates nothing. The zero value
// is not ready, use NewDecoder.
type Decoder struct {
	limits     param.Limits
	handles    *param.Interner
	resolution HandleResolution
	latest     []byte // what resolution was decoded from; empty: it isn't valid
	state      param.Decoding
}

// latestLength is the longest HandleResolution, in octets, that a Decoder
// recognizes when it comes again.
const latestLength = 256

// DefaultHandles is how many pool handles a Decoder keeps by default. One
// connection seldom asks for more pools.
const DefaultHandles = 128

// NewDecoder returns a Decoder with these limits that keeps the strings of up to
// handles pool handles it has seen; 0 means DefaultHandles.
func NewDecoder(limits param.Limits, handles int) *Decoder {
	if handles == 0 {
		handles = DefaultHandles
	}
	return &Decoder{limits: limits, handles: param.NewInterner(handles)}
}

// Decode decodes one message like the function Decode, but a HandleResolution
// that it returns is valid only until the next call and must not be changed. The
// handle in it may be kept.
func (d *Decoder) Decode(b []byte) (Message, param.OperationError, error) {
	// Most users ask for the same again and again.
	if len(d.latest) > 0 && bytes.Equal(b, d.latest) {
		return &d.resolution, nil, nil
	}
	d.latest = d.latest[:0]
	d.state = param.Decoding{Limits: d.limits, Handles: d.handles}
	m, report, err := decode(b, &d.state, &d.resolution)
	if m == &d.resolution && report == nil && err == nil && len(b) <= latestLength {
		d.latest = append(d.latest, b...)
	}
	return m, report, err
}

// decode puts a HandleResolution into reuse, if that is not nil.
func decode(b []byte, d *param.Decoding, reuse *HandleResolution) (Message, param.OperationError, error) {
	env, err := param.Open(b)
	if err != nil {
		return nil, nil, param.Settle(err, false)
	}
	r := d.NewReader(env.Value)
	m, err := body(env, &r, d, reuse)
	if err == nil {
		if env.Type == uint8(TypeError) {
			return m, nil, nil // no error ever answers an error (AMB-15)
		}
		return m, d.Report, nil
	}
	e := param.Settle(err, m != nil)
	if env.Type == uint8(TypeError) {
		e.Report = nil
	}
	if e.Kind == param.UnknownParameter {
		m = nil
	}
	return m, nil, e
}

// body decodes the value of a message. With an error it returns the readable part
// of a request that has to be answered all the same, or nil.
func body(env param.Envelope, r *param.Reader, d *param.Decoding, reuse *HandleResolution) (Message, error) {
	bit := env.Flags&0x01 != 0
	switch MessageType(env.Type) {
	case TypeRegistration:
		return decodeRegistration(r)
	case TypeDeregistration:
		h, id, err := handleAndID(r)
		if err != nil {
			return nil, err
		}
		return &Deregistration{Handle: h, ID: id}, finishRequest(r, h)
	case TypeRegistrationResponse:
		h, id, cause, err := response(r)
		return complete(r, &RegistrationResponse{Reject: bit, Handle: h, ID: id, Error: cause}, err)
	case TypeDeregistrationResponse:
		h, id, cause, err := response(r)
		return complete(r, &DeregistrationResponse{Handle: h, ID: id, Error: cause}, err)
	case TypeHandleResolution:
		if reuse == nil {
			reuse = new(HandleResolution)
		}
		return decodeHandleResolution(r, bit, reuse)
	case TypeHandleResolutionResponse:
		return decodeHandleResolutionResponse(r, d, bit)
	case TypeEndpointKeepAlive:
		return decodeEndpointKeepAlive(r, bit)
	case TypeEndpointKeepAliveAck:
		h, id, err := handleAndID(r)
		return complete(r, &EndpointKeepAliveAck{Handle: h, ID: id}, err, h)
	case TypeEndpointUnreachable:
		h, id, err := handleAndID(r)
		return complete(r, &EndpointUnreachable{Handle: h, ID: id}, err, h)
	case TypeServerAnnounce:
		return decodeServerAnnounce(r, d)
	case TypeCookie:
		c, err := r.Cookie()
		return complete(r, &Cookie{Cookie: c}, err)
	case TypeCookieEcho:
		c, err := r.Cookie()
		return complete(r, &CookieEcho{Cookie: c}, err)
	case TypeBusinessCard:
		return decodeBusinessCard(r)
	case TypeError:
		causes, err := r.OperationError()
		if err == nil && causes == nil {
			err = param.Invalid(nil, "%s without cause", TypeError)
		}
		return complete(r, &Error{Causes: causes}, err)
	}
	return nil, param.Unrecognized(env)
}

// complete finishes a message that is either whole or dropped. Handles given are
// checked.
func complete(r *param.Reader, m Message, err error, handles ...param.PoolHandle) (Message, error) {
	if err == nil {
		err = r.Finish()
	}
	for _, h := range handles {
		if err == nil {
			err = nonEmpty(h)
		}
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// finishRequest checks the rest of a request whose sender gets an answer in any
// case.
func finishRequest(r *param.Reader, h param.PoolHandle) error {
	if err := r.Finish(); err != nil {
		return err
	}
	return nonEmpty(h)
}

// nonEmpty refuses the empty pool handle (AMB-71).
func nonEmpty(h param.PoolHandle) error {
	if h == "" {
		return param.Invalid([]byte{0, byte(param.TypePoolHandle), 0, 4}, "empty pool handle")
	}
	return nil
}

func handleAndID(r *param.Reader) (h param.PoolHandle, id param.PEID, err error) {
	if h, err = r.PoolHandle(); err == nil {
		id, err = r.PEIdentifier()
	}
	return h, id, err
}

func response(r *param.Reader) (h param.PoolHandle, id param.PEID, cause param.OperationError, err error) {
	if h, id, err = handleAndID(r); err == nil {
		cause, err = r.OperationError()
	}
	return h, id, cause, err
}

func decodeRegistration(r *param.Reader) (Message, error) {
	h, err := r.PoolHandle()
	if err != nil {
		return nil, err
	}
	e, identified, err := r.PoolElement()
	if !identified {
		return nil, err
	}
	if err == nil {
		err = finishRequest(r, h)
	}
	return &Registration{Handle: h, Element: e}, err
}

func decodeHandleResolution(r *param.Reader, sendUpdates bool, m *HandleResolution) (Message, error) {
	h, err := r.PoolHandle()
	if err != nil {
		return nil, err
	}
	*m = HandleResolution{SendUpdates: sendUpdates, Handle: h}
	p, ok, err := r.Accept(param.TypeHandleResolutionOption)
	if err != nil {
		return nil, err
	}
	if ok {
		m.Items = p.HandleResolutionOption()
	}
	if err := r.Finish(); err != nil {
		return nil, err
	}
	return m, nonEmpty(h)
}

// decodeHandleResolutionResponse takes policy, elements and error where they are
// expected; the error decides.
func decodeHandleResolutionResponse(r *param.Reader, d *param.Decoding, acceptUpdates bool) (Message, error) {
	m := &HandleResolutionResponse{AcceptUpdates: acceptUpdates}
	var err error
	if m.Handle, err = r.PoolHandle(); err != nil {
		return nil, err
	}
	for {
		t, err := r.Peek()
		if err != nil {
			return nil, err
		}
		switch {
		case t == 0:
			if m.Error == nil && m.Elements == nil {
				return nil, param.Invalid(nil, "%s with neither element nor error", m.Type())
			}
			return m, nil
		case t == param.TypePolicy && m.Policy.Type == 0 && m.Elements == nil && m.Error == nil:
			m.Policy, err = r.Policy()
		case t == param.TypePoolElement && m.Error == nil:
			var e param.PoolElement
			e, _, err = r.PoolElement()
			m.Elements = append(m.Elements, e)
		case t == param.TypeOperationError && m.Error == nil:
			m.Error, err = d.OperationError(r.Next())
			m.Policy, m.Elements = param.Policy{}, nil
		default:
			r.Next()
		}
		if err != nil {
			return nil, err
		}
	}
}

func decodeEndpointKeepAlive(r *param.Reader, home bool) (Message, error) {
	registrar, err := r.Uint32()
	if err != nil {
		return nil, err
	}
	m := &EndpointKeepAlive{Home: home, Registrar: param.RegistrarID(registrar)}
	if m.Handle, err = r.PoolHandle(); err != nil {
		return nil, err
	}
	p, ok, err := r.Accept(param.TypePEIdentifier)
	if ok {
		m.ID, err = p.PEIdentifier()
	}
	return complete(r, m, err, m.Handle)
}

func decodeServerAnnounce(r *param.Reader, d *param.Decoding) (Message, error) {
	registrar, err := r.Uint32()
	if err != nil {
		return nil, err
	}
	m := &ServerAnnounce{Registrar: param.RegistrarID(registrar)}
	for {
		more, err := r.SkipTo(param.TypeSCTPTransport, param.TypeTCPTransport)
		if !more || err != nil {
			return complete(r, m, err)
		}
		if len(m.Transports) == d.Limits.Addresses {
			return nil, param.TooMany("transports in an announcement", d.Limits.Addresses)
		}
		tr, err := r.Transport()
		if err != nil {
			return nil, err
		}
		m.Transports = append(m.Transports, tr)
	}
}

func decodeBusinessCard(r *param.Reader) (Message, error) {
	h, err := r.PoolHandle()
	if err != nil {
		return nil, err
	}
	m := &BusinessCard{Handle: h}
	for {
		e, _, err := r.PoolElement()
		if err != nil {
			return nil, err
		}
		m.Elements = append(m.Elements, e)
		more, err := r.SkipTo(param.TypePoolElement)
		if !more || err != nil {
			return complete(r, m, err, h)
		}
	}
}
