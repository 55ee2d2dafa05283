package fractal

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
)

var view = Parameters{Width: 40, Height: 30, Iterations: 100, C1: complex(-0.5, -1.2), C2: complex(2, 1.2)}

func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	wireParameters = "01 00 003c 00000028 0000001e 00000064 00000001" +
		"bfe0000000000000 bff3333333333333 4000000000000000 3ff3333333333333 0000000000000000"
	wireData   = "02 00 0018 00000003 00000002 00000002 00000001 00000064"
	wireEnd    = "02 00 0010 ffffffff ffffffff 00000000"
	wireCookie = "3c46472d5444313e" + wireParameters + "00000003 00000002"
)

func TestWireForms(t *testing.T) {
	p, err := ParseParameters(octets(t, wireParameters))
	if err != nil || p != view {
		t.Errorf("parameters %+v, %v", p, err)
	}
	if got := view.Append(nil); !bytes.Equal(got, octets(t, wireParameters)) {
		t.Errorf("parameters are encoded as %x", got)
	}
	for wire, want := range map[string]Data{
		wireData: {Start: 2*40 + 3, Points: []uint32{1, 100}},
		wireEnd:  {End: true},
	} {
		d, err := ParseData(octets(t, wire), view)
		if err != nil || !reflect.DeepEqual(d, want) {
			t.Errorf("data %+v, %v; want %+v", d, err, want)
		}
		if got := want.Append(nil, view.Width); !bytes.Equal(got, octets(t, wire)) {
			t.Errorf("data is encoded as %x", got)
		}
	}
	state := State{Parameters: view, Done: 2*40 + 3}
	s, err := ParseCookie(octets(t, wireCookie))
	if err != nil || s != state {
		t.Errorf("cookie %+v, %v", s, err)
	}
	if got := state.Cookie(); !bytes.Equal(got, octets(t, wireCookie)) {
		t.Errorf("cookie is encoded as %x", got)
	}
}

// set replaces a word of a message.
func set(t *testing.T, wire string, offset int, v uint32) []byte {
	b := octets(t, wire)
	binary.BigEndian.PutUint32(b[offset:], v)
	return b
}

func TestMalformedIsRefused(t *testing.T) {
	parameters := func(b []byte) error { _, err := ParseParameters(b); return err }
	data := func(b []byte) error { _, err := ParseData(b, view); return err }
	cookie := func(b []byte) error { _, err := ParseCookie(b); return err }
	for _, tt := range []struct {
		name   string
		parse  func([]byte) error
		octets []byte
	}{
		{"no parameters", parameters, nil},
		{"parameters cut", parameters, octets(t, wireParameters)[:parametersSize-1]},
		{"no width", parameters, set(t, wireParameters, 4, 0)},
		{"no height", parameters, set(t, wireParameters, 8, 0)},
		{"too wide", parameters, set(t, wireParameters, 4, MaxSide+1)},
		{"too high", parameters, set(t, wireParameters, 8, MaxSide+1)},
		{"no iterations", parameters, set(t, wireParameters, 12, 0)},
		{"too many iterations", parameters, set(t, wireParameters, 12, MaxIterations+1)},
		{"other algorithm", parameters, set(t, wireParameters, 16, 2)},
		{"data for parameters", parameters, octets(t, wireData)},
		{"data cut", data, octets(t, wireData)[:20]},
		{"data with another number of points", data, set(t, wireData, 12, 1)},
		{"data right of the picture", data, set(t, wireData, 4, 40)},
		{"data below the picture", data, set(t, wireData, 8, 30)},
		{"data beyond the last point", data, set(t, hex.EncodeToString(set(t, wireData, 4, 39)), 8, 29)},
		{"too many points", data, Data{Points: make([]uint32, MaxPoints+1)}.Append(nil, 40)},
		{"half an end", data, set(t, wireEnd, 4, 0)},
		{"cookie cut", cookie, octets(t, wireCookie)[:cookieSize-1]},
		{"cookie of another service", cookie, octets(t, strings.Replace(wireCookie, "4647", "5050", 1))},
		{"cookie beyond the picture", cookie, set(t, wireCookie, cookieSize-4, 30)},
		{"cookie right of the picture", cookie, set(t, wireCookie, cookieSize-8, 41)},
		{"cookie of an impossible picture", cookie, set(t, wireCookie, 8+4, 0)},
	} {
		if err := tt.parse(tt.octets); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	// The end of a row and of the picture is no error.
	for _, state := range []State{{view, 40}, {view, view.Points()}} {
		if got, err := ParseCookie(state.Cookie()); err != nil || got != state {
			t.Errorf("%+v becomes %+v, %v", state, got, err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	for _, wire := range []string{wireParameters, wireData, wireEnd, wireCookie} {
		f.Add(octets(f, wire))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParseParameters(b); err == nil {
			again, err := ParseParameters(p.Append(nil))
			if err != nil || !bytes.Equal(again.Append(nil), p.Append(nil)) {
				t.Errorf("%x is %+v, then %+v, %v", b, p, again, err)
			}
		}
		if d, err := ParseData(b, view); err == nil {
			again, err := ParseData(d.Append(nil, view.Width), view)
			if err != nil || !reflect.DeepEqual(again, d) {
				t.Errorf("%x is %+v, then %+v, %v", b, d, again, err)
			}
		}
		if s, err := ParseCookie(b); err == nil {
			again, err := ParseCookie(s.Cookie())
			if err != nil || again.Done != s.Done || !bytes.Equal(again.Cookie(), s.Cookie()) {
				t.Errorf("%x is %+v, then %+v, %v", b, s, again, err)
			}
		}
	})
}

func TestPicture(t *testing.T) {
	points := view.Picture()
	at := func(c complex128) uint32 {
		x := uint64(math.Round((real(c) - real(view.C1)) / real(view.C2-view.C1) * float64(view.Width)))
		y := uint64(math.Round((imag(c) - imag(view.C1)) / imag(view.C2-view.C1) * float64(view.Height)))
		return points[y*uint64(view.Width)+x]
	}
	// z*z - c: the set is the usual one turned around zero.
	if got := at(0); got != view.Iterations {
		t.Errorf("zero is in the set, left after %d", got)
	}
	if got := at(1); got != view.Iterations {
		t.Errorf("one is in the set, left after %d", got)
	}
	if got := at(complex(1.9, 1)); got != 0 {
		t.Errorf("a corner is far from the set, left after %d", got)
	}
	inside := 0
	for _, p := range points {
		if p > view.Iterations {
			t.Fatalf("a point with %d steps of %d", p, view.Iterations)
		}
		if p == view.Iterations {
			inside++
		}
	}
	// The set has an area of about 1.5 of this rectangle's 6.
	if share := float64(inside) / float64(len(points)); share < 0.2 || share > 0.3 {
		t.Errorf("%.2f of the points are in the set", share)
	}
}
