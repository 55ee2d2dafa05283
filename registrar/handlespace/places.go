package handlespace

// places are the elements of all pools, in large pieces: the garbage collector, which
// comes by each of them several times, has few pieces to look up. Those that are given
// back are used again. Writer only.
type places struct {
	piece []element // of which none has been given away
	size  int       // of the latest one
	free  *element  // one of those given back; its Value is the next one
	used  int
}

// largest is how many elements a piece has at most: half a MiB of them.
const largest = 4096

// get returns an element without anything.
func (p *places) get() *element {
	p.used++
	if e := p.free; e != nil {
		p.free = e.item.Value.(*element)
		e.item.Value = nil
		return e
	}
	if len(p.piece) == 0 {
		p.size = min(2*max(p.size, 8), largest)
		p.piece = make([]element, p.size)
	}
	e := &p.piece[0]
	p.piece = p.piece[1:]
	return e
}

// put takes back an element that nobody else has any more.
func (p *places) put(e *element) {
	if p.used--; p.used == 0 {
		*p = places{}
		return
	}
	*e = element{}
	e.item.Value, p.free = p.free, e
}
