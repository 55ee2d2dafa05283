package history

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Inexplicable is one registrar's copy of one element that no order of operations
// explains.
type Inexplicable struct {
	Element uint32
	At      Life
	info    porcupine.LinearizationInfo
}

func (i Inexplicable) String() string {
	return fmt.Sprintf("no order of operations explains what %s showed of element %d", i.At, i.Element)
}

// Visualize writes a page that shows the operations and how far they make sense.
func (i Inexplicable) Visualize(w io.Writer) error {
	if err := porcupine.Visualize(model, i.info, w); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// Linearized is what Linearize found.
type Linearized struct {
	Copies    int // of elements at registrars
	Undecided int // of these, not within the time
	Bad       []Inexplicable
}

// Linearize checks each registrar's copy of each element as a register: one whose
// writes are the operations of all clients at all registrars, and whose reads are the
// resolutions at this one.
//
// One register for all registrars would be too much: while an operation is under
// way, one registrar may show it and another one, asked later, not yet. For one
// registrar the promise is just that: an operation takes effect there between its
// call and its acknowledgement, in an order that all share.
//
// A registrar that is not of the view in which an operation was acknowledged
// legitimately shows what was before. Its resolutions may take effect earlier than
// they were asked for, back to the acknowledgement of the first operation that it
// need not have yet. That they do not go back behind each other is for Find to see.
func Linearize(h *History, patience time.Duration) Linearized {
	a := analyse(h)
	var out Linearized
	for pool, elements := range a.pools {
		for _, life := range slices.Sorted(maps.Keys(a.reads[pool])) {
			for _, element := range elements {
				out.Copies++
				history := a.register(element, life, a.reads[pool][life])
				switch porcupine.CheckOperationsTimeout(model, history, patience) {
				case porcupine.Ok:
				case porcupine.Unknown:
					out.Undecided++
				case porcupine.Illegal:
					_, info := porcupine.CheckOperationsVerbose(model, history, patience)
					out.Bad = append(out.Bad, Inexplicable{element, life, info})
				}
			}
		}
	}
	slices.SortFunc(out.Bad, func(x, y Inexplicable) int {
		return cmp.Or(cmp.Compare(x.Element, y.Element), cmp.Compare(x.At, y.At))
	})
	return out
}

// register is the history of one registrar's copy of an element.
func (a *analysis) register(element uint32, life Life, reads []*Op) []porcupine.Operation {
	var out []porcupine.Operation
	add := func(o *Op, value uint32, call time.Duration) {
		out = append(out, porcupine.Operation{
			ClientId: o.Client, Input: o.Kind != Resolve, Output: value,
			Call: int64(call), Return: int64(o.end()), Metadata: o.String(),
		})
	}
	for _, w := range a.writes[element] {
		if w.Outcome != Rejected {
			add(w.Op, w.Value, w.Call)
		}
	}
	var known, late []*write // those that were due here at some time, and those that were not at once
	for _, w := range a.writes[element] {
		at, ok := w.due[life]
		if ok {
			known = append(known, w)
		}
		if w.Outcome == Done && (!ok || at > w.Return) {
			late = append(late, w)
		}
	}
	slices.SortFunc(known, func(x, y *write) int { return cmp.Compare(x.due[life], y.due[life]) })
	// Resolutions that saw the same and can go back as far stand for each other: the
	// one that was over first says it all. Without this a search would try all their
	// orders.
	type group struct {
		since time.Duration
		value uint32
	}
	first := make(map[group]*Op)
	k, newest := 0, -forever
	for _, r := range reads { // in the order of calls
		for ; k < len(known) && known[k].due[life] < r.Call; k++ {
			newest = max(newest, known[k].Call)
		}
		since := r.Call
		for _, w := range late {
			at, ok := w.due[life]
			if w.Return < r.Call && w.Return >= newest && (!ok || at >= r.Call) {
				since = min(since, w.Return-1)
			}
		}
		if since == r.Call {
			add(r, r.Seen[element], since)
			continue
		}
		g := group{since, r.Seen[element]}
		if first[g] == nil || r.Return < first[g].Return {
			first[g] = r
		}
	}
	for g, r := range first {
		add(r, g.value, g.since)
	}
	return out
}

// model is a register whose value is 0 when the element is not there. The input
// tells whether an operation writes, the output is the value written or read.
var model = porcupine.Model{
	Init: func() any { return uint32(0) },
	Step: func(state, input, output any) (bool, any) {
		if input.(bool) {
			return true, output
		}
		return state == output, state
	},
	DescribeOperation: func(input, output any) string {
		switch {
		case !input.(bool):
			return fmt.Sprintf("saw %d", output)
		case output == uint32(0):
			return "deregister"
		}
		return fmt.Sprintf("register %d", output)
	},
	DescribeState:             func(state any) string { return fmt.Sprint(state) },
	DescribeOperationMetadata: func(info any) string { return fmt.Sprint(info) },
}
