package transport

import (
	"context"
	"net/netip"
)

// Without stands for a network that a program does not use, and says why. Auto
// passes it over.
func Without(network, why string) Network { return without{network, why} }

type without struct{ name, why string }

// withoutError is ErrUnsupported for a reason of the program's own.
type withoutError string

func (e withoutError) Error() string        { return string(e) }
func (e withoutError) Is(target error) bool { return target == ErrUnsupported }

func (w without) Name() string     { return w.name }
func (w without) Available() error { return withoutError(w.why) }

func (w without) Dial(context.Context, []netip.AddrPort, []netip.AddrPort, Options) (Conn, error) {
	return nil, w.Available()
}

func (w without) Listen(context.Context, []netip.AddrPort, Options) (Listener, error) {
	return nil, w.Available()
}
