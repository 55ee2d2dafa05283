package asap

import "rserpool/asap/param"

func begin(dst []byte, t MessageType, flags uint8) param.Writer {
	return param.NewMessage(dst, uint8(t), flags)
}

// handle writes a pool handle that must not be empty. Responses echo what they
// got, so for them an empty one will do.
func handle(w *param.Writer, h param.PoolHandle) {
	if h == "" {
		w.Fail("empty pool handle")
	}
	w.PoolHandle(h)
}

// Append implements Message.
func (m *Registration) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeRegistration, 0)
	handle(&w, m.Handle)
	w.PoolElement(&m.Element, true)
	return w.Finish()
}

// Append implements Message.
func (m *Deregistration) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeDeregistration, 0)
	handle(&w, m.Handle)
	w.PEIdentifier(m.ID)
	return w.Finish()
}

// Append implements Message.
func (m *RegistrationResponse) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeRegistrationResponse, param.Flag(m.Reject, flagReject))
	w.PoolHandle(m.Handle)
	w.PEIdentifier(m.ID)
	w.OperationError(m.Error)
	return w.Finish()
}

// Append implements Message.
func (m *DeregistrationResponse) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeDeregistrationResponse, 0)
	w.PoolHandle(m.Handle)
	w.PEIdentifier(m.ID)
	w.OperationError(m.Error)
	return w.Finish()
}

// Append implements Message.
func (m *HandleResolution) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeHandleResolution, param.Flag(m.SendUpdates, flagSendUpdates))
	handle(&w, m.Handle)
	if m.Items != 0 {
		w.HandleResolutionOption(m.Items)
	}
	return w.Finish()
}

// Append implements Message. Elements that do not fit into the message are left
// out from the end (AMB-75).
func (m *HandleResolutionResponse) Append(dst []byte) ([]byte, error) {
	if len(m.Error) > 0 {
		w := begin(dst, TypeHandleResolutionResponse, param.Flag(m.AcceptUpdates, flagAcceptUpdates))
		if m.Policy.Type != 0 || len(m.Elements) > 0 {
			w.Fail("negative %s with policy or elements", m.Type())
		}
		w.PoolHandle(m.Handle)
		w.OperationError(m.Error)
		return w.Finish()
	}
	var policy *param.Policy
	if m.Policy.Type != 0 {
		policy = &m.Policy
	}
	var r Resolution
	r.Begin(dst, m.AcceptUpdates, m.Handle, policy)
	for i := range m.Elements {
		if !r.element(func(w *param.Writer) { w.PoolElement(&m.Elements[i], true) }) {
			break
		}
	}
	return r.Finish()
}

// Resolution appends a positive HANDLE_RESOLUTION_RESPONSE from elements that
// are already encoded, and allocates nothing if the slice has room.
type Resolution struct {
	w      param.Writer
	filled bool
}

// Begin starts a response at the end of dst. No policy stands for Round Robin.
func (r *Resolution) Begin(dst []byte, acceptUpdates bool, handle param.PoolHandle, policy *param.Policy) {
	r.w.Begin(dst, uint8(TypeHandleResolutionResponse), param.Flag(acceptUpdates, flagAcceptUpdates))
	r.filled = false
	r.w.PoolHandle(handle)
	if policy != nil {
		r.w.Policy(policy)
	}
}

// Elements appends a Pool Element parameter as param.AppendPoolElement made it, or
// several, one behind the other, the last of which is not param.Padded. It returns
// false, and leaves all of them out, if they do not fit into the message any more.
func (r *Resolution) Elements(tlvs []byte) bool {
	mark := r.w.Len()
	r.w.Encoded(tlvs)
	return r.keep(mark)
}

func (r *Resolution) element(write func(*param.Writer)) bool {
	mark := r.w.Len()
	write(&r.w)
	return r.keep(mark)
}

// keep takes back what began at mark if the message became too long.
func (r *Resolution) keep(mark int) bool {
	if r.w.Len() > param.MaxLength {
		r.w.Truncate(mark)
		return false
	}
	r.filled = true
	return true
}

// Finish completes the message and returns the extended slice; in case of an
// error, for example without any element, the slice as Begin got it.
func (r *Resolution) Finish() ([]byte, error) {
	if !r.filled {
		r.w.Fail("positive %s without element", TypeHandleResolutionResponse)
	}
	return r.w.Finish()
}

// Append implements Message.
func (m *EndpointKeepAlive) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeEndpointKeepAlive, param.Flag(m.Home, flagHome))
	w.Uint32(uint32(m.Registrar))
	handle(&w, m.Handle)
	if m.ID != 0 {
		w.PEIdentifier(m.ID)
	}
	return w.Finish()
}

// Append implements Message.
func (m *EndpointKeepAliveAck) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeEndpointKeepAliveAck, 0)
	handle(&w, m.Handle)
	w.PEIdentifier(m.ID)
	return w.Finish()
}

// Append implements Message.
func (m *EndpointUnreachable) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeEndpointUnreachable, 0)
	handle(&w, m.Handle)
	w.PEIdentifier(m.ID)
	return w.Finish()
}

// Append implements Message.
func (m *ServerAnnounce) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeServerAnnounce, 0)
	w.Uint32(uint32(m.Registrar))
	for i := range m.Transports {
		w.ControlTransport(&m.Transports[i])
	}
	return w.Finish()
}

// Append implements Message.
func (m *Cookie) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeCookie, 0)
	w.Cookie(m.Cookie)
	return w.Finish()
}

// Append implements Message.
func (m *CookieEcho) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeCookieEcho, 0)
	w.Cookie(m.Cookie)
	return w.Finish()
}

// Append implements Message.
func (m *BusinessCard) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeBusinessCard, 0)
	handle(&w, m.Handle)
	if len(m.Elements) == 0 {
		w.Fail("%s without element", m.Type())
	}
	for i := range m.Elements {
		w.PoolElement(&m.Elements[i], true)
	}
	return w.Finish()
}

// Append implements Message.
func (m *Error) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeError, 0)
	if len(m.Causes) == 0 {
		w.Fail("%s without cause", m.Type())
	}
	w.OperationError(m.Causes)
	return w.Finish()
}
