package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Kinds of violations.
const (
	// Stale: the registrar was of the view in which a later operation was
	// acknowledged, before the resolution began.
	Stale = "stale"
	// Lost: it was not, but has since been in a view with one that had it.
	Lost = "lost"
	// Back: the same registrar had shown something newer before.
	Back = "back"
	// Invented: nobody has registered this, or it was refused, or it had not
	// been asked for.
	Invented = "invented"
)

// Violation is a resolution that breaks the promise.
type Violation struct {
	Kind    string
	Read    *Op
	Element uint32
	// Witness is the operation that the resolution had to know of, or the one
	// that had shown better; nil for what was invented.
	Witness *Op
}

func (v Violation) String() string {
	saw := "not there"
	if value := v.Read.Seen[v.Element]; value != 0 {
		saw = fmt.Sprintf("with value %d", value)
	}
	text := fmt.Sprintf("%s: element %d %s: %s", v.Kind, v.Element, saw, v.Read)
	if v.Witness != nil {
		text += "; although " + v.Witness.String()
	}
	return text
}

// Find returns the violations of a history, the earliest first.
//
// Which of the written values a resolution may show follows from times alone. A
// value is too old when an operation that began after that of the value had ended
// was due at the registrar when the resolution began (Stale, Lost), or was shown by
// the same registrar to somebody who had ended by then (Back). What overlaps may be
// shown or not.
func Find(h *History) []Violation {
	a := analyse(h)
	var out []Violation
	for pool, elements := range a.pools {
		for life, reads := range a.reads[pool] {
			for _, element := range elements {
				out = append(out, a.find(element, life, reads)...)
			}
		}
	}
	for _, lives := range a.reads {
		for _, reads := range lives {
			for _, r := range reads {
				for element := range r.Seen {
					if len(a.writes[element]) == 0 {
						out = append(out, Violation{Invented, r, element, nil})
					}
				}
			}
		}
	}
	slices.SortFunc(out, func(x, y Violation) int {
		return cmp.Or(cmp.Compare(x.Read.Call, y.Read.Call), cmp.Compare(x.Element, y.Element))
	})
	return out
}

// never stands for what is before the first registration.
var never = &Op{Kind: Deregister, Outcome: Done, Call: -forever, Return: -forever}

// candidates are the operations that can have left what a resolution shows.
func (a *analysis) candidates(r *Op, element uint32) []*Op {
	value := r.Seen[element]
	var out []*Op
	if value == 0 {
		out = append(out, never)
	}
	for _, w := range a.writes[element] {
		if w.Value == value && w.Outcome != Rejected && w.Call < r.Return {
			out = append(out, w.Op)
		}
	}
	return out
}

// find looks at what one registrar showed of one element.
func (a *analysis) find(element uint32, life Life, reads []*Op) []Violation {
	// Operations in the order in which they have to be known, and what was shown
	// in the order of the answers.
	var known []*write
	for _, w := range a.writes[element] {
		if _, ok := w.due[life]; ok {
			known = append(known, w)
		}
	}
	slices.SortFunc(known, func(x, y *write) int { return cmp.Compare(x.due[life], y.due[life]) })
	type showing struct {
		read *Op
		call time.Duration // of the operation shown, at the earliest
	}
	var shown []showing
	latest := make(map[*Op]time.Duration) // end of the operation shown, at the latest
	var out []Violation
	for _, r := range reads {
		candidates := a.candidates(r, element)
		if len(candidates) == 0 {
			out = append(out, Violation{Invented, r, element, nil})
			continue
		}
		earliest := forever
		latest[r] = -forever
		for _, c := range candidates {
			earliest, latest[r] = min(earliest, c.Call), max(latest[r], c.end())
		}
		shown = append(shown, showing{r, earliest})
	}
	slices.SortFunc(shown, func(x, y showing) int { return cmp.Compare(x.read.Return, y.read.Return) })

	var newest *write
	var best *showing
	k, s := 0, 0
	for _, r := range reads { // in the order of calls
		end, ok := latest[r]
		if !ok {
			continue // invented
		}
		for ; k < len(known) && known[k].due[life] < r.Call; k++ {
			if newest == nil || known[k].Call > newest.Call {
				newest = known[k]
			}
		}
		for ; s < len(shown) && shown[s].read.Return < r.Call; s++ {
			if best == nil || shown[s].call > best.call {
				best = &shown[s]
			}
		}
		switch {
		case newest != nil && end < newest.Call && newest.released[life]:
			out = append(out, Violation{Stale, r, element, newest.Op})
		case newest != nil && end < newest.Call:
			out = append(out, Violation{Lost, r, element, newest.Op})
		case best != nil && end < best.call:
			out = append(out, Violation{Back, r, element, best.read})
		}
	}
	return out
}
