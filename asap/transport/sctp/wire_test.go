//go:build linux && !386

package sctp

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"

	"rserpool/asap/transport"
)

// native writes numbers as the kernel does.
func native(values ...any) []byte {
	var b []byte
	for _, v := range values {
		switch v := v.(type) {
		case uint16:
			b = binary.NativeEndian.AppendUint16(b, v)
		case uint32:
			b = binary.NativeEndian.AppendUint32(b, v)
		case []byte:
			b = append(b, v...)
		}
	}
	return b
}

func sockaddr(b ...byte) []byte { return append(b, make([]byte, 128-len(b))...) }

func TestParseNotification(t *testing.T) {
	v4 := sockaddr(native(uint16(unix.AF_INET), []byte{0x0f, 0x17, 10, 9, 0, 2})...)
	v6 := sockaddr(native(uint16(unix.AF_INET6), []byte{0x0f, 0x17, 0, 0, 0, 0}, netip.MustParseAddr("fd00:9::2").AsSlice())...)
	mapped := sockaddr(native(uint16(unix.AF_INET6), []byte{0x0f, 0x17, 0, 0, 0, 0}, netip.MustParseAddr("::ffff:10.9.0.2").AsSlice())...)
	header := func(kind uint16, rest ...any) []byte {
		body := native(rest...)
		return append(native(kind, uint16(0), uint32(8+len(body))), body...)
	}
	addrV4, addrV6 := netip.MustParseAddrPort("10.9.0.2:3863"), netip.MustParseAddrPort("[fd00:9::2]:3863")
	for _, test := range []struct {
		name  string
		bytes []byte
		want  notification
	}{
		{"nothing", nil, notification{}},
		{"short header", make([]byte, 7), notification{}},
		{"unknown", header(0x8009, uint32(1)), notification{}},
		{"up", header(0x8001, uint16(0), uint16(0), uint16(16), uint16(16), uint32(7)), notification{event: transport.Event{Type: transport.Up}}},
		{"short change", header(0x8001, uint16(0)), notification{}},
		{"restart", header(0x8001, uint16(2), uint16(0), uint16(16), uint16(16), uint32(7)), notification{event: transport.Event{Type: transport.Up}, restart: true, discard: true}},
		{"shutdown complete", header(0x8001, uint16(3), uint16(0), uint16(16), uint16(16), uint32(7)), notification{event: transport.Event{Type: transport.Down}, end: io.EOF}},
		{"shutdown", header(0x8005, uint32(7)), notification{event: transport.Event{Type: transport.Down}, end: io.EOF}},
		{"partial delivery aborted", header(0x8006, uint32(0), uint32(7)), notification{discard: true}},
		{"address fails", header(0x8002, v4, uint32(1), uint32(0), uint32(7)), notification{event: transport.Event{Type: transport.PathDown, Addr: addrV4}}},
		{"address removed", header(0x8002, v6, uint32(2), uint32(0), uint32(7)), notification{event: transport.Event{Type: transport.PathDown, Addr: addrV6}}},
		{"address works", header(0x8002, mapped, uint32(0), uint32(0), uint32(7)), notification{event: transport.Event{Type: transport.PathUp, Addr: addrV4}}},
		{"address confirmed", header(0x8002, v6, uint32(5), uint32(0), uint32(7)), notification{event: transport.Event{Type: transport.PathUp, Addr: addrV6}}},
		{"address made primary", header(0x8002, v6, uint32(4), uint32(0), uint32(7)), notification{}},
		{"short address", header(0x8002, v4), notification{}},
	} {
		if got := parseNotification(test.bytes); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
	got := parseNotification(header(0x8001, uint16(1), []byte{0, 12}, uint16(16), uint16(16), uint32(7)))
	if got.event.Type != transport.Down || !errors.Is(got.end, unix.ECONNRESET) || !errors.Is(got.event.Err, errLost) {
		t.Errorf("lost: %+v", got)
	}
}

// The kernel hands the PPID on as it is, so the order of its octets is ours to
// keep.
func TestPPIDInNetworkOrder(t *testing.T) {
	var out outgoing
	data := []byte("data")
	if n := out.fill([]transport.Message{{Data: data, PPID: 11, Stream: 2}, {Data: data}}, transport.PPIDENRP); n != 2 {
		t.Fatalf("filled %d", n)
	}
	for i, want := range []string{"\x00\x00\x00\x0b", "\x00\x00\x00\x0c"} {
		if got := string(out.controls[i][unix.CmsgLen(0)+8:][:4]); got != want {
			t.Errorf("PPID octets of message %d: %x, want %x", i, got, want)
		}
	}
	var in incoming
	in.next = 1
	in.controls[0] = out.controls[0]
	in.headers[0].header.SetControllen(controlSpace)
	if stream, ppid := in.info(); stream != 2 || ppid != 11 {
		t.Errorf("read stream %d, PPID %d", stream, ppid)
	}
	in.headers[0].header.SetControllen(10)
	if stream, ppid := in.info(); stream != 0 || ppid != 0 {
		t.Errorf("cut control message: stream %d, PPID %d", stream, ppid)
	}
}

func TestBatches(t *testing.T) {
	var out outgoing
	if n := out.fill(make([]transport.Message, batch+5), 0); n != batch {
		t.Errorf("filled %d, want %d", n, batch)
	}
}
