package main

import (
	"cmp"
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	xfnt "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// sheet is one picture: what it shows as its title, panels, one legend for all of
// them, and how it was made at the foot.
type sheet struct {
	title, note string
	panels      [][]panel
}

// panel is one coordinate system.
type panel struct {
	title, x, y      string
	logX, logY       bool
	whole            bool    // only whole numbers on the x axis
	xMax, yMin, yMax float64 // 0: from the data
	curves           []curve
	bars             []bars
	groups           []string // of bars
	marks            []marker
}

// curve is a line with points and error bars.
type curve struct {
	policy
	points []point
	// plain: a line without points. steps: as such.
	plain, steps bool
	thin         bool
}

type point struct{ x, y, half float64 }

// bars are one series of bars: one bar in each group.
type bars struct {
	label  string
	color  color.Color
	values []point // y and half
}

// marker is a vertical line with a word.
type marker struct {
	x    float64
	text string
}

// mark is the shape of points.
type mark struct{ draw.GlyphDrawer }

var (
	dot      = mark{draw.CircleGlyph{}}
	ring     = mark{draw.RingGlyph{}}
	box      = mark{draw.BoxGlyph{}}
	square   = mark{draw.SquareGlyph{}}
	pyramid  = mark{draw.PyramidGlyph{}}
	triangle = mark{draw.TriangleGlyph{}}
	plus     = mark{draw.PlusGlyph{}}
	cross    = mark{draw.CrossGlyph{}}
)

const (
	panelWidth  = 13 * vg.Centimeter
	panelHeight = 9 * vg.Centimeter
	legendWidth = 8 * vg.Centimeter
	margin      = 0.4 * vg.Centimeter
)

func face(size vg.Length, bold bool) text.Style {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
	if bold {
		f.Weight = xfnt.WeightBold
	}
	return text.Style{Color: black, Font: f, Handler: plot.DefaultTextHandler, XAlign: draw.XLeft, YAlign: draw.YTop}
}

// draw writes the sheet as SVG.
func (s sheet) draw(w io.Writer) error {
	columns := 0
	for _, line := range s.panels {
		columns = max(columns, len(line))
	}
	top := margin + vg.Length(1+strings.Count(s.title, "\n"))*20 + 6
	foot := margin + vg.Length(1+strings.Count(s.note, "\n"))*12
	legend := s.legend()
	side := vg.Length(0)
	if len(legend) > 0 {
		side = legendWidth
	}
	width := panelWidth*vg.Length(columns) + side + 2*margin
	height := top + panelHeight*vg.Length(len(s.panels)) + foot
	canvas := vgsvg.New(width, height)
	all := draw.New(canvas)
	all.SetColor(color.White)
	all.Fill(all.Rectangle.Path())
	all.FillText(face(15, true), vg.Point{X: margin, Y: height - margin}, s.title)
	small := face(9, false)
	small.Color = color.Gray{Y: 0x50}
	all.FillText(small, vg.Point{X: margin, Y: foot - margin/2}, s.note)

	var plots [][]*plot.Plot
	for _, line := range s.panels {
		made := make([]*plot.Plot, columns)
		for i, p := range line {
			var err error
			if made[i], err = p.plot(); err != nil {
				return fmt.Errorf("%s: %w", p.title, err)
			}
		}
		plots = append(plots, made)
	}
	area := draw.Crop(all, margin, -margin-side, foot, -top)
	tiles := draw.Tiles{Rows: len(plots), Cols: columns, PadX: vg.Centimeter, PadY: 0.7 * vg.Centimeter}
	for i, line := range plot.Align(plots, tiles, area) {
		for k, c := range line {
			if plots[i][k] != nil {
				plots[i][k].Draw(c)
			}
		}
	}
	s.drawLegend(draw.Crop(all, width-side, 0, foot, -top-0.8*vg.Centimeter), legend)

	_, err := canvas.WriteTo(w)
	return err
}

// legend lists one curve of each label.
func (s sheet) legend() []curve {
	var list []curve
	for _, line := range s.panels {
		for _, p := range line {
			for _, c := range p.curves {
				if c.label != "" && !slices.ContainsFunc(list, func(o curve) bool { return o.label == c.label }) {
					list = append(list, c)
				}
			}
		}
	}
	return list
}

func (s sheet) drawLegend(c draw.Canvas, list []curve) {
	const step, sample = 17, 26
	style := face(10.5, false)
	style.YAlign = draw.YCenter
	y := c.Max.Y - step
	for _, entry := range list {
		line := []vg.Point{{X: c.Min.X + 6, Y: y}, {X: c.Min.X + 6 + sample, Y: y}}
		c.StrokeLines(entry.lineStyle(), line)
		if !entry.plain && !entry.steps {
			c.DrawGlyph(entry.glyph(), vg.Point{X: c.Min.X + 6 + sample/2, Y: y})
		}
		for _, words := range strings.Split(entry.label, "\n") {
			c.FillText(style, vg.Point{X: c.Min.X + sample + 14, Y: y}, words)
			y -= 13
		}
		y -= step - 13
	}
}

func (c curve) lineStyle() draw.LineStyle {
	style := draw.LineStyle{Color: c.color, Width: vg.Points(1.6)}
	if c.thin {
		style.Width = vg.Points(0.9)
	}
	switch {
	case c.plain && !c.steps:
		style.Dashes = []vg.Length{vg.Points(1), vg.Points(3)}
	case c.blind:
		style.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
	}
	return style
}

func (c curve) glyph() draw.GlyphStyle {
	return draw.GlyphStyle{Color: c.color, Radius: vg.Points(3.2), Shape: c.mark.GlyphDrawer}
}

func (p panel) plot() (*plot.Plot, error) {
	drawn := plot.New()
	drawn.Title.Text, drawn.X.Label.Text = " \n ", " " // room for the words
	drawn.Title.TextStyle.Font, drawn.X.Label.TextStyle.Font = face(11.5, true).Font, face(10.5, false).Font
	for _, axis := range []*plot.Axis{&drawn.X, &drawn.Y} {
		axis.Tick.Label.Font = face(9.5, false).Font
		axis.Label.Padding = vg.Points(3)
		axis.Tick.Marker = plainTicks{}
	}
	drawn.Add(words{p.title, p.x, p.y})
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{Y: 0xe4}, color.Gray{Y: 0xe4}
	drawn.Add(grid)
	if err := p.addBars(drawn); err != nil {
		return nil, err
	}
	for _, c := range p.curves {
		if err := p.addCurve(drawn, c); err != nil {
			return nil, err
		}
	}
	set := func(to *float64, v float64) {
		if v != 0 {
			*to = v
		}
	}
	if !p.logY {
		drawn.Y.Min = 0
	}
	set(&drawn.X.Max, p.xMax)
	set(&drawn.Y.Min, p.yMin)
	set(&drawn.Y.Max, p.yMax)
	if p.whole {
		drawn.X.Tick.Marker = plainTicks{whole: true}
	}
	if p.logX {
		drawn.X.Scale, drawn.X.Tick.Marker = plot.LogScale{}, logTicks{}
	}
	if p.logY {
		drawn.Y.Scale, drawn.Y.Tick.Marker = plot.LogScale{}, logTicks{}
	}
	if len(p.bars) > 0 && len(p.bars[0].values) > 0 {
		drawn.NominalX(p.groups...)
		drawn.Y.Max = cmp.Or(p.yMax, drawn.Y.Max*1.2)
	}
	if len(p.marks) > 0 {
		drawn.Add(markers{p.marks})
	}
	return drawn, nil
}

func (p panel) addCurve(drawn *plot.Plot, c curve) error {
	points := make(plotter.XYs, len(c.points))
	halves := make(plotter.YErrors, len(c.points))
	for i, at := range c.points {
		points[i] = plotter.XY{X: at.x, Y: at.y}
		halves[i].Low, halves[i].High = at.half, at.half
		if p.logY {
			halves[i].Low = min(at.half, 0.9*at.y)
		}
	}
	line, err := plotter.NewLine(points)
	if err != nil {
		return err
	}
	line.LineStyle = c.lineStyle()
	if c.steps {
		line.StepStyle = plotter.PostStep
	}
	drawn.Add(clipped{line})
	if c.plain || c.steps {
		return nil
	}
	bars, err := plotter.NewYErrorBars(struct {
		plotter.XYs
		plotter.YErrors
	}{points, halves})
	if err != nil {
		return err
	}
	bars.LineStyle = draw.LineStyle{Color: c.color, Width: vg.Points(0.8)}
	bars.CapWidth = vg.Points(4)
	scatter, err := plotter.NewScatter(points)
	if err != nil {
		return err
	}
	scatter.GlyphStyle = c.glyph()
	drawn.Add(clipped{bars}, inside{scatter.XYs, scatter.GlyphStyle})
	return nil
}

func (p panel) addBars(drawn *plot.Plot) error {
	const all = 0.8
	for i, series := range p.bars {
		width := panelWidth * 0.78 / vg.Length(len(p.groups)) * all / vg.Length(len(p.bars))
		values := make(plotter.Values, len(series.values))
		for k, v := range series.values {
			values[k] = v.y
		}
		chart, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		chart.Color, chart.LineStyle.Width = series.color, vg.Points(0.4)
		chart.Offset = width * (vg.Length(i) - vg.Length(len(p.bars)-1)/2)
		drawn.Add(chart)
		if len(p.bars) > 1 {
			drawn.Legend.Add(series.label, chart)
		}
		drawn.Add(tops{series.values, chart.Offset})
	}
	drawn.Legend.Top, drawn.Legend.Left, drawn.Legend.Padding = true, true, vg.Points(2)
	drawn.Legend.XOffs = vg.Points(5)
	drawn.Legend.TextStyle.Font = face(10, false).Font
	return nil
}

// tops draws the confidence intervals and values at the top of bars.
type tops struct {
	values []point
	offset vg.Length
}

func (t tops) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	style := face(8.5, false)
	style.XAlign, style.YAlign = draw.XCenter, draw.YBottom
	for i, v := range t.values {
		at := x(float64(i)) + t.offset
		c.StrokeLine2(draw.LineStyle{Color: black, Width: vg.Points(0.8)}, at, y(v.y-v.half), at, y(v.y+v.half))
		label := strconv.FormatFloat(v.y, 'f', 0, 64)
		c.FillText(style, vg.Point{X: at, Y: min(y(v.y+v.half), c.Max.Y-10) + 1}, label)
	}
}

