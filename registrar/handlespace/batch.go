package handlespace

// ahead is for how many commands ApplyAll looks up the elements beforehand: what that
// brings into the processor's cache is still there when they are applied.
const ahead = 64

// ApplyAll applies commands one after the other, as Apply does, and returns what each
// changed. With many elements it takes less time than as many calls of Apply: those
// wait for the memory of one element after the other, the look-ups beforehand for that
// of several at a time. One goroutine only.
func (s *Space) ApplyAll(cmds []Command) [][]Event {
	s.events = make([]Event, 0, len(cmds))
	changes := make([][]Event, len(cmds))
	var elements [ahead]*element
	for i, cmd := range cmds {
		if i%ahead == 0 {
			elements = s.touch(cmds[i:min(i+ahead, len(cmds))])
		}
		start := len(s.events)
		s.near = elements[i%ahead]
		s.apply(cmd)
		changes[i] = s.events[start:len(s.events):len(s.events)]
	}
	s.near = nil
	return changes
}

// touch reads what the commands are going to need, in passes that don't wait for
// what they read. It returns the elements that they are about.
func (s *Space) touch(cmds []Command) (elements [ahead]*element) {
	var keys [ahead]Key
	var pools [ahead]*pool
	var records [ahead]*Record
	for i, cmd := range cmds {
		if c, ok := cmd.(Remove); ok && c.spot.space == s {
			elements[i] = c.spot.element
		} else if keys[i] = about(cmd); keys[i].Handle != "" {
			pools[i] = s.lookup(keys[i].Handle)
		}
	}
	for i, p := range pools {
		if p != nil {
			elements[i] = p.members.find(keys[i].ID)
		}
	}
	for i, e := range elements {
		if e != nil {
			records[i] = e.record.Load()
		}
	}
	for _, r := range records {
		if r != nil {
			s.touched += r.digest
		}
	}
	return elements
}

// about returns the element that a command of the usual ones is about.
func about(cmd Command) Key {
	switch c := cmd.(type) {
	case Register:
		return Key{c.Handle, c.Element.ID}
	case Deregister:
		return Key{c.Handle, c.ID}
	case Remove:
		return Key{c.Handle, c.ID}
	}
	return Key{}
}
