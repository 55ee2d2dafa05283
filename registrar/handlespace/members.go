package handlespace

import (
	"cmp"
	"slices"

	"github.com/google/btree"

	"rserpool/asap/param"
)

// few is up to how many members are kept in one slice: most pools are small.
const few = 32

// members are the elements of a pool, in the order of their identifiers.
type members struct {
	slice []member // while there are few
	tree  *btree.BTreeG[member]
}

// member is an element in its pool. What is looked at on the way to others stands
// beside the pointer.
type member struct {
	id      param.PEID
	home    param.RegistrarID
	element *element
}

func (a member) less(b member) bool { return a.id < b.id }

func (m *members) len() int {
	if m.tree != nil {
		return m.tree.Len()
	}
	return len(m.slice)
}

func (m *members) search(id param.PEID) (int, bool) {
	return slices.BinarySearchFunc(m.slice, id, func(a member, id param.PEID) int { return cmp.Compare(a.id, id) })
}

// find returns an element, nil if it is not among the members.
func (m *members) find(id param.PEID) *element {
	if m.tree != nil {
		x, _ := m.tree.Get(member{id: id})
		return x.element
	}
	if i, found := m.search(id); found {
		return m.slice[i].element
	}
	return nil
}

// put adds a member, or replaces the one with its identifier. A tree takes nodes from
// spare.
func (m *members) put(x member, spare *btree.FreeListG[member]) {
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
		m.tree = btree.NewWithFreeListG(64, member.less, spare)
		for _, y := range m.slice {
			m.tree.ReplaceOrInsert(y)
		}
		m.slice = nil
	}
	m.tree.ReplaceOrInsert(x)
}

func (m *members) remove(id param.PEID) {
	if m.tree == nil {
		if i, found := m.search(id); found {
			m.slice = slices.Delete(m.slice, i, i+1)
		}
		return
	}
	m.tree.Delete(member{id: id})
	if m.tree.Len() <= few/2 {
		m.tree.Ascend(func(x member) bool {
			m.slice = append(m.slice, x)
			return true
		})
		m.tree = nil
	}
}

// from visits the members from an identifier on, until visit returns false.
func (m *members) from(id param.PEID, visit func(member) bool) {
	if m.tree != nil {
		m.tree.AscendGreaterOrEqual(member{id: id}, visit)
		return
	}
	i, _ := m.search(id)
	for _, x := range m.slice[i:] {
		if !visit(x) {
			return
		}
	}
}
