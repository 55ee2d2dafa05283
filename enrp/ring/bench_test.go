package ring

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// BenchmarkRotation passes a token round three machines that all have something to
// say, through the codec. One operation is one ordered payload, delivered by all.
func BenchmarkRotation(b *testing.B) {
	for _, size := range []int{100, 1000, 8000} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			now := time.Unix(1000, 0)
			ring := map[Member]*Machine{}
			var wire []Envelope
			ready := func(m *Machine) {
				for out, any := m.Ready(); any; out, any = m.Ready() {
					wire = append(wire, out.Messages...)
					for _, e := range out.Events {
						if in, ok := e.(Installed); ok && in.Exchange && in.View.ID.Coordinator == m.self.Member {
							if err := m.End(now); err != nil {
								b.Fatal(err)
							}
						}
					}
				}
			}
			var order []*Machine
			for id := range NodeID(3) {
				m, err := New(Config{
					Self: Node{Member: Member{id + 1, 1}}, Timers: LAN(), Rand: rand.New(rand.NewPCG(1, uint64(id))),
				}, now)
				if err != nil {
					b.Fatal(err)
				}
				ring[m.self.Member] = m
				order = append(order, m)
				ready(m)
			}
			step := func() {
				e := wire[0]
				wire = wire[1:]
				data, err := Append(nil, e.Message)
				if err != nil {
					b.Fatal(err)
				}
				msg, err := Decode(data)
				if err != nil {
					b.Fatal(err)
				}
				ring[e.To.Member].Step(msg, now)
				ready(ring[e.To.Member])
			}
			for len(order[0].view.Members) < 3 || order[0].view.ID != order[2].view.ID || !order[2].ended {
				for _, m := range order {
					for _, n := range order {
						m.Found(n.self, now)
						ready(m)
					}
					m.Tick(now)
					ready(m)
				}
				for len(wire) > 0 {
					step()
				}
				now = now.Add(time.Millisecond)
			}
			payload := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			start := order[0].counters.Entries
			for order[0].counters.Entries < start+uint64(b.N) {
				for _, m := range order {
					for m.queue.len() < 2000 && m.queue.octets < 512<<10 {
						if _, err := m.Propose(payload, now); err != nil {
							b.Fatal(err)
						}
						if m.holding || len(wire) == 0 {
							ready(m)
						}
					}
					ready(m)
				}
				for range 30 {
					if len(wire) > 0 {
						step()
					}
				}
			}
		})
	}
}
