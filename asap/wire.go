package asap

import "fmt"

// Where ASAP messages go (RFC 5352, section 8).
const (
	// Port is the port of registrars on SCTP, TCP and, for announcements, UDP.
	Port = 3863
	// PortTLS is the port of registrars on TLS over TCP and over SCTP.
	PortTLS = 3864
)

// MessageType is the type of an ASAP message. ENRP numbers its types on its own.
type MessageType uint8

// The message types of RFC 5352, section 2.2.
const (
	TypeRegistration             MessageType = 0x01 // section 2.2.1
	TypeDeregistration           MessageType = 0x02 // section 2.2.2
	TypeRegistrationResponse     MessageType = 0x03 // section 2.2.3
	TypeDeregistrationResponse   MessageType = 0x04 // section 2.2.4
	TypeHandleResolution         MessageType = 0x05 // section 2.2.5
	TypeHandleResolutionResponse MessageType = 0x06 // section 2.2.6
	TypeEndpointKeepAlive        MessageType = 0x07 // section 2.2.7
	TypeEndpointKeepAliveAck     MessageType = 0x08 // section 2.2.8
	TypeEndpointUnreachable      MessageType = 0x09 // section 2.2.9
	TypeServerAnnounce           MessageType = 0x0a // section 2.2.10
	TypeCookie                   MessageType = 0x0b // section 2.2.11
	TypeCookieEcho               MessageType = 0x0c // section 2.2.12
	TypeBusinessCard             MessageType = 0x0d // section 2.2.13
	TypeError                    MessageType = 0x0e // section 2.2.14
)

var messageNames = map[MessageType]string{
	TypeRegistration:             "ASAP_REGISTRATION",
	TypeDeregistration:           "ASAP_DEREGISTRATION",
	TypeRegistrationResponse:     "ASAP_REGISTRATION_RESPONSE",
	TypeDeregistrationResponse:   "ASAP_DEREGISTRATION_RESPONSE",
	TypeHandleResolution:         "ASAP_HANDLE_RESOLUTION",
	TypeHandleResolutionResponse: "ASAP_HANDLE_RESOLUTION_RESPONSE",
	TypeEndpointKeepAlive:        "ASAP_ENDPOINT_KEEP_ALIVE",
	TypeEndpointKeepAliveAck:     "ASAP_ENDPOINT_KEEP_ALIVE_ACK",
	TypeEndpointUnreachable:      "ASAP_ENDPOINT_UNREACHABLE",
	TypeServerAnnounce:           "ASAP_SERVER_ANNOUNCE",
	TypeCookie:                   "ASAP_COOKIE",
	TypeCookieEcho:               "ASAP_COOKIE_ECHO",
	TypeBusinessCard:             "ASAP_BUSINESS_CARD",
	TypeError:                    "ASAP_ERROR",
}

// String returns the RFC's name of the type, or its number.
func (t MessageType) String() string {
	if s, ok := messageNames[t]; ok {
		return s
	}
	return fmt.Sprintf("ASAP message 0x%02x", uint8(t))
}

// Flags. Each message defines at most one; undefined bits are sent as zero and
// ignored.
const (
	flagReject        = 0x01 // REGISTRATION_RESPONSE
	flagSendUpdates   = 0x01 // HANDLE_RESOLUTION
	flagAcceptUpdates = 0x01 // HANDLE_RESOLUTION_RESPONSE
	flagHome          = 0x01 // ENDPOINT_KEEP_ALIVE
)

func (*Registration) Type() MessageType             { return TypeRegistration }
func (*Deregistration) Type() MessageType           { return TypeDeregistration }
func (*RegistrationResponse) Type() MessageType     { return TypeRegistrationResponse }
func (*DeregistrationResponse) Type() MessageType   { return TypeDeregistrationResponse }
func (*HandleResolution) Type() MessageType         { return TypeHandleResolution }
func (*HandleResolutionResponse) Type() MessageType { return TypeHandleResolutionResponse }
func (*EndpointKeepAlive) Type() MessageType        { return TypeEndpointKeepAlive }
func (*EndpointKeepAliveAck) Type() MessageType     { return TypeEndpointKeepAliveAck }
func (*EndpointUnreachable) Type() MessageType      { return TypeEndpointUnreachable }
func (*ServerAnnounce) Type() MessageType           { return TypeServerAnnounce }
func (*Cookie) Type() MessageType                   { return TypeCookie }
func (*CookieEcho) Type() MessageType               { return TypeCookieEcho }
func (*BusinessCard) Type() MessageType             { return TypeBusinessCard }
func (*Error) Type() MessageType                    { return TypeError }
