package admin

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"

	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
	"rserpool/selection"
)

var protocols = map[param.Type]string{
	param.TypeSCTPTransport:    "sctp",
	param.TypeTCPTransport:     "tcp",
	param.TypeUDPTransport:     "udp",
	param.TypeUDPLiteTransport: "udplite",
	param.TypeDCCPTransport:    "dccp",
	param.TypeOpaqueTransport:  "opaque",
}

// PolicyName is the name of a policy, or its number when it has none.
func PolicyName(t param.PolicyType) string {
	if d, ok := selection.Lookup(t); ok {
		return d.Name
	}
	return policyNumber(t)
}

func policyNumber(t param.PolicyType) string { return fmt.Sprintf("0x%08x", uint32(t)) }

// ShowPool describes a pool.
func ShowPool(p handlespace.PoolInfo) Pool {
	return Pool{
		Handle:     EscapeHandle(p.Handle),
		Policy:     PolicyName(p.Policy),
		PolicyType: policyNumber(p.Policy),
		Transport:  protocols[p.Transport],
		Control:    p.Use == param.DataAndControl,
		Elements:   p.Elements,
		Suspects:   p.Suspects,
	}
}

// ShowElement describes a stored element.
func ShowElement(r *handlespace.Record) Element {
	e := r.Entry()
	return ShowEntry(&e)
}

// ShowEntry describes an element.
func ShowEntry(r *handlespace.Entry) Element {
	e := Element{
		Handle:     EscapeHandle(r.Handle),
		ID:         r.Element.ID.String(),
		Home:       r.Element.Home.String(),
		State:      StateActive,
		User:       showTransport(r.Element.User),
		Policy:     showPolicy(r.Element.Policy),
		Life:       float64(r.Element.Life),
		Registered: r.Registered,
		Refreshed:  r.Refreshed,
		Reports:    r.Reports,
	}
	if r.Suspect {
		e.State, e.Cause = StateSuspect, r.Cause.String()
	}
	if !r.Element.ASAP.IsZero() {
		t := showTransport(r.Element.ASAP)
		e.ASAP = &t
	}
	if expires := r.Expires(); !expires.IsZero() {
		e.Expires = &expires
	}
	return e
}

func showTransport(t param.Transport) Transport {
	out := Transport{
		Protocol:    protocols[t.Type],
		Port:        t.Port,
		Control:     t.Use == param.DataAndControl,
		ServiceCode: t.ServiceCode,
		Opaque:      hex.EncodeToString(t.Opaque),
	}
	for _, a := range t.Addrs {
		out.Addresses = append(out.Addresses, a.String())
	}
	return out
}

func showPolicy(p param.Policy) Policy {
	return Policy{
		Name: PolicyName(p.Type), Type: policyNumber(p.Type),
		Weight: p.Weight, Priority: p.Priority, Load: p.Load, Degradation: p.Degradation,
		Penalty: p.Penalty, Distance: p.Distance,
		Data: hex.EncodeToString([]byte(p.Data)),
	}
}

func showCauses(causes param.OperationError) []Cause {
	var out []Cause
	for _, c := range causes {
		cause := Cause{Code: fmt.Sprintf("%#x", uint16(c.Code)), Name: c.Code.String()}
		if quoted, ok := c.Policy(); ok {
			policy := showPolicy(quoted)
			cause.Policy = &policy
		}
		out = append(out, cause)
	}
	return out
}

// showChange turns a change into an event; false for those that are not shown.
func showChange(c Change) (Event, bool) {
	if c.shown != nil {
		out := *c.shown
		out.Seq, out.Time = c.Seq, c.Time
		return out, true
	}
	out := Event{Seq: c.Seq, Time: c.Time}
	show := func(name string, r *handlespace.Record) {
		element := ShowElement(r)
		out.Type, out.Handle, out.ID, out.Element = name, element.Handle, element.ID, &element
	}
	switch e := c.Event.(type) {
	case handlespace.Registered:
		show(EventRegistered, e.Record)
		if e.Previous != nil {
			out.Type = EventUpdated
		}
	case handlespace.Adopted:
		show(EventRegistered, e.Record)
		if e.Previous != nil {
			out.Type = EventUpdated
		}
		out.Cause = CauseMerge
	case handlespace.Rehomed:
		show(EventMoved, e.Record)
		out.Cause = "from " + e.Previous.Home().ID.String()
	case handlespace.Confirmed:
		show(EventConfirmed, e.Record)
	case handlespace.Removed:
		show(EventRemoved, e.Record)
		out.Cause = e.Cause.String()
	case handlespace.Suspected:
		show(EventSuspected, e.Record)
		out.Cause = e.Cause.String()
	case handlespace.Recovered:
		show(EventRecovered, e.Record)
	default:
		return Event{}, false
	}
	return out, true
}

// element reads a registration; the identifier is filled in by the caller.
func (r RegisterRequest) element() (param.PoolElement, error) {
	var e param.PoolElement
	var err error
	if e.User, err = r.User.parse(); err != nil {
		return e, fmt.Errorf("user_transport: %w", err)
	}
	if r.ASAP != nil {
		if e.ASAP, err = r.ASAP.parse(); err != nil {
			return e, fmt.Errorf("asap_transport: %w", err)
		}
		if e.ASAP.Type != param.TypeSCTPTransport && e.ASAP.Type != param.TypeTCPTransport {
			return e, fmt.Errorf("asap_transport: %s carries no ASAP", r.ASAP.Protocol)
		}
	}
	if e.Policy, err = r.Policy.parse(); err != nil {
		return e, fmt.Errorf("policy: %w", err)
	}
	e.Life = param.Life(r.Life)
	if float64(e.Life) != r.Life || e.Life <= 0 && e.Life != param.InfiniteLife {
		return e, fmt.Errorf("life: %v is neither a positive whole number of seconds nor -1", r.Life)
	}
	return e, nil
}

func (t Transport) parse() (param.Transport, error) {
	var out param.Transport
	for code, name := range protocols {
		if name == t.Protocol {
			out.Type = code
		}
	}
	if out.Type == 0 {
		return out, fmt.Errorf("unknown protocol %q", t.Protocol)
	}
	if out.Type == param.TypeOpaqueTransport {
		data, err := hex.DecodeString(t.Opaque)
		out.Opaque = data
		return out, err
	}
	out.Port, out.ServiceCode = t.Port, t.ServiceCode
	if t.Control {
		out.Use = param.DataAndControl
	}
	for _, s := range t.Addresses {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return out, err
		}
		out.Addrs = append(out.Addrs, a.Unmap())
	}
	return out, nil
}

func (p Policy) parse() (param.Policy, error) {
	out := param.Policy{
		Weight: p.Weight, Priority: p.Priority, Load: p.Load, Degradation: p.Degradation,
		Penalty: p.Penalty, Distance: p.Distance,
	}
	switch {
	case p.Name != "":
		d, ok := selection.ByName(p.Name)
		if !ok {
			return out, fmt.Errorf("unknown policy %q", p.Name)
		}
		out.Type = d.Type
	case p.Type != "":
		n, err := strconv.ParseUint(p.Type, 0, 32)
		if err != nil {
			return out, fmt.Errorf("policy type %q is not a number of 32 bits", p.Type)
		}
		out.Type = param.PolicyType(n)
	default:
		out.Type = param.RoundRobin
	}
	data, err := hex.DecodeString(p.Data)
	out.Data = string(data)
	return out, err
}
