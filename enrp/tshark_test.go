package enrp

import (
	"fmt"
	"testing"

	"rserpool/asap/param"
	"rserpool/asap/param/paramtest"
)

// expected returns what tshark should show of a message.
func expected(m Message) *paramtest.Expectation {
	x := func(flags uint8) *paramtest.Expectation {
		return paramtest.Expect("enrp", uint8(m.Type()), flags).
			Add("sender_servers_id", "%s", m.IDs().Sender).
			Add("receiver_servers_id", "%s", m.IDs().Receiver)
	}
	target := func(id param.RegistrarID) *paramtest.Expectation {
		return x(0).Add("target_servers_id", "%s", id)
	}
	switch m := m.(type) {
	case *Presence:
		e := x(param.Flag(m.ReplyRequired, 0x01))
		if !m.NoChecksum {
			e.Checksum(m.Checksum)
		}
		if m.Server.ID != 0 {
			e.Server(m.Server)
		}
		return e
	case *HandleTableRequest:
		return x(param.Flag(m.OwnOnly, 0x01))
	case *HandleTableResponse:
		e := x(param.Flag(m.Reject, 0x01) | param.Flag(m.More, 0x02))
		for _, p := range m.Pools {
			e.Handle(p.Handle)
			for _, el := range p.Elements {
				e.Element(el)
			}
		}
		return e
	case *HandleUpdate:
		return x(param.Flag(m.TakeoverSuggested, 0x01)).
			Add("update_action", "%d", m.Action).Handle(m.Handle).Element(m.Element)
	case *ListRequest:
		return x(0)
	case *ListResponse:
		e := x(param.Flag(m.Reject, 0x01))
		for _, p := range m.Peers {
			e.Server(p)
		}
		return e
	case *InitTakeover:
		return target(m.Target)
	case *InitTakeoverAck:
		return target(m.Target)
	case *TakeoverServer:
		return target(m.Target)
	case *Error:
		return x(0).Error(m.Causes)
	}
	panic(fmt.Sprintf("%T", m))
}

// TestTshark has tshark read every message type with every parameter.
func TestTshark(t *testing.T) { paramtest.Tshark(t, 12, corpus(), expected) }
