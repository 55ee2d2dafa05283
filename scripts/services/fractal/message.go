// Package fractal is the fractal generator service of rsplib, as an element and as a
// user: a user asks for a picture, an element computes it and sends it point by point.
// How far it has come is the session's state, in its cookie, so that another element
// goes on where the last cookie was: what is lost with an element is what it had
// computed since then.
//
// Messages and cookies are those of rsplib's rspserver and fractalpooluser.
package fractal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// PPID is the payload protocol identifier of fractal messages.
const PPID uint32 = 32

// Pool is the pool handle that rsplib's programs use.
const Pool = "FractalGeneratorPool"

// Bounds of the messages.
const (
	// MaxPoints is how many points one Data message has at most.
	MaxPoints = 324
	// MaxSide is the largest width and height.
	MaxSide = 65536
	// MaxIterations is the largest Parameters.Iterations.
	MaxIterations = 1000000
)

// ErrMalformed says that octets are no message or cookie of this protocol, or one that
// asks for something impossible. It comes wrapped.
var ErrMalformed = errors.New("malformed fractal message")

const (
	typeParameters = 1
	typeData       = 2

	headerSize     = 4
	parametersSize = headerSize + 4*4 + 5*8
	dataSize       = headerSize + 3*4

	// mandelbrot is the only algorithm here: z*z - c.
	mandelbrot = 1
	// endMark stands in place of a position when the picture is complete.
	endMark = math.MaxUint32

	cookieMagic = "<FG-TD1>"
	cookieSize  = len(cookieMagic) + parametersSize + 2*4
)

// Parameters say what picture is wanted: Width times Height points of a rectangle of
// the plane, the corners of which are C1 and C2, each with up to Iterations steps.
type Parameters struct {
	Width, Height uint32 // 1 to MaxSide
	Iterations    uint32 // 1 to MaxIterations
	C1, C2        complex128
}

// Points returns how many points the picture has.
func (p Parameters) Points() uint64 { return uint64(p.Width) * uint64(p.Height) }

// Validate says what is beyond the limits.
func (p Parameters) Validate() error {
	switch {
	case p.Width == 0 || p.Height == 0 || p.Width > MaxSide || p.Height > MaxSide:
		return fmt.Errorf("a picture of %d x %d points", p.Width, p.Height)
	case p.Iterations == 0 || p.Iterations > MaxIterations:
		return fmt.Errorf("%d iterations", p.Iterations)
	}
	return nil
}

// Data is a part of the picture: points from Start on, row by row. At the end there is
// one with End set, without points.
type Data struct {
	Start  uint64 // counts the points before it: y * Width + x
	Points []uint32
	End    bool
}

// State is what a cookie holds: the picture and how many of its points are done.
type State struct {
	Parameters Parameters
	Done       uint64
}

// Append appends the encoded message to dst.
func (p Parameters) Append(dst []byte) []byte {
	dst = append(dst, typeParameters, 0)
	dst = binary.BigEndian.AppendUint16(dst, parametersSize)
	for _, v := range []uint32{p.Width, p.Height, p.Iterations, mandelbrot} {
		dst = binary.BigEndian.AppendUint32(dst, v)
	}
	// The last is for another algorithm.
	for _, v := range []float64{real(p.C1), imag(p.C1), real(p.C2), imag(p.C2), 0} {
		dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(v))
	}
	return dst
}

// ParseParameters decodes a message. Errors wrap ErrMalformed.
func ParseParameters(b []byte) (Parameters, error) {
	if len(b) != parametersSize || b[0] != typeParameters {
		return Parameters{}, fmt.Errorf("%w: %d octets", ErrMalformed, len(b))
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(b[headerSize+4*i:]) }
	double := func(i int) float64 { return math.Float64frombits(binary.BigEndian.Uint64(b[headerSize+4*4+8*i:])) }
	p := Parameters{
		Width: word(0), Height: word(1), Iterations: word(2),
		C1: complex(double(0), double(1)), C2: complex(double(2), double(3)),
	}
	if err := p.Validate(); err != nil {
		return Parameters{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if word(3) != mandelbrot {
		return Parameters{}, fmt.Errorf("%w: algorithm %d", ErrMalformed, word(3))
	}
	return p, nil
}

// Append appends the encoded message, for a picture of this width, to dst. There must
// not be more points than MaxPoints.
func (d Data) Append(dst []byte, width uint32) []byte {
	dst = append(dst, typeData, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(dataSize+4*len(d.Points)))
	x, y := uint32(d.Start%uint64(width)), uint32(d.Start/uint64(width))
	if d.End {
		x, y = endMark, endMark
	}
	for _, v := range []uint32{x, y, uint32(len(d.Points))} {
		dst = binary.BigEndian.AppendUint32(dst, v)
	}
	for _, v := range d.Points {
		dst = binary.BigEndian.AppendUint32(dst, v)
	}
	return dst
}

// ParseData decodes a part of the picture that p asked for, and checks that it lies in
// it. Errors wrap ErrMalformed.
func ParseData(b []byte, p Parameters) (Data, error) {
	if len(b) < dataSize || b[0] != typeData || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		return Data{}, fmt.Errorf("%w: %d octets", ErrMalformed, len(b))
	}
	x, y, n := binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:])
	if n > MaxPoints || len(b) != dataSize+4*int(n) {
		return Data{}, fmt.Errorf("%w: %d points in %d octets", ErrMalformed, n, len(b))
	}
	if x == endMark && y == endMark && n == 0 {
		return Data{End: true}, nil
	}
	d := Data{Start: uint64(y)*uint64(p.Width) + uint64(x)}
	if x >= p.Width || y >= p.Height || d.Start+uint64(n) > p.Points() {
		return Data{}, fmt.Errorf("%w: %d points at %d, %d", ErrMalformed, n, x, y)
	}
	for i := range int(n) {
		d.Points = append(d.Points, binary.BigEndian.Uint32(b[dataSize+4*i:]))
	}
	return d, nil
}

// Cookie encodes the state.
func (s State) Cookie() []byte {
	dst := s.Parameters.Append([]byte(cookieMagic))
	dst = binary.BigEndian.AppendUint32(dst, uint32(s.Done%uint64(s.Parameters.Width)))
	return binary.BigEndian.AppendUint32(dst, uint32(s.Done/uint64(s.Parameters.Width)))
}

// ParseCookie decodes a cookie. Errors wrap ErrMalformed.
func ParseCookie(b []byte) (State, error) {
	if len(b) != cookieSize || string(b[:len(cookieMagic)]) != cookieMagic {
		return State{}, fmt.Errorf("%w: cookie of %d octets", ErrMalformed, len(b))
	}
	position := len(cookieMagic) + parametersSize
	p, err := ParseParameters(b[len(cookieMagic):position])
	if err != nil {
		return State{}, err
	}
	x, y := binary.BigEndian.Uint32(b[position:]), binary.BigEndian.Uint32(b[position+4:])
	// rsplib's element writes a row's end as x = Width.
	s := State{Parameters: p, Done: uint64(y)*uint64(p.Width) + uint64(x)}
	if x > p.Width || s.Done > p.Points() {
		return State{}, fmt.Errorf("%w: cookie at %d, %d", ErrMalformed, x, y)
	}
	return s, nil
}
