package registrar

import (
	"net/netip"
	"sync"
)

// census knows all connections, and how many each client has. Its methods
// may be called concurrently.
type census struct {
	mu       sync.Mutex
	conns    map[*conn]struct{}
	byClient map[netip.Addr]int
}

func newCensus() *census {
	return &census{conns: make(map[*conn]struct{}), byClient: make(map[netip.Addr]int)}
}

// enter adds a connection unless one of the limits is reached, and then names it.
func (s *census) enter(c *conn, total, perClient int) (limit string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.conns) >= total:
		return "connections", false
	case s.byClient[c.client] >= perClient:
		return "connections_per_address", false
	}
	s.add(c)
	return "", true
}

// admits reports whether one more connection may be made to a client, and names
// the limit if not. Some more than total are for this: what peers fill up shall not
// keep elements from being probed.
func (s *census) admits(client netip.Addr, total, perClient, more int) (limit string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case len(s.conns) >= total+more:
		return "connections", false
	case s.byClient[client] >= perClient:
		return "connections_per_address", false
	}
	return "", true
}

// enterDialled adds a connection that this registrar made itself.
func (s *census) enterDialled(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(c)
}

func (s *census) add(c *conn) {
	s.conns[c] = struct{}{}
	s.byClient[c.client]++
}

func (s *census) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.byClient[c.client]--; s.byClient[c.client] == 0 {
		delete(s.byClient, c.client)
	}
}

func (s *census) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		out = append(out, c)
	}
	return out
}

func (s *census) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}
