package tcp

import (
	"encoding/binary"
	"fmt"
	"io"

	"rserpool/asap/transport"
)

const (
	headerLen = 4
	// initialBuffer holds many requests, which are small. A longer message
	// makes the buffer grow with what has really come.
	initialBuffer = 4096
)

// padded rounds a message length up to the four octets that messages take on
// the stream.
func padded(n int) int { return (n + 3) &^ 3 }

// messageLen returns the length field of the message that starts with b.
func messageLen(b []byte) int { return int(binary.BigEndian.Uint16(b[2:4])) }

// frames cuts an octet stream into messages: octets 2 and 3 are the length of
// the message, which is followed by padding to a multiple of four (AMB-02).
type frames struct {
	limit      int // longest message with its padding
	buf        []byte
	start, end int // buf[start:end] has been read and not taken
}

// next returns the length of the first message with its padding, as far as its
// header is there, else headerLen.
func (f *frames) next() (int, error) {
	if f.end-f.start < headerLen {
		return headerLen, nil
	}
	n := messageLen(f.buf[f.start:])
	if n < headerLen {
		return 0, fmt.Errorf("%w: message length %d", transport.ErrMalformed, n)
	}
	if padded(n) > f.limit {
		return 0, fmt.Errorf("%w: %d octets, limit %d", transport.ErrTooLong, n, f.limit)
	}
	return padded(n), nil
}

// ready returns the length of the first message with its padding if all of it is
// there, else 0.
func (f *frames) ready() (int, error) {
	n, err := f.next()
	if err != nil || f.end-f.start < max(n, headerLen) || f.end == f.start {
		return 0, err
	}
	return n, nil
}

// take copies the first message, of n octets, to dst.
func (f *frames) take(dst []byte, n int) {
	copy(dst, f.buf[f.start:f.start+n])
	f.start += n
	if f.start == f.end {
		f.start, f.end = 0, 0
		if len(f.buf) > initialBuffer && n <= initialBuffer/2 {
			f.buf = nil // it grew for a long message; now they are short again
		}
	}
}

// fill reads once from r. It is called when no whole message is there and
// next gave no error, and takes memory for what has come, not for what a header
// promises.
func (f *frames) fill(r io.Reader) error {
	if f.buf == nil {
		f.buf = make([]byte, initialBuffer)
	}
	if f.start > 0 {
		f.end = copy(f.buf, f.buf[f.start:f.end])
		f.start = 0
	}
	if f.end == len(f.buf) {
		f.buf = append(f.buf, make([]byte, min(len(f.buf), f.limit-len(f.buf)))...)
	}
	n, err := r.Read(f.buf[f.end:])
	f.end += n
	if n > 0 {
		return nil // an error will come again
	}
	if err == io.EOF && f.end > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}
