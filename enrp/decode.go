package enrp

import "rserpool/asap/param"

// Decode decodes one message with default limits, see Decoder.
func Decode(b []byte) (Message, param.OperationError, error) {
	return Decoder{}.Decode(b)
}

// ReadServers returns the identifiers at the start of a message that Decode
// refused, to address the ENRP_ERROR to; false if it is too short.
func ReadServers(b []byte) (Servers, bool) {
	env, err := param.Open(b)
	if err != nil {
		return Servers{}, false
	}
	var d param.Decoding
	r := d.NewReader(env.Value)
	s, err := servers(&r)
	return s, err == nil
}

// Decoder decodes messages. It holds nothing but limits; the zero value has the
// default ones.
type Decoder struct{ Limits param.Limits }

// Decode decodes one message. b is a message as a transport delivers it, with its
// padding or without; nothing in the results refers to it.
//
// The causes are to be reported to the sender in an ENRP_ERROR although the
// message takes effect: unknown parameters that were skipped but whose type asks
// for a report (RFC 5354, section 3).
//
// An error is always a *param.Error; the message must not take effect, and the
// error's Report holds the causes to send back in an ENRP_ERROR, if any. Malformed
// messages are dropped silently (AMB-14). Never answer a multicast datagram.
func (dec Decoder) Decode(b []byte) (Message, param.OperationError, error) {
	d := param.Decoding{Limits: dec.Limits}
	env, err := param.Open(b)
	if err != nil {
		return nil, nil, param.Settle(err, false)
	}
	r := d.NewReader(env.Value)
	m, err := body(env, &r, &d)
	if err == nil {
		err = r.Finish()
	}
	if env.Type == uint8(TypeError) {
		d.Report = nil // no error ever answers an error (AMB-15)
	}
	if err != nil {
		e := param.Settle(err, false)
		if env.Type == uint8(TypeError) {
			e.Report = nil
		}
		return nil, nil, e
	}
	return m, d.Report, nil
}

func servers(r *param.Reader) (Servers, error) {
	sender, err := r.Uint32()
	if err != nil {
		return Servers{}, err
	}
	receiver, err := r.Uint32()
	return Servers{Sender: param.RegistrarID(sender), Receiver: param.RegistrarID(receiver)}, err
}

// body decodes the value of a message; what is left is for the caller to skip.
// With an error the message returned means nothing.
func body(env param.Envelope, r *param.Reader, d *param.Decoding) (Message, error) {
	t := MessageType(env.Type)
	if t < TypePresence || t > TypeError {
		return nil, param.Unrecognized(env)
	}
	s, err := servers(r)
	if err != nil {
		return nil, err
	}
	low := env.Flags&0x01 != 0
	switch t {
	case TypePresence:
		return decodePresence(r, s, low)
	case TypeHandleTableRequest:
		return &HandleTableRequest{Servers: s, OwnOnly: low}, nil
	case TypeHandleTableResponse:
		return decodeHandleTableResponse(r, &HandleTableResponse{
			Servers: s, Reject: low, More: env.Flags&flagMore != 0,
		})
	case TypeHandleUpdate:
		return decodeHandleUpdate(r, &HandleUpdate{Servers: s, TakeoverSuggested: low})
	case TypeListRequest:
		return &ListRequest{Servers: s}, nil
	case TypeListResponse:
		return decodeListResponse(r, &ListResponse{Servers: s, Reject: low})
	case TypeError:
		causes, err := r.OperationError()
		if err == nil && causes == nil {
			err = param.Invalid(nil, "%s without cause", TypeError)
		}
		return &Error{Servers: s, Causes: causes}, err
	}
	v, err := r.Uint32()
	target := param.RegistrarID(v)
	switch t {
	case TypeInitTakeover:
		return &InitTakeover{Servers: s, Target: target}, err
	case TypeInitTakeoverAck:
		return &InitTakeoverAck{Servers: s, Target: target}, err
	default:
		return &TakeoverServer{Servers: s, Target: target}, err
	}
}

func decodePresence(r *param.Reader, s Servers, replyRequired bool) (Message, error) {
	m := &Presence{Servers: s, ReplyRequired: replyRequired}
	p, ok, err := r.Accept(param.TypePEChecksum)
	if err != nil {
		return nil, err
	}
	if m.NoChecksum = !ok; ok {
		if m.Checksum, err = p.PEChecksum(); err != nil {
			return nil, err
		}
	}
	t, err := r.Peek()
	if err == nil && t == param.TypeServerInformation {
		m.Server, err = r.ServerInformation()
	}
	return m, err
}

// decodeElement reads a pool element, which between registrars always has its
// ASAP transport (AMB-25).
func decodeElement(r *param.Reader) (param.PoolElement, error) {
	e, _, err := r.PoolElement()
	if err == nil && e.ASAP.IsZero() {
		err = param.Invalid(nil, "pool element %s without ASAP transport", e.ID)
	}
	return e, err
}

func decodeHandle(r *param.Reader) (param.PoolHandle, error) {
	h, err := r.PoolHandle()
	if err == nil && h == "" {
		err = param.Invalid(nil, "empty pool handle")
	}
	return h, err
}

// decodeHandleTableResponse reads pools up to the end. What a rejecting response
// holds is ignored.
func decodeHandleTableResponse(r *param.Reader, m *HandleTableResponse) (Message, error) {
	for !m.Reject {
		more, err := r.SkipTo(param.TypePoolHandle, param.TypePoolElement)
		if !more || err != nil {
			return m, err
		}
		if t, _ := r.Peek(); t == param.TypePoolHandle {
			h, err := decodeHandle(r)
			if err != nil {
				return nil, err
			}
			m.Pools = append(m.Pools, Pool{Handle: h})
		}
		if len(m.Pools) == 0 {
			return nil, param.Invalid(nil, "pool element without pool handle")
		}
		e, err := decodeElement(r)
		if err != nil {
			return nil, err
		}
		last := &m.Pools[len(m.Pools)-1]
		last.Elements = append(last.Elements, e)
	}
	return m, nil
}

func decodeHandleUpdate(r *param.Reader, m *HandleUpdate) (Message, error) {
	v, err := r.Uint32() // action and reserved field
	if err != nil {
		return nil, err
	}
	if m.Action = UpdateAction(v >> 16); m.Action > DelPE {
		return nil, param.Invalid(nil, "%s", m.Action)
	}
	if m.Handle, err = decodeHandle(r); err != nil {
		return nil, err
	}
	m.Element, err = decodeElement(r)
	return m, err
}

func decodeListResponse(r *param.Reader, m *ListResponse) (Message, error) {
	for !m.Reject {
		more, err := r.SkipTo(param.TypeServerInformation)
		if !more || err != nil {
			return m, err
		}
		s, err := r.ServerInformation()
		if err != nil {
			return nil, err
		}
		m.Peers = append(m.Peers, s)
	}
	return m, nil
}
