package enrp

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"rserpool/asap/param"
	"rserpool/asap/param/paramtest"
)

func sctp(port uint16, use param.TransportUse, addr string) param.Transport {
	return param.Transport{
		Type: param.TypeSCTPTransport, Port: port, Use: use, Addrs: []netip.Addr{netip.MustParseAddr(addr)},
	}
}

var (
	fromA    = Servers{Sender: 0x0a0a0a0a, Receiver: 0x0b0b0b0b}
	fromB    = Servers{Sender: 0x0b0b0b0b, Receiver: 0x0a0a0a0a}
	groupA   = Servers{Sender: 0x0a0a0a0a}
	element1 = param.PoolElement{
		ID: 0x11223344, Home: 0x0a0a0a0a, Life: 300, User: sctp(7, param.DataOnly, "192.0.2.1"),
		Policy: param.Policy{Type: param.RoundRobin}, ASAP: sctp(5001, 0, "192.0.2.1"),
	}
	update = &HandleUpdate{Servers: groupA, Action: AddPE, Handle: "EchoPool", Element: element1}
)

// golden are the messages of testdata/golden.hex.
var golden = map[string]Message{
	"V16": &Presence{Servers: fromA, ReplyRequired: true, Checksum: 0x7e3b},
	"V17": &Presence{
		Servers: groupA, Checksum: 0x7e3b,
		Server: param.ServerInformation{ID: 0x0a0a0a0a, Transport: sctp(9901, 0, "192.0.2.10")},
	},
	"V18": &HandleTableRequest{Servers: fromA, OwnOnly: true},
	"V19": &HandleTableResponse{Servers: fromB, More: true, Pools: []Pool{{
		Handle: "abc",
		Elements: []param.PoolElement{{
			ID: 1, Home: 0x0b0b0b0b, Life: param.InfiniteLife, User: sctp(7, param.DataAndControl, "192.0.2.2"),
			Policy: param.Policy{Type: param.RoundRobin}, ASAP: sctp(5001, 0, "192.0.2.2"),
		}},
	}}},
	"V20": &HandleTableResponse{Servers: fromB, Reject: true},
	"V21": update,
	"V22": &ListRequest{Servers: fromA},
	"V23": &ListResponse{Servers: fromB, Peers: []param.ServerInformation{
		{ID: 0x0c0c0c0c, Transport: sctp(9901, 0, "192.0.2.12")},
	}},
	"V24": &InitTakeover{Servers: groupA, Target: 0x0c0c0c0c},
	"V25": &InitTakeoverAck{Servers: fromB, Target: 0x0c0c0c0c},
	"V26": &TakeoverServer{Servers: groupA, Target: 0x0c0c0c0c},
	"V27": &Error{Servers: fromB, Causes: param.OperationError{
		{Code: param.CauseUnrecognizedMessage, Data: []byte{0x45, 0, 0, 4}},
	}},
}

func TestGoldenVectors(t *testing.T) { paramtest.Golden(t, Decode, golden) }

func TestHostileVectors(t *testing.T) {
	tests := map[string]struct {
		message Message // nil: dropped silently, as malformed
	}{
		"N20": {},
		"N21": {message: update},
		// The registrar drops it: a sender of 0 can be told apart only there.
		"N22": {message: &Presence{Checksum: 0xffff}},
	}
	vectors := paramtest.ReadVectors(t, "testdata/hostile.hex")
	if len(vectors) != len(tests) {
		t.Fatalf("%d vectors, %d expectations", len(vectors), len(tests))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			want := tests[v.ID()].message
			m, report, err := Decode(v.Data)
			if !reflect.DeepEqual(m, want) || report != nil {
				t.Errorf("message\n got %+v\nwant %+v\nreport %v", m, want, report)
			}
			if want != nil {
				return
			}
			var e *param.Error
			if !errors.As(err, &e) || e.Kind != param.Malformed || e.Report != nil {
				t.Errorf("error %v", err)
			}
		})
	}
}
