package handlespace

import (
	"testing"

	"rserpool/asap/param"
	"rserpool/selection"
)

// A copy of several elements has no place for the padding behind the last one,
// which a message's length must not include.
func TestPAR_4_04_NoWholePoolCopyOfPaddedElements(t *testing.T) {
	for data, want := range map[string]bool{"": true, "abcd": true, "abc": false} {
		order := selection.NewChooser(0x80000001, nil).(selection.Circle)
		for id := range param.PEID(2) {
			e := register("echo", id+1, at(0)).Element
			e.Policy = param.Policy{Type: 0x80000001, Data: data}
			encoded, err := param.AppendPoolElement(nil, &e, false)
			if err != nil {
				t.Fatal(err)
			}
			stored := new(element)
			stored.record.Store(newRecord("echo", &e, coded{encoded, len(encoded)}))
			order.Put(&selection.Item{Size: len(encoded), Value: stored}, e.Policy)
		}
		if c := newCircle(order); len(c.octets) > 0 != want {
			t.Errorf("data %q: a copy of %d octets, want some: %v", data, len(c.octets), want)
		}
	}
}

// Replies of a few elements leave the copy of the pool alone.
func TestNoWholePoolCopyForAFew(t *testing.T) {
	s := fresh()
	for id := range param.PEID(9) {
		s.Apply(register("echo", id+1, at(0)))
	}
	for items, want := range map[int]bool{1: false, 8: false, 9: true} {
		p := s.lookup("echo")
		p.circle = nil
		var at Bookmark
		if _, _, ok := s.ResolveEncoded(nil, &at, "echo", Query{Items: items}); !ok || p.circle != nil != want {
			t.Errorf("%d elements: found %v, a copy %v", items, ok, p.circle != nil)
		}
	}
}
