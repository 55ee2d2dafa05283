package pingpong

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// octets reads hexadecimal digits with blanks.
func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What pingpongclient and rspserver said to each other in the lab, data shortened.
const (
	recordedPing   = "01 00 0010 0000000000000017 4e616368"
	recordedPong   = "02 00 0018 0000000000000017 0000000000000018 4e616368"
	recordedCookie = "3c50502d5444313e 0000000000000019"
)

func TestMessagesAreRsplibs(t *testing.T) {
	ping, err := ParsePing(octets(t, recordedPing))
	if err != nil || ping.Number != 0x17 || string(ping.Data) != "Nach" {
		t.Errorf("ping %+v, %v", ping, err)
	}
	if got := ping.Append(nil); !bytes.Equal(got, octets(t, recordedPing)) {
		t.Errorf("ping is encoded as %x", got)
	}
	pong, err := ParsePong(octets(t, recordedPong))
	if err != nil || pong.Number != 0x17 || pong.Reply != 0x18 || string(pong.Data) != "Nach" {
		t.Errorf("pong %+v, %v", pong, err)
	}
	if got := pong.Append(nil); !bytes.Equal(got, octets(t, recordedPong)) {
		t.Errorf("pong is encoded as %x", got)
	}
	state, err := ParseCookie(octets(t, recordedCookie))
	if err != nil || state.Next != 0x19 {
		t.Errorf("cookie %+v, %v", state, err)
	}
	if got := state.Cookie(); !bytes.Equal(got, octets(t, recordedCookie)) {
		t.Errorf("cookie is encoded as %x", got)
	}
}

func TestMalformedIsRefused(t *testing.T) {
	parsers := map[string]func([]byte) error{
		"ping":   func(b []byte) error { _, err := ParsePing(b); return err },
		"pong":   func(b []byte) error { _, err := ParsePong(b); return err },
		"cookie": func(b []byte) error { _, err := ParseCookie(b); return err },
	}
	for _, tt := range []struct{ name, parser, message string }{
		{"nothing", "ping", ""},
		{"ping cut", "ping", "01 00 000b 00000000000000"},
		{"ping of a pong's type", "ping", recordedPong},
		{"ping with a length beyond its end", "ping", "01 00 000d 0000000000000001"},
		{"ping with a length before its end", "ping", "01 00 000c 0000000000000001 00"},
		{"ping too long for a pong", "ping", "01 00 fffe 0000000000000001" + strings.Repeat("00", 0xfffe-pingHeader)},
		{"pong without its second number", "pong", "02 00 000c 0000000000000001"},
		{"pong of a ping's type", "pong", "01 00 0014 0000000000000001 0000000000000001"},
		{"cookie cut", "cookie", "3c50502d5444313e 000000000000"},
		{"cookie too long", "cookie", recordedCookie + "00"},
		{"cookie of another service", "cookie", "3c46472d5444313e 0000000000000019"},
	} {
		if err := parsers[tt.parser](octets(t, tt.message)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// FuzzMessages: what is accepted is encoded as it came, but for the flags.
func FuzzMessages(f *testing.F) {
	for _, s := range []string{recordedPing, recordedPong, recordedCookie} {
		f.Add(octets(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		compare := func(what string, err error, again []byte) {
			want := bytes.Clone(b)
			if err == nil && what != "cookie" {
				want[1] = 0
			}
			if err == nil && !bytes.Equal(again, want) {
				t.Errorf("%s %x becomes %x", what, b, again)
			}
		}
		ping, err := ParsePing(b)
		compare("ping", err, ping.Append(nil))
		if err == nil {
			if _, err := ParsePong((Pong{Number: ping.Number, Data: ping.Data}).Append(nil)); err != nil {
				t.Errorf("the pong of %x: %v", b, err)
			}
		}
		pong, err := ParsePong(b)
		compare("pong", err, pong.Append(nil))
		state, err := ParseCookie(b)
		compare("cookie", err, state.Cookie())
	})
}
