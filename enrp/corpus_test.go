package enrp

import (
	"rserpool/asap/param"
	"rserpool/asap/param/paramtest"
)

// corpus returns messages of every type with every parameter in them.
func corpus() []Message {
	ids := Servers{Sender: 0x01020304, Receiver: 0x05060708}
	elements := paramtest.Elements()
	var peers []param.ServerInformation
	for i, t := range paramtest.ControlTransports() {
		peers = append(peers, param.ServerInformation{ID: 0x0b0b0b00 + param.RegistrarID(i), Transport: t})
	}
	out := []Message{
		&Presence{Servers: ids, Checksum: 0xffff, ReplyRequired: true},
		&Presence{Servers: ids, Checksum: 0x0102, Server: peers[0]},
		&Presence{Servers: ids, Checksum: 0, Server: peers[1]},
		&Presence{Servers: ids, NoChecksum: true},
		&Presence{Servers: ids, NoChecksum: true, Server: peers[0]},
		&HandleTableRequest{Servers: ids, OwnOnly: true},
		&HandleTableRequest{Servers: ids},
		&HandleTableResponse{Servers: ids},
		&HandleTableResponse{Servers: ids, Reject: true},
		&HandleTableResponse{Servers: ids, More: true, Pools: []Pool{
			{Handle: "first", Elements: elements[:5]},
			{Handle: "second", Elements: elements[5:]},
		}},
		&ListRequest{Servers: ids},
		&ListResponse{Servers: ids},
		&ListResponse{Servers: ids, Reject: true},
		&ListResponse{Servers: ids, Peers: peers},
		&InitTakeover{Servers: ids, Target: 0x090a0b0c},
		&InitTakeoverAck{Servers: ids, Target: 0x090a0b0c},
		&TakeoverServer{Servers: ids, Target: 0x090a0b0c},
		&Error{Servers: ids, Causes: paramtest.Error()},
	}
	for i, e := range elements {
		out = append(out, &HandleUpdate{
			Servers: ids, Action: UpdateAction(i % 2), TakeoverSuggested: i%3 == 0, Handle: "pool\x00", Element: e,
		})
	}
	return out
}
