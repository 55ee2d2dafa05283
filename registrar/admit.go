package registrar

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
)

// origin is where a request came from: the peer's end of an association or
// connection, its primary address first.
type origin struct {
	network string
	remote  []netip.AddrPort
}

// addr is the peer's primary address. The peer has it for sure: on SCTP the others
// are those it claims, and may not have been reached yet.
func (o origin) addr() netip.Addr {
	if len(o.remote) == 0 {
		return netip.Addr{}
	}
	return o.remote[0].Addr()
}

func (o origin) addrs() []netip.Addr {
	out := make([]netip.Addr, len(o.remote))
	for i, a := range o.remote {
		out[i] = a.Addr()
	}
	return out
}

func (o origin) has(a netip.Addr) bool {
	return slices.ContainsFunc(o.remote, func(r netip.AddrPort) bool { return r.Addr() == a })
}

// hasPort reports whether the peer's end is at an address and port.
func (o origin) hasPort(a netip.AddrPort) bool { return slices.Contains(o.remote, a) }

// clientOf returns under what a peer with the address is counted: an IPv6 address
// without its last bits, because one host can have as many of these as it likes.
func clientOf(a netip.Addr, prefix6 int) netip.Addr {
	if !a.Is6() || a.IsLinkLocalUnicast() || prefix6 >= a.BitLen() {
		return a
	}
	prefix, err := a.WithZone("").Prefix(prefix6)
	if err != nil {
		return a
	}
	return prefix.Addr()
}

func (r *Registrar) client(a netip.Addr) netip.Addr { return clientOf(a, r.limits().ClientPrefix6) }

// admission holds the rules for what a registration may contain by itself,
// before it is compared with its pool.
type admission struct {
	self             param.RegistrarID
	addresses        int // in one transport
	handleLength     int
	foreignAddresses bool
	rsplib           bool
}

// admit checks an element and completes it: home, ASAP transport, addresses that
// belong to the association. Refused causes mean that it must be rejected;
// otherwise warnings, if any, say what was changed.
func (a admission) admit(handle param.PoolHandle, e param.PoolElement, from origin) (admitted param.PoolElement, warnings, refused param.OperationError) {
	if len(handle) == 0 || len(handle) > a.handleLength {
		return e, nil, param.OperationError{param.NewCause(param.CauseInvalidValues)}
	}
	if a.rsplib {
		e.Life = rsplibLife(e.Life)
	}
	if e.ID == 0 || e.Life <= 0 && e.Life != param.InfiniteLife { // AMB-27, AMB-10
		return e, nil, param.OperationError{param.ElementCause(param.CauseInvalidValues, &e)}
	}
	if len(e.User.Addrs) > a.addresses {
		return e, nil, param.OperationError{param.NewCause(param.CauseLackOfResources)}
	}

	asked := e.User
	e.User.Addrs = a.ownAddresses(e.User.Addrs, from)
	if len(e.User.Addrs) == 0 && asked.Type != param.TypeOpaqueTransport { // AMB-26
		return e, nil, param.OperationError{param.TransportCause(param.CauseInvalidValues, asked)}
	}
	if len(e.User.Addrs) < len(asked.Addrs) && !a.rsplib {
		warnings = param.OperationError{param.TransportCause(param.CauseInvalidValues, e.User)} // AMB-69
	}

	e.Home = a.self
	e.ASAP = asapTransport(e.ASAP, from)
	return e, warnings, nil
}

// ownAddresses returns the addresses that are the element's own: those of its
// association; from a peer on loopback any loopback address; all, if foreign
// addresses are accepted, but for loopback ones of a peer that is elsewhere.
func (a admission) ownAddresses(addrs []netip.Addr, from origin) []netip.Addr {
	local := from.addr().IsLoopback()
	var own []netip.Addr
	for _, addr := range addrs {
		switch {
		case addr.IsLoopback():
			if local {
				own = append(own, addr)
			}
		case addr.IsUnspecified() || addr.IsMulticast():
		case a.foreignAddresses || from.has(addr):
			own = append(own, addr)
		}
	}
	return own
}

// asapTransport returns where the element is reached: on SCTP the address(es)
// and port that it registered from, whatever it said (ASAP-3.1-33); on TCP its
// address with the control port that it said it listens on, or else the port
// that it came from.
func asapTransport(said param.Transport, from origin) param.Transport {
	if from.network == transport.TCP {
		t := param.Transport{Type: param.TypeTCPTransport, Addrs: []netip.Addr{from.addr()}, Port: from.remote[0].Port()}
		if said.Type == param.TypeTCPTransport && said.Port != 0 {
			t.Port = said.Port
		}
		return t
	}
	return param.Transport{Type: param.TypeSCTPTransport, Addrs: from.addrs(), Port: from.remote[0].Port()}
}

// rsplibLife turns the milliseconds that rsplib sends into seconds, rounded up.
// Its largest value, all ones, is 49 days.
func rsplibLife(l param.Life) param.Life {
	ms := time.Duration(uint32(l)) * time.Millisecond
	return param.Life(max(1, (ms+time.Second-1)/time.Second))
}

// rsplibMilliseconds is the way back.
func rsplibMilliseconds(l param.Life) param.Life {
	if l == param.InfiniteLife {
		return math.MaxInt32
	}
	return param.Life(min(int64(l)*1000, math.MaxInt32))
}
