package ringnet

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"rserpool/asap/transport"
	"rserpool/enrp/ring"
)

// script is a connection on which these frames arrive.
type script struct {
	transport.Conn
	frames [][]byte
	ppid   uint32
}

func (s *script) Receive(_ context.Context, buf []byte) (transport.Message, error) {
	if len(s.frames) == 0 {
		return transport.Message{}, io.EOF
	}
	f := s.frames[0]
	if len(f) > len(buf) {
		return transport.Message{}, transport.ErrTooLong
	}
	s.frames = s.frames[1:]
	return transport.Message{Data: buf[:copy(buf, f)], PPID: s.ppid}, nil
}

// framed cuts a message as appendMessage does.
func framed(dst, message []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, reserved)...)
	return cut(append(dst, message...), start)
}

func pieces(b []byte) [][]byte {
	var out [][]byte
	for _, m := range split(nil, b) {
		out = append(out, m.Data)
	}
	return out
}

// TestFramesRoundTrip: messages of all lengths come out as they went in, each in
// memory of its own, and no frame is longer than a transport takes.
func TestFramesRoundTrip(t *testing.T) {
	const whole = frameLen - headerLen
	lengths := []int{0, 1, 2, 3, 4, 5, whole - 1, whole, whole + 1, frameLen, frameLen + 1,
		frameLen - beginLen, 2*whole - 5, 2*whole - 4, 2*whole - 3, 3 * whole, 1 << 20, 1<<20 + 7, 3<<20 + 1}
	random := rand.New(rand.NewPCG(1, 2))
	var b []byte
	var want [][]byte
	for _, n := range lengths {
		message := make([]byte, n)
		for i := range message {
			message[i] = byte(random.Uint32())
		}
		want = append(want, message)
		b = framed(b, message)
	}
	all := pieces(b)
	for i, f := range all {
		if len(f)%4 != 0 || len(f) > frameLen {
			t.Fatalf("frame %d has %d octets", i, len(f))
		}
	}
	r := frameReader{conn: &script{frames: all}, buf: make([]byte, frameLen), max: 1 << 22}
	var got [][]byte
	for range want {
		m, err := r.message(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("message of %d octets came out differently, with %d", len(want[i]), len(got[i]))
		}
	}
	if _, err := r.message(t.Context()); err != io.EOF {
		t.Errorf("behind the last message: %v", err)
	}
}

