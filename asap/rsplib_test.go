package asap

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"testing"

	"rserpool/asap/param/paramtest"
)

// TestRsplib reads what the reference implementation sends, and writes the same
// again. One difference is meant: rsplib's message lengths include the padding at
// the end of the message, those of RFC 5354 (and ours) do not.
func TestRsplib(t *testing.T) {
	files, err := filepath.Glob("testdata/rsplib/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		for _, v := range paramtest.ReadVectors(t, file) {
			t.Run(filepath.Base(file)+"/"+v.Name, func(t *testing.T) {
				m, report, err := Decode(v.Data)
				if err != nil || report != nil {
					t.Fatalf("Decode: report %v, error %v", report, err)
				}
				got, err := m.Append(nil)
				if err != nil {
					t.Fatal(err)
				}
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
