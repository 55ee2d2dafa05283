package handlespace

import (
	"testing"

	"rserpool/asap/param"
	"rserpool/selection"
)

// A copy of several elements has no place for the padding behind the last one,
// which a message's length must not include.
func TestPAR_4_04_NoWholePoolCopyOfPaddedElements(t *testing.T) {
	for data, want := range map[string]int{"": 2, "abcd": 2, "abc": 0} {
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
		if c := newCircle(order); c.elements != want {
			t.Errorf("data %q: a copy of %d elements, want %d", data, c.elements, want)
		}
	}
}
