// Ringplot reads what 'ringbench run --json' prints, prints it as markdown tables,
// and draws it: latency and throughput over offered load and over the number of
// members.
//
//	ringplot -tables max,one-at-a-time < rows
//	ringplot -tables '' -svg docs/ring.svg < rows
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"image/color"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// row is one line of the input.
type row struct {
	System    string  `json:"system"`
	Members   int     `json:"members"`
	Senders   int     `json:"senders"`
	Payload   int     `json:"payload_octets"`
	Send      string  `json:"send"`
	Network   string  `json:"network"`
	Offered   float64 `json:"offered_per_second"`
	Rate      float64 `json:"ordered_per_second"`
	AgreedP50 float64 `json:"agreed_p50_seconds"`
	AgreedP99 float64 `json:"agreed_p99_seconds"`
	StableP50 float64 `json:"stable_p50_seconds"`
	StableP99 float64 `json:"stable_p99_seconds"`
	CPU       float64 `json:"cpu_seconds_per_message"`
}

// Values of row.Send.
const (
	sendMax  = "max"
	sendRate = "rate"
	sendOne  = "one-at-a-time"
)

func main() {
	svg := flag.String("svg", "", "write the plots to this `file`")
	tables := flag.String("tables", "max,one-at-a-time,rate", "which tables to print, by the way of sending")
	flag.Parse()
	if err := run(os.Stdin, os.Stdout, *tables, *svg); err != nil {
		fmt.Fprintln(os.Stderr, "ringplot:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, tables, svg string) error {
	var rows []row
	for d := json.NewDecoder(in); ; {
		var r row
		err := d.Decode(&r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		return errors.New("no rows")
	}
	before := ""
	for send := range strings.SplitSeq(tables, ",") {
		of := slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return r.Send != send })
		if len(of) == 0 {
			continue
		}
		table := latencies(of)
		if send == sendMax {
			table = rates(of)
		}
		if _, err := fmt.Fprint(out, before, table); err != nil {
			return err
		}
		before = "\n"
	}
	if svg == "" {
		return nil
	}
	return drawAll(rows, svg)
}

// rates is the table of full speed: a column for each system.
func rates(rows []row) string {
	type place struct {
		network                  string
		members, octets, senders int
	}
	var systems []string
	var places []place
	cells := make(map[place]map[string]string)
	for _, r := range rows {
		at := place{r.Network, r.Members, r.Payload, r.Senders}
		if cells[at] == nil {
			places = append(places, at)
			cells[at] = make(map[string]string)
		}
		if !slices.Contains(systems, r.System) {
			systems = append(systems, r.System)
		}
		cells[at][r.System] = fmt.Sprintf("%s (%s)", rough(r.Rate), micro(r.CPU))
	}
	network := slices.ContainsFunc(places, func(p place) bool { return p.network != "" })
	var t strings.Builder
	line := func(name string, cells ...string) {
		if network {
			cells = append([]string{name}, cells...)
		}
		t.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	line("network", append([]string{"members", "octets", "senders"}, systems...)...)
	if network {
		t.WriteString("|---")
	}
	t.WriteString(strings.Repeat("|---:", 3+len(systems)) + "|\n")
	for _, at := range places {
		columns := []string{fmt.Sprint(at.members), whole(float64(at.octets)), fmt.Sprint(at.senders)}
		for _, system := range systems {
			columns = append(columns, cmp.Or(cells[at][system], "-"))
		}
		line(cmp.Or(at.network, "-"), columns...)
	}
	return t.String()
}

// latencies is the table of messages that are not sent at full speed.
func latencies(rows []row) string {
	offered := slices.ContainsFunc(rows, func(r row) bool { return r.Offered > 0 })
	network := slices.ContainsFunc(rows, func(r row) bool { return r.Network != "" })
	var t strings.Builder
	head, rule := "| system | members |", "|---|---:|"
	if network {
		head, rule = "| network "+head, "|---"+rule
	}
	if offered {
		head, rule = head+" offered/s |", rule+"---:|"
	}
	t.WriteString(head + " ordered/s | agreed p50 | p99 | stable p50 | p99 | CPU per message |\n" + rule + "---:|---:|---:|---:|---:|---:|\n")
	for _, r := range rows {
		if network {
			fmt.Fprintf(&t, "| %s ", cmp.Or(r.Network, "-"))
		}
		fmt.Fprintf(&t, "| %s | %d |", r.System, r.Members)
		if offered {
			fmt.Fprintf(&t, " %s |", whole(r.Offered))
		}
		fmt.Fprintf(&t, " %s | %s | %s | %s | %s | %s |\n", rough(r.Rate),
			micro(r.AgreedP50), micro(r.AgreedP99), micro(r.StableP50), micro(r.StableP99), micro(r.CPU))
	}
	return t.String()
}

// micro writes seconds as microseconds, with three digits that count.
func micro(seconds float64) string {
	switch us := seconds * 1e6; {
	case us <= 0:
		return "-"
	case us < 1:
		return fmt.Sprintf("%.2f µs", us)
	case us < 10:
		return fmt.Sprintf("%.1f µs", us)
	default:
		return rough(us) + " µs"
	}
}

// rough writes a number with three digits that count.
func rough(x float64) string {
	unit := math.Pow(10, max(0, math.Floor(math.Log10(x))-2))
	return whole(math.Round(x/unit) * unit)
}

// whole writes a number with commas.
func whole(x float64) string {
	digits := fmt.Sprintf("%.0f", x)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// curve is one line of a plot.
type curve struct {
	name   string
	points plotter.XYs
	dashed bool
}

// colors tell systems and sizes apart, by printed brightness too.
var colors = []color.Color{
	color.RGBA{R: 0x1b, G: 0x4f, B: 0x9c, A: 0xff}, color.RGBA{R: 0xd9, G: 0x5f, B: 0x02, A: 0xff},
	color.RGBA{R: 0x1b, G: 0x9e, B: 0x77, A: 0xff}, color.RGBA{R: 0x7a, G: 0x3b, B: 0x8f, A: 0xff},
	color.RGBA{R: 0x66, G: 0x66, B: 0x66, A: 0xff},
}

// drawing collects the curves of one plot, by name.
type drawing struct {
	title, x, y string
	logX, logY  bool
	curves      []curve
}

func (d *drawing) add(name string, dashed bool, x, y float64) {
	if y <= 0 {
		return // a logarithm would not exist
	}
	i := slices.IndexFunc(d.curves, func(c curve) bool { return c.name == name && c.dashed == dashed })
	if i < 0 {
		i = len(d.curves)
		d.curves = append(d.curves, curve{name: name, dashed: dashed})
	}
	d.curves[i].points = append(d.curves[i].points, plotter.XY{X: x, Y: y})
}

func (d *drawing) plot() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = d.title, d.x, d.y
	p.Legend.Top, p.Legend.Left = true, true
	if d.logX {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	if d.logY {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	} else {
		p.Y.Min = 0
	}
	p.Add(plotter.NewGrid())
	var names []string
	for _, c := range d.curves {
		slices.SortFunc(c.points, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
		line, points, err := plotter.NewLinePoints(c.points)
		if err != nil {
			return nil, err
		}
		i, first := slices.Index(names, c.name), false
		if i < 0 {
			i = len(names)
			names = append(names, c.name)
			first = true
		}
		line.Color, points.Color = colors[i%len(colors)], colors[i%len(colors)]
		line.Width, points.Radius = vg.Points(1.2), vg.Points(1.8)
		if c.dashed {
			line.Dashes = []vg.Length{vg.Points(4), vg.Points(3)}
		}
		p.Add(line, points)
		if first {
			p.Legend.Add(c.name, line, points)
		}
	}
	// Room for the legend.
	if d.logY {
		p.Y.Max *= math.Pow(3, float64(len(names)))
	} else {
		p.Y.Max *= 1.3
	}
	return p, nil
}

// drawAll draws four plots on one sheet.
func drawAll(rows []row, file string) error {
	latency := &drawing{title: "Latency, 3 members, 100 octets (dashed: p99)", x: "offered messages/s", y: "own delivery, µs", logX: true, logY: true}
	throughput := &drawing{title: "Throughput over offered load, 100 octets", x: "offered messages/s", y: "ordered messages/s", logX: true, logY: true}
	size := &drawing{title: "Throughput at full speed, 100 octets (dashed: 1 sender)", x: "members", y: "ordered messages/s", logY: true}
	one := &drawing{title: "One message at a time (dashed: p99)", x: "members", y: "own delivery, µs"}
	for _, r := range rows {
		switch r.Send {
		case sendRate:
			if r.Members == 3 {
				latency.add(r.System, false, r.Offered, r.AgreedP50*1e6)
				latency.add(r.System, true, r.Offered, r.AgreedP99*1e6)
			}
			throughput.add(fmt.Sprintf("%s, %d members", r.System, r.Members), false, r.Offered, r.Rate)
		case sendMax:
			if r.Payload != 100 {
				continue
			}
			size.add(r.System, r.Senders == 1, float64(r.Members), r.Rate)
		case sendOne:
			one.add(r.System, false, float64(r.Members), r.AgreedP50*1e6)
			one.add(r.System, true, float64(r.Members), r.AgreedP99*1e6)
		}
	}
	var plots [][]*plot.Plot
	for _, line := range [][]*drawing{{latency, throughput}, {size, one}} {
		var made []*plot.Plot
		for _, d := range line {
			if len(d.curves) == 0 {
				continue
			}
			p, err := d.plot()
			if err != nil {
				return fmt.Errorf("%s: %w", d.title, err)
			}
			made = append(made, p)
		}
		if len(made) == len(line) {
			plots = append(plots, made)
		}
	}
	if len(plots) == 0 {
		return errors.New("no curves")
	}
	const width, height = 27 * vg.Centimeter, 10 * vg.Centimeter
	canvas := vgsvg.New(width, height*vg.Length(len(plots)))
	tiles := draw.Tiles{Rows: len(plots), Cols: 2, PadX: vg.Centimeter, PadY: vg.Centimeter, PadTop: vg.Points(4), PadRight: vg.Points(8)}
	for i, line := range plot.Align(plots, tiles, draw.New(canvas)) {
		for k, c := range line {
			plots[i][k].Draw(c)
		}
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(f)
	return errors.Join(err, f.Close())
}
