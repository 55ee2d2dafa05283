package handlespace

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rserpool/asap/param"
)

// Readers see whole records and whole pools at any time, while the writer changes
// everything they look at.
func TestReadersBesideTheWriter(t *testing.T) {
	handles := []param.PoolHandle{"a", "b", "c", "d"}
	s := space(Config{MaxTombstones: 30, Tombstone: time.Second}) // places are used again and again
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for n := range 4 {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(n)))
			var records []*Record
			var encoded [][]byte
			var mark Bookmark
			for {
				select {
				case <-stop:
					return
				default:
				}
				handle := pick(r, handles)
				records, _, _ = s.Resolve(records[:0], handle, Query{Items: r.IntN(20)})
				encoded, _, _ = s.ResolveEncoded(encoded[:0], &mark, handle, Query{})
				if n := len(bytes.Join(encoded, nil)); n%4 != 0 {
					t.Errorf("%d octets of elements", n)
					return
				}
				records = s.Elements(records, handle, 0, 10)
				records = s.Owned(records, here, Key{}, 10)
				for _, x := range records {
					if int(x.Element().User.Port) != int(x.ID) || len(x.Encoded()) == 0 {
						t.Errorf("half a record: %+v", *x)
						return
					}
				}
				for _, p := range s.Pools(nil, "", 10) {
					if p.Elements < 1 || p.Suspects > p.Elements {
						t.Errorf("%+v", p)
						return
					}
				}
				s.Get(handle, param.PEID(1+r.IntN(20)))
				s.Pool(handle)
				s.Counts()
				s.Home(here)
				s.NextDeadline(here)
				s.Due(nil, here, at(1e6), 3)
			}
		})
	}
	r := rand.New(rand.NewPCG(4, 4))
	for i := range 10_000 {
		handle, id := pick(r, handles), param.PEID(1+r.IntN(20))
		typ := storyPolicies[int(handle[0])%len(storyPolicies)]
		switch r.IntN(6) {
		case 0:
			s.Apply(Deregister{Handle: handle, ID: id, Now: at(float64(i))})
		case 3:
			s.Apply(Sweep{at(float64(i))})
		case 1:
			if x := s.Get(handle, id); x != nil {
				s.Apply(remove(x, Unreachable, at(float64(i)/1000)))
			}
		case 2:
			if x := s.Get(handle, id); x != nil {
				s.Apply(Alive{handle, id, x.Generation, at(float64(i))})
			}
		default:
			s.Apply(register(handle, id, at(float64(i)), policy(with(typ)),
				user(transport(param.TypeTCPTransport, "192.0.2.1", uint16(id)))))
		}
	}
	close(stop)
	readers.Wait()
	if c := s.Counts(); s.places.used != c.Elements+c.Tombstones {
		t.Errorf("%+v have %d places", c, s.places.used)
	}
}

// Of a large pool at random elements are read before they are chosen, whatever happens to
// them meanwhile.
func TestLargePoolAtRandomWhileElementsComeAndGo(t *testing.T) {
	const size = 10_200
	s := fresh()
	join := func(id param.PEID) { s.Apply(register("echo", id, at(0), policy(with(param.Random)))) }
	for id := range param.PEID(size) {
		join(id + 1)
	}
	r := rand.New(rand.NewPCG(5, 5))
	for range 1000 {
		id := 1 + param.PEID(r.IntN(size))
		switch x := s.Get("echo", id); {
		case x == nil:
			join(id)
		case r.IntN(2) == 0:
			s.Apply(Deregister{Handle: "echo", ID: id, Now: at(1)})
		default:
			s.Apply(remove(x, Unreachable, at(1)))
		}
		chosen := resolve(s, Query{Items: 20})
		if len(chosen) != 20 {
			t.Fatalf("%d elements", len(chosen))
		}
		for i, x := range chosen {
			if s.Get("echo", x.ID) != x || x.Suspect || slices.Contains(chosen[:i], x) {
				t.Fatalf("%+v is chosen", *x)
			}
		}
	}
}

func TestResolveAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector sync.Pool throws things away at random")
	}
	for _, typ := range storyPolicies {
		s := fresh()
		for id := range param.PEID(200) {
			s.Apply(register("echo", id+1, at(0), policy(param.Policy{Type: typ, Weight: uint32(id), Degradation: 1})))
		}
		dst := make([]*Record, 0, 200)
		resolve := func() { s.Resolve(dst, "echo", Query{Items: 20}) }
		resolve()
		if n := testing.AllocsPerRun(1000, resolve); n > 0 {
			t.Errorf("%v: %v allocations per resolution", typ, n)
		}
		pieces := make([][]byte, 0, 200)
		var mark Bookmark
		resolve = func() { s.ResolveEncoded(pieces, &mark, "echo", Query{}) }
		resolve()
		if n := testing.AllocsPerRun(1000, resolve); n > 0 {
			t.Errorf("%v: %v allocations per encoded resolution", typ, n)
		}
	}
}

