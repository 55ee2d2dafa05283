package param_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"rserpool/asap/param"
	pt "rserpool/asap/param/paramtest"
)

func TestLimits(t *testing.T) {
	limits := param.Limits{Addresses: 3, Elements: 2, Causes: 4}
	cause := []byte{0, 4, 0, 4}
	oneElement := pt.TLV(param.TypePoolElement, pt.U32(1, 0, 1), sctp, roundRobin)
	tests := []struct {
		name  string
		limit int
		read  func(n int) error
	}{
		{"addresses", 3, func(n int) error {
			b := pt.TLV(param.TypePoolElement, pt.U32(1, 0, 1), pt.SCTP(7, 0, slices.Repeat([][]byte{address4}, n)...), roundRobin)
			d := param.Decoding{Limits: limits}
			r := d.NewReader(b)
			_, _, err := r.PoolElement()
			return err
		}},
		{"elements", 2, func(n int) error {
			d := param.Decoding{Limits: limits}
			r := d.NewReader(bytes.Repeat(oneElement, n))
			for range n {
				if _, _, err := r.PoolElement(); err != nil {
					return err
				}
			}
			return nil
		}},
		{"causes", 4, func(n int) error {
			_, err := operationError(pt.TLV(param.TypeOperationError, bytes.Repeat(cause, n)), limits)
			return err
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := test.read(test.limit); err != nil {
				t.Errorf("%d: %v", test.limit, err)
			}
			if err := test.read(test.limit + 1); kind(err) != param.LimitExceeded {
				t.Errorf("%d: %v", test.limit+1, err)
			}
		})
	}
}

// Unknown parameters to be reported are bounded too, but do no harm.
func TestLimitOfReports(t *testing.T) {
	d := param.Decoding{Limits: param.Limits{Causes: 2}}
	r := d.NewReader(bytes.Repeat([]byte{0xc0, 0x11, 0, 4}, 5))
	if err := r.Finish(); err != nil || len(d.Report) != 2 {
		t.Errorf("%d causes, %v", len(d.Report), err)
	}
}

// The longest possible list of addresses is refused before memory is spent on it.
func TestAddressesCostNothing(t *testing.T) {
	b := pt.SCTP(7, 0, slices.Repeat([][]byte{address4}, 8000)...)
	b = pt.TLV(param.TypePoolElement, pt.U32(1, 0, 1), b, roundRobin)
	const most = 10 // the error and its text
	if n := testing.AllocsPerRun(10, func() {
		if _, err := element(b); kind(err) != param.LimitExceeded {
			t.Fatal(err)
		}
	}); n > most {
		t.Errorf("%v allocations", n)
	}
}

func TestInterner(t *testing.T) {
	in := param.NewInterner(2)
	long := bytes.Repeat([]byte{'x'}, 65)
	for range 3 {
		for i := range 5 {
			want := fmt.Sprintf("pool %d", i)
			if got := in.Handle([]byte(want)); string(got) != want {
				t.Fatalf("%q became %q", want, got)
			}
		}
	}
	if got := in.Handle(long); string(got) != string(long) {
		t.Errorf("%q", got)
	}
	for _, h := range []string{"a", "b", ""} {
		b := []byte(h)
		if n := testing.AllocsPerRun(10, func() { in.Handle(b) }); n != 0 {
			t.Errorf("%q known: %v allocations", h, n)
		}
	}
	var none *param.Interner
	if got := none.Handle([]byte("a")); got != "a" {
		t.Errorf("%q", got)
	}
}
