package registrar

import "net/netip"

// ledger is how many elements each client address has registered. An element counts
// for the address that registered it last.
type ledger map[netip.Addr]int

// fits reports whether the address may register the element, nil if it is not attended,
// under this limit.
func (l ledger) fits(a *attended, addr netip.Addr, limit int) bool {
	return a != nil && a.client == addr || l[addr] < limit
}

func (l ledger) add(a *attended, addr netip.Addr) {
	if a.client != addr {
		l.remove(a)
		a.client = addr
		l[addr]++
	}
}

func (l ledger) remove(a *attended) {
	if !a.client.IsValid() {
		return
	}
	if l[a.client]--; l[a.client] == 0 {
		delete(l, a.client)
	}
	a.client = netip.Addr{}
}
