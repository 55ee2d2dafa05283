package param_test

import (
	"bytes"
	"reflect"
	"testing"

	"rserpool/asap/param"
	pt "rserpool/asap/param/paramtest"
)

// values are the parameters of one container, decoded by their types.
type values []any

func read(b []byte) (values, error) {
	var d param.Decoding
	r := d.NewReader(b)
	var out values
	for {
		t, err := r.Peek()
		if err != nil || t == 0 {
			return out, err
		}
		var v any
		switch t {
		case param.TypePoolHandle:
			v, err = r.PoolHandle()
		case param.TypePEIdentifier:
			v, err = r.PEIdentifier()
		case param.TypePoolElement:
			v, _, err = r.PoolElement()
		case param.TypePolicy:
			v, err = r.Policy()
		case param.TypeSCTPTransport, param.TypeTCPTransport:
			v, err = r.Transport()
		case param.TypeServerInformation:
			v, err = r.ServerInformation()
		case param.TypeOperationError:
			v, err = r.OperationError()
		case param.TypeCookie:
			v, err = r.Cookie()
		case param.TypePEChecksum:
			v, err = r.Next().PEChecksum()
		case param.TypeHandleResolutionOption:
			v = r.Next().HandleResolutionOption()
		default: // stands only within others
			r.Next()
			continue
		}
		if err != nil {
			return out, err
		}
		out = append(out, v)
	}
}

func write(vs values) ([]byte, error) {
	w := param.NewMessage(nil, 0, 0)
	for _, v := range vs {
		switch v := v.(type) {
		case param.PoolHandle:
			w.PoolHandle(v)
		case param.PEID:
			w.PEIdentifier(v)
		case param.PoolElement:
			w.PoolElement(&v, true)
		case param.Policy:
			w.Policy(&v)
		case param.Transport:
			w.ControlTransport(&v)
		case param.ServerInformation:
			w.ServerInformation(&v)
		case param.OperationError:
			w.OperationError(v)
		case []byte:
			w.Cookie(v)
		case uint16:
			w.PEChecksum(v)
		case uint32:
			w.HandleResolutionOption(v)
		}
	}
	b, err := w.Finish()
	if err != nil {
		return nil, err
	}
	return b[4:], nil
}

// FuzzParameters shows that no octets do harm, and that what was understood is
// written and understood again.
func FuzzParameters(f *testing.F) {
	seed := values{
		param.PoolHandle("pool"), param.PEID(1), uint16(0x7e3b), uint32(3), []byte("cookie"),
		pt.Error(), pt.ControlTransports()[0], pt.ControlTransports()[1],
		param.ServerInformation{ID: 1, Transport: pt.ControlTransports()[1]},
	}
	for _, p := range pt.Policies() {
		seed = append(seed, p)
	}
	for _, e := range pt.Elements() {
		seed = append(seed, e)
	}
	for i := range seed {
		b, err := write(seed[i : i+1])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, 0xc0, 0x11, 0, 5, 1, 0, 0, 0, 0x80, 0x11, 0, 4, 0x40, 0x11, 0, 4))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > param.MaxLength-4 {
			return
		}
		v, err := read(b)
		if err != nil {
			return
		}
		encoded, err := write(v)
		if err != nil {
			t.Fatalf("%+v: %v", v, err)
		}
		again, err := read(encoded)
		if err != nil || !reflect.DeepEqual(again, v) {
			t.Fatalf("%x\nread    %+v\nwritten %x\nagain   %+v, %v", b, v, encoded, again, err)
		}
		if twice, err := write(again); err != nil || !bytes.Equal(twice, encoded) {
			t.Fatalf("written %x\nthen    %x, %v", encoded, twice, err)
		}
	})
}
