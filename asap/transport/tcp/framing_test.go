package tcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"rserpool/asap/transport"
)

// readAll cuts what r gives into messages.
func readAll(r io.Reader, limit int) (messages [][]byte, err error) {
	f := frames{limit: limit}
	for {
		n, err := f.ready()
		if err != nil {
			return messages, err
		}
		if n > 0 {
			m := make([]byte, n)
			f.take(m, n)
			messages = append(messages, m)
			continue
		}
		if err := f.fill(r); err != nil {
			return messages, err
		}
	}
}

// framed returns a message with this length field and its padding.
func framed(length int) []byte {
	m := bytes.Repeat([]byte{0xaa}, padded(length))
	m[1] = 0
	binary.BigEndian.PutUint16(m[2:], uint16(length))
	return m
}

func TestAMB_02_Framing(t *testing.T) {
	three := bytes.Join([][]byte{framed(4), framed(11), framed(65535)}, nil)
	tests := []struct {
		name   string
		stream []byte
		limit  int
		count  int
		err    error
	}{
		{"nothing", nil, 65536, 0, io.EOF},
		{"several messages", three, 65536, 3, io.EOF},
		{"half a header", three[:2], 65536, 0, io.ErrUnexpectedEOF},
		{"header only", three[:8], 65536, 1, io.ErrUnexpectedEOF},
		{"half a message", three[:9], 65536, 1, io.ErrUnexpectedEOF},
		{"padding missing", three[:15], 65536, 1, io.ErrUnexpectedEOF},
		{"padding is not looked at", append(framed(9), 0, 0, 0, 4), 65536, 2, io.EOF},
		{"length 0", append(framed(8), 1, 0, 0, 0), 65536, 1, transport.ErrMalformed},
		{"length 3", []byte{1, 0, 0, 3}, 65536, 0, transport.ErrMalformed},
		{"at the limit", framed(12), 12, 1, io.EOF},
		{"over the limit", framed(13), 12, 0, transport.ErrTooLong},
		{"over the limit, header only", framed(13)[:4], 12, 0, transport.ErrTooLong},
	}
	readers := map[string]func(io.Reader) io.Reader{
		"at once":     func(r io.Reader) io.Reader { return r },
		"octet-wise":  iotest.OneByteReader,
		"halves":      iotest.HalfReader,
		"data, error": iotest.DataErrReader,
	}
	for _, tt := range tests {
		for how, wrap := range readers {
			got, err := readAll(wrap(bytes.NewReader(tt.stream)), tt.limit)
			if len(got) != tt.count || !errors.Is(err, tt.err) {
				t.Errorf("%s, read %s: %d messages, %v; want %d, %v", tt.name, how, len(got), err, tt.count, tt.err)
			}
			if all := bytes.Join(got, nil); !bytes.HasPrefix(tt.stream, all) {
				t.Errorf("%s, read %s: other octets than sent", tt.name, how)
			}
		}
	}
}

// TestMemoryFollowsWhatCame: a header that promises much costs nothing.
func TestMemoryFollowsWhatCame(t *testing.T) {
	f := frames{limit: transport.MaxMessage}
	stream := bytes.NewReader(framed(65535))
	for came := 0; came < 65536; {
		if err := f.fill(iotest.HalfReader(stream)); err != nil {
			t.Fatal(err)
		}
		came = f.end
		if limit := max(2*came, 2*initialBuffer); len(f.buf) > limit {
			t.Fatalf("%d octets of buffer after %d came", len(f.buf), came)
		}
	}
	dst := make([]byte, transport.MaxMessage)
	f.take(dst, 65536)
	stream = bytes.NewReader(framed(8))
	if err := f.fill(stream); err != nil {
		t.Fatal(err)
	}
	f.take(dst, 8)
	if len(f.buf) > initialBuffer {
		t.Errorf("buffer of %d octets kept for short messages", len(f.buf))
	}
}

// FuzzFraming compares the reader with a plain cut of the whole stream, however
// the stream comes in pieces.
func FuzzFraming(f *testing.F) {
	f.Add([]byte{5, 0, 0, 11, 0, 9, 0, 7, 97, 98, 99, 0}, uint8(3))
	f.Add([]byte{1, 0, 0, 4, 1, 0, 0, 3}, uint8(1))
	f.Add(framed(5000), uint8(255))
	f.Fuzz(func(t *testing.T, stream []byte, piece uint8) {
		const limit = 8192
		got, err := readAll(&pieces{stream, int(piece) + 1}, limit)
		rest := stream
		for i := 0; ; i++ {
			var want error
			n := 0
			switch {
			case len(rest) == 0:
				want = io.EOF
			case len(rest) < 4:
				want = io.ErrUnexpectedEOF
			default:
				n = (int(rest[2])<<8 + int(rest[3]) + 3) / 4 * 4
				switch {
				case rest[2] == 0 && rest[3] < 4:
					want = transport.ErrMalformed
				case n > limit:
					want = transport.ErrTooLong
				case n > len(rest):
					want = io.ErrUnexpectedEOF
				}
			}
			if want != nil {
				if !errors.Is(err, want) || i != len(got) {
					t.Fatalf("%d messages, %v; want %d, %v", len(got), err, i, want)
				}
				return
			}
			if i == len(got) || !bytes.Equal(got[i], rest[:n]) {
				t.Fatalf("message %d differs from % x", i, rest[:n])
			}
			rest = rest[n:]
		}
	})
}

// pieces gives a stream in pieces of a fixed size.
type pieces struct {
	stream []byte
	size   int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.stream) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(p.size, len(b))], p.stream)
	p.stream = p.stream[n:]
	return n, nil
}
