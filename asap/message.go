package asap

import "rserpool/asap/param"

// Message is one ASAP message. The implementations are the pointer types of
// this package; switch on them to dispatch.
type Message interface {
	// Type returns the message's type code.
	Type() MessageType
	// Append appends the encoded message, padding included, to dst and
	// returns the extended slice. When the message cannot be encoded it
	// returns dst unchanged and an error.
	Append(dst []byte) ([]byte, error)
}

// Registration asks a registrar to add or update a pool element (RFC 5352,
// section 2.2.1).
type Registration struct {
	Handle  param.PoolHandle
	Element param.PoolElement
}

// Deregistration asks a registrar to remove a pool element (section 2.2.2).
type Deregistration struct {
	Handle param.PoolHandle
	ID     param.PEID
}

// RegistrationResponse answers a Registration (section 2.2.3). Reject is the R
// bit; an Error with Reject unset is a warning about changed values.
type RegistrationResponse struct {
	Reject bool
	Handle param.PoolHandle
	ID     param.PEID
	Error  param.OperationError
}

// DeregistrationResponse answers a Deregistration, or tells an element that its
// registration has expired (section 2.2.4). An Error means refusal: there is no
// R bit.
type DeregistrationResponse struct {
	Handle param.PoolHandle
	ID     param.PEID
	Error  param.OperationError
}

// HandleResolution asks for elements of a pool (section 2.2.5).
type HandleResolution struct {
	SendUpdates bool // the S bit
	Handle      param.PoolHandle
	// Items is rsplib's private Handle Resolution option (parameter 0x803f):
	// how many elements are wanted, 0xffffffff for as many as possible. 0
	// means the parameter is absent or asks for the registrar's default.
	Items uint32
}

// HandleResolutionResponse answers a HandleResolution or brings an update
// (section 2.2.6). With Error it is negative and carries neither policy nor
// elements. A zero Policy.Type means that the parameter is absent, which stands
// for Round Robin.
type HandleResolutionResponse struct {
	AcceptUpdates bool // the A bit
	Handle        param.PoolHandle
	Policy        param.Policy
	Elements      []param.PoolElement
	Error         param.OperationError
}

// EndpointKeepAlive asks an element whether it is alive (section 2.2.7).
type EndpointKeepAlive struct {
	Home      bool // the H bit: the sender becomes the element's home registrar
	Registrar param.RegistrarID
	Handle    param.PoolHandle
	// ID is rsplib's private addition: which element is meant. 0 = absent.
	ID param.PEID
}

// EndpointKeepAliveAck answers an EndpointKeepAlive (section 2.2.8).
type EndpointKeepAliveAck struct {
	Handle param.PoolHandle
	ID     param.PEID
}

// EndpointUnreachable reports an element that does not answer (section 2.2.9).
type EndpointUnreachable struct {
	Handle param.PoolHandle
	ID     param.PEID
}

// ServerAnnounce tells the multicast group that a registrar is there (section
// 2.2.10). Transports holds SCTP and TCP transports only; none means SCTP, the
// datagram's source address and port 3863.
type ServerAnnounce struct {
	Registrar  param.RegistrarID
	Transports []param.Transport
}

// Cookie hands session state to the pool user (section 2.2.11).
type Cookie struct{ Cookie []byte }

// CookieEcho hands the latest cookie to the next element (section 2.2.12).
type CookieEcho struct{ Cookie []byte }

// BusinessCard names elements in preferred failover order (section 2.2.13).
type BusinessCard struct {
	Handle   param.PoolHandle
	Elements []param.PoolElement
}

// Error reports what was wrong with a message (section 2.2.14).
type Error struct{ Causes param.OperationError }
