package paramtest

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"reflect"
	"testing"

	"rserpool/asap/param"
)

// Encoder is a message of either protocol.
type Encoder interface {
	Append(dst []byte) ([]byte, error)
}

// Decode is a protocol's decoder.
type Decode[M Encoder] func([]byte) (M, param.OperationError, error)

// MustEncode returns a message's octets, and ends the test if it has none.
func MustEncode(tb testing.TB, m Encoder) []byte {
	tb.Helper()
	b, err := m.Append(nil)
	if err != nil {
		tb.Fatalf("%+v: %v", m, err)
	}
	return b
}

// MustDecode returns the message in the octets, and ends the test unless it is one
// that has nothing to report.
func MustDecode[M Encoder](tb testing.TB, decode Decode[M], b []byte) M {
	tb.Helper()
	m, report, err := decode(b)
	if err != nil || report != nil {
		tb.Fatalf("decode %x: report %v, error %v", b, report, err)
	}
	return m
}

// Golden shows that the vectors in testdata/golden.hex and the messages of the same
// identifiers are each other's decoding and encoding.
func Golden[M Encoder](t *testing.T, decode Decode[M], messages map[string]M) {
	vectors := ReadVectors(t, "testdata/golden.hex")
	if len(vectors) != len(messages) {
		t.Fatalf("%d vectors, %d messages", len(vectors), len(messages))
	}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			want, known := messages[v.ID()]
			if !known {
				t.Fatal("no message")
			}
			if got := MustDecode(t, decode, v.Data); !reflect.DeepEqual(got, want) {
				t.Errorf("decoded:\n got %+v\nwant %+v", got, want)
			}
			before := []byte("before")
			b, err := want.Append(before)
			if err != nil {
				t.Fatal(err)
			}
			if got, kept := bytes.CutPrefix(b, before); !kept || !bytes.Equal(got, v.Data) {
				t.Errorf("encoded:\n got %x\nwant %x", b, v.Data)
			}
		})
	}
}

// FuzzRoundTrip shows that no octets do harm, and that what was understood is
// written and understood again. It starts from the corpus and from the vectors in
// the package's testdata.
func FuzzRoundTrip[M Encoder](f *testing.F, decode Decode[M], corpus []M) {
	for _, m := range corpus {
		f.Add(MustEncode(f, m))
	}
	files, err := filepath.Glob("testdata/*/*.hex")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "testdata/golden.hex", "testdata/hostile.hex") {
		for _, v := range ReadVectors(f, file) {
			f.Add(v.Data)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _, err := decode(b)
		if err != nil {
			return
		}
		encoded, err := m.Append(nil)
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		again, report, err := decode(encoded)
		if err != nil || report != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%x\ndecoded %+v\nencoded %x\nagain   %+v, report %v, %v", b, m, encoded, again, report, err)
		}
		if twice, err := again.Append(nil); err != nil || !bytes.Equal(twice, encoded) {
			t.Fatalf("encoded %x\nthen    %x, %v", encoded, twice, err)
		}
	})
}

// Rsplib reads what the reference implementation sends, and writes the same again.
// One difference is meant: rsplib's message lengths include the padding at the end
// of the message, those of RFC 5354 (and ours) do not.
func Rsplib[M Encoder](t *testing.T, decode Decode[M]) {
	files, err := filepath.Glob("testdata/rsplib/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		for _, v := range ReadVectors(t, file) {
			t.Run(filepath.Base(file)+"/"+v.Name, func(t *testing.T) {
				got := MustEncode(t, MustDecode(t, decode, v.Data))
				want := bytes.Clone(v.Data)
				theirs, ours := binary.BigEndian.Uint16(want[2:]), binary.BigEndian.Uint16(got[2:])
				if theirs == (ours+3)&^3 {
					binary.BigEndian.PutUint16(want[2:], ours)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("Append:\n got %x\nwant %x", got, want)
				}
			})
		}
	}
}
