package enrp

import (
	"bytes"
	"path/filepath"
	"reflect"
	"testing"

	"rserpool/asap/param/paramtest"
)

// FuzzDecode shows that no octets do harm, and that what was understood is written
// and understood again.
func FuzzDecode(f *testing.F) {
	for _, m := range corpus() {
		b, err := m.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	files, err := filepath.Glob("testdata/*/*.hex")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, "testdata/golden.hex", "testdata/hostile.hex") {
		for _, v := range paramtest.ReadVectors(f, file) {
			f.Add(v.Data)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, _, err := Decode(b)
		if err != nil {
			return
		}
		encoded, err := m.Append(nil)
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		again, report, err := Decode(encoded)
		if err != nil || report != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%x\ndecoded %+v\nencoded %x\nagain   %+v, report %v, %v", b, m, encoded, again, report, err)
		}
		if twice, err := again.Append(nil); err != nil || !bytes.Equal(twice, encoded) {
			t.Fatalf("encoded %x\nthen    %x, %v", encoded, twice, err)
		}
	})
}
