// Package enrp holds the messages of the Endpoint Handlespace Redundancy Protocol
// (RFC 5353), which registrars speak among each other, and their wire form.
package enrp

import (
	"fmt"

	"rserpool/asap/param"
)

// Where ENRP messages go (RFC 5353, section 5.3).
const (
	// Port is the port of registrars on SCTP and, for announcements, UDP.
	Port = 9901
	// PortTLS is the port of registrars on TLS over SCTP.
	PortTLS = 9902
)

// MessageType is the type of an ENRP message. ASAP numbers its types on its own.
type MessageType uint8

// The message types of RFC 5353, section 2.
const (
	TypePresence            MessageType = 0x01 // section 2.1
	TypeHandleTableRequest  MessageType = 0x02 // section 2.2
	TypeHandleTableResponse MessageType = 0x03 // section 2.3
	TypeHandleUpdate        MessageType = 0x04 // section 2.4
	TypeListRequest         MessageType = 0x05 // section 2.5
	TypeListResponse        MessageType = 0x06 // section 2.6
	TypeInitTakeover        MessageType = 0x07 // section 2.7
	TypeInitTakeoverAck     MessageType = 0x08 // section 2.8
	TypeTakeoverServer      MessageType = 0x09 // section 2.9
	TypeError               MessageType = 0x0a // section 2.10
)

var messageNames = map[MessageType]string{
	TypePresence:            "ENRP_PRESENCE",
	TypeHandleTableRequest:  "ENRP_HANDLE_TABLE_REQUEST",
	TypeHandleTableResponse: "ENRP_HANDLE_TABLE_RESPONSE",
	TypeHandleUpdate:        "ENRP_HANDLE_UPDATE",
	TypeListRequest:         "ENRP_LIST_REQUEST",
	TypeListResponse:        "ENRP_LIST_RESPONSE",
	TypeInitTakeover:        "ENRP_INIT_TAKEOVER",
	TypeInitTakeoverAck:     "ENRP_INIT_TAKEOVER_ACK",
	TypeTakeoverServer:      "ENRP_TAKEOVER_SERVER",
	TypeError:               "ENRP_ERROR",
}

// String returns the RFC's name of the type, or its number.
func (t MessageType) String() string {
	if s, ok := messageNames[t]; ok {
		return s
	}
	return fmt.Sprintf("ENRP message 0x%02x", uint8(t))
}

// Servers are the identifiers that every ENRP message begins with.
type Servers struct {
	Sender param.RegistrarID
	// Receiver is 0 in a message that goes to all peers, and when the peer's
	// identifier is not known (AMB-73).
	Receiver param.RegistrarID
}

// Message is one ENRP message. The implementations are the pointer types of this
// package; switch on them to dispatch.
type Message interface {
	// Type returns the message's type code.
	Type() MessageType
	// IDs returns the sender's and the receiver's identifier.
	IDs() Servers
	// Append appends the encoded message, padding included, to dst and returns
	// the extended slice. When the message can't be encoded it returns dst and
	// an error that wraps param.ErrEncode.
	Append(dst []byte) ([]byte, error)
}

// IDs returns the sender's and the receiver's identifier.
func (s Servers) IDs() Servers { return s }

// Presence says that the sender is alive (section 2.1).
type Presence struct {
	Servers
	ReplyRequired bool // the R bit: answer with a Presence at once
	// Checksum is the PE checksum over the elements that the sender is home of.
	Checksum uint16
	// NoChecksum: the message came without one; no audit then (AMB-67). Never
	// set it in a message to be sent.
	NoChecksum bool
	// Server describes the sender; absent if its Transport is. Mandatory in
	// the answer to a Presence with ReplyRequired.
	Server param.ServerInformation
}

// HandleTableRequest asks for the handlespace (section 2.2).
type HandleTableRequest struct {
	Servers
	OwnOnly bool // the W bit: only elements whose home the receiver is
}

// HandleTableResponse is a part of the handlespace (section 2.3).
type HandleTableResponse struct {
	Servers
	Reject bool // the R bit: refused; no Pools then
	More   bool // the M bit: ask again for the next part
	Pools  []Pool
}

// Pool is one pool, or a part of it, in a HandleTableResponse.
type Pool struct {
	Handle   param.PoolHandle
	Elements []param.PoolElement // at least one
}

// UpdateAction says what a HandleUpdate does.
type UpdateAction uint16

// The update actions.
const (
	AddPE UpdateAction = 0x0000 // add or replace
	DelPE UpdateAction = 0x0001
)

// String returns the RFC's name of the action.
func (a UpdateAction) String() string {
	switch a {
	case AddPE:
		return "ADD_PE"
	case DelPE:
		return "DEL_PE"
	}
	return fmt.Sprintf("update action 0x%04x", uint16(a))
}

// HandleUpdate tells the peers of one changed element (section 2.4).
type HandleUpdate struct {
	Servers
	// TakeoverSuggested is rsplib's private flag (bit 0): the sender thinks that
	// the receiver would be a better home.
	TakeoverSuggested bool
	Action            UpdateAction
	Handle            param.PoolHandle
	Element           param.PoolElement
}

// ListRequest asks for the peers that the receiver knows (section 2.5).
type ListRequest struct{ Servers }

// ListResponse lists peers (section 2.6).
type ListResponse struct {
	Servers
	Reject bool // the R bit: refused; no Peers then
	Peers  []param.ServerInformation
}

// InitTakeover announces the wish to take over the elements of a registrar that
// seems dead (section 2.7).
type InitTakeover struct {
	Servers
	Target param.RegistrarID
}

// InitTakeoverAck agrees to a takeover (section 2.8).
type InitTakeoverAck struct {
	Servers
	Target param.RegistrarID
}

// TakeoverServer says that the sender has taken over (section 2.9).
type TakeoverServer struct {
	Servers
	Target param.RegistrarID
}

// Error reports what was wrong with a message (section 2.10).
type Error struct {
	Servers
	Causes param.OperationError
}

func (*Presence) Type() MessageType            { return TypePresence }
func (*HandleTableRequest) Type() MessageType  { return TypeHandleTableRequest }
func (*HandleTableResponse) Type() MessageType { return TypeHandleTableResponse }
func (*HandleUpdate) Type() MessageType        { return TypeHandleUpdate }
func (*ListRequest) Type() MessageType         { return TypeListRequest }
func (*ListResponse) Type() MessageType        { return TypeListResponse }
func (*InitTakeover) Type() MessageType        { return TypeInitTakeover }
func (*InitTakeoverAck) Type() MessageType     { return TypeInitTakeoverAck }
func (*TakeoverServer) Type() MessageType      { return TypeTakeoverServer }
func (*Error) Type() MessageType               { return TypeError }
