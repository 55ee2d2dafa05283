package handlespace

import (
	"fmt"
	"math/rand/v2"
	"testing"

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
