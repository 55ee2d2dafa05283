package registrar

import "net/netip"

// ledger counts how many elements each client address has registered. An element
// counts for the address that registered it last.
type ledger struct {
	counts  map[netip.Addr]int
	element map[elementKey]netip.Addr
}

func newLedger() *ledger {
	return &ledger{counts: make(map[netip.Addr]int), element: make(map[elementKey]netip.Addr)}
}

// fits reports whether the address may register the element under this limit.
func (l *ledger) fits(key elementKey, addr netip.Addr, limit int) bool {
	last, ok := l.element[key]
	return ok && last == addr || l.counts[addr] < limit
}

func (l *ledger) add(key elementKey, addr netip.Addr) {
	if last, ok := l.element[key]; ok && last == addr {
		return
	}
	l.remove(key)
	l.element[key] = addr
	l.counts[addr]++
}

func (l *ledger) remove(key elementKey) {
	addr, ok := l.element[key]
	if !ok {
		return
	}
	delete(l.element, key)
	if l.counts[addr]--; l.counts[addr] == 0 {
		delete(l.counts, addr)
	}
}
