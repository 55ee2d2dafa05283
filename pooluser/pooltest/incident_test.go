package pooltest

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func troubles() Troubles {
	return Troubles{
		Names: []string{"e1", "e2"}, Others: []string{"u1", "r1"}, Number: 200,
		Within: time.Minute, Shortest: time.Millisecond, Longest: 10 * time.Second,
	}
}

func TestDraw(t *testing.T) {
	draw := func(t Troubles) []Incident { return t.Draw(rand.New(rand.NewPCG(1, 2))) }
	drawn := draw(troubles())
	if !reflect.DeepEqual(drawn, draw(troubles())) {
		t.Error("equal seeds draw different incidents")
	}
	if len(drawn) != 200 || !slices.IsSortedFunc(drawn, func(a, b Incident) int { return int(a.At - b.At) }) {
		t.Error("not 200 in the order of time")
	}
	seen := map[string]bool{}
	for _, in := range drawn {
		if in.At < 0 || in.At > time.Minute || in.For < time.Millisecond || in.For > 10*time.Second || (in.Fault == Parted) != (in.Other != "") {
			t.Errorf("drew %v", in)
		}
		seen[in.Name+in.Fault.String()+in.Other] = true
	}
	if want := 2 * (len(Faults) + 1); len(seen) != want { // parted from two
		t.Errorf("drew %d kinds, want %d", len(seen), want)
	}
	few := troubles()
	few.Others, few.Faults = nil, []Fault{Killed, Parted}
	for _, in := range draw(few) {
		if in.Fault != Killed {
			t.Fatalf("drew %v of kills", in)
		}
	}
}

func TestPlay(t *testing.T) {
	Run(t, func(t *testing.T, w *World) {
		pair(w)
		ms := time.Millisecond
		incidents := []Incident{
			{At: 10 * ms, For: 100 * ms, Fault: Killed, Name: "e1"},
			{At: 20 * ms, For: 10 * ms, Fault: Hung, Name: "e2"},
			{At: 20 * ms, For: 10 * ms, Fault: Hung, Name: "e1"}, // dead
			{At: 50 * ms, For: 10 * ms, Fault: Isolated, Name: "e2"},
			{At: 50 * ms, For: 20 * ms, Fault: Isolated, Name: "e2"}, // already
			{At: 100 * ms, For: 10 * ms, Fault: Parted, Name: "e2", Other: "u1"},
			{At: 200 * ms, For: 10 * ms, Fault: Crashed, Name: "e2"},
			{At: 300 * ms, For: time.Second, Fault: Stopped, Name: "r1"},
		}
		start := time.Now()
		happened := w.Play(incidents)
		if took := time.Since(start); took != 1300*ms {
			t.Errorf("took %v", took)
		}
		if want := []int{0, 1, 3, 5, 6, 7}; len(happened) != len(want) {
			t.Errorf("happened: %v", happened)
		} else {
			for i, k := range want {
				if happened[i] != incidents[k] {
					t.Errorf("happened: %v, want %v", happened[i], incidents[k])
				}
			}
		}
		var story []string
		for line := range strings.Lines(w.diary.String()) {
			if f := strings.Fields(line); len(f) > 2 && f[2] == strings.ToUpper(f[2]) && f[2] != "START" {
				story = append(story, f[1]+" "+f[2])
			}
		}
		want := []string{
			"e1 KILL", "e2 HANG", "e2 CONTINUE", "e2 ISOLATE", "e2 HEAL", "e2 CUT", "e1 RESTART", "e2 HEAL",
			"e2 CRASH", "e2 RESTART", "r1 STOP", "r1 RESTART",
		}
		if !slices.Equal(story, want) {
			t.Errorf("story %q, want %q", story, want)
		}
		w.Settle()
	})
}

func TestManyIncidentsEndWell(t *testing.T) {
	Seeds(t, 20, func(t *testing.T, w *World) {
		user := pair(w)
		some := troubles()
		some.Number, some.Names = 30, []string{"e1", "e2", "r1"}
		if happened := w.Play(some.Draw(w.Rand())); len(happened) < 15 {
			t.Errorf("only %d happened", len(happened))
		}
		w.Settle()
		if conn, name := dial(t, w, user); name != "" {
			if got, err := ask(conn, "x"); got != "x\n" || err != nil {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	})
}
