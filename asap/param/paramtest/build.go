package paramtest

import (
	"encoding/binary"

	"rserpool/asap/param"
)

// TLV returns a parameter made by hand: its fixed fields and nested parameters,
// padded in between, without padding at the end. The length is what it should be,
// whatever the content.
func TLV(t param.Type, fixed []byte, nested ...[]byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(t))
	return join(append(b, 0, 0), fixed, nested)
}

// Message returns a message made by hand, with padding at the end.
func Message(typ, flags uint8, fixed []byte, params ...[]byte) []byte {
	return Pad(join([]byte{typ, flags, 0, 0}, fixed, params))
}

// join completes header with what follows it and with its length.
func join(header, fixed []byte, nested [][]byte) []byte {
	b := append(header, fixed...)
	for _, n := range nested {
		b = append(Pad(b), n...)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// Pad appends zeros up to a multiple of four octets.
func Pad(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }

// U16 returns fixed fields of 16 bits.
func U16(v ...uint16) []byte {
	var b []byte
	for _, x := range v {
		b = binary.BigEndian.AppendUint16(b, x)
	}
	return b
}

// U32 returns fixed fields of 32 bits.
func U32(v ...uint32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.BigEndian.AppendUint32(b, x)
	}
	return b
}

// IPv4 returns an IPv4 Address parameter.
func IPv4(a, b, c, d byte) []byte { return TLV(param.TypeIPv4Address, []byte{a, b, c, d}) }

// SCTP returns an SCTP transport parameter with the port, the use and address
// parameters.
func SCTP(port, use uint16, addrs ...[]byte) []byte {
	return TLV(param.TypeSCTPTransport, U16(port, use), addrs...)
}
