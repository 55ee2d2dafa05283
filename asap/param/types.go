package param

import (
	"fmt"
	"net/netip"
	"time"
)

// PoolHandle names a pool: an exact octet string, compared octet by octet,
// with no terminator and no character set (RFC 5354, section 3.9). It holds
// 1 to 65531 octets less what else must fit into the message.
type PoolHandle string

// RsplibMaxHandle is the longest pool handle that rsplib's programs take, in
// octets. A longer one ends its registrar.
const RsplibMaxHandle = 32

// PEID is a pool element's identifier, unique within its pool. Zero means "no
// element": a pool element never picks it and a registrar refuses it.
type PEID uint32

// String shows the identifier as protocol analysers do.
func (id PEID) String() string { return fmt.Sprintf("0x%08x", uint32(id)) }

// RegistrarID identifies a registrar ("ENRP server"). Zero means "none" or
// "not known yet".
type RegistrarID uint32

// String shows the identifier as protocol analysers do.
func (id RegistrarID) String() string { return fmt.Sprintf("0x%08x", uint32(id)) }

// Life is a registration life in seconds, as on the wire: signed, and
// InfiniteLife for a registration that does not expire (RFC 5354, section
// 3.10). Zero and other negative values are invalid. rsplib puts milliseconds
// here; only the compatibility switch of a role converts.
type Life int32

// InfiniteLife is the life of a registration that never expires.
const InfiniteLife Life = -1

// Duration returns the life as time, and false for an infinite life.
func (l Life) Duration() (time.Duration, bool) {
	if l == InfiniteLife {
		return 0, false
	}
	return time.Duration(l) * time.Second, true
}

// TransportUse says what an SCTP transport carries (RFC 5354, section 3.4).
type TransportUse uint16

// The only two values that may be sent.
const (
	DataOnly       TransportUse = 0x0000
	DataAndControl TransportUse = 0x0001
)

// Transport is one transport parameter: DCCP, SCTP, TCP, UDP, UDP-Lite or
// opaque (RFC 5354, sections 3.3 to 3.7 and 3.16). The zero value, with Type
// zero, stands for "absent".
type Transport struct {
	// Type is the parameter type code: TypeDCCPTransport,
	// TypeSCTPTransport, TypeTCPTransport, TypeUDPTransport,
	// TypeUDPLiteTransport or TypeOpaqueTransport.
	Type Type
	// Port is the transport port; unused for opaque transports.
	Port uint16
	// Use is meaningful for SCTP only and zero for all other types.
	Use TransportUse
	// ServiceCode is DCCP's; zero for all other types.
	ServiceCode uint32
	// Addrs are the IP addresses: one or more for SCTP, exactly one for the
	// others, none for opaque transports.
	Addrs []netip.Addr
	// Opaque is the value of an opaque transport.
	Opaque []byte
}

// IsZero reports whether the transport is absent.
func (t Transport) IsZero() bool { return t.Type == 0 }

// AddrPorts returns the transport's addresses with its port.
func (t Transport) AddrPorts() []netip.AddrPort {
	out := make([]netip.AddrPort, len(t.Addrs))
	for i, a := range t.Addrs {
		out[i] = netip.AddrPortFrom(a, t.Port)
	}
	return out
}

// PolicyType is the 32-bit number of a pool member selection policy (RFC
// 5356). Bit 31 marks private policies, bit 30 adaptive ones.
type PolicyType uint32

// The policies of RFC 5356.
const (
	RoundRobin           PolicyType = 0x00000001 // section 4.1
	WeightedRoundRobin   PolicyType = 0x00000002 // section 4.2
	Random               PolicyType = 0x00000003 // section 4.3
	WeightedRandom       PolicyType = 0x00000004 // section 4.4
	Priority             PolicyType = 0x00000005 // section 4.5
	LeastUsed            PolicyType = 0x40000001 // section 5.1
	LeastUsedDegradation PolicyType = 0x40000002 // section 5.2
	PriorityLeastUsed    PolicyType = 0x40000003 // section 5.3
	RandomizedLeastUsed  PolicyType = 0x40000004 // section 5.4
	policyPrivateBit                = 0x80000000
	policyAdaptiveBit               = 0x40000000
	policyNumberMask                = 0x3fffffff
	MaxLoad              uint32     = 0xffffffff // 100 % on the load scale
	policyDataMax                   = 65535 - 8
)

