package handlespace

import (
	"bytes"
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

// Who asks again and again sees each pool that is there under the handle, not the first
// one that was.
func TestBookmarksFindThePoolThatIsThereNow(t *testing.T) {
	s := fresh()
	var mark Bookmark
	ask := func(handle param.PoolHandle, want int) {
		t.Helper()
		answer, _, found := s.ResolveEncoded(nil, &mark, handle, Query{})
		if found != (want > 0) {
			t.Errorf("%q: found %v, want %d elements", handle, found, want)
		}
		size := 0
		for _, r := range s.Elements(nil, handle, 0, want) {
			size += len(r.Encoded())
		}
		if got := len(bytes.Join(answer, nil)); got != size {
			t.Errorf("%q: %d octets, want %d", handle, got, size)
		}
	}
	ask("echo", 0)
	for round := range 3 {
		s.Apply(register("echo", 1, at(float64(round))))
		ask("echo", 1)
		s.Apply(register("echo", 2, at(float64(round))))
		ask("echo", 2)
		s.Apply(register("other", 1, at(float64(round))))
		ask("other", 1)
		ask("echo", 2)
		for id := range param.PEID(2) {
			s.Apply(Deregister{Handle: "echo", ID: id + 1, Now: at(float64(round))})
		}
		ask("echo", 0)
	}
}
