package pooltest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing/synctest"
	"time"
)

// Fault is a kind of Incident.
type Fault int

// Faults. What ends them is in brackets.
const (
	Killed   Fault = iota + 1 // Kill [Restart]
	Crashed                   // Crash [Restart]
	Hung                      // Hang [Continue]
	Isolated                  // Isolate [Heal]
	Parted                    // Cut from Incident.Other [Heal]
	Stopped                   // Stop [Restart]
)

// Faults are all of them.
var Faults = []Fault{Killed, Crashed, Hung, Isolated, Parted, Stopped}

func (f Fault) String() string {
	if f < Killed || f > Stopped {
		return fmt.Sprintf("Fault(%d)", int(f))
	}
	return [...]string{Killed: "killed", Crashed: "crashed", Hung: "hung", Isolated: "isolated", Parted: "parted", Stopped: "stopped"}[f]
}

// Incident is something that happens to a process, and ends.
type Incident struct {
	// At is when it happens, from the begin of Play on, and For how long it
	// lasts.
	At, For time.Duration
	Fault   Fault
	// Name is the process, and Other the one that it is Parted from.
	Name, Other string
}

func (i Incident) String() string {
	s := fmt.Sprintf("at %v %s %v for %v", i.At, i.Name, i.Fault, i.For)
	if i.Fault == Parted {
		s += ", from " + i.Other
	}
	return s
}

// Troubles says what Draw may make happen.
type Troubles struct {
	// Faults are the kinds, each as likely; more so if it stands there more
	// than once. Default: all.
	Faults []Fault
	// Names are the processes that faults befall, and Others those that they
	// are Parted from. Without Others nothing is Parted.
	Names, Others []string
	// Number is how many there are.
	Number int
	// Within is the time in which they begin.
	Within time.Duration
	// Shortest and Longest bound how long one lasts.
	Shortest, Longest time.Duration
}

// Draw draws incidents, in the order of time. It draws the same from the same random
// source, such as World.Rand.
func (t Troubles) Draw(random *rand.Rand) []Incident {
	faults := t.Faults
	if len(faults) == 0 {
		faults = Faults
	}
	if len(t.Others) == 0 {
		faults = slices.DeleteFunc(slices.Clone(faults), func(f Fault) bool { return f == Parted })
	}
	out := make([]Incident, t.Number)
	for i := range out {
		in := Incident{
			At:    time.Duration(random.Int64N(int64(t.Within) + 1)),
			For:   t.Shortest + time.Duration(random.Int64N(int64(max(0, t.Longest-t.Shortest))+1)),
			Fault: faults[random.IntN(len(faults))],
			Name:  t.Names[random.IntN(len(t.Names))],
		}
		if in.Fault == Parted {
			in.Other = t.Others[random.IntN(len(t.Others))]
		}
		out[i] = in
	}
	slices.SortStableFunc(out, func(a, b Incident) int { return cmp.Compare(a.At, b.At) })
	return out
}

// Play lets incidents happen and end, and returns when the last is over: then all the
// processes that they befell run, and nothing is cut. An incident that befalls a process
// which is not well in that way already is passed over. It returns those that happened,
// early when the World has ended.
func (w *World) Play(incidents []Incident) (happened []Incident) {
	w.t.Helper()
	type ending struct {
		at time.Time
		in Incident
	}
	var endings []ending
	start := time.Now()
	endDue := func(until time.Time) {
		for len(endings) > 0 && !endings[0].at.After(until) {
			e := endings[0]
			endings = endings[1:]
			if !w.sleep(time.Until(e.at)) {
				return
			}
			w.mend(e.in)
		}
	}
	for _, in := range incidents {
		at := start.Add(in.At)
		endDue(at)
		if !w.sleep(time.Until(at)) {
			return happened
		}
		synctest.Wait()
		if !w.befall(in) {
			continue
		}
		happened = append(happened, in)
		endings = append(endings, ending{time.Now().Add(in.For), in})
		slices.SortStableFunc(endings, func(a, b ending) int { return a.at.Compare(b.at) })
	}
	if len(endings) > 0 {
		endDue(endings[len(endings)-1].at)
	}
	return happened
}

// sleep waits, and tells whether the World still is.
func (w *World) sleep(d time.Duration) bool {
	select {
	case <-time.After(d):
	case <-w.over:
	}
	select {
	case <-w.over:
		return false
	default:
		return true
	}
}

// befall lets an incident happen if its process is well.
func (w *World) befall(in Incident) bool {
	w.t.Helper()
	w.mu.Lock()
	p := w.find(in.Name)
	well := p != nil && p.alive()
	switch in.Fault {
	case Hung:
		well = well && !p.hung
	case Isolated:
		well = well && !w.isolated[in.Name]
	case Parted:
		well = well && in.Name != in.Other && !slices.Contains(w.cuts, [2]string{in.Name, in.Other})
	}
	w.mu.Unlock()
	if !well {
		return false
	}
	switch in.Fault {
	case Killed:
		w.Kill(in.Name)
	case Crashed:
		w.Crash(in.Name)
	case Hung:
		w.Hang(in.Name)
	case Isolated:
		w.Isolate(in.Name)
	case Parted:
		w.Cut(in.Name, in.Other)
	case Stopped:
		w.Stop(in.Name)
	}
	return true
}

// mend ends an incident.
func (w *World) mend(in Incident) {
	w.t.Helper()
	switch in.Fault {
	case Killed, Crashed, Stopped:
		w.Restart(in.Name)
	case Hung:
		if w.Running(in.Name) { // not killed meanwhile
			w.Continue(in.Name)
		}
	case Isolated, Parted:
		w.mu.Lock()
		defer w.mu.Unlock()
		if in.Fault == Isolated {
			w.plug(in.Name)
		} else {
			w.join([2]string{in.Name, in.Other})
		}
	}
}
