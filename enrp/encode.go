package enrp

import "rserpool/asap/param"

// Flags. Undefined bits are sent as zero and ignored.
const (
	flagReplyRequired     = 0x01 // PRESENCE (AMB-01)
	flagOwnOnly           = 0x01 // HANDLE_TABLE_REQUEST
	flagReject            = 0x01 // HANDLE_TABLE_RESPONSE, LIST_RESPONSE
	flagMore              = 0x02 // HANDLE_TABLE_RESPONSE
	flagTakeoverSuggested = 0x01 // HANDLE_UPDATE, private to rsplib
)

func begin(dst []byte, t MessageType, flags uint8, s Servers) param.Writer {
	w := param.NewMessage(dst, uint8(t), flags)
	w.Uint32(uint32(s.Sender))
	w.Uint32(uint32(s.Receiver))
	return w
}

// element writes a pool element, which between registrars always has its ASAP
// transport (AMB-25).
func element(w *param.Writer, e *param.PoolElement) {
	if e.ASAP.IsZero() {
		w.Fail("pool element without ASAP transport")
	}
	w.PoolElement(e, true)
}

func handle(w *param.Writer, h param.PoolHandle) {
	if h == "" {
		w.Fail("empty pool handle")
	}
	w.PoolHandle(h)
}

// Append implements Message.
func (m *Presence) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypePresence, param.Flag(m.ReplyRequired, flagReplyRequired), m.Servers)
	if !m.NoChecksum {
		w.PEChecksum(m.Checksum)
	}
	if !m.Server.Transport.IsZero() {
		w.ServerInformation(&m.Server)
	}
	return w.Finish()
}

// Append implements Message.
func (m *HandleTableRequest) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeHandleTableRequest, param.Flag(m.OwnOnly, flagOwnOnly), m.Servers)
	return w.Finish()
}

// Append implements Message. A table that is too long for one message is an
// error: the caller splits it, see BeginTable.
func (m *HandleTableResponse) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeHandleTableResponse,
		param.Flag(m.Reject, flagReject)|param.Flag(m.More, flagMore), m.Servers)
	if m.Reject && len(m.Pools) > 0 {
		w.Fail("rejecting %s with pools", m.Type())
	}
	for _, p := range m.Pools {
		handle(&w, p.Handle)
		if len(p.Elements) == 0 {
			w.Fail("pool without element")
		}
		for i := range p.Elements {
			element(&w, &p.Elements[i])
		}
	}
	return w.Finish()
}

// Table appends a HANDLE_TABLE_RESPONSE from elements that are already encoded.
type Table struct {
	w      param.Writer
	max    int
	handle param.PoolHandle
}

// BeginTable starts a response of at most max octets at the end of dst; 0 means
// the longest possible.
func BeginTable(dst []byte, s Servers, max int) Table {
	if max <= 0 || max > param.MaxLength {
		max = param.MaxLength
	}
	return Table{w: begin(dst, TypeHandleTableResponse, 0, s), max: max}
}

// Element appends one Pool Element parameter, as param.AppendPoolElement made it
// with its ASAP transport, and before it the handle of its pool if that is
// another than before. It returns false, and leaves the element out, if it does
// not fit any more: then the next message goes on with it (AMB-39, AMB-75). The
// first element of a message may exceed max, but not the longest possible.
func (t *Table) Element(h param.PoolHandle, tlv []byte) bool {
	mark, first := t.w.Len(), t.handle == ""
	if h != t.handle {
		handle(&t.w, h)
	}
	t.w.Encoded(tlv)
	if n := t.w.Len(); n > param.MaxLength || n > t.max && !first {
		t.w.Truncate(mark)
		return false
	}
	t.handle = h
	return true
}

// Finish completes the message; more sets the M bit.
func (t *Table) Finish(more bool) ([]byte, error) {
	t.w.SetFlags(param.Flag(more, flagMore))
	return t.w.Finish()
}

// Append implements Message.
func (m *HandleUpdate) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeHandleUpdate, param.Flag(m.TakeoverSuggested, flagTakeoverSuggested), m.Servers)
	if m.Action > DelPE {
		w.Fail("%s", m.Action)
	}
	w.Uint16(uint16(m.Action))
	w.Uint16(0)
	handle(&w, m.Handle)
	element(&w, &m.Element)
	return w.Finish()
}

// Append implements Message.
func (m *ListRequest) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeListRequest, 0, m.Servers)
	return w.Finish()
}

// Append implements Message. Peers that do not fit into the message are left out
// from the end (AMB-75).
func (m *ListResponse) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeListResponse, param.Flag(m.Reject, flagReject), m.Servers)
	if m.Reject && len(m.Peers) > 0 {
		w.Fail("rejecting %s with peers", m.Type())
	}
	for i := range m.Peers {
		mark := w.Len()
		w.ServerInformation(&m.Peers[i])
		if w.Len() > param.MaxLength {
			w.Truncate(mark)
			break
		}
	}
	return w.Finish()
}

func takeover(dst []byte, t MessageType, s Servers, target param.RegistrarID) ([]byte, error) {
	w := begin(dst, t, 0, s)
	w.Uint32(uint32(target))
	return w.Finish()
}

// Append implements Message.
func (m *InitTakeover) Append(dst []byte) ([]byte, error) {
	return takeover(dst, TypeInitTakeover, m.Servers, m.Target)
}

// Append implements Message.
func (m *InitTakeoverAck) Append(dst []byte) ([]byte, error) {
	return takeover(dst, TypeInitTakeoverAck, m.Servers, m.Target)
}

// Append implements Message.
func (m *TakeoverServer) Append(dst []byte) ([]byte, error) {
	return takeover(dst, TypeTakeoverServer, m.Servers, m.Target)
}

// Append implements Message.
func (m *Error) Append(dst []byte) ([]byte, error) {
	w := begin(dst, TypeError, 0, m.Servers)
	if len(m.Causes) == 0 {
		w.Fail("%s without cause", m.Type())
	}
	w.OperationError(m.Causes)
	return w.Finish()
}
