package history

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// forever is after all that happens. It leaves room for sums.
const forever = time.Duration(math.MaxInt64 / 4)

// blind is how long before its end a life may have been asked for its view last. A
// registrar needs longer to come to a view that no other one is in; of any other
// view those others tell.
const blind = 60 * time.Millisecond

// write is a registration or deregistration of one element, and who has to have it.
type write struct {
	*Op
	// due tells from when on a registrar has to have this, or what came after it.
	due map[Life]time.Duration
	// released: the registrar is of the view in which this was acknowledged. The
	// others have met one that had it.
	released map[Life]bool
}

// analysis is a history in order.
type analysis struct {
	writes map[uint32][]*write       // by element, in the order of calls
	reads  map[string]map[Life][]*Op // by pool, those with an answer, in the order of calls
	pools  map[string][]uint32       // elements
	views  map[Life][]View           // those that it is a member of, in order
	asked  map[Life][]*Sample        // in order
	synced []*Sample                 // the first of each registrar and view
}

func analyse(h *History) *analysis {
	a := &analysis{
		writes: make(map[uint32][]*write),
		reads:  make(map[string]map[Life][]*Op),
		pools:  make(map[string][]uint32),
		views:  make(map[Life][]View),
		asked:  make(map[Life][]*Sample),
	}
	for i := range h.Samples {
		s := &h.Samples[i]
		a.asked[s.At] = append(a.asked[s.At], s)
		a.see(s.View)
		for _, v := range s.Earlier {
			a.see(v)
		}
	}
	for _, samples := range a.asked {
		slices.SortFunc(samples, func(x, y *Sample) int { return cmp.Compare(x.Call, y.Call) })
		var latest *Sample
		for _, s := range samples {
			if s.Synced && (latest == nil || latest.View.compare(s.View) != 0) {
				latest = s
				a.synced = append(a.synced, s)
			}
		}
	}
	slices.SortFunc(a.synced, func(x, y *Sample) int { return cmp.Compare(x.Return, y.Return) })
	for i := range h.Ops {
		o := &h.Ops[i]
		switch {
		case o.Kind != Resolve:
			w := &write{Op: o}
			w.due, w.released = a.due(o)
			a.writes[o.Element] = append(a.writes[o.Element], w)
			if !slices.Contains(a.pools[o.Pool], o.Element) {
				a.pools[o.Pool] = append(a.pools[o.Pool], o.Element)
			}
		case o.Outcome == Done:
			if a.reads[o.Pool] == nil {
				a.reads[o.Pool] = make(map[Life][]*Op)
			}
			a.reads[o.Pool][o.At] = append(a.reads[o.Pool][o.At], o)
		}
	}
	for _, writes := range a.writes {
		slices.SortFunc(writes, func(x, y *write) int { return cmp.Compare(x.Call, y.Call) })
	}
	for _, lives := range a.reads {
		for _, reads := range lives {
			slices.SortFunc(reads, func(x, y *Op) int { return cmp.Compare(x.Call, y.Call) })
		}
	}
	return a
}

// see files a view with its members.
func (a *analysis) see(v View) {
	for _, m := range v.Members {
		i, found := slices.BinarySearchFunc(a.views[m], v, View.compare)
		if !found {
			a.views[m] = slices.Insert(a.views[m], i, v)
		}
	}
}

// releasedIn returns the views that may be the one in which a registrar answered an
// operation: those between the last that it told of before, and the first that it
// told of after. Nil: nobody knows.
func (a *analysis) releasedIn(o *Op) []View {
	var before, after *Sample
	for _, s := range a.asked[o.At] {
		if s.Return <= o.Call {
			before = s
		}
		if s.Call >= o.Return {
			after = s
			break
		}
	}
	if before == nil || after == nil && o.Return-before.Return > blind {
		return nil
	}
	var out []View
	for _, v := range a.views[o.At] {
		if v.compare(before.View) >= 0 && (after == nil || v.compare(after.View) <= 0) {
			out = append(out, v)
		}
	}
	return out
}

// due returns from when on which registrars have to have an operation's effect.
//
// From the acknowledgement on, those of the view in which it was released; where it
// may have been one of several views, those of all of them. From there it spreads:
// who is in a later view together with one that has it, and says that all members of
// that view know the same, has it too. So it is lost, rightly, only when all that
// had it have died. (Sides that met: the later operation wins by its generation, and
// all generations here are of one clock.)
func (a *analysis) due(o *Op) (due map[Life]time.Duration, released map[Life]bool) {
	due, released = make(map[Life]time.Duration), make(map[Life]bool)
	if o.Outcome != Done {
		return due, released
	}
	views := a.releasedIn(o)
	if len(views) == 0 {
		return due, released
	}
	held := make(map[Life]View) // since when at the latest
	for _, m := range views[0].Members {
		if !slices.ContainsFunc(views, func(v View) bool { return !slices.Contains(v.Members, m) }) {
			due[m], released[m], held[m] = o.Return, true, views[len(views)-1]
		}
	}
	for _, s := range a.synced {
		if _, has := due[s.At]; has {
			continue
		}
		for _, m := range s.View.Members {
			if since, has := held[m]; has && s.View.compare(since) > 0 {
				due[s.At], held[s.At] = max(s.Return, o.Return), s.View
				break
			}
		}
	}
	return due, released
}
