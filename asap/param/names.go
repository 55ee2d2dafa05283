package param

import "fmt"

// Type is a parameter type (RFC 5354, section 3, table 1).
type Type uint16

// The parameter types of RFC 5354.
const (
	TypeIPv4Address       Type = 0x0001 // section 3.1
	TypeIPv6Address       Type = 0x0002 // section 3.2
	TypeDCCPTransport     Type = 0x0003 // section 3.3
	TypeSCTPTransport     Type = 0x0004 // section 3.4
	TypeTCPTransport      Type = 0x0005 // section 3.5
	TypeUDPTransport      Type = 0x0006 // section 3.6
	TypeUDPLiteTransport  Type = 0x0007 // section 3.7
	TypePolicy            Type = 0x0008 // section 3.8
	TypePoolHandle        Type = 0x0009 // section 3.9
	TypePoolElement       Type = 0x000a // section 3.10
	TypeServerInformation Type = 0x000b // section 3.11
	TypeOperationError    Type = 0x000c // section 3.12
	TypeCookie            Type = 0x000d // section 3.13
	TypePEIdentifier      Type = 0x000e // section 3.14
	TypePEChecksum        Type = 0x000f // section 3.15
	TypeOpaqueTransport   Type = 0x0010 // section 3.16
)

// TypeHandleResolutionOption is rsplib's private parameter that says how many
// elements a handle resolution asks for (draft-dreibholz-rserpool-asap-hropt).
// Its type makes others skip it.
const TypeHandleResolutionOption Type = 0x803f

var typeNames = map[Type]string{
	TypeIPv4Address:            "IPv4 Address",
	TypeIPv6Address:            "IPv6 Address",
	TypeDCCPTransport:          "DCCP Transport",
	TypeSCTPTransport:          "SCTP Transport",
	TypeTCPTransport:           "TCP Transport",
	TypeUDPTransport:           "UDP Transport",
	TypeUDPLiteTransport:       "UDP-Lite Transport",
	TypePolicy:                 "Pool Member Selection Policy",
	TypePoolHandle:             "Pool Handle",
	TypePoolElement:            "Pool Element",
	TypeServerInformation:      "Server Information",
	TypeOperationError:         "Operation Error",
	TypeCookie:                 "Cookie",
	TypePEIdentifier:           "PE Identifier",
	TypePEChecksum:             "PE Checksum",
	TypeOpaqueTransport:        "Opaque Transport",
	TypeHandleResolutionOption: "Handle Resolution Option",
}

// String returns the RFC's name of the type, or its number.
func (t Type) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("parameter 0x%04x", uint16(t))
}

// known reports whether this package has a format for the type.
func (t Type) known() bool {
	return t >= TypeIPv4Address && t <= TypeOpaqueTransport || t == TypeHandleResolutionOption
}

// transport reports whether the type is one of the six transports.
func (t Type) transport() bool {
	return t >= TypeDCCPTransport && t <= TypeUDPLiteTransport || t == TypeOpaqueTransport
}

var policyNames = map[PolicyType]string{
	RoundRobin:           "Round Robin",
	WeightedRoundRobin:   "Weighted Round Robin",
	Random:               "Random",
	WeightedRandom:       "Weighted Random",
	Priority:             "Priority",
	LeastUsed:            "Least Used",
	LeastUsedDegradation: "Least Used with Degradation",
	PriorityLeastUsed:    "Priority Least Used",
	RandomizedLeastUsed:  "Randomized Least Used",

	RandomizedPriorityLeastUsed:            "Randomized Priority Least Used",
	RandomizedLeastUsedDegradation:         "Randomized Least Used with Degradation",
	PriorityLeastUsedDegradation:           "Priority Least Used with Degradation",
	RandomizedPriorityLeastUsedDegradation: "Randomized Priority Least Used with Degradation",
	WeightedRandomDPF:                      "Weighted Random DPF",
	LeastUsedDPF:                           "Least Used DPF",
	LeastUsedDegradationDPF:                "Least Used with Degradation DPF",

	PowerOfTwoChoices: "Power of Two Choices",
	RendezvousHashing: "Rendezvous Hashing",
	PeakEWMA:          "Peak EWMA",
}

// String returns the name of the policy, the RFC's if it is there, or its number.
func (t PolicyType) String() string {
	if s, ok := policyNames[t]; ok {
		return s
	}
	if defined := definedPolicies.Load(); defined != nil {
		if d, ok := (*defined)[t]; ok {
			return d.name
		}
	}
	return fmt.Sprintf("policy 0x%08x", uint32(t))
}

var causeNames = map[CauseCode]string{
	CauseUnspecified:           "Unspecified Error",
	CauseUnrecognizedParameter: "Unrecognized Parameter",
	CauseUnrecognizedMessage:   "Unrecognized Message",
	CauseInvalidValues:         "Invalid Values",
	CauseNonUniquePEID:         "Non-unique PE Identifier",
	CauseInconsistentPolicy:    "Inconsistent Pooling Policy",
	CauseLackOfResources:       "Lack of Resources",
	CauseInconsistentTransport: "Inconsistent Transport Type",
	CauseInconsistentControl:   "Inconsistent Data/Control Configuration",
	CauseUnknownPoolHandle:     "Unknown Pool Handle",
	CauseSecurity:              "Rejected due to security considerations",
}

// String returns the RFC's name of the cause, or its number.
func (c CauseCode) String() string {
	if s, ok := causeNames[c]; ok {
		return s
	}
	return fmt.Sprintf("cause 0x%04x", uint16(c))
}
