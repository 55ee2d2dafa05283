//go:build unix

package handlespace

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/selection"
)

// shape is how many elements are in how many pools of one policy.
type shape struct {
	pools, elements int // elements of all pools together
	policy          param.PolicyType
}

func (s shape) String() string {
	d, _ := selection.Lookup(s.policy)
	return fmt.Sprintf("%s/%dx%d", d.Name, s.pools, s.elements/s.pools)
}

// The shapes of the table in docs/performance.md, and further ones.
var shapes = []shape{
	{1, 1, param.RoundRobin},
	{1, 10_000, param.RoundRobin},
	{1, 100_000, param.RoundRobin},
	{1, 1_000_000, param.RoundRobin},
	{1, 10_000, param.LeastUsed},
	{1, 1_000_000, param.LeastUsed},
	{1, 10_000, param.WeightedRandom},
	{1, 1_000_000, param.WeightedRandom},
	{1, 1_000_000, param.WeightedRoundRobin},
	{1, 1_000_000, param.Random},
	{10_000, 100_000, param.RoundRobin},
	{1_000_000, 1_000_000, param.RoundRobin},
}

// addresses are those of the elements' hosts, one each.
var addresses = func() (all [][]netip.Addr) {
	for i := range 4 {
		all = append(all, []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})})
	}
	return all
}()

// crew is elements with random identifiers, and the order in which they do
// something next.
type crew struct {
	shape
	handles []param.PoolHandle
	ids     []param.PEID
	order   []int
	loads   *rand.Rand
	step    int // commands so far: the clock
}

func newCrew(s shape) *crew {
	c := &crew{shape: s, loads: rand.New(rand.NewPCG(1, 1))}
	for i := range s.pools {
		c.handles = append(c.handles, param.PoolHandle(fmt.Sprintf("pool-%07d", i)))
	}
	for i := range s.elements {
		c.ids = append(c.ids, param.PEID(uint32(i+1)*2654435761)) // odd: no identifier comes twice
		c.order = append(c.order, i)
	}
	c.shuffle()
	return c
}

func (c *crew) shuffle() {
	c.loads.Shuffle(len(c.order), func(i, j int) { c.order[i], c.order[j] = c.order[j], c.order[i] })
}

func (c *crew) handle(i int) param.PoolHandle { return c.handles[i%c.pools] }

// now passes by 20 us per command: 50,000 a second.
func (c *crew) now() time.Time {
	c.step++
	return start.Add(time.Duration(c.step) * 20 * time.Microsecond)
}

func (c *crew) register(i int) Command {
	e := param.PoolElement{
		ID:     c.ids[i],
		Home:   here,
		Life:   300,
		User:   param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: addresses[i%len(addresses)]},
		Policy: param.Policy{Type: c.policy},
		ASAP:   param.Transport{Type: param.TypeSCTPTransport, Port: 5001, Addrs: addresses[i%len(addresses)]},
	}
	switch c.policy {
	case param.LeastUsed:
		e.Policy.Load = c.loads.Uint32()
	case param.WeightedRandom, param.WeightedRoundRobin:
		e.Policy.Weight = 1 + c.loads.Uint32N(100)
	}
	return Register{Handle: c.handle(i), Element: e, Raiser: here, Incarnation: 1, Now: c.now()}
}

func (c *crew) deregister(i int) Command {
	return Deregister{Handle: c.handle(i), ID: c.ids[i], Raiser: here, Incarnation: 1, Now: c.now()}
}

// batch is how many commands a batch has.
const batch = 1000

// apply applies one command of each element, in random order, one at a time or in
// batches. The meter runs while commands are applied, not while they are made.
func (c *crew) apply(m *meter, s *Space, command func(int) Command, batched bool) {
	c.shuffle()
	commands := make([]Command, 0, batch)
	for some := range slices.Chunk(c.order, batch) {
		commands = commands[:0]
		for _, i := range some {
			commands = append(commands, command(i))
		}
		m.run(func() { applyAll(s, commands, batched) })
	}
}

func applyAll(s *Space, commands []Command, batched bool) {
	if batched {
		s.ApplyAll(commands)
		return
	}
	for _, cmd := range commands {
		s.Apply(cmd)
	}
}

// expire lets all registrations run out.
func (c *crew) expire(m *meter, s *Space, batched bool) {
	now := start.Add(1e6 * time.Second)
	var due []Command
	m.run(func() {
		for {
			if due = s.Due(due[:0], here, now, batch); len(due) == 0 {
				return
			}
			applyAll(s, due, batched)
		}
	})
}

// choose resolves as often as there are elements, at least, and returns how often.
func (c *crew) choose(s *Space, items int) (n int) {
	var pieces [][]byte
	for n < max(c.elements, 1_000_000) {
		for _, i := range c.order {
			var none Bookmark
			pieces, _, _ = s.ResolveEncoded(pieces[:0], &none, c.handle(i), Query{Items: items})
			if len(pieces) == 0 {
				panic("nothing to choose from")
			}
			n++
		}
	}
	return n
}

// meter adds up what a phase of a benchmark takes: by the clock, and of all processor
// time, which counts what the garbage collector does beside.
type meter struct{ wall, spent time.Duration }

func (m *meter) run(f func()) {
	spent, began := processorTime(), time.Now()
	f()
	m.wall += time.Since(began)
	m.spent += processorTime() - spent
}

