package handlespace

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"weak"

	"rserpool/asap/param"
)

// Batches of commands do what the commands do.
func TestBatchesDoWhatCommandsDo(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	cfg := Config{RemovalFloor: 2, RemovalShare: 0.2, MaxElements: 32, MaxPools: 3}
	m, alone, together := newModel(cfg), space(cfg), space(cfg)
	story := &story{Rand: r, m: m, now: start}
	for range 100 {
		var commands []Command
		var want []string
		for range 1 + r.IntN(3*ahead) {
			c := story.next()
			m.apply(c)
			commands = append(commands, c)
			want = append(want, fmt.Sprint(words(alone.Apply(c))))
		}
		changes := together.ApplyAll(commands)
		if len(changes) != len(commands) {
			t.Fatalf("%d changes by %d commands", len(changes), len(commands))
		}
		for i, events := range changes {
			if got := fmt.Sprint(words(events)); got != want[i] {
				t.Fatalf("%+v: %s, want %s", commands[i], got, want[i])
			}
		}
		if a, b := state(alone), state(together); a != b {
			t.Fatalf("two states from the same commands:\n%s\n%s", a, b)
		}
	}
}

// A batch looks up what its commands are about before the first one is applied. What it
// finds may be another element's place by then.
func TestBatchesWhosePlacesAreUsedAgain(t *testing.T) {
	for name, reuse := range map[string]Command{
		"by an element":   register("other", 1, at(1e6)),
		"by a tombstone":  Deregister{Handle: "other", ID: 1, Now: at(1e6)},
		"of the same one": register("echo", 1, at(1e6)),
	} {
		t.Run(name, func(t *testing.T) {
			batched, single := fresh(), fresh()
			for _, s := range []*Space{batched, single} {
				s.Apply(register("echo", 9, at(0)))
				s.Apply(register("echo", 1, at(0)))
				s.Apply(Deregister{Handle: "echo", ID: 1, Now: at(1)})
			}
			commands := []Command{Sweep{at(1e6)}, reuse, register("echo", 1, at(1e6)), Deregister{Handle: "echo", ID: 1, Now: at(1e6)}}
			batched.ApplyAll(commands)
			for _, c := range commands {
				single.Apply(c)
			}
			if all(batched) != all(single) {
				t.Errorf("a batch leaves\n%s\nsingle commands\n%s", all(batched), all(single))
			}
		})
	}
}

// Elements go and come while somebody pages through them: what stays is seen once.
func TestPagingWhileElementsGo(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for range 50 {
		s := space(Config{RemovalShare: 1})
		stays := map[Key]bool{}
		for range 400 {
			k := Key{pick(r, []param.PoolHandle{"a", "b", "c"}), param.PEID(1 + r.IntN(1000))}
			s.Apply(register(k.Handle, k.ID, at(0), home(pick(r, []param.RegistrarID{here, there}))))
			stays[k] = r.IntN(2) == 0
		}
		var goes []Key
		for k, stay := range stays {
			if !stay {
				goes = append(goes, k)
			}
		}
		seen := map[Key]int{}
		for _, id := range []param.RegistrarID{here, there} {
			for after, page := (Key{}), s.Owned(nil, id, Key{}, 7); len(page) > 0; page = s.Owned(nil, id, after, 7) {
				for _, x := range page {
					seen[x.Key()]++
				}
				after = page[len(page)-1].Key()
				for range min(5, len(goes)) {
					s.Apply(Deregister{Handle: goes[0].Handle, ID: goes[0].ID, Now: at(1)})
					goes = goes[1:]
				}
			}
		}
		for k, stay := range stays {
			if seen[k] > 1 || stay && seen[k] != 1 {
				t.Fatalf("%v seen %d times", k, seen[k])
			}
		}
	}
}

