// Package history checks what clients of several registrars of a ring saw against
// the promise that they are given: every registrar of the view in which a
// registration or deregistration was acknowledged has it, and goes on having it.
//
// A history is recorded by one process with one monotonic clock. Find names the
// operations that break the promise, with words; Linearize has porcupine search for
// an order that explains all operations. They are independent of each other but for
// what they know of views (see due).
package history

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Life is one life of a registrar, by identifier and incarnation.
type Life string

// View is one view of the ring as its members name it.
type View struct {
	Counter     uint64 `json:"counter"`
	Coordinator Life   `json:"coordinator"`
	Members     []Life `json:"members"`
}

// compare orders views; a member goes only from lower ones to higher ones.
func (v View) compare(o View) int {
	return cmp.Or(cmp.Compare(v.Counter, o.Counter), strings.Compare(string(v.Coordinator), string(o.Coordinator)))
}

func (v View) String() string { return fmt.Sprintf("%d@%s", v.Counter, v.Coordinator) }

// Kind is what an operation does.
type Kind string

// Kinds.
const (
	Register   Kind = "register"
	Deregister Kind = "deregister"
	Resolve    Kind = "resolve"
)

// Outcome is what became of an operation.
type Outcome string

// Outcomes. A Rejected one must never be seen. An Unknown one had no answer: it may
// take effect at any time after its call, or never. An Unknown Resolve tells nothing.
const (
	Done     Outcome = "done"
	Rejected Outcome = "rejected"
	Unknown  Outcome = "unknown"
)

// Op is one operation of a client. Times are those since the beginning of the
// recording.
type Op struct {
	Kind    Kind          `json:"kind"`
	Client  int           `json:"client"`
	At      Life          `json:"at"` // the registrar asked
	Pool    string        `json:"pool"`
	Call    time.Duration `json:"call"`
	Return  time.Duration `json:"return"`
	Outcome Outcome       `json:"outcome"`
	// Element is what is written; each belongs to one pool. Value is what a
	// Register writes: never 0, and never written to the element before.
	Element uint32 `json:"element,omitempty"`
	Value   uint32 `json:"value,omitempty"`
	// Seen are the elements of the pool that a Resolve named, with their values.
	Seen map[uint32]uint32 `json:"seen,omitempty"`
}

// end is when the operation was over for sure.
func (o *Op) end() time.Duration {
	if o.Outcome == Unknown {
		return forever
	}
	return o.Return
}

func (o *Op) String() string {
	what := "resolve " + o.Pool
	switch o.Kind {
	case Register:
		what = fmt.Sprintf("register %d:=%d", o.Element, o.Value)
	case Deregister:
		what = fmt.Sprintf("deregister %d", o.Element)
	case Resolve:
	}
	return fmt.Sprintf("client %d: %s at %s, %v to %v (%s)", o.Client, what, o.At, o.Call, o.Return, o.Outcome)
}

// Sample is what a registrar said of its ring.
type Sample struct {
	At     Life          `json:"at"`
	Call   time.Duration `json:"call"`
	Return time.Duration `json:"return"`
	View   View          `json:"view"`
	// Synced: all members of the view know the same.
	Synced bool `json:"synced"`
	// Earlier are views that the registrar had installed before, as far as it
	// tells; at least those since the sample before.
	Earlier []View `json:"earlier,omitempty"`
}

// History is a recording. Its parts are in no order.
type History struct {
	Ops     []Op
	Samples []Sample
}

// line is one line of a written history.
type line struct {
	Op     *Op     `json:"op,omitempty"`
	Sample *Sample `json:"sample,omitempty"`
}

// Write writes the history as lines of JSON, in the order of the calls.
func (h *History) Write(w io.Writer) error {
	var lines []line
	for i := range h.Ops {
		lines = append(lines, line{Op: &h.Ops[i]})
	}
	for i := range h.Samples {
		lines = append(lines, line{Sample: &h.Samples[i]})
	}
	call := func(l line) time.Duration {
		if l.Op != nil {
			return l.Op.Call
		}
		return l.Sample.Call
	}
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(call(a), call(b)) })
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			return fmt.Errorf("history: %w", err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	return nil
}

// Read reads what Write has written.
func Read(r io.Reader) (*History, error) {
	h := new(History)
	for dec := json.NewDecoder(r); ; {
		var l line
		if err := dec.Decode(&l); err == io.EOF {
			return h, nil
		} else if err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
		if l.Op != nil {
			h.Ops = append(h.Ops, *l.Op)
		}
		if l.Sample != nil {
			h.Samples = append(h.Samples, *l.Sample)
		}
	}
}

// Gap is the longest time between two answers, from whatever registrar, to
// operations of these kinds.
func (h *History) Gap(kinds ...Kind) time.Duration {
	var answers []time.Duration
	for _, o := range h.Ops {
		if o.Outcome == Done && slices.Contains(kinds, o.Kind) {
			answers = append(answers, o.Return)
		}
	}
	slices.Sort(answers)
	var gap time.Duration
	for i := 1; i < len(answers); i++ {
		gap = max(gap, answers[i]-answers[i-1])
	}
	return gap
}

// Views counts the views that were seen.
func (h *History) Views() int {
	seen := make(map[string]bool)
	for _, s := range h.Samples {
		seen[s.View.String()] = true
		for _, v := range s.Earlier {
			seen[v.String()] = true
		}
	}
	return len(seen)
}
