package admin

import (
	"encoding/hex"
	"fmt"

	"rserpool/asap/param"
	"rserpool/selection"
)

var protocols = map[param.Type]string{
	param.TypeDCCPTransport:    "dccp",
	param.TypeSCTPTransport:    "sctp",
	param.TypeTCPTransport:     "tcp",
	param.TypeUDPTransport:     "udp",
	param.TypeUDPLiteTransport: "udplite",
	param.TypeOpaqueTransport:  "opaque",
}

// ShowTransport returns a transport as the API shows it.
func ShowTransport(t param.Transport) Transport {
	out := Transport{
		Protocol: protocols[t.Type], Port: t.Port, Control: t.Use == param.DataAndControl,
		ServiceCode: t.ServiceCode, Opaque: hex.EncodeToString(t.Opaque),
	}
	for _, a := range t.Addrs {
		out.Addresses = append(out.Addresses, a.String())
	}
	return out
}

// PolicyName returns the short name of a policy, or its number when it has none.
func PolicyName(t param.PolicyType) string {
	if d, ok := selection.Lookup(t); ok {
		return d.Name
	}
	return policyNumber(t)
}

func policyNumber(t param.PolicyType) string { return fmt.Sprintf("0x%08x", uint32(t)) }

// ShowPolicy returns an element's policy as the API shows it.
func ShowPolicy(p param.Policy) Policy {
	return Policy{
		Name: PolicyName(p.Type), Type: policyNumber(p.Type),
		Weight: p.Weight, Priority: p.Priority, Load: p.Load, Degradation: p.Degradation,
		Data: hex.EncodeToString([]byte(p.Data)),
	}
}

// ShowElement returns a Pool Element parameter as the API shows it. What only its
// registrar knows is left out: times, reports, a suspect state.
func ShowElement(h param.PoolHandle, e param.PoolElement) Element {
	out := Element{
		Handle: EscapeHandle(h), ID: e.ID.String(), Home: e.Home.String(), State: StateActive,
		User: ShowTransport(e.User), Policy: ShowPolicy(e.Policy), Life: float64(e.Life),
	}
	if !e.ASAP.IsZero() {
		asap := ShowTransport(e.ASAP)
		out.ASAP = &asap
	}
	return out
}
