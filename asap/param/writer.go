package param

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrEncode is wrapped by the errors of all encoders: the value has no wire form.
var ErrEncode = errors.New("cannot be encoded")

// Writer appends a message, or a single parameter, to a caller's slice. Lengths
// are filled in afterwards, padding is put before what follows it, so that no
// length ever includes the padding at its end. The first error sticks and is
// returned by Finish.
type Writer struct {
	buf  []byte
	base int // where the message starts in buf
	err  error
}

// room returns dst, or what a short message has room in if it is nil.
func room(dst []byte) []byte {
	if dst == nil {
		return make([]byte, 0, 64)
	}
	return dst
}

// NewMessage returns a Writer that appends a message with this header to dst.
func NewMessage(dst []byte, typ, flags uint8) (w Writer) {
	w.Begin(dst, typ, flags)
	return w
}

// Begin makes w a Writer as NewMessage returns it, in place.
func (w *Writer) Begin(dst []byte, typ, flags uint8) {
	w.buf, w.base, w.err = append(room(dst), typ, flags, 0, 0), len(dst), nil
}

// Len returns the length of the message so far, without padding at its end.
func (w *Writer) Len() int { return len(w.buf) - w.base }

// SetFlags replaces the flags that NewMessage got.
func (w *Writer) SetFlags(flags uint8) { w.buf[w.base+1] = flags }

// Truncate takes back what was written since Len returned n.
func (w *Writer) Truncate(n int) { w.buf = w.buf[:w.base+n] }

// Finish fills in the message length and pads. In case of an error it returns the
// slice as NewMessage got it.
func (w *Writer) Finish() ([]byte, error) {
	n := w.Len()
	if n > MaxLength {
		w.Fail("message of %d octets", n)
	}
	if w.err != nil {
		return w.buf[:w.base], w.err
	}
	binary.BigEndian.PutUint16(w.buf[w.base+2:], uint16(n))
	w.pad()
	return w.buf, nil
}

// Fail records an error, unless there is one already.
func (w *Writer) Fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("%w: %s", ErrEncode, fmt.Sprintf(format, args...))
	}
}

// Uint32 appends a fixed field.
func (w *Writer) Uint32(v uint32) { w.buf = binary.BigEndian.AppendUint32(w.buf, v) }

// Uint16 appends a fixed field.
func (w *Writer) Uint16(v uint16) { w.buf = binary.BigEndian.AppendUint16(w.buf, v) }

func (w *Writer) pad() {
	if n := -w.Len() & 3; n > 0 {
		w.buf = append(w.buf, "\x00\x00\x00"[:n]...)
	}
}

// begin starts a parameter or a cause and returns where it stands, for end.
func (w *Writer) begin(code uint16) int {
	w.pad()
	at := len(w.buf)
	w.buf = append(w.buf, byte(code>>8), byte(code), 0, 0)
	return at
}

// end fills in the length of what begin started.
func (w *Writer) end(at int) {
	n := len(w.buf) - at
	if n > MaxLength {
		w.Fail("%s of %d octets", Type(binary.BigEndian.Uint16(w.buf[at:])), n)
		return
	}
	binary.BigEndian.PutUint16(w.buf[at+2:], uint16(n))
}

// Encoded appends a parameter that is already encoded, with its padding or
// without, or several, one behind the other, the last of which has none (Padded):
// no length ever includes the padding at its end.
func (w *Writer) Encoded(tlv []byte) {
	if len(tlv) < headerLen {
		w.Fail("encoded parameter of %d octets", len(tlv))
		return
	}
	n := int(binary.BigEndian.Uint16(tlv[2:]))
	if n < headerLen || n > len(tlv) {
		w.Fail("encoded parameter of length %d in %d octets", n, len(tlv))
		return
	}
	if pad4(n) < len(tlv) {
		n = len(tlv) // several
	}
	w.pad()
	w.buf = append(w.buf, tlv[:n]...)
}

// Padded reports whether an encoded parameter ends in padding. A Pool Element
// does when its last parameter is the policy, of a type for private use with data
// that is no multiple of four octets.
func Padded(tlv []byte) bool {
	return len(tlv) >= headerLen && int(binary.BigEndian.Uint16(tlv[2:])) != len(tlv)
}

// Flag returns bit if set is true, for the flags of a message.
func Flag(set bool, bit uint8) uint8 {
	if set {
		return bit
	}
	return 0
}
