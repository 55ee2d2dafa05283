package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Auto is the network of an Endpoint that leaves the choice to Networks.
const Auto = "auto"

// MaxHosts is the largest number of hosts in one Endpoint.
const MaxHosts = 64

// Endpoint is an address as people write it: a network, the hosts of one
// (multi-homed) endpoint, and their common port. Make one with ParseEndpoint.
type Endpoint struct {
	// Network is SCTP, TCP, Mem or Auto.
	Network string
	// Hosts are IP addresses (IPv6 without brackets) or names. One empty
	// host stands for all addresses of the machine, to listen on.
	Hosts []string
	// Port is the port of all hosts; 0 takes a free one, to listen on.
	Port uint16
}

// ParseEndpoint reads an endpoint written as
//
//	[network://]host[,host...][:port]
//
// with network sctp, tcp, mem or auto, IPv6 addresses in brackets, and an empty
// host for all addresses of the machine. What is missing is taken from
// defaultNetwork and defaultPort. The port may stand behind each of the hosts if
// it is always the same. Equal hosts are put together.
func ParseEndpoint(s, defaultNetwork string, defaultPort uint16) (Endpoint, error) {
	e := Endpoint{Network: defaultNetwork, Port: defaultPort}
	fail := func(format string, args ...any) (Endpoint, error) {
		return Endpoint{}, fmt.Errorf("endpoint %q: %w", s, fmt.Errorf(format, args...))
	}
	rest := s
	if network, after, ok := strings.Cut(s, "://"); ok {
		e.Network, rest = strings.ToLower(network), after
	}
	switch e.Network {
	case SCTP, TCP, Mem, Auto:
	default:
		return fail("unknown network %q (one of sctp, tcp, mem, auto)", e.Network)
	}
	if rest == "" {
		return fail("no host")
	}
	havePort := false
	for part := range strings.SplitSeq(rest, ",") {
		if len(e.Hosts) == MaxHosts {
			return fail("more than %d hosts", MaxHosts)
		}
		host, port, err := splitHost(part)
		if err != nil {
			return fail("%w", err)
		}
		if port != "" {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return fail("port %q is not a number from 0 to 65535", port)
			}
			if havePort && e.Port != uint16(n) {
				return fail("two ports, %d and %d: all hosts share one", e.Port, n)
			}
			e.Port, havePort = uint16(n), true
		}
		if !slices.Contains(e.Hosts, host) {
			e.Hosts = append(e.Hosts, host)
		}
	}
	if len(e.Hosts) > 1 && slices.Contains(e.Hosts, "") {
		return fail("an empty host stands for all addresses and goes with no other")
	}
	return e, nil
}

// splitHost splits one 'host[:port]' and checks the host.
func splitHost(s string) (host, port string, err error) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		text, after, ok := strings.Cut(inner, "]")
		if !ok {
			return "", "", fmt.Errorf("missing ] in %q", s)
		}
		addr, err := netip.ParseAddr(text)
		if err != nil || !addr.Is6() {
			return "", "", fmt.Errorf("%q in brackets is not an IPv6 address", text)
		}
		host = addr.Unmap().String()
		switch {
		case after == "":
			return host, "", nil
		case after[0] == ':' && len(after) > 1:
			return host, after[1:], nil
		}
		return "", "", fmt.Errorf("%q after the address is not a port", after)
	}
	host, port, colon := strings.Cut(s, ":")
	switch {
	case strings.Contains(port, ":"):
		return "", "", fmt.Errorf("%q: IPv6 addresses go in brackets", s)
	case colon && port == "":
		return "", "", fmt.Errorf("%q: no port after the colon", s)
	case !colon && host == "":
		return "", "", errors.New("no host")
	case host == "" || isIPv4(host):
		return host, port, nil
	case !isName(host):
		return "", "", fmt.Errorf("%q is neither an IP address nor a host name", host)
	}
	return strings.ToLower(host), port, nil
}

func isIPv4(s string) bool {
	addr, err := netip.ParseAddr(s)
	return err == nil && addr.Is4()
}

// isName tells whether s can be a host name. A last label of digits only is
// refused, it is a mistyped address.
func isName(s string) bool {
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !isLetter(c) && !isDigit(c) && c != '-' && c != '_' {
				return false
			}
		}
	}
	last := labels[len(labels)-1]
	return len(s) <= 253 && strings.Trim(last, "0123456789") != ""
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// String writes the endpoint so that ParseEndpoint reads the same again.
func (e Endpoint) String() string {
	hosts := make([]string, len(e.Hosts))
	for i, h := range e.Hosts {
		if strings.Contains(h, ":") {
			h = "[" + h + "]"
		}
		hosts[i] = h
	}
	return e.Network + "://" + strings.Join(hosts, ",") + ":" + strconv.Itoa(int(e.Port))
}

// Resolver finds the addresses of a host name; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Resolve returns the addresses of all hosts in their order, IPv4-mapped ones as
// IPv4, each once. A name may have several. A name that can't be resolved is
// passed over as long as another host gives an address. r nil means
// net.DefaultResolver.
func (e Endpoint) Resolve(ctx context.Context, r Resolver) ([]netip.AddrPort, error) {
	if r == nil {
		r = net.DefaultResolver
	}
	var addrs []netip.AddrPort
	var errs []error
	for _, host := range e.Hosts {
		found, err := lookup(ctx, r, host)
		if err != nil {
			errs = append(errs, fmt.Errorf("resolve %q: %w", host, err))
		}
		for _, addr := range found {
			ap := netip.AddrPortFrom(addr.Unmap(), e.Port)
			if !slices.Contains(addrs, ap) {
				addrs = append(addrs, ap)
			}
		}
	}
	if len(addrs) == 0 {
		return nil, errors.Join(append(errs, fmt.Errorf("endpoint %s has no address", e))...)
	}
	return addrs, nil
}

func lookup(ctx context.Context, r Resolver, host string) ([]netip.Addr, error) {
	if host == "" {
		return []netip.Addr{netip.IPv6Unspecified()}, nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	return r.LookupNetIP(ctx, "ip", host)
}
