package history

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// story builds a history of one element of one pool at the registrars A, B and C.
// Times are in milliseconds.
type story struct{ History }

func (s *story) op(kind Kind, at Life, value uint32, call, ret int, outcome Outcome) *story {
	o := Op{Kind: kind, At: at, Pool: "p", Call: time.Duration(call) * ms, Return: time.Duration(ret) * ms, Outcome: outcome}
	if kind == Resolve {
		o.Seen = map[uint32]uint32{}
		if value != 0 {
			o.Seen[1] = value
		}
	} else {
		o.Element, o.Value = 1, value
	}
	s.Ops = append(s.Ops, o)
	return s
}

func (s *story) register(at Life, value uint32, call, ret int) *story {
	return s.op(Register, at, value, call, ret, Done)
}

func (s *story) deregister(at Life, call, ret int) *story {
	return s.op(Deregister, at, 0, call, ret, Done)
}

func (s *story) sees(at Life, value uint32, call, ret int) *story {
	return s.op(Resolve, at, value, call, ret, Done)
}

// view has the members in a view from one time to another, and say so each 10 ms.
func (s *story) view(counter uint64, from, to int, members ...Life) *story {
	for t := from; t <= to; t += 10 {
		for _, m := range members {
			s.Samples = append(s.Samples, Sample{
				At: m, Call: time.Duration(t) * ms, Return: time.Duration(t) * ms, Synced: true,
				View: View{Counter: counter, Coordinator: members[0], Members: members},
			})
		}
	}
	return s
}