// Further policies of rsplib, in the range for private use. Bit 30 is not set
// although they follow reported loads.
const (
	RandomizedPriorityLeastUsed            PolicyType = 0xb0001001
	RandomizedLeastUsedDegradation         PolicyType = 0xb0001002
	PriorityLeastUsedDegradation           PolicyType = 0xb0001003
	RandomizedPriorityLeastUsedDegradation PolicyType = 0xb0001004
	WeightedRandomDPF                      PolicyType = 0xb0002001
	LeastUsedDPF                           PolicyType = 0xb0002002
	LeastUsedDegradationDPF                PolicyType = 0xb0002003
)

// Our own policies, in the range for private use; 0x5253 is RS in ASCII.
const (
	PowerOfTwoChoices PolicyType = 0xc0525301
	RendezvousHashing PolicyType = 0x80525302
	PeakEWMA          PolicyType = 0xc0525303
)

// Private reports whether the type lies in the range for private use.
func (t PolicyType) Private() bool { return t&policyPrivateBit != 0 }

// Adaptive reports whether the policy's choice follows a reported state.
func (t PolicyType) Adaptive() bool { return t&policyAdaptiveBit != 0 }

// Policy is one Pool Member Selection Policy parameter (RFC 5354, section 3.8;
// RFC 5356). Fields that the type does not have (PolicyType.Has) are zero. For a
// type that this package has no format for, and where a parameter has not the format
// of its type, Data holds everything behind the type, so that the parameter can be
// stored and replicated unchanged.
type Policy struct {
	Type        PolicyType
	Weight      uint32 // relative capacity, 0 = cannot serve
	Priority    uint32 // larger is preferred
	Load        uint32 // 0 = idle, MaxLoad = fully used
	Degradation uint32 // load added by one more session, load scale
	Penalty     uint32 // distance penalty factor: load added by a millisecond of distance, load scale
	Distance    uint32 // time to the element, milliseconds
	Misfit      bool   // of a private type, and not in its format: values are zero, Data counts
	Data        string // octets after the type, for types without a known format and misfits
}

// PoolElement is a Pool Element parameter (RFC 5354, section 3.10).
type PoolElement struct {
	ID     PEID
	Home   RegistrarID // 0 while undetermined
	Life   Life
	User   Transport // where pool users reach the element
	Policy Policy
	// ASAP is where registrars reach the element: an SCTP transport, or a
	// TCP transport for elements that register over TCP (an extension of
	// ours). Absent (zero) in a REGISTRATION that leaves it to the
	// registrar and in answers to pool users.
	ASAP Transport
}

// ServerInformation describes a registrar to other registrars (RFC 5354,
// section 3.11). Transport is its ENRP endpoint.
type ServerInformation struct {
	ID        RegistrarID
	Transport Transport
}

// CauseCode is the number of an error cause (RFC 5354, section 3.12).
type CauseCode uint16

// The error causes of RFC 5354, section 3.12. The subsections of the RFC are in
// another order than the codes.
const (
	CauseUnspecified           CauseCode = 0x0
	CauseUnrecognizedParameter CauseCode = 0x1
	CauseUnrecognizedMessage   CauseCode = 0x2
	CauseInvalidValues         CauseCode = 0x3
	CauseNonUniquePEID         CauseCode = 0x4
	CauseInconsistentPolicy    CauseCode = 0x5
	CauseLackOfResources       CauseCode = 0x6
	CauseInconsistentTransport CauseCode = 0x7
	CauseInconsistentControl   CauseCode = 0x8 // data/control configuration
	CauseUnknownPoolHandle     CauseCode = 0x9
	CauseSecurity              CauseCode = 0xa
)

// Cause is one error cause with its cause-specific data, without padding.
type Cause struct {
	Code CauseCode
	Data []byte
}

// OperationError is an Operation Error parameter: one or more causes. A nil
// OperationError stands for "no such parameter".
type OperationError []Cause