func TestBadFrames(t *testing.T) {
	long := pieces(framed(nil, make([]byte, 3*frameLen)))
	begin := func(length uint32) []byte {
		b := bytes.Clone(long[0])
		binary.BigEndian.PutUint32(b[headerLen:], length)
		return b
	}
	tests := []struct {
		name   string
		frames [][]byte
		ppid   uint32
		want   error
	}{
		{"a few octets", [][]byte{{frameWhole, 0, 0}}, 0, errFrame},
		{"length beyond the end", [][]byte{{frameWhole, 0, 0, 12, 0, 0, 0, 0}}, 0, errFrame},
		{"length below the header", [][]byte{{frameWhole, 0, 0, 3}}, 0, errFrame},
		{"too much padding", [][]byte{{frameWhole, 0, 0, 4, 0, 0, 0, 0}}, 0, errFrame},
		{"an ENRP message", [][]byte{{1, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 2}}, 0, errFrame},
		{"a hello in between", [][]byte{appendFrame(nil, frameHello, []byte("RING"))}, 0, errFrame},
		{"another protocol's PPID", [][]byte{appendFrame(nil, frameWhole, nil)}, transport.PPIDENRP, errFrame},
		{"a continuation of nothing", long[1:2], 0, errFrame},
		{"two beginnings", [][]byte{long[0], long[0]}, 0, errFrame},
		{"a whole message in a long one", [][]byte{long[0], appendFrame(nil, frameWhole, nil)}, 0, errFrame},
		{"a continuation too short", [][]byte{long[0], appendFrame(nil, frameContinue, make([]byte, 100))}, 0, errFrame},
		{"a last continuation too long", [][]byte{begin(frameLen), long[1]}, 0, transport.ErrTooLong},
		{"a short beginning", [][]byte{appendFrame(nil, frameBegin, make([]byte, 100))}, 0, errFrame},
		{"a beginning without a length", [][]byte{appendFrame(nil, frameBegin, nil)}, 0, errFrame},
		{"a long message that is short", [][]byte{begin(10)}, 0, errFrame},
		{"a message beyond the limit", [][]byte{begin(1<<20 + 1)}, 0, transport.ErrTooLong},
		{"a message beyond all limits", [][]byte{begin(1<<32 - 1)}, 0, transport.ErrTooLong},
		{"the end in the middle", long[:2], 0, io.EOF},
	}
	for _, tt := range tests {
		r := frameReader{conn: &script{frames: tt.frames, ppid: tt.ppid}, buf: make([]byte, frameLen), max: 1 << 20}
		if _, err := r.message(t.Context()); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestMembersOutside(t *testing.T) {
	nodes := []ring.Node{{Member: ring.Member{ID: 1, Incarnation: 2}, Contact: "tcp://h:1"}, {Member: ring.Member{ID: 2, Incarnation: 3}, Contact: ""}}
	wire := appendOutside(nil, nodes)
	if got, err := parseOutside(wire); err != nil || !slices.Equal(got, nodes) {
		t.Errorf("got %+v, %v", got, err)
	}
	for n := range wire {
		if _, err := parseOutside(wire[:n]); !errors.Is(err, errFrame) {
			t.Errorf("the first %d octets: %v", n, err)
		}
	}
	if _, err := parseOutside(appendOutside(nil, make([]ring.Node, maxOutside+1))); !errors.Is(err, errFrame) {
		t.Errorf("too many: %v", err)
	}
	if _, err := parseOutside(appendOutside(nil, []ring.Node{{}})); !errors.Is(err, errFrame) {
		t.Errorf("nobody: %v", err)
	}
}

func TestRefusalIsToldByThePeer(t *testing.T) {
	frame := appendFrame(nil, frameRefusal, []byte("too\nbad \x1b[31m"))
	r := frameReader{conn: &script{frames: [][]byte{frame}}, buf: make([]byte, frameLen)}
	_, err := r.message(t.Context())
	if reasonOf(err) != refusedByPeer || err.Error() != "refused by the other side: too?bad ?[31m" {
		t.Errorf("got %v", err)
	}
}

// FuzzFrames: what comes is refused or read, whatever it is, and takes no more
// memory than came plus what is granted ahead.
func FuzzFrames(f *testing.F) {
	f.Add(framed(nil, []byte("message")))
	f.Add(framed(framed(nil, make([]byte, 2*frameLen)), []byte("x")))
	f.Add(appendFrame(nil, frameHello, hello{versions: spoken, cluster: "c", node: ring.Node{Member: ring.Member{ID: 1, Incarnation: 2}, Contact: "tcp://h:1"}}.append(nil)))
	f.Add(appendFrame(nil, frameRefusal, []byte("no")))
	f.Add(appendFrame(nil, frameOutside, appendOutside(nil, []ring.Node{{Member: ring.Member{ID: 1, Incarnation: 2}, Contact: "tcp://h:1"}, {Member: ring.Member{ID: 2}}})))
	f.Fuzz(func(t *testing.T, b []byte) {
		var frames [][]byte
		for len(b) >= headerLen { // as TCP cuts them
			n := (int(binary.BigEndian.Uint16(b[2:])) + 3) &^ 3
			if n < headerLen || n > len(b) {
				n = len(b)
			}
			frames = append(frames, b[:n])
			b = b[n:]
		}
		for _, first := range frames {
			kind, body, err := parseFrame(first)
			if err != nil || kind != frameHello {
				continue
			}
			h, err := parseHello(body)
			if err != nil {
				continue
			}
			again, err := parseHello(h.append(nil))
			if err != nil || again != h {
				t.Fatalf("hello %+v comes back as %+v, %v", h, again, err)
			}
		}
		r := frameReader{conn: &script{frames: frames}, buf: make([]byte, frameLen), max: 1 << 21}
		r.aside = func(kind byte, body []byte) (bool, error) {
			if kind != frameOutside {
				return false, nil
			}
			nodes, err := parseOutside(body)
			if err != nil {
				return true, err
			}
			again, err := parseOutside(appendOutside(nil, nodes))
			if err != nil || !slices.Equal(again, nodes) {
				t.Fatalf("members %+v come back as %+v, %v", nodes, again, err)
			}
			return true, nil
		}
		for {
			m, err := r.message(t.Context())
			if err != nil {
				return
			}
			if cap(m) > 2*ahead+2*len(m) {
				t.Fatalf("message of %d octets takes %d", len(m), cap(m))
			}
		}
	})
}

func BenchmarkCut(b *testing.B) {
	for _, n := range []int{100, 20_000, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			message := make([]byte, n)
			var buf []byte
			b.SetBytes(int64(n))
			for b.Loop() {
				buf = framed(buf[:0], message)
			}
		})
	}
}
