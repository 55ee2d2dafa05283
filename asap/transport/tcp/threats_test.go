package tcp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"rserpool/asap/transport"
)

// wire is between two members: it passes octets on, keeps those of the dialling
// side, and may change one.
type wire struct {
	addr netip.AddrPort

	mu   sync.Mutex
	kept bytes.Buffer
	// flip is the place of an octet to change, behind those of the handshake
	// and so on; negative: none.
	flip int
}

func newWire(t *testing.T, to netip.AddrPort, flip int) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: netip.MustParseAddrPort(l.Addr().String()), flip: flip}
	var running sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	running.Go(func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		out, err := net.Dial("tcp", to.String())
		if err != nil {
			return
		}
		defer out.Close()
		running.Go(func() {
			_, _ = io.Copy(in, out) // until either end closes
			in.Close()
			out.Close()
		})
		buf := make([]byte, 4096)
		for {
			n, err := in.Read(buf)
			w.pass(buf[:n])
			if _, failed := out.Write(buf[:n]); failed != nil || err != nil {
				return
			}
		}
	})
	return w
}

// pass keeps what passes, and may change it.
func (w *wire) pass(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at := w.flip - w.kept.Len(); w.flip >= 0 && at >= 0 && at < len(b) {
		b[at] ^= 0x10
	}
	w.kept.Write(b)
}

func (w *wire) octets() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.kept.Bytes())
}

// secret stands in a message.
const secret = "the-pool-handle-that-nobody-shall-see"

// exchange sends a message over a wire, and returns what arrived.
func exchange(t *testing.T, blue cluster, flip int) (*wire, []byte, error) {
	t.Helper()
	to, failed, l := guarded(t, blue)
	w := newWire(t, to, flip)
	accepting, refused := context.WithCancel(within(t, patience))
	defer refused()
	c, err := New(WithTLS(TLS{Credentials: blue.member("m")})).Dial(within(t, patience), nil, []netip.AddrPort{w.addr}, transport.Options{})
	if err != nil {
		return w, nil, err
	}
	defer c.Close()
	message := framed(4 + len(secret))
	copy(message[4:], secret)
	if err := c.Send(t.Context(), transport.Message{Data: message}); err != nil {
		return w, nil, err
	}
	c.Close() // whoever waits for more need not
	go func() {
		select {
		case <-failed.more:
			refused()
		case <-accepting.Done():
		}
	}()
	s, err := l.Accept(accepting)
	if err != nil {
		return w, nil, err
	}
	defer s.Close()
	m, err := s.Receive(within(t, patience), make([]byte, 1000))
	return w, m.Data, err
}

func TestTHR_2_11_3_01_RegistrarsAreNotOverheard(t *testing.T) {
	w, got, err := exchange(t, newCluster(t, "blue"), -1)
	if err != nil || !bytes.Contains(got, []byte(secret)) {
		t.Fatalf("arrived %q, %v", got, err)
	}
	if octets := w.octets(); len(octets) < 1000 || bytes.Contains(octets, []byte(secret)) || bytes.Contains(octets, []byte(secret[:12])) {
		t.Errorf("%d octets on the wire show what was said", len(octets))
	}
}

// A recorded connection means nothing to a listener, the one it was recorded from
// or another.
func TestTHR_2_8_3_01_RecordedConnectionsOfRegistrars(t *testing.T) {
	blue := newCluster(t, "blue")
	w, _, err := exchange(t, blue, -1)
	if err != nil {
		t.Fatal(err)
	}
	to, failed, l := guarded(t, blue)
	raw, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if _, err := raw.Write(w.octets()); err != nil {
		t.Fatal(err)
	}
	for len(failed.more) == 0 {
		time.Sleep(time.Millisecond)
	}
	nobody(t, l)
}

// Whatever octet is changed on the way, nothing but what was sent arrives.
func TestTHR_2_10_3_01_ChangedOctetsBetweenRegistrars(t *testing.T) {
	blue := newCluster(t, "blue")
	w, sent, err := exchange(t, blue, -1)
	if err != nil {
		t.Fatal(err)
	}
	length := len(w.octets())
	spoiled := 0
	for at := 0; at < length; at += max(1, length/60) {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			_, got, err := exchange(t, blue, at)
			if err == nil && !bytes.Equal(got, sent) {
				t.Errorf("arrived % x", got)
			}
			if err != nil {
				spoiled++
			}
		})
	}
	if spoiled < 20 {
		t.Errorf("only %d connections were spoiled: the wire changes nothing", spoiled)
	}
}
