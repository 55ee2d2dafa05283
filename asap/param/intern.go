package param

// Interner gives the same string for the same pool handle again, so that decoding
// a handle that was seen before allocates nothing. It keeps a bounded number of
// handles; when it is full, a new one takes the place of an arbitrary old one,
// which costs an allocation when that one comes again and nothing else. Not safe
// for concurrent use. A nil Interner keeps nothing.
type Interner struct {
	handles map[PoolHandle]PoolHandle
	max     int
}

// internedLength is the longest handle kept, in octets: longer ones are rare and
// would let a peer fill the memory.
const internedLength = 64

// NewInterner returns an Interner for at most max handles. Each takes up to about
// 150 octets of memory.
func NewInterner(max int) *Interner {
	return &Interner{handles: make(map[PoolHandle]PoolHandle), max: max}
}

// Handle returns the pool handle with these octets.
func (t *Interner) Handle(b []byte) PoolHandle {
	if t == nil || len(b) > internedLength || t.max <= 0 {
		return PoolHandle(b)
	}
	if h, ok := t.handles[PoolHandle(b)]; ok {
		return h
	}
	if len(t.handles) >= t.max {
		for old := range t.handles {
			delete(t.handles, old)
			break
		}
	}
	h := PoolHandle(b)
	t.handles[h] = h
	return h
}
