package handlespace

import (
	"rserpool/asap/param"
	"rserpool/selection"
)

// ahead is for how many commands ApplyAll reads beforehand what they need: what that
// brings into the processor's cache is still there when they are applied.
const ahead = 64

// ApplyAll applies commands one after the other, as Apply does, and returns what each
// changed. With many elements it takes less time than as many calls of Apply: those
// wait for one place in memory after the other, the reading beforehand for those of
// several commands at a time. One goroutine only.
func (s *Space) ApplyAll(cmds []Command) [][]Event {
	s.events = make([]Event, 0, len(cmds))
	changes := make([][]Event, len(cmds))
	u := &s.upcoming
	for i, cmd := range cmds {
		if i%ahead == 0 {
			u.touch(s, cmds[i:min(i+ahead, len(cmds))])
		}
		start := len(s.events)
		s.near = u.elements[i%ahead]
		s.apply(cmd)
		changes[i] = s.events[start:len(s.events):len(s.events)]
	}
	s.near = nil
	*u = upcoming{}
	return changes
}

// upcoming is what commands are about, as it is before the first of them is applied.
type upcoming struct {
	keys     [ahead]Key
	pools    [ahead]*pool
	elements [ahead]*element
	changes  [ahead]selection.Change // of the elements in their choosers
	commands [ahead]int              // of one pool
	some     [ahead]selection.Change // in one pool
	touched  uint64                  // what is read ends here, so that it is read
}

// touch reads what commands are going to need, in passes that don't wait for what they
// read.
func (u *upcoming) touch(s *Space, cmds []Command) {
	*u = upcoming{}
	for i, cmd := range cmds {
		if c, ok := cmd.(Remove); ok && c.spot.space == s {
			// Elements that are due come nearly as they lie in memory.
			continue
		}
		u.about(i, cmd)
		if u.keys[i].Handle != "" {
			u.pools[i] = s.lookup(u.keys[i].Handle)
		}
	}
	u.each(u.find)
	var records [ahead]*Record
	for i, e := range u.elements {
		if e != nil {
			records[i] = e.record.Load()
			u.changes[i].Item = &e.item
		}
	}
	for _, r := range records {
		if r != nil {
			u.touched += r.digest + r.Generation.Stamp + uint64(r.room[0])
		}
	}
	u.each(u.choosers)
	s.index.beforeUnfile(u)
}

// about notes what a command of the usual ones is about.
func (u *upcoming) about(i int, cmd Command) {
	switch c := cmd.(type) {
	case Register:
		u.keys[i] = Key{c.Handle, c.Element.ID}
		u.changes[i].Policy = c.Element.Policy
	case Deregister:
		u.keys[i] = Key{c.Handle, c.ID}
		u.changes[i].Remove = true
	case Remove:
		u.keys[i] = Key{c.Handle, c.ID}
		u.changes[i].Remove = true
	}
}

// each visits the pools, with the numbers of the commands for each.
func (u *upcoming) each(visit func(p *pool, commands []int)) {
	var seen [ahead]bool
	for i, p := range u.pools {
		if p == nil || seen[i] {
			continue
		}
		commands := u.commands[:0]
		for j := i; j < ahead; j++ {
			if u.pools[j] == p {
				commands, seen[j] = append(commands, j), true
			}
		}
		visit(p, commands)
	}
}

// find looks up the elements of a pool.
func (u *upcoming) find(p *pool, commands []int) {
	if p.members.tree == nil {
		for _, i := range commands {
			u.elements[i] = p.members.find(u.keys[i].ID)
		}
		return
	}
	ids, found := make([]param.PEID, 0, ahead), make([]member, ahead)
	for _, i := range commands {
		ids = append(ids, u.keys[i].ID)
	}
	p.mu.Lock()
	p.members.tree.GetAll(ids, found)
	p.mu.Unlock()
	for k, i := range commands {
		u.elements[i] = found[k].element
	}
}

// choosers lets the chooser of a pool with many members read what it needs.
func (u *upcoming) choosers(p *pool, commands []int) {
	c, ok := p.sound.(selection.Foresighted)
	if !ok || p.members.tree == nil {
		return
	}
	changes := u.some[:0]
	for _, i := range commands {
		changes = append(changes, u.changes[i])
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.Foresee(changes)
}

// beforeUnfile reads what unfile will need for elements that go.
func (x *index) beforeUnfile(u *upcoming) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var pages [ahead]*page
	for i, e := range u.elements {
		if e != nil && u.changes[i].Remove && e.page != nil {
			pages[i] = e.page
			u.touched += uint64(e.page.left)
		}
	}
	for i, p := range pages {
		if p != nil {
			last := p.lines[len(p.lines)-1].element // gets the place of the one that goes
			u.touched += uint64(p.lines[u.elements[i].line].at) + uint64(last.line)
		}
	}
}