// markers draws vertical lines.
type markers struct{ list []marker }

func (m markers) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	style := face(9, false)
	style.Color = color.Gray{Y: 0x40}
	for _, mark := range m.list {
		at := x(mark.x)
		c.StrokeLine2(draw.LineStyle{Color: color.Gray{Y: 0x60}, Width: vg.Points(0.8), Dashes: []vg.Length{2, 2}}, at, c.Min.Y, at, c.Max.Y)
		c.FillText(style, vg.Point{X: at + 3, Y: c.Max.Y - 2}, mark.text)
	}
}

// clipped keeps lines inside of the axes: curves of overloaded pools leave them.
type clipped struct{ plot.Plotter }

func (l clipped) Plot(c draw.Canvas, p *plot.Plot) {
	line, ok := l.Plotter.(*plotter.Line)
	if !ok {
		bars := l.Plotter.(*plotter.YErrorBars)
		l.plotBars(c, p, bars)
		return
	}
	x, y := p.Transforms(&c)
	var points []vg.Point
	for i, at := range line.XYs {
		if i > 0 && line.StepStyle == plotter.PostStep {
			points = append(points, vg.Point{X: x(at.X), Y: points[len(points)-1].Y})
		}
		points = append(points, vg.Point{X: x(at.X), Y: y(at.Y)})
	}
	c.StrokeLines(line.LineStyle, c.ClipLinesXY(points)...)
}