// report reports what one of n operations took, ns, and begins anew.
func (m *meter) report(b *testing.B, name string, n int) {
	b.ReportMetric(float64(m.wall)/float64(n), name+"-ns")
	b.ReportMetric(float64(m.spent)/float64(n), name+"-cpu-ns")
	*m = meter{}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident is the process's memory, octets, where the system tells it.
func resident() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	var kib float64
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	fmt.Sscan(rest, &kib)
	return kib * 1024
}

func million() *Space {
	return space(Config{MaxPools: 2_000_000, MaxElements: 2_000_000, MaxElementsPerPool: 2_000_000, RemovalShare: 1})
}

// BenchmarkSpace prints what each kind of command and choice takes, for each
// shape. One iteration is all of it (-benchtime 1x).
func BenchmarkSpace(b *testing.B) {
	for _, shape := range shapes {
		for _, batched := range []bool{false, true} {
			name := shape.String()
			if batched {
				name += "/batches"
			}
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					shape.measure(b, batched)
				}
			})
		}
	}
}

func (s shape) measure(b *testing.B, batched bool) {
	c, space := newCrew(s), million()
	debug.FreeOSMemory()
	var m, setup meter
	c.apply(&m, space, c.register, batched)
	m.report(b, "register", c.elements)
	c.apply(&m, space, c.register, batched)
	m.report(b, "reregister", c.elements)
	if !batched {
		for _, items := range []int{1, 3} {
			n := 0
			m.run(func() { n = c.choose(space, items) })
			m.report(b, fmt.Sprintf("choose%d", items), n)
		}
	}
	c.apply(&m, space, c.deregister, batched)
	m.report(b, "deregister", c.elements)
	left := space.Counts().Elements
	space = million()
	c.apply(&setup, space, c.register, false)
	c.expire(&m, space, batched)
	m.report(b, "expire", c.elements)
	if left += space.Counts().Elements; left > 0 {
		b.Fatalf("%d elements are left", left)
	}
}

// BenchmarkMemory prints the memory that an element takes, everything included, when
// all have registered, and again: octets of the heap, and resident in the process; and
// what a tombstone takes when all have deregistered.
func BenchmarkMemory(b *testing.B) {
	for _, shape := range shapes {
		if shape.elements < 100_000 {
			continue
		}
		b.Run(shape.String(), func(b *testing.B) {
			for b.Loop() {
				c := newCrew(shape)
				var m meter
				heap, process := inUse()
				space := million()
				for _, after := range []string{"", "-again"} {
					c.apply(&m, space, c.register, false)
					heapAfter, processAfter := inUse()
					b.ReportMetric((heapAfter-heap)/float64(c.elements), "heap-B/element"+after)
					b.ReportMetric((processAfter-process)/float64(c.elements), "resident-B/element"+after)
				}
				c.apply(&m, space, c.deregister, false)
				heapAfter, _ := inUse()
				b.ReportMetric((heapAfter-heap)/float64(c.elements), "heap-B/tombstone")
				runtime.KeepAlive(space)
				runtime.KeepAlive(c)
			}
		})
	}
}

// inUse returns the heap and the resident memory after a garbage collection.
func inUse() (heap, process float64) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc), resident()
}

// BenchmarkResolveDuringChanges resolves 3 elements of a pool of a million while a
// writer changes 50,000 a second, and prints which times 50, 99 and 99.9 of 100
// resolutions stay below, us, the longest, and how many changes were made.
func BenchmarkResolveDuringChanges(b *testing.B) {
	const rate, seconds = 50_000, 10
	for _, shape := range shapes {
		if shape.elements < 1_000_000 || shape.pools > 1 {
			continue
		}
		c, space := newCrew(shape), million()
		var setup meter
		c.apply(&setup, space, c.register, false)
		for _, changes := range []int{0, rate} {
			b.Run(fmt.Sprintf("%v/%d", shape, changes), func(b *testing.B) {
				for b.Loop() {
					stop := make(chan struct{})
					var writer sync.WaitGroup
					done := 0
					writer.Go(func() { done = c.churn(space, changes, stop) })
					var took []time.Duration
					var pieces [][]byte
					var mark Bookmark
					for began := time.Now(); time.Since(began) < seconds*time.Second; {
						start := time.Now()
						pieces, _, _ = space.ResolveEncoded(pieces[:0], &mark, c.handle(0), Query{Items: 3})
						took = append(took, time.Since(start))
					}
					close(stop)
					writer.Wait()
					slices.Sort(took)
					for _, p := range []float64{50, 99, 99.9, 100} {
						at := took[min(int(float64(len(took))*p/100), len(took)-1)]
						b.ReportMetric(float64(at)/1e3, fmt.Sprintf("p%v-us", p))
					}
					b.ReportMetric(float64(done)/seconds, "changes/s")
				}
			})
		}
	}
}

// churn changes elements at a rate, in millisecond steps: most register again, some
// leave and come back. It returns how many changes it made.
func (c *crew) churn(s *Space, rate int, stop <-chan struct{}) (done int) {
	began := time.Now()
	for {
		select {
		case <-stop:
			return done
		case <-time.After(time.Millisecond):
		}
		for ; done < int(time.Since(began).Seconds()*float64(rate)); done++ {
			i := c.order[done/2%len(c.order)]
			if done%4 == 0 {
				s.Apply(c.deregister(i))
			} else {
				s.Apply(c.register(i))
			}
		}
	}
}
