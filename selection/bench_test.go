package selection

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"rserpool/asap/param"
)

// Of a million elements a choice is to take twice as long as of ten thousand at most.
func BenchmarkChoose(b *testing.B) {
	for _, d := range All() {
		for _, n := range []int{1000, 10_000, 1_000_000} {
			b.Run(fmt.Sprintf("%s/%d", d.Name, n), func(b *testing.B) {
				c, r, items := NewChooser(d.Type, newRand()), newRand(), make([]Item, n)
				for i := range items {
					items[i].ID = param.PEID(i + 1)
					c.Put(&items[i], param.Policy{Type: d.Type, Weight: 1 + r.Uint32N(100), Load: r.Uint32() / 2, Degradation: 1 << 20, Penalty: 1, Distance: r.Uint32N(100)})
				}
				dst := make([]*Item, 0, 3)
				for b.Loop() {
					c.Choose(dst, 3, Unlimited)
				}
			})
		}
	}
}

func BenchmarkPut(b *testing.B) {
	for _, d := range All() {
		b.Run(d.Name, func(b *testing.B) {
			const n = 100_000
			c, r := NewChooser(d.Type, newRand()), newRand()
			items := make([]Item, n)
			policy := func() param.Policy {
				return param.Policy{Type: d.Type, Weight: 1 + r.Uint32N(100), Load: r.Uint32(), Degradation: 1 << 20, Penalty: 1, Distance: r.Uint32N(100)}
			}
			for i := range items {
				items[i].ID = param.PEID(i + 1)
				c.Put(&items[i], policy())
			}
			b.ReportAllocs()
			for b.Loop() {
				c.Put(&items[r.IntN(n)], policy())
			}
		})
	}
}

func BenchmarkPick(b *testing.B) {
	pickers := map[string]func(*rand.Rand) Picker{
		"in order": PickInOrder, "at random": PickAtRandom, "by priority": PickByPriority,
		"p2c": PickLessLoadedOfTwo, "hrw": PickRendezvous, "ewma": PickPeakEWMA,
	}
	for name, pick := range pickers {
		for _, n := range []int{3, 1000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				r := newRand()
				l := make([]param.PoolElement, n)
				for i := range l {
					l[i] = param.PoolElement{ID: param.PEID(i + 1), Policy: param.Policy{Type: param.RendezvousHashing, Weight: 1, Load: r.Uint32()}}
				}
				u := NewUserOf(pick(r), l)
				now := time.Unix(1000, 0)
				for _, e := range l {
					u.Answered(e.ID, time.Duration(r.IntN(1000)), now)
				}
				request := Request{Key: "customer 4711", Now: now}
				b.ReportAllocs()
				for b.Loop() {
					u.NextFor(request)
				}
			})
		}
	}
}
