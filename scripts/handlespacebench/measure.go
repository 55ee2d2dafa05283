package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
)

const (
	home    = param.RegistrarID(1)
	life    = param.Life(300)
	choices = 500_000
)

// element says which element of which pool.
type element struct {
	id   param.PEID
	pool uint32
}

// bench is one handlespace and the elements that come and go in it.
type bench struct {
	space    *handlespace.Space
	policy   param.PolicyType
	handles  []param.PoolHandle
	elements []element
	each     int // in a pool
	now      time.Time
	random   *rand.Rand
}

func measure(args []string) error {
	if len(args) != 4 {
		return errors.New("usage: handlespacebench measure rr|lu|wrand POOLS ELEMENTS RUNS")
	}
	policy, known := map[string]param.PolicyType{
		"rr": param.RoundRobin, "lu": param.LeastUsed, "wrand": param.WeightedRandom,
	}[args[0]]
	var numbers [3]int
	for i := range numbers {
		n, err := strconv.Atoi(args[1+i])
		if err != nil || n < 1 || !known {
			return fmt.Errorf("%q make no sense", args)
		}
		numbers[i] = n
	}
	b := &bench{policy: policy, each: numbers[1], now: time.Unix(1e9, 0), random: rand.New(rand.NewPCG(1, 2))}
	for i := range numbers[0] {
		b.handles = append(b.handles, param.PoolHandle(fmt.Sprintf("pool-%d", i)))
	}
	for i := range numbers[0] * b.each {
		// Different, though they look random: an odd factor permutes 32 bits.
		b.elements = append(b.elements, element{param.PEID(uint32(i+1) * 2654435761), uint32(i % numbers[0])})
	}
	results := make(map[string][]float64)
	for range numbers[2] {
		if err := b.once(func(operation string, n float64) {
			results[operation] = append(results[operation], n)
		}); err != nil {
			return err
		}
	}
	for _, operation := range operations {
		all := results[operation]
		slices.Sort(all)
		fmt.Printf("%s\t%.0f\n", operation, all[len(all)/2])
	}
	return nil
}

func (b *bench) once(found func(operation string, n float64)) error {
	n := len(b.elements)
	empty := resident()
	b.space = handlespace.New(handlespace.Config{
		MaxPools: len(b.handles), MaxElements: n, MaxElementsPerPool: b.each, MaxPoolsPerOwner: len(b.handles),
		RemovalShare: 1, // all may expire at once
		Rand:         rand.New(rand.NewPCG(3, 4)),
	})
	per := func(operation string, count int, do func()) {
		begin := cpu()
		do()
		found(operation, float64(cpu()-begin)/float64(count))
	}
	b.shuffle()
	per("register", n, b.register)
	if got := b.space.Counts().Elements; got != n {
		return fmt.Errorf("%d elements instead of %d", got, n)
	}
	found("memory", float64(resident()-empty)/float64(n))
	b.shuffle()
	per("re-register", n, b.register)
	for _, items := range []int{1, 3} {
		var chosen int
		per(fmt.Sprintf("choose %d", items), choices, func() { chosen = b.choose(items) })
		if want := choices * min(items, b.each); chosen != want {
			return fmt.Errorf("%d elements chosen instead of %d", chosen, want)
		}
	}
	b.shuffle()
	per("deregister", n, func() {
		for _, e := range b.elements {
			b.tick()
			b.space.Apply(handlespace.Deregister{Handle: b.handles[e.pool], ID: e.id, Raiser: home, Incarnation: 1, Now: b.now})
		}
	})
	b.shuffle()
	b.register()
	b.now = b.now.Add(time.Duration(2*life) * time.Second)
	per("expire", n, b.expire)
	if got := b.space.Counts().Elements; got != 0 {
		return fmt.Errorf("%d elements have not expired", got)
	}
	return nil
}

func (b *bench) tick() { b.now = b.now.Add(time.Microsecond) }

func (b *bench) shuffle() {
	b.random.Shuffle(len(b.elements), func(i, k int) { b.elements[i], b.elements[k] = b.elements[k], b.elements[i] })
}

// register registers all elements, each with what a message brings: addresses of its
// own, a new weight and load.
func (b *bench) register() {
	for _, e := range b.elements {
		b.tick()
		address := func() []netip.Addr { return []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, 1})} }
		p := param.Policy{Type: b.policy}
		switch b.policy {
		case param.WeightedRandom:
			p.Weight = 1 + b.random.Uint32N(100)
		case param.LeastUsed:
			p.Load = b.random.Uint32()
		}
		b.space.Apply(handlespace.Register{
			Handle: b.handles[e.pool],
			Element: param.PoolElement{
				ID: e.id, Home: home, Life: life, Policy: p,
				User: param.Transport{Type: param.TypeTCPTransport, Port: 7, Addrs: address()},
				ASAP: param.Transport{Type: param.TypeSCTPTransport, Port: 7, Addrs: address()},
			},
			Raiser: home, Incarnation: 1, Now: b.now,
		})
	}
}

func (b *bench) choose(items int) (chosen int) {
	dst := make([]*handlespace.Record, 0, items)
	for range choices {
		got, _, _ := b.space.Resolve(dst, b.handles[b.random.IntN(len(b.handles))], handlespace.Query{Items: items})
		chosen += len(got)
	}
	return chosen
}

// expire removes what is due, as an owner does.
func (b *bench) expire() {
	var due []handlespace.Command
	for {
		if due = b.space.Due(due[:0], home, b.now, 1000); len(due) == 0 {
			return
		}
		for _, c := range due {
			b.space.Apply(c)
		}
	}
}

// cpu returns how much CPU time this process has used, in nanoseconds.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// resident returns how many octets this process has in memory after a garbage
// collection; 0 where the system does not tell.
func resident() int64 {
	debug.FreeOSMemory()
	statm, err := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(statm))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