// inBatches applies the same random commands to a Space in batches and to another one by
// one: pools of more than a thousand elements of several policies, that register again
// with other values, go and come back, become suspect, and are in a batch several times.
func inBatches(t *testing.T, together *Space, batches int, compare func(alone *Space)) {
	t.Helper()
	r := rand.New(rand.NewPCG(10, 10))
	policies := []param.PolicyType{param.RoundRobin, param.LeastUsed, param.WeightedRandom, param.Priority, param.Random}
	alone := space(together.cfg)
	for n := range batches {
		grows := n < batches*2/3
		commands := together.Due(nil, here, at(float64(n)), 20)
		for range r.IntN(1000) {
			i := r.IntN(len(policies))
			handle, id := param.PoolHandle(fmt.Sprint("pool", i)), param.PEID(1+r.IntN(2000))
			stored := together.Get(handle, id)
			switch k := r.IntN(8); {
			case k == 0, k < 6 && !grows:
				commands = append(commands, Deregister{Handle: handle, ID: id, Raiser: here, Incarnation: 1, Now: at(float64(n))})
			case k == 1 && stored != nil:
				commands = append(commands, remove(stored, Unreachable, at(float64(n))))
			case k == 2 && stored != nil:
				commands = append(commands, Alive{handle, id, stored.Generation, at(float64(n))})
			default:
				p := param.Policy{Type: policies[i], Weight: r.Uint32N(4), Load: r.Uint32N(100), Priority: r.Uint32N(2)}
				commands = append(commands, register(handle, id, at(float64(n)), policy(p), life(param.Life(1+r.IntN(100)))))
			}
		}
		for i, events := range together.ApplyAll(commands) {
			if got, want := fmt.Sprint(words(events)), fmt.Sprint(words(alone.Apply(commands[i]))); got != want {
				t.Fatalf("%+v: %s, want %s", commands[i], got, want)
			}
		}
		compare(alone)
	}
}

// crowded has less room for tombstones than elements go, so that places are used again.
var crowded = Config{RemovalFloor: 20, RemovalShare: 0.2, MaxTombstones: 1000}

// In large pools batches do what commands do, and choices are the same afterwards.
func TestBatchesInLargePools(t *testing.T) {
	s := space(crowded)
	most := 0
	inBatches(t, s, 120, func(alone *Space) {
		if alone.Digest() != s.Digest() || alone.Counts() != s.Counts() {
			t.Fatal("two states from the same commands")
		}
		most = max(most, s.Counts().Elements)
		for _, p := range s.Pools(nil, "", 10) {
			var chosen [2]string
			for i, s := range []*Space{s, alone} {
				records, _, _ := s.Resolve(nil, p.Handle, Query{Items: 5})
				for _, x := range records {
					chosen[i] += fmt.Sprint(x.ID, " ")
				}
			}
			if chosen[0] != chosen[1] {
				t.Fatalf("%s: chosen %s, else %s", p.Handle, chosen[0], chosen[1])
			}
		}
	})
	if most < 5000 {
		t.Fatalf("%d elements are too few", most)
	}
}

// What is read ahead is not what readers change.
func TestReadersBesideBatches(t *testing.T) {
	s := space(crowded)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for n := range 2 {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(11, uint64(n)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				handle := param.PoolHandle(fmt.Sprint("pool", r.IntN(5)))
				s.Resolve(nil, handle, Query{Items: r.IntN(20)})
				s.Elements(nil, handle, param.PEID(r.IntN(2000)), 10)
				s.Get(handle, param.PEID(r.IntN(2000)))
				s.NextDeadline(here)
			}
		})
	}
	inBatches(t, s, 30, func(*Space) {})
	close(stop)
	readers.Wait()
}

// What one command has changed of many elements is not kept for as long as it takes until
// as many events have followed.
func TestEventsOfManyElementsAreNotKept(t *testing.T) {
	s := fresh()
	const many = 1000
	for id := range param.PEID(many) {
		s.Apply(register("echo", id+1, at(0)))
	}
	from := s.Get("echo", 1).Home()
	var before []weak.Pointer[Record]
	for _, e := range s.Apply(Takeover{From: from, To: []HomeID{{ID: there}}, Now: at(1)}) {
		before = append(before, weak.Make(e.(Rehomed).Previous))
	}
	if len(before) != many {
		t.Fatalf("%d are moved", len(before))
	}
	s.Apply(register("echo", many+1, at(2)))
	s.Apply(register("echo", many+2, at(2)))
	runtime.GC()
	kept := 0
	for _, r := range before {
		if r.Value() != nil {
			kept++
		}
	}
	runtime.KeepAlive(s)
	if kept > eventRoom {
		t.Errorf("%d former records are kept", kept)
	}
}