func (l clipped) plotBars(c draw.Canvas, p *plot.Plot, bars *plotter.YErrorBars) {
	x, y := p.Transforms(&c)
	for i, at := range bars.XYs {
		low, high := y(at.Y-bars.YErrors[i].Low), y(at.Y+bars.YErrors[i].High)
		if center := x(at.X); c.Contains(vg.Point{X: center, Y: y(at.Y)}) && high-low > vg.Points(1) {
			c.StrokeLines(bars.LineStyle, c.ClipLinesXY([]vg.Point{{X: center, Y: low}, {X: center, Y: high}})...)
			for _, end := range []vg.Length{low, high} {
				c.StrokeLines(bars.LineStyle, c.ClipLinesXY([]vg.Point{{X: center - bars.CapWidth/2, Y: end}, {X: center + bars.CapWidth/2, Y: end}})...)
			}
		}
	}
}

func (l clipped) DataRange() (xmin, xmax, ymin, ymax float64) {
	return l.Plotter.(plot.DataRanger).DataRange()
}

// inside draws the points that are inside of the axes.
type inside struct {
	points plotter.XYs
	style  draw.GlyphStyle
}

func (s inside) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, at := range s.points {
		if where := (vg.Point{X: x(at.X), Y: y(at.Y)}); c.Contains(where) {
			c.DrawGlyph(s.style, where)
		}
	}
}

