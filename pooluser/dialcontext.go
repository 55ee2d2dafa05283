package pooluser

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"strings"

	"rserpool/asap/param"
)

// Host writes a pool handle as a host name, for clients that only take addresses and
// URLs: letters, digits, '-', '_' and '.' stand for themselves, any other octet is '~'
// and two hexadecimal digits. Unlike in host names, upper and lower case differ.
func Host(pool param.PoolHandle) string {
	var b strings.Builder
	for i := range len(pool) {
		switch c := pool[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "~%02x", c)
		}
	}
	return b.String()
}

// PoolOf returns the pool handle that an address of the form "HOST" or "HOST:PORT"
// names, HOST as Host writes it. The port means nothing: elements have their own. Octets
// that Host would write otherwise stand for themselves, so that handles without '~' and
// without a number after a colon need no care. Errors wrap ErrHandle.
func PoolOf(address string) (param.PoolHandle, error) {
	host := address
	if i := strings.LastIndexByte(address, ':'); i >= 0 && strings.Trim(address[i+1:], "0123456789") == "" {
		host = address[:i]
	}
	var b strings.Builder
	for i := 0; i < len(host); i++ {
		if host[i] != '~' {
			b.WriteByte(host[i])
			continue
		}
		octet, err := hex.DecodeString(host[i+1 : min(i+3, len(host))])
		if err != nil || len(octet) != 1 {
			return "", fmt.Errorf("%w: '~' in %q is not followed by two hexadecimal digits", ErrHandle, address)
		}
		b.Write(octet)
		i += 2
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("%w: %q names none", ErrHandle, address)
	}
	return param.PoolHandle(b.String()), nil
}

// DialContext is Dial with the parameters of net.Dialer.DialContext, for the many
// clients that let their users say how to connect. The address names the pool as
// PoolOf says; network is "tcp", whatever the pool's elements speak.
func (r *Resolver) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	pool, err := PoolOf(address)
	if err == nil && network != "tcp" {
		err = fmt.Errorf("%w: %q", ErrTransport, network)
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	conn, err := r.Dial(ctx, pool)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return conn, nil
}
