package asap

import (
	"rserpool/asap/param"
	"rserpool/asap/param/paramtest"
)

// corpus returns messages of every type with every parameter in them.
func corpus() []Message {
	var out []Message
	elements := paramtest.Elements()
	for _, e := range elements {
		out = append(out, &Registration{Handle: "pool", Element: e})
		e.ASAP = param.Transport{}
		out = append(out, &Registration{Handle: "handle\x00with zeros", Element: e})
	}
	for _, p := range paramtest.Policies() {
		out = append(out, &HandleResolutionResponse{
			Handle: "abc", AcceptUpdates: true, Policy: p, Elements: elements[:1],
		})
	}
	failure := paramtest.Error()
	return append(out,
		&Deregistration{Handle: "abcde", ID: 1},
		&RegistrationResponse{Handle: "a", ID: 0xffffffff},
		&RegistrationResponse{Handle: "ab", ID: 2, Reject: true},
		&DeregistrationResponse{Handle: "abc", ID: 3},
		&HandleResolution{Handle: "pool", SendUpdates: true},
		&HandleResolution{Handle: "pools", Items: 0xffffffff},
		&HandleResolutionResponse{Handle: "pool", Elements: elements},
		&EndpointKeepAlive{Handle: "pool", Registrar: 0x0a0a0a0a, Home: true},
		&EndpointKeepAlive{Handle: "pool1", Registrar: 0x0a0a0a0a, ID: 7},
		&EndpointKeepAliveAck{Handle: "pool", ID: 8},
		&EndpointUnreachable{Handle: "pool", ID: 9},
		&ServerAnnounce{Registrar: 0x01020304},
		&ServerAnnounce{Registrar: 0x01020304, Transports: paramtest.ControlTransports()},
		&Cookie{Cookie: []byte("cookie")},
		&Cookie{},
		&CookieEcho{Cookie: []byte("echoes")},
		&BusinessCard{Handle: "card", Elements: elements},
		&RegistrationResponse{Handle: "pool", ID: 4, Reject: true, Error: failure},
		&RegistrationResponse{Handle: "pool", ID: 5, Error: failure[3:4]},
		&DeregistrationResponse{Handle: "pool", ID: 6, Error: failure[10:11]},
		&HandleResolutionResponse{Handle: "pool", Error: failure[9:10]},
		&Error{Causes: failure},
		&Error{Causes: failure[1:2]},
	)
}