// populate fills a space with n elements in pools of the given size.
func populate(b *testing.B, n, poolSize int, typ param.PolicyType) (*Space, []Register) {
	b.Helper()
	s := space(Config{MaxPools: n, MaxElements: 2 * n, MaxElementsPerPool: n})
	commands := make([]Register, n)
	for i := range n {
		handle := param.PoolHandle(fmt.Sprintf("pool-%07d", i/poolSize))
		commands[i] = register(handle, param.PEID(uint32(i)*2654435761+1), at(float64(i)/1000),
			policy(param.Policy{Type: typ, Weight: 1, Load: uint32(i)}))
		s.Apply(commands[i])
	}
	if c := s.Counts(); c.Elements != n {
		b.Fatalf("%d elements instead of %d", c.Elements, n)
	}
	return s, commands
}

var sizes = []int{1_000, 10_000, 100_000}

func benchmarkShapes(b *testing.B, f func(b *testing.B, n, poolSize int)) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("one pool/%d", n), func(b *testing.B) { f(b, n, n) })
		b.Run(fmt.Sprintf("pools of ten/%d", n), func(b *testing.B) { f(b, n, 10) })
	}
}

func BenchmarkReregister(b *testing.B) {
	benchmarkShapes(b, func(b *testing.B, n, poolSize int) {
		s, commands := populate(b, n, poolSize, param.LeastUsed)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			c := commands[i*7919%n]
			c.Now = at(float64(i))
			c.Element.Policy.Load = uint32(i)
			s.Apply(c)
		}
	})
}

// An element leaves and comes back: one operation is two commands.
func BenchmarkDeregisterRegister(b *testing.B) {
	benchmarkShapes(b, func(b *testing.B, n, poolSize int) {
		s, commands := populate(b, n, poolSize, param.LeastUsed)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			c := commands[i*7919%n]
			s.Apply(Deregister{Handle: c.Handle, ID: c.Element.ID, Now: c.Now})
			s.Apply(c)
		}
	})
}

// A writer changes a pool as fast as it can while readers resolve 3 of its elements as
// fast as they can.
func BenchmarkChangesDuringResolutions(b *testing.B) {
	const n = 100_000
	for _, typ := range []param.PolicyType{param.RoundRobin, param.LeastUsed, param.WeightedRandom} {
		for _, number := range []int{0, 1, 4} {
			b.Run(fmt.Sprintf("%v/readers %d", typ, number), func(b *testing.B) {
				s, commands := populate(b, n, n, typ)
				var over atomic.Bool
				var resolutions atomic.Int64
				var readers sync.WaitGroup
				for range number {
					readers.Go(func() {
						var pieces [][]byte
						var mark Bookmark
						done := int64(0)
						for ; !over.Load(); done++ {
							pieces, _, _ = s.ResolveEncoded(pieces[:0], &mark, commands[0].Handle, Query{Items: 3})
						}
						resolutions.Add(done)
					})
				}
				for i := 0; b.Loop(); i++ {
					c := commands[i*7919%n]
					c.Now = at(float64(i))
					c.Element.Policy.Load = uint32(i)
					s.Apply(c)
				}
				over.Store(true)
				readers.Wait()
				b.ReportMetric(float64(resolutions.Load())/b.Elapsed().Seconds(), "resolutions/s")
			})
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	for _, typ := range []param.PolicyType{param.RoundRobin, param.WeightedRoundRobin, param.WeightedRandom, param.LeastUsed} {
		for _, n := range sizes {
			b.Run(fmt.Sprintf("%v/%d", typ, n), func(b *testing.B) {
				s, _ := populate(b, n, n, typ)
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					dst := make([]*Record, 0, 3)
					for pb.Next() {
						s.Resolve(dst, "pool-0000000", Query{Items: 3})
					}
				})
			})
		}
	}
	b.Run("pools of ten/100000", func(b *testing.B) {
		s, commands := populate(b, 100_000, 10, param.LeastUsed)
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			dst := make([]*Record, 0, 10)
			for i := 0; pb.Next(); i++ {
				s.Resolve(dst, commands[i*7919%len(commands)].Handle, Query{})
			}
		})
	})
	b.Run("whole pool of 1000", func(b *testing.B) {
		s, _ := populate(b, 1000, 1000, param.RoundRobin)
		b.ReportAllocs()
		dst := make([]*Record, 0, 1000)
		for b.Loop() {
			s.Resolve(dst, "pool-0000000", Query{})
		}
	})
	b.Run("whole pool of 1000, encoded", func(b *testing.B) {
		s, _ := populate(b, 1000, 1000, param.RoundRobin)
		b.ReportAllocs()
		dst := make([][]byte, 0, 1000)
		var mark Bookmark
		for b.Loop() {
			s.ResolveEncoded(dst, &mark, "pool-0000000", Query{})
		}
	})
}
