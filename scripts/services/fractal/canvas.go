package fractal

import (
	"fmt"
	"math"
	"strings"
)

// Canvas collects the points of a picture. Make it with NewCanvas.
type Canvas struct {
	parameters Parameters
	points     []uint32
	known      []bool
	done       uint64
}

// NewCanvas returns a canvas for a picture.
func NewCanvas(p Parameters) *Canvas {
	return &Canvas{parameters: p, points: make([]uint32, p.Points()), known: make([]bool, p.Points())}
}

// Put adds a part of the picture and returns how many of its points were there already.
func (c *Canvas) Put(d Data) (again uint64) {
	for i, v := range d.Points {
		n := d.Start + uint64(i)
		if c.known[n] {
			again++
		} else {
			c.done++
		}
		c.points[n], c.known[n] = v, true
	}
	return again
}

// Done returns how many points there are.
func (c *Canvas) Done() uint64 { return c.done }

// Missing returns how many points are not there yet.
func (c *Canvas) Missing() uint64 { return c.parameters.Points() - c.done }

// Points returns all points, zero for those not there yet. They belong to the canvas.
func (c *Canvas) Points() []uint32 { return c.points }

// shades go from far away to near; the set itself is blank, as are points not there
// yet.
const shades = ".:-=+*#%@"

// Draw returns the picture in so many lines of so many characters, in colours (those
// of a terminal with 256) or in letters.
func (c *Canvas) Draw(columns, lines int, colours bool) []string {
	out := make([]string, lines)
	for line := range out {
		var b strings.Builder
		for column := range columns {
			if !colours {
				b.WriteByte(c.letter(c.at(column, columns, line, lines)))
				continue
			}
			// Two points in a character: the upper half of a block and its ground.
			upper := c.colour(c.at(column, columns, 2*line, 2*lines))
			lower := c.colour(c.at(column, columns, 2*line+1, 2*lines))
			fmt.Fprintf(&b, "\x1b[38;5;%d;48;5;%dm▀", upper, lower)
		}
		if colours {
			b.WriteString("\x1b[0m")
		}
		out[line] = b.String()
	}
	return out
}

// at returns the point in the middle of a field, as a share of the iterations on a
// logarithmic scale from 0 to 1.
func (c *Canvas) at(column, columns, line, lines int) (share float64, known bool) {
	p := c.parameters
	x := (uint64(column)*2 + 1) * uint64(p.Width) / uint64(2*columns)
	y := (uint64(line)*2 + 1) * uint64(p.Height) / uint64(2*lines)
	n := y*uint64(p.Width) + x
	return math.Log1p(float64(c.points[n])) / math.Log1p(float64(p.Iterations)), c.known[n]
}

func (c *Canvas) letter(share float64, known bool) byte {
	if !known || share == 1 {
		return ' '
	}
	return shades[int(share*float64(len(shades)))]
}

// colour goes through the blue to white part of the 256 colours; the set is black,
// what is not there yet dark grey.
func (c *Canvas) colour(share float64, known bool) int {
	switch {
	case !known:
		return 235
	case share == 1:
		return 16
	}
	steps := []int{17, 18, 19, 20, 21, 27, 33, 39, 45, 51, 87, 123, 159, 195, 231}
	return steps[int(share*float64(len(steps)))]
}
