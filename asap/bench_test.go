package asap_test

import (
	"fmt"
	"net/netip"
	"testing"

	"rserpool/asap"
	"rserpool/asap/param"
)

const benchPool = param.PoolHandle("EchoPool")

// resolution returns an encoded request and n encoded elements.
func resolution(tb testing.TB, n int) (request []byte, elements [][]byte) {
	tb.Helper()
	request, err := (&asap.HandleResolution{Handle: benchPool}).Append(nil)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		e, err := param.AppendPoolElement(nil, &param.PoolElement{
			ID: param.PEID(i + 1), Life: 300,
			User:   param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1})}},
			Policy: param.Policy{Type: param.RoundRobin},
		}, false)
		if err != nil {
			tb.Fatal(err)
		}
		elements = append(elements, e)
	}
	return request, elements
}

// answer appends the answer with all elements.
func answer(dst []byte, elements [][]byte) ([]byte, error) {
	var r asap.Resolution
	r.Begin(dst, false, benchPool, &param.Policy{Type: param.RoundRobin})
	for _, e := range elements {
		r.Elements(e)
	}
	return r.Finish()
}

func TestResolutionAllocatesNothing(t *testing.T) {
	request, elements := resolution(t, 100)
	d := asap.NewDecoder(param.Limits{}, 0)
	out := make([]byte, 0, 1<<16)
	if n := testing.AllocsPerRun(100, func() {
		if _, _, err := d.Decode(request); err != nil {
			t.Fatal(err)
		}
		if _, err := answer(out, elements); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a resolution costs %v allocations", n)
	}
}

func BenchmarkDecodeResolution(b *testing.B) {
	request, _ := resolution(b, 0)
	d := asap.NewDecoder(param.Limits{}, 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := d.Decode(request); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeAnswer(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			_, elements := resolution(b, n)
			out := make([]byte, 0, 1<<16)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := answer(out, elements); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeAnswer(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			_, elements := resolution(b, n)
			message, err := answer(nil, elements)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := asap.Decode(message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