func TestStories(t *testing.T) {
	abc := func() *story { return new(story).view(1, 0, 1000, "A", "B", "C") }
	for name, tt := range map[string]struct {
		story *story
		want  string // kinds of violations
		// nonlinear: porcupine sees it too.
		nonlinear bool
	}{
		"SeenEverywhere":          {abc().register("A", 1, 100, 110).sees("B", 1, 120, 121).sees("C", 1, 120, 121), "", false},
		"StaleAfterAcknowledged":  {abc().register("A", 1, 100, 110).sees("B", 0, 111, 112), Stale, true},
		"StaleValue":              {abc().register("A", 1, 100, 110).register("A", 2, 120, 130).sees("C", 1, 131, 132), Stale, true},
		"LostUpdate":              {abc().register("A", 1, 100, 110).register("B", 2, 120, 130).sees("A", 2, 140, 141).sees("A", 1, 150, 151), Stale, true},
		"Resurrected":             {abc().register("A", 1, 100, 110).deregister("A", 120, 130).sees("B", 0, 140, 141).sees("B", 1, 150, 151), Stale, true},
		"NotYetAcknowledged":      {abc().register("A", 1, 100, 110).sees("B", 0, 109, 111), "", false},
		"ConcurrentReadsDiffer":   {abc().register("A", 1, 100, 110).sees("A", 1, 101, 102).sees("B", 0, 103, 104), "", false},
		"BackDuringAnUpdate":      {abc().register("A", 1, 100, 110).sees("A", 1, 101, 102).sees("A", 0, 103, 104), Back, true},
		"BackAmongOverlapping":    {abc().register("A", 1, 100, 200).register("B", 2, 100, 200).sees("A", 1, 110, 111).sees("A", 2, 120, 121).sees("A", 1, 130, 131), "", true},
		"LaterOneOverlaps":        {abc().register("A", 1, 100, 110).deregister("B", 115, 130).sees("C", 0, 120, 121), "", false},
		"UnansweredTakesEffect":   {abc().op(Register, "A", 1, 100, 200, Unknown).sees("B", 0, 300, 301).sees("B", 1, 400, 401), "", false},
		"UnansweredTakesItTwice":  {abc().op(Register, "A", 1, 100, 200, Unknown).sees("B", 1, 300, 301).deregister("B", 310, 320).sees("B", 1, 400, 401), "", true},
		"RefusedIsSeen":           {abc().op(Register, "A", 1, 100, 110, Rejected).sees("B", 1, 120, 121), Invented, true},
		"NobodyRegistered":        {abc().register("A", 1, 100, 110).sees("B", 7, 120, 121), Invented, true},
		"BeforeItWasAskedFor":     {abc().sees("B", 1, 80, 81).register("A", 1, 100, 110), Invented, true},
		"DeregisteredButNotThere": {abc().deregister("A", 100, 110).sees("B", 0, 120, 121), "", false},
		"OutsideTheView": {new(story).view(1, 0, 90, "A", "B", "C").view(2, 100, 300, "A", "B").view(1, 100, 300, "C").
			register("A", 1, 150, 160).sees("C", 0, 200, 201).sees("B", 1, 200, 201), "", false},
		"BackOutsideTheView": {new(story).view(1, 0, 90, "A", "B", "C").view(2, 100, 300, "A", "B").view(1, 100, 300, "C").
			register("A", 1, 50, 60).register("A", 2, 150, 160).register("A", 3, 170, 180).
			sees("C", 2, 200, 201).sees("C", 1, 210, 211), Back, false},
		"LostInALaterView": {new(story).view(1, 0, 90, "A", "B").view(2, 100, 300, "A", "B", "C").
			register("A", 1, 50, 60).sees("C", 0, 200, 201), Lost, true},
		"OneMemberLives": {new(story).view(1, 0, 90, "A", "B").view(2, 100, 190, "B", "C").view(3, 200, 300, "C").
			register("A", 1, 50, 60).sees("C", 0, 250, 251), Lost, true},
		"NoMemberLives": {new(story).view(1, 0, 90, "A", "B").view(2, 0, 300, "C").
			register("A", 1, 50, 60).sees("C", 0, 250, 251), "", false},
		"RestartedMemberIsAnother": {new(story).view(1, 0, 90, "A1", "B").view(2, 100, 300, "A2").
			register("B", 1, 50, 60).sees("A2", 0, 250, 251), "", false},
		"ReleasedInOneOfTwoViews": {new(story).view(1, 0, 90, "A", "B", "C").view(2, 100, 300, "A", "B").
			register("A", 1, 85, 96).sees("C", 0, 120, 121).sees("B", 0, 120, 121), Stale, true},
		"DeadAfterItsAnswer": {new(story).view(1, 0, 90, "A", "B", "C").view(2, 100, 300, "B", "C").
			register("A", 1, 92, 93).sees("C", 0, 150, 151), Stale, true},
		"DeadLongAfterItsLastView": {new(story).view(1, 0, 90, "A", "B", "C").view(2, 200, 300, "B", "C").
			register("A", 1, 190, 195).sees("C", 0, 250, 251), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			var kinds []string
			for _, v := range Find(&tt.story.History) {
				kinds = append(kinds, v.Kind)
				if v.String() == "" {
					t.Error("no words for it")
				}
			}
			if got := strings.Join(kinds, " "); got != tt.want {
				t.Errorf("found %q, want %q: %v", got, tt.want, Find(&tt.story.History))
			}
			l := Linearize(&tt.story.History, time.Minute)
			if l.Undecided != 0 || (len(l.Bad) > 0) != tt.nonlinear {
				t.Errorf("linearized: %+v, want bad ones: %v", l, tt.nonlinear)
			}
			for _, bad := range l.Bad {
				if err := bad.Visualize(io.Discard); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// play makes a history as registrars that keep the promise make it: one order of all
// operations, each registrar applies it at a pace of its own, an acknowledgement
// waits for all of the view. One registrar drops out and comes back by and by.
func play(random *rand.Rand) *History {
	h := new(History)
	lives := []Life{"A", "B", "C"}
	type applied struct {
		element, value uint32
	}
	var log []applied
	at := make([]int, len(lives)) // how much of the log each has applied
	in := []bool{true, true, true}
	state := func(r int) map[uint32]uint32 {
		seen := make(map[uint32]uint32)
		for _, e := range log[:at[r]] {
			if seen[e.element] = e.value; e.value == 0 {
				delete(seen, e.element)
			}
		}
		return seen
	}
	counter := uint64(1)
	view := func() View {
		v := View{Counter: counter}
		for i, l := range lives {
			if in[i] {
				v.Members = append(v.Members, l)
			}
		}
		v.Coordinator = v.Members[0]
		return v
	}
	views := []View{view(), view(), view()} // installed at each
	now := time.Duration(0)
	type waiting struct{ op, until int }
	var open []waiting // operations without an answer: index, and how much of the log has to be applied
	for value := uint32(1); value < 120; value++ {
		now += time.Duration(1+random.IntN(5)) * ms
		switch random.IntN(12) {
		case 0: // C drops out or comes back, knowing all
			in[2] = !in[2]
			counter++
			at[2] = max(at[2], map[bool]int{true: len(log), false: 0}[in[2]])
			for i := range lives {
				if in[i] {
					views[i] = view()
				}
			}
		case 1, 2, 3, 4: // an operation comes to be ordered
			op := Op{Kind: Register, At: lives[random.IntN(2)], Pool: "p", Call: now, Element: 1 + random.Uint32N(2), Value: value}
			if random.IntN(3) == 0 {
				op.Kind, op.Value = Deregister, 0
			}
			log = append(log, applied{op.Element, op.Value})
			h.Ops = append(h.Ops, op)
			open = append(open, waiting{len(h.Ops) - 1, len(log)})
		default: // somebody applies more, and somebody asks
			for i := range lives {
				if in[i] {
					at[i] += random.IntN(len(log) - at[i] + 1)
				}
			}
			r := random.IntN(3)
			h.Ops = append(h.Ops, Op{Kind: Resolve, At: lives[r], Pool: "p", Call: now - ms/2, Return: now, Outcome: Done, Seen: state(r)})
		}
		for i, l := range lives {
			h.Samples = append(h.Samples, Sample{At: l, Call: now + ms/8, Return: now + ms/8, View: views[i], Synced: true})
		}
		open = slices.DeleteFunc(open, func(w waiting) bool {
			for i := range lives {
				if in[i] && at[i] < w.until {
					return false
				}
			}
			h.Ops[w.op].Return, h.Ops[w.op].Outcome = now+ms/4, Done
			return true
		})
	}
	for _, w := range open {
		h.Ops[w.op].Return, h.Ops[w.op].Outcome = now, Unknown
	}
	return h
}

func TestHistoriesThatKeepThePromiseAreAccepted(t *testing.T) {
	for seed := range uint64(120) {
		h := play(rand.New(rand.NewPCG(seed, 1)))
		if bad := Find(h); len(bad) > 0 {
			t.Fatalf("seed %d: %v", seed, bad[0])
		}
		if l := Linearize(h, time.Minute); len(l.Bad) > 0 || l.Undecided > 0 || l.Copies == 0 {
			t.Fatalf("seed %d: %+v", seed, l)
		}
	}
}

// In each of the histories one resolution is replaced by what was true before the
// latest change that it had to know of.
func TestBrokenHistoriesAreFound(t *testing.T) {
	broken := 0
	for seed := range uint64(120) {
		random := rand.New(rand.NewPCG(seed, 2))
		h := play(random)
		a := analyse(h)
		for _, i := range random.Perm(len(h.Ops)) {
			r := &h.Ops[i]
			element := 1 + random.Uint32N(2)
			if r.Kind != Resolve || !breakRead(a, r, element) {
				continue
			}
			broken++
			if bad := Find(h); !slices.ContainsFunc(bad, func(v Violation) bool { return v.Read == r && v.Element == element && v.Kind != Back }) {
				t.Fatalf("seed %d: %s is not found, but %v", seed, r, bad)
			}
			l := Linearize(h, time.Minute)
			if !slices.ContainsFunc(l.Bad, func(b Inexplicable) bool { return b.At == r.At && b.Element == element }) {
				t.Fatalf("seed %d: %s: %+v", seed, r, l)
			}
			break
		}
	}
	if broken < 100 {
		t.Errorf("only %d of 120 histories could be broken", broken)
	}
}

// breakRead makes a resolution show what some operation had replaced before the
// newest one that it has to know of began.
func breakRead(a *analysis, r *Op, element uint32) bool {
	newest := -forever
	for _, w := range a.writes[element] {
		if at, ok := w.due[r.At]; ok && at < r.Call {
			newest = max(newest, w.Call)
		}
	}
	for _, w := range a.writes[element] {
		if w.Kind == Register && w.end() < newest && w.Value != r.Seen[element] {
			r.Seen[element] = w.Value
			return true
		}
	}
	return false
}

func TestHistoryIsReadAsWritten(t *testing.T) {
	h := play(rand.New(rand.NewPCG(1, 3)))
	var text bytes.Buffer
	if err := h.Write(&text); err != nil {
		t.Fatal(err)
	}
	got, err := Read(&text)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(h.Ops, func(a, b Op) int { return int(a.Call - b.Call) })
	for i := range h.Ops { // empty maps are not written
		if h.Ops[i].Kind == Resolve && len(h.Ops[i].Seen) == 0 {
			h.Ops[i].Seen = nil
		}
	}
	if !reflect.DeepEqual(h, got) {
		t.Errorf("read %d operations and %d samples, wrote %d and %d, or others", len(got.Ops), len(got.Samples), len(h.Ops), len(h.Samples))
	}
	if _, err := Read(strings.NewReader("{")); err == nil {
		t.Error("half a line was read")
	}
}

func TestGapAndViews(t *testing.T) {
	s := new(story).view(1, 0, 50, "A", "B").view(2, 60, 90, "A").register("A", 1, 0, 10).sees("B", 1, 20, 25).sees("A", 1, 30, 60)
	s.op(Resolve, "B", 0, 61, 90, Unknown)
	if got := s.Gap(Register, Resolve); got != 35*ms {
		t.Errorf("gap %v, want 35ms", got)
	}
	if got := s.Views(); got != 2 {
		t.Errorf("%d views, want 2", got)
	}
	if got := fmt.Sprint(s.Samples[0].View); got != "1@A" {
		t.Errorf("view %q", got)
	}
}
