package handlespace

import (
	"cmp"
	"slices"

	"rserpool/asap/param"
	"rserpool/internal/pages"
)

// few is up to how many members are kept in one slice: most pools are small.
const few = 32

// members are the elements of a pool, in the order of their identifiers, and removed ones
// as long as they have tombstones. Whoever goes through the elements passes over removed
// ones, so that there are no more of these among them than there were elements at once;
// others are apart.
type members struct {
	slice []member                       // while there are few
	tree  *pages.Set[param.PEID, member] // else
	most  int                            // elements that there were at once
	apart *members                       // nil if there are none
}

// member is an element in its pool. What is looked at on the way to others stands
// beside the pointer.
type member struct {
	id      param.PEID
	home    param.RegistrarID
	element *element
}

// Tie implements pages.Value: identifiers have one element each.
func (member) Tie() uint64 { return 0 }

// Spot implements pages.Value.
func (member) Spot() *pages.Spot[param.PEID, member] { return nil }

// len returns how many there are that are not apart.
func (m *members) len() int {
	if m.tree != nil {
		return m.tree.Len()
	}
	return len(m.slice)
}

func (m *members) search(id param.PEID) (int, bool) {
	return slices.BinarySearchFunc(m.slice, id, func(a member, id param.PEID) int { return cmp.Compare(a.id, id) })
}

func (m *members) empty() bool { return m.len() == 0 && m.apart == nil }

// find returns an element, nil if it is not among the members.
func (m *members) find(id param.PEID) *element {
	if m.tree != nil {
		if x, found := m.tree.Get(id); found {
			return x.element
		}
	} else if i, found := m.search(id); found {
		return m.slice[i].element
	}
	if m.apart != nil {
		return m.apart.find(id)
	}
	return nil
}

// seek does what find does, for the writer: to change the element's place among the members
// takes less time then.
func (m *members) seek(id param.PEID) *element {
	if m.tree == nil {
		return m.find(id)
	}
	if x, found := m.tree.Find(id); found {
		return x.element
	}
	if m.apart != nil {
		return m.apart.seek(id)
	}
	return nil
}

// put adds a member that is not apart any more, or replaces the one with its identifier.
func (m *members) put(x member) {
	m.meet(x.id)
	if m.tree == nil {
		i, found := m.search(x.id)
		switch {
		case found:
			m.slice[i] = x
			return
		case len(m.slice) < few:
			m.slice = slices.Insert(m.slice, i, x)
			return
		}
		m.tree = new(pages.Set[param.PEID, member])
		for _, y := range m.slice {
			m.tree.Put(y.id, y)
		}
		m.slice = nil
	}
	m.tree.Put(x.id, x)
}

// part adds a removed element apart from the others.
func (m *members) part(x member) {
	if m.apart == nil {
		m.apart = new(members)
	}
	m.apart.put(x)
}

// meet makes sure that an element is not apart.
func (m *members) meet(id param.PEID) {
	if m.apart == nil {
		return
	}
	if m.apart.remove(id); m.apart.len() == 0 {
		m.apart = nil
	}
}

// gone returns the members, which from now on are nowhere else.
func (m *members) gone() *members {
	out := *m
	*m = members{}
	return &out
}

// remove takes a member out.
func (m *members) remove(id param.PEID) {
	m.meet(id)
	if m.tree == nil {
		if i, found := m.search(id); found {
			m.slice = slices.Delete(m.slice, i, i+1)
		}
	} else if m.tree.Delete(id, member{}); m.tree.Len() <= few/2 {
		m.tree.Ascend(func(_ param.PEID, x member) bool {
			m.slice = append(m.slice, x)
			return true
		})
		m.tree = nil
	}
	m.most = min(m.most, m.len())
}

// from visits the members that are not apart, from an identifier on, until visit returns
// false.
func (m *members) from(id param.PEID, visit func(member) bool) {
	if m.tree != nil {
		m.tree.AscendFrom(id, func(_ param.PEID, x member) bool { return visit(x) })
		return
	}
	i, _ := m.search(id)
	for _, x := range m.slice[i:] {
		if !visit(x) {
			return
		}
	}
}
