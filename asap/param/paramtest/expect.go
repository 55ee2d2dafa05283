package paramtest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rserpool/asap/param"
)

// Expectation collects the fields that tshark should show for a message.
type Expectation struct {
	proto  string // "asap" or "enrp", the prefix of all fields
	fields map[string][]string
}

// Expect starts an expectation with the message's type and flags.
func Expect(proto string, typ, flags uint8) *Expectation {
	e := &Expectation{proto: proto, fields: make(map[string][]string)}
	e.Add("message_type", "%d", typ)
	e.Add("message_flags", "0x%02x", flags)
	return e
}

// Add expects a field; the order of fields of one name matters.
func (e *Expectation) Add(field, format string, args ...any) *Expectation {
	name := e.proto + "." + field
	e.fields[name] = append(e.fields[name], fmt.Sprintf(format, args...))
	return e
}

func (e *Expectation) octets(field string, b []byte) {
	if len(b) > 0 {
		e.Add(field, "%s", strings.TrimSuffix(colons(b), ":"))
	}
}

func colons(b []byte) string {
	var s strings.Builder
	for _, o := range b {
		s.WriteString(hex.EncodeToString([]byte{o}) + ":")
	}
	return s.String()
}

func (e *Expectation) param(t param.Type) { e.Add("parameter_type", "0x%04x", uint16(t)) }

// Handle expects a pool handle parameter.
func (e *Expectation) Handle(h param.PoolHandle) *Expectation {
	e.param(param.TypePoolHandle)
	e.octets("pool_handle_pool_handle", []byte(h))
	return e
}

// PEIdentifier expects a PE Identifier parameter.
func (e *Expectation) PEIdentifier(id param.PEID) *Expectation {
	e.param(param.TypePEIdentifier)
	return e.Add("pe_identifier", "%s", id)
}

// Element expects a pool element parameter.
func (e *Expectation) Element(el param.PoolElement) *Expectation {
	e.param(param.TypePoolElement)
	e.Add("pool_element_pe_identifier", "%s", el.ID)
	e.Add("pool_element_home_enrp_server_identifier", "%s", el.Home)
	e.Add("pool_element_registration_life", "%d", el.Life)
	e.Transport(el.User)
	e.Policy(el.Policy)
	if !el.ASAP.IsZero() {
		e.Transport(el.ASAP)
	}
	return e
}

// Transport expects a transport parameter.
func (e *Expectation) Transport(t param.Transport) *Expectation {
	e.param(t.Type)
	switch t.Type {
	case param.TypeOpaqueTransport:
		e.octets("parameter_value", t.Opaque)
		return e
	case param.TypeSCTPTransport:
		e.Add("sctp_transport_port", "%d", t.Port)
		e.Add("transport_use", "%d", t.Use)
	case param.TypeTCPTransport:
		e.Add("tcp_transport_port", "%d", t.Port)
		e.Add("transport_use", "0") // so it calls the reserved field
	case param.TypeUDPTransport:
		e.Add("udp_transport_port", "%d", t.Port)
	case param.TypeUDPLiteTransport:
		e.Add("udp_lite_transport_port", "%d", t.Port)
	case param.TypeDCCPTransport:
		e.Add("dccp_transport_port", "%d", t.Port)
		e.Add("dccp_transport_service_code", "%d", t.ServiceCode)
	}
	for _, a := range t.Addrs {
		if a.Is4() {
			e.param(param.TypeIPv4Address)
			e.Add("ipv4_address", "%s", a)
		} else {
			e.param(param.TypeIPv6Address)
			e.Add("ipv6_address", "%s", a)
		}
	}
	return e
}

