package scripting

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var hash = [HashSize]byte{0xda, 0x39, 19: 0x09}

const hashDigits = "da39" + "0000000000000000000000000000000000" + "09"

// What scriptingclient and rspserver said to each other in the lab, but for the
// environments, NotReady and the data.
var recorded = []struct {
	octets  string
	message Message
}{
	{"00 00 000c 00000001 6c756e61", NotReady{Reason: FullyLoaded, Info: "luna"}},
	{"01 00 000a 286e6f6e6529", Ready{Info: "(none)"}},
	{"02 00 0008 1f8b0800", Upload{Data: []byte{0x1f, 0x8b, 8, 0}}},
	{"02 00 0004", Upload{Data: []byte{}}},
	{"03 00 0008 1f8b0800", Download{Data: []byte{0x1f, 0x8b, 8, 0}}},
	{"03 00 0004", Download{Data: []byte{}}},
	{"04 00 0004", KeepAlive{}},
	{"05 00 0008 00000000", KeepAliveAck{}},
	{"06 00 0008 00000002", Status{Code: 2}},
	{"07 00 0018" + hashDigits, Environment{Hash: hash}},
	{"07 01 0018" + hashDigits, Environment{Hash: hash, UploadNeeded: true}},
}

func TestMessagesAreRsplibs(t *testing.T) {
	for _, r := range recorded {
		got, err := Parse(octets(t, r.octets))
		if err != nil || !reflect.DeepEqual(got, r.message) {
			t.Errorf("%s is %#v, %v; want %#v", r.octets, got, err, r.message)
		}
		if got := r.message.Append(nil); !bytes.Equal(got, octets(t, r.octets)) {
			t.Errorf("%#v is encoded as %x", r.message, got)
		}
	}
	// The user's acknowledgement has no status.
	if got, err := Parse(octets(t, "05 00 0004")); err != nil || got != (KeepAliveAck{}) {
		t.Errorf("acknowledgement without a status: %#v, %v", got, err)
	}
}

func TestMalformedIsRefused(t *testing.T) {
	long := strings.Repeat("61", MaxData+1)
	for name, message := range map[string]string{
		"nothing":                        "",
		"header cut":                     "04 00 00",
		"unknown type":                   "08 00 0004",
		"length beyond the end":          "04 00 0005",
		"length before the end":          "04 00 0004 00",
		"keep-alive with a body":         "04 00 0005 00",
		"status cut":                     "06 00 0007 000000",
		"not ready without reason":       "00 00 0006 6162",
		"environment with a short hash":  "07 00 0017" + hashDigits[:2*HashSize-2],
		"information too long":           "01 00 0045" + long[:2*(MaxInfo+1)],
		"upload too long":                "02 00 4005" + long,
		"download too long":              "03 00 4005" + long,
		"acknowledgement that is longer": "05 00 0009 0000000000",
	} {
		if m, err := Parse(octets(t, message)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %#v, %v", name, m, err)
		}
	}
}

func TestLongNamesAreCut(t *testing.T) {
	name := strings.Repeat("x", MaxInfo+7)
	for _, m := range []Message{Ready{Info: name}, NotReady{Info: name}} {
		if _, err := Parse(m.Append(nil)); err != nil {
			t.Errorf("%T: %v", m, err)
		}
	}
}

// FuzzParse: what is accepted means the same after it was encoded again.
func FuzzParse(f *testing.F) {
	for _, r := range recorded {
		f.Add(octets(f, r.octets))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Parse(m.Append(nil))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%x is %#v, then %#v, %v", b, m, again, err)
		}
	})
}
