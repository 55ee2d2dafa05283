package registrar

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"rserpool/asap/param"
)

// What is kept of elements is what a map for each question would say, whatever happens
// in whatever order, and nothing is kept of those that are gone.
func TestAttendedElements(t *testing.T) {
	inWorld(t, func(w *world) {
		w.r.turn <- struct{}{}
		defer func() { <-w.r.turn }()
		for seed := range uint64(50) {
			attendAtRandom(t, w.r.owner, rand.New(rand.NewPCG(seed, 1)), time.Now())
		}
	})
}

func attendAtRandom(t *testing.T, o *owner, random *rand.Rand, now time.Time) {
	defer func() {
		for key := range maps.Clone(o.elements) {
			o.release(key)
		}
	}()
	conns := []*conn{{}, {}, {}}
	var (
		reached = make(map[elementKey]*conn)
		counted = make(map[elementKey]netip.Addr)
		watched = make(map[elementKey]bool)
	)
	for range 1000 {
		key := elementKey{Handle: pool, ID: param.PEID(random.IntN(20) + 1)}
		c, client := conns[random.IntN(len(conns))], netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(3))})
		switch random.IntN(10) {
		case 0, 1, 2:
			o.bind(o.attended(key), c)
			reached[key] = c
		case 3, 4:
			o.clients.add(o.attended(key), client)
			counted[key] = client
		case 5, 6:
			o.keepAlive.watch(&o.attended(key).watch, generation(1), now)
			watched[key] = true
		case 7, 8:
			o.release(key)
			delete(reached, key)
			delete(counted, key)
			delete(watched, key)
		case 9:
			o.left(c, now)
			maps.DeleteFunc(reached, func(_ elementKey, at *conn) bool { return at == c })
		}
		of, over, kept := make(ledger), make(map[*conn]int), make(map[elementKey]bool)
		for key, client := range counted {
			of[client]++
			kept[key] = true
			if o.elements[key].client != client {
				t.Fatalf("%v counts for another client than %v", key, client)
			}
		}
		for key, c := range reached {
			over[c]++
			kept[key] = true
			if o.reach(key) != c {
				t.Fatalf("%v is not reached over its connection", key)
			}
		}
		for key := range watched {
			kept[key] = true
		}
		for _, c := range conns {
			if len(c.elements) != over[c] {
				t.Fatalf("%d elements at a connection, want %d", len(c.elements), over[c])
			}
		}
		if len(o.elements) != len(kept) || o.keepAlive.due.Len() != len(watched) || !maps.Equal(o.clients, of) {
			t.Fatalf("%d elements, want %d; %d deadlines, want %d; clients %v, want %v",
				len(o.elements), len(kept), o.keepAlive.due.Len(), len(watched), o.clients, of)
		}
	}
}