// words writes the title and what the axes are: above and below them, where it can
// be read without turning the head, and is in nobody's way.
type words struct{ title, x, y string }

func (w words) Plot(c draw.Canvas, p *plot.Plot) {
	below := face(10.5, false)
	below.YAlign = draw.YBottom
	c.FillText(below, vg.Point{X: c.Min.X - 20, Y: c.Max.Y + 6}, w.y)
	title := face(11.5, true)
	title.YAlign = draw.YBottom
	c.FillText(title, vg.Point{X: c.Min.X - 20, Y: c.Max.Y + 21}, w.title)
	below.XAlign = draw.XCenter
	c.FillText(below, vg.Point{X: (c.Min.X + c.Max.X) / 2, Y: c.Min.Y - 38}, w.x)
}

// logTicks labels decades in plain numbers, and 2 and 5 where there is room.
type logTicks struct{}

func (logTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	decades := math.Log10(high / low)
	for decade := math.Floor(math.Log10(low)); decade <= math.Ceil(math.Log10(high)); decade++ {
		for digit := 1.0; digit < 10; digit++ {
			v := digit * math.Pow(10, decade)
			if v < low*0.999 || v > high*1.001 {
				continue
			}
			tick := plot.Tick{Value: v}
			if digit == 1 || decades < 2.5 && (digit == 2 || digit == 5) {
				tick.Label = strconv.FormatFloat(v, 'f', int(max(0, -decade)), 64)
			}
			ticks = append(ticks, tick)
		}
	}
	return ticks
}

// plainTicks labels multiples of 1, 2 or 5 of a power of ten; whole ones only, if
// the values are.
type plainTicks struct{ whole bool }

func (t plainTicks) Ticks(low, high float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10(high-low)))
	for _, finer := range []float64{0.5, 0.4, 0.5} { // 1, 0.5, 0.2, 0.1
		if (high-low)/step >= 4 || t.whole && step <= 1 {
			break
		}
		step *= finer
	}
	var ticks []plot.Tick
	for i := math.Ceil(low/step - 1e-9); i*step <= high+1e-9*step; i++ {
		v := float64(int(i)) * step // an int has no -0
		ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 4, 64)})
	}
	return ticks
}
