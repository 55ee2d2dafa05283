package param_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"rserpool/asap/param"
)

type checksummed struct {
	handle param.PoolHandle
	id     param.PEID
}

// freshChecksum computes the checksum by the letter of RFC 5353, section 3.6.2,
// and RFC 1071.
func freshChecksum(set []checksummed) uint16 {
	var octets []byte
	for _, e := range set {
		octets = append(octets, e.handle...)
		octets = append(octets, make([]byte, -len(e.handle)&3)...)
		octets = append(octets, byte(e.id>>24), byte(e.id>>16), byte(e.id>>8), byte(e.id))
	}
	sum := 0
	for i := 0; i < len(octets); i += 2 {
		sum += int(octets[i])<<8 | int(octets[i+1])
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

var three = []checksummed{{"EchoPool", 0x11223344}, {"EchoPool", 0xdeadbeef}, {"abc", 1}}

func TestENRP_3_6_2_05_Example(t *testing.T) {
	var c param.Checksum
	want := []uint16{0x4deb, 0x429f, 0x7e3b}
	if c.Sum() != 0xffff {
		t.Errorf("empty: 0x%04x", c.Sum())
	}
	for i, e := range three {
		c.Add(e.handle, e.id)
		if c.Sum() != want[i] {
			t.Errorf("first %d: 0x%04x, want 0x%04x", i+1, c.Sum(), want[i])
		}
	}
	// As rsplib computed it, seen live.
	for _, seen := range []struct {
		e    checksummed
		want uint16
	}{{checksummed{"EchoPool", 0x4ea6f542}, 0x4e68}, {checksummed{"EchoPool", 0x0a090003}, 0x8845}} {
		var c param.Checksum
		c.Add(seen.e.handle, seen.e.id)
		if c.Sum() != seen.want {
			t.Errorf("%v: 0x%04x, want 0x%04x", seen.e, c.Sum(), seen.want)
		}
	}
}

func TestENRP_3_6_2_06_IncrementalEqualsFresh(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var c param.Checksum
	var set []checksummed
	for range 20_000 {
		if len(set) > 0 && rnd.IntN(2) == 0 {
			i := rnd.IntN(len(set))
			c.Remove(set[i].handle, set[i].id)
			set = slices.Delete(set, i, i+1)
		} else {
			handle := make([]byte, rnd.IntN(12))
			for i := range handle {
				handle[i] = byte(rnd.IntN(256)) | byte(rnd.IntN(2)*0xff)
			}
			e := checksummed{param.PoolHandle(handle), param.PEID(rnd.Uint32())}
			c.Add(e.handle, e.id)
			set = append(set, e)
		}
		if len(set) < 20 && c.Sum() != freshChecksum(set) {
			t.Fatalf("%d elements: 0x%04x, fresh 0x%04x", len(set), c.Sum(), freshChecksum(set))
		}
	}
	if c.Sum() != freshChecksum(set) {
		t.Errorf("%d elements: 0x%04x, fresh 0x%04x", len(set), c.Sum(), freshChecksum(set))
	}
	for _, e := range set {
		c.Remove(e.handle, e.id)
	}
	if c.Sum() != 0xffff {
		t.Errorf("back to empty: 0x%04x", c.Sum())
	}
}

func TestENRP_3_6_2_07_OnlyHandleAndIdentifierCount(t *testing.T) {
	var c param.Checksum
	c.Add("pool", 7)
	before := c.Sum()
	c.Remove("pool", 7) // an update of any other value: out and in again
	c.Add("pool", 7)
	if c.Sum() != before {
		t.Errorf("0x%04x became 0x%04x", before, c.Sum())
	}
}

func TestENRP_3_6_2_08_ChangeOfHome(t *testing.T) {
	var b, c param.Checksum
	for _, e := range three {
		b.Add(e.handle, e.id)
	}
	b.Remove(three[1].handle, three[1].id)
	c.Add(three[1].handle, three[1].id)
	if want := freshChecksum([]checksummed{three[0], three[2]}); b.Sum() != want {
		t.Errorf("old home: 0x%04x, want 0x%04x", b.Sum(), want)
	}
	if want := freshChecksum(three[1:2]); c.Sum() != want {
		t.Errorf("new home: 0x%04x, want 0x%04x", c.Sum(), want)
	}
}
