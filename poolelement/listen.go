package poolelement

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/framed"
)

// listenTries is how often listening on several addresses looks for a port that is
// free on all.
const listenTries = 8

// listen opens all that Config.Listen names, or nothing.
func (s *Server) listen(ctx context.Context) ([]*end, error) {
	var ends []*end
	var addrs []netip.AddrPort
	for i, at := range s.cfg.Listen {
		e, err := s.listenAt(ctx, at)
		if err != nil {
			for _, e := range ends {
				err = errors.Join(err, e.close())
			}
			return nil, fmt.Errorf("Listen[%d]: %w", i, err)
		}
		ends = append(ends, e)
		addrs = append(addrs, e.addrs()...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addrs = addrs
	return ends, nil
}

func (s *Server) listenAt(ctx context.Context, at transport.Endpoint) (*end, error) {
	e := &end{}
	if at.Network != transport.TCP {
		var err error
		e.listeners, err = s.cfg.Element.Networks.Listen(ctx, at, s.cfg.Options)
		if err != nil {
			return nil, err
		}
	} else {
		sockets, err := s.listenTCP(ctx, at)
		if err != nil {
			return nil, err
		}
		for _, socket := range sockets {
			if s.plain {
				e.streams = append(e.streams, socket)
				continue
			}
			e.listeners = append(e.listeners, framed.NewListener(socket, framed.Options{
				MaxMessage: s.cfg.Options.MaxMessage, DefaultPPID: s.cfg.Options.DefaultPPID, Handshake: s.cfg.Handshake,
				Refused: s.refusedHandshake,
			}))
		}
	}
	e.user = s.userTransport(at, e.addrs())
	return e, nil
}

func (s *Server) refusedHandshake(from net.Addr, err error) {
	s.stats.handshakes.Add(1)
	if s.lines.allow("handshake") {
		s.log.WithError(err).WithField("user", from).Info("no session")
	}
}

// listenTCP listens on each of the addresses, all with one port.
func (s *Server) listenTCP(ctx context.Context, at transport.Endpoint) ([]net.Listener, error) {
	hosts := []string{""} // IPv4 and IPv6
	if len(at.Hosts) > 0 && at.Hosts[0] != "" {
		found, err := at.Resolve(ctx, s.cfg.Element.Networks.Resolver)
		if err != nil {
			return nil, err
		}
		hosts = nil
		for _, a := range found {
			hosts = append(hosts, a.Addr().String())
		}
	}
	var lastErr error
	for range listenTries {
		sockets, err := s.listenHosts(ctx, hosts, at.Port)
		if err == nil {
			return sockets, nil
		}
		lastErr = err
		if at.Port != 0 || !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, lastErr
}

func (s *Server) listenHosts(ctx context.Context, hosts []string, port uint16) ([]net.Listener, error) {
	var sockets []net.Listener
	for _, host := range hosts {
		socket, err := s.cfg.ListenStream(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err != nil {
			for _, socket := range sockets {
				err = errors.Join(err, socket.Close())
			}
			return nil, err
		}
		if a := transport.AddrPort(socket.Addr()); port == 0 && a.IsValid() {
			port = a.Port()
		}
		if s.cfg.TLS != nil {
			socket = tls.NewListener(socket, s.cfg.TLS)
		}
		sockets = append(sockets, socket)
	}
	return sockets, nil
}

// streamAddrs returns the user's address.
func streamAddrs(stream net.Conn) []netip.AddrPort {
	if a := transport.AddrPort(stream.RemoteAddr()); a.IsValid() {
		return []netip.AddrPort{a}
	}
	return nil
}

func (e *end) addrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, l := range e.listeners {
		out = append(out, l.Addrs()...)
	}
	for _, l := range e.streams {
		out = append(out, transport.AddrPort(l.Addr()))
	}
	return out
}

// userTransport returns what to register for an entry of Listen.
func (s *Server) userTransport(at transport.Endpoint, listening []netip.AddrPort) param.Transport {
	user := s.cfg.Element.User
	user.Type = transportTypes[at.Network]
	if user.Port == 0 && len(listening) > 0 {
		user.Port = listening[0].Port()
	}
	if user.Type == param.TypeSCTPTransport && (!s.streams || s.cfg.Control) {
		user.Use = param.DataAndControl
	}
	if len(user.Addrs) == 0 {
		for _, a := range listening {
			if a.Addr().IsUnspecified() {
				user.Addrs = nil // those of the association to the registrar
				break
			}
			user.Addrs = append(user.Addrs, a.Addr())
		}
	}
	return user
}

// register makes and starts the elements, all or none.
func (s *Server) register(ctx context.Context, ends []*end) error {
	var elements []*Element
	for _, pool := range s.cfg.pools() {
		for i, at := range ends {
			cfg := s.cfg.Element
			cfg.Handle, cfg.User = pool, at.user
			if cfg.ID != 0 {
				cfg.ID = max(cfg.ID+param.PEID(i), 1)
			}
			cfg.Withdrawn = cfg.Withdrawn || s.cfg.Health != nil
			cfg.KeepAlive = s.keepAlive
			cfg.OnEvent = s.onEvent
			e, err := New(cfg)
			if err == nil {
				if err = e.Start(ctx); err == nil {
					elements = append(elements, e)
				}
			}
			if err != nil {
				return errors.Join(err, s.stopElements(elements))
			}
		}
	}
	s.cards.init(s.cfg.pools(), elements)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.elements = elements
	return nil
}

// onEvent takes an element's event, from its own goroutine.
func (s *Server) onEvent(e Event) {
	if tell := s.cfg.Element.OnEvent; tell != nil {
		tell(e)
	}
	if e.Type == RegistrationAccepted && s.controlled() {
		wake(s.joined)
	}
}

// controlled tells whether sessions have a control channel and get cards.
func (s *Server) controlled() bool {
	return (!s.streams || s.cfg.Control) && !s.cfg.NoCards
}
