// Package paramtest has what the tests of the message formats share: sample
// values, vectors from files, and Wireshark's tshark as a second reader.
package paramtest

import (
	"net/netip"

	"rserpool/asap/param"
)

var (
	addr4  = netip.MustParseAddr("192.0.2.1")
	addr4b = netip.MustParseAddr("198.51.100.9")
	addr6  = netip.MustParseAddr("2001:db8::1")
)

// Transports returns a transport of each type, SCTP with mixed addresses and both
// uses.
func Transports() []param.Transport {
	return []param.Transport{
		{Type: param.TypeSCTPTransport, Port: 7, Addrs: []netip.Addr{addr4}},
		{Type: param.TypeSCTPTransport, Port: 65535, Use: param.DataAndControl, Addrs: []netip.Addr{addr4, addr6, addr4b}},
		{Type: param.TypeTCPTransport, Port: 80, Addrs: []netip.Addr{addr6}},
		{Type: param.TypeUDPTransport, Port: 53, Addrs: []netip.Addr{addr4}},
		{Type: param.TypeUDPLiteTransport, Port: 54, Addrs: []netip.Addr{addr6}},
		{Type: param.TypeDCCPTransport, Port: 1, ServiceCode: 0xdeadbeef, Addrs: []netip.Addr{addr4}},
		{Type: param.TypeOpaqueTransport, Opaque: []byte("opaque")},
		{Type: param.TypeOpaqueTransport},
	}
}

// ControlTransports returns transports of ASAP and ENRP endpoints.
func ControlTransports() []param.Transport {
	return []param.Transport{
		{Type: param.TypeSCTPTransport, Port: 3863, Addrs: []netip.Addr{addr4, addr6}},
		{Type: param.TypeTCPTransport, Port: 3863, Addrs: []netip.Addr{addr4b}},
	}
}

// Policies returns the policies with a known format, private ones without, one of
// them with octets that do not fill a word, and a reserved one.
func Policies() []param.Policy {
	return []param.Policy{
		{Type: param.RoundRobin},
		{Type: param.WeightedRoundRobin, Weight: 3},
		{Type: param.Random},
		{Type: param.WeightedRandom, Weight: 0xffffffff},
		{Type: param.Priority, Priority: 5},
		{Type: param.LeastUsed, Load: param.MaxLoad},
		{Type: param.LeastUsedDegradation, Load: 0x1999999a, Degradation: 0x147ae147},
		{Type: param.PriorityLeastUsed, Load: 1, Degradation: param.MaxLoad},
		{Type: param.RandomizedLeastUsed, Load: 0x80000000},
		{Type: param.RandomizedPriorityLeastUsed, Load: 0x40000000, Degradation: 0x1999999a},
		{Type: param.RandomizedLeastUsedDegradation, Load: 0x40000001, Degradation: 0x1999999b},
		{Type: param.PriorityLeastUsedDegradation, Load: 0x40000002, Degradation: 0x1999999c},
		{Type: param.RandomizedPriorityLeastUsedDegradation, Load: 0x40000003, Degradation: 0x1999999d},
		{Type: param.WeightedRandomDPF, Weight: 7, Penalty: 0x20000000, Distance: 250},
		{Type: param.LeastUsedDPF, Load: 5, Penalty: 0x00418937, Distance: 100},
		{Type: param.LeastUsedDegradationDPF, Load: 5, Degradation: 6, Penalty: 7, Distance: 8},
		{Type: param.PowerOfTwoChoices, Load: 0x80000000},
		{Type: param.RendezvousHashing, Weight: 2},
		{Type: param.PeakEWMA},
		{Type: 0x80000066, Data: "\x00\x00\x00\x01\x00\x00\x00\x02"},
		{Type: 0x80000077, Data: "seven"},
		{Type: 0x00000006},
	}
}

// Elements returns pool elements with every transport and every policy; all have
// an ASAP transport.
func Elements() []param.PoolElement {
	transports, control := Transports(), ControlTransports()
	var out []param.PoolElement
	for i, policy := range Policies() {
		out = append(out, param.PoolElement{
			ID:     0x11223300 + param.PEID(i),
			Home:   0x0a0a0a00 + param.RegistrarID(i),
			Life:   []param.Life{300, param.InfiniteLife, 0x7fffffff}[i%3],
			User:   transports[i%len(transports)],
			Policy: policy,
			ASAP:   control[i%len(control)],
		})
	}
	return out
}

// What the causes of Error quote.
func quotedElement() param.PoolElement { return Elements()[0] }
func quotedTransport() param.Transport { return Transports()[2] }

var quotedPolicy = param.Policy{Type: param.Priority, Priority: 9}

// Error returns an Operation Error with every cause that RFC 5354 defines and
// with one that it does not.
func Error() param.OperationError {
	element := quotedElement()
	return param.OperationError{
		param.NewCause(param.CauseUnspecified),
		{Code: param.CauseUnrecognizedParameter, Data: []byte{0xc0, 0xaa, 0, 5, 0x55}},
		{Code: param.CauseUnrecognizedMessage, Data: []byte{0x45, 0, 0, 4}},
		param.ElementCause(param.CauseInvalidValues, &element),
		param.NewCause(param.CauseNonUniquePEID),
		param.PolicyCause(param.CauseInconsistentPolicy, quotedPolicy),
		param.NewCause(param.CauseLackOfResources),
		param.TransportCause(param.CauseInconsistentTransport, quotedTransport()),
		param.NewCause(param.CauseInconsistentControl),
		param.NewCause(param.CauseUnknownPoolHandle),
		param.NewCause(param.CauseSecurity),
		{Code: 0x7777, Data: []byte("what")},
	}
}