// Policy expects a policy parameter.
func (e *Expectation) Policy(p param.Policy) *Expectation {
	const prefix = "pool_member_selection_policy_"
	e.param(param.TypePolicy)
	e.Add(prefix+"type", "0x%08x", uint32(p.Type))
	switch p.Type {
	case param.WeightedRoundRobin, param.WeightedRandom:
		e.Add(prefix+"weight", "%d", p.Weight)
	case param.Priority:
		e.Add(prefix+"priority", "%d", p.Priority)
	case param.LeastUsed, param.RandomizedLeastUsed:
		e.Add(prefix+"load", "%08x", p.Load)
	case param.LeastUsedDegradation, param.PriorityLeastUsed:
		e.Add(prefix+"load", "%08x", p.Load)
		e.Add(prefix+"degradation", "%08x", p.Degradation)
	case param.WeightedRandomDPF:
		e.Add(prefix+"weight", "%d", p.Weight)
		e.Add(prefix+"weight_dpf", "%.15g", float64(p.Penalty)/float64(param.MaxLoad))
		e.Add(prefix+"distance", "%d", p.Distance)
	case param.LeastUsedDPF:
		e.Add(prefix+"load", "%08x", p.Load)
		e.Add(prefix+"load_dpf", "%08x", p.Penalty)
		e.Add(prefix+"distance", "%d", p.Distance)
	default:
		// The value as tshark shows it includes the padding.
		data := []byte(p.Data)
		format, _ := p.Type.Format()
		for _, f := range format {
			data = binary.BigEndian.AppendUint32(data, *p.Field(f))
		}
		e.octets(prefix+"value", append(data, make([]byte, -len(data)&3)...))
	}
	return e
}

// Server expects a server information parameter.
func (e *Expectation) Server(s param.ServerInformation) *Expectation {
	e.param(param.TypeServerInformation)
	e.Add("server_information_server_identifier", "%s", s.ID)
	return e.Transport(s.Transport)
}

// Checksum expects a PE Checksum parameter.
func (e *Expectation) Checksum(sum uint16) *Expectation {
	e.param(param.TypePEChecksum)
	return e.Add("pe_checksum", "0x%04x", sum)
}

// Cookie expects a cookie parameter.
func (e *Expectation) Cookie(b []byte) *Expectation {
	e.param(param.TypeCookie)
	e.octets("cookie", b)
	return e
}

// Option expects rsplib's handle resolution option.
func (e *Expectation) Option(items uint32) *Expectation {
	e.param(param.TypeHandleResolutionOption)
	return e.Add("hropt_items", "%d", items)
}

// Error expects an Operation Error parameter with causes out of the function
// Error, which tshark reads up to the parameters that they quote.
func (e *Expectation) Error(causes param.OperationError) *Expectation {
	if len(causes) == 0 {
		return e
	}
	e.param(param.TypeOperationError)
	for _, c := range causes {
		e.Add("cause_code", "0x%04x", uint16(c.Code))
		switch c.Code {
		case param.CauseUnrecognizedParameter:
			e.Add("parameter_type", "0x%x", c.Data[:2])
			e.octets("parameter_value", c.Data[4:])
		case param.CauseUnrecognizedMessage: // it shows nothing of the message
		case param.CauseInvalidValues:
			e.Element(quotedElement())
		case param.CauseInconsistentPolicy:
			e.Policy(quotedPolicy)
		case param.CauseInconsistentTransport:
			e.Transport(quotedTransport())
		default:
			e.octets("cause_info", c.Data)
		}
	}
	return e
}

// structural fields follow from the others or hold nothing.
var structural = []string{
	"message_length", "parameter_length", "parameter_padding", "cause_length", "cause_padding",
	"reserved", "_bit", "message_value",
}

// Check compares what tshark shows with what it should.
func (e *Expectation) Check(t *testing.T, p Packet) {
	t.Helper()
	if p.Malformed || len(p.Comments) > 0 {
		t.Errorf("malformed %v, remarks %q", p.Malformed, p.Comments)
	}
	for name, want := range e.fields {
		if got := p.Fields[name]; !slices.Equal(got, want) {
			t.Errorf("%s: tshark shows %q, we sent %q", name, got, want)
		}
	}
	for name, got := range p.Fields {
		if !strings.HasPrefix(name, e.proto+".") || e.fields[name] != nil {
			continue
		}
		if !slices.ContainsFunc(structural, func(s string) bool { return strings.HasSuffix(name, s) }) {
			t.Errorf("%s: tshark shows %q, we sent no such field", name, got)
		}
	}
}
