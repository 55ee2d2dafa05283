package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// Format is an output format.
type Format string

// The output formats.
const (
	Table Format = "table" // columns for people
	Wide  Format = "wide"  // all columns
	JSON  Format = "json"  // one indented value; Printer.Line: one value per line
	YAML  Format = "yaml"  // the same names as JSON; Printer.Line: one document each
)

// FormatVar declares the flag --output, -o.
func FormatVar(fs *pflag.FlagSet, p *Format) {
	*p = Table
	fs.VarP(p, "output", "o", "output format: table, wide, json, yaml")
}

// Set parses the format.
func (f *Format) Set(text string) error {
	switch v := Format(text); v {
	case Table, Wide, JSON, YAML:
		*f = v
		return nil
	}
	return fmt.Errorf("%q is none of table, wide, json, yaml", text)
}

func (f *Format) String() string { return string(*f) }

// Type names the type in help texts.
func (f *Format) Type() string { return "format" }

// Column is one column of a table.
type Column struct {
	Name string
	Wide bool // shown in the wide format only
	// Width is the width of the column when lines are printed one by one.
	Width int
}

// Printer prints what commands have to say. Data have one Go value, for JSON
// and YAML with the JSON names, and rows of cells, for the tables.
type Printer struct {
	Out       io.Writer
	Format    Format
	NoHeaders bool
	lines     int
}

// Print prints a value: v itself as JSON or YAML, or rows below columns.
func (p *Printer) Print(v any, columns []Column, rows [][]string) error {
	switch p.Format {
	case JSON:
		e := json.NewEncoder(p.Out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	case YAML:
		return p.yaml(v)
	}
	w := tabwriter.NewWriter(p.Out, 0, 8, 2, ' ', 0)
	if !p.NoHeaders {
		p.row(w, columns, header(columns))
	}
	for _, row := range rows {
		p.row(w, columns, row)
	}
	return w.Flush()
}

// Line prints one value of a sequence that has no known end: a line of JSON, a
// YAML document, or a table row of fixed widths.
func (p *Printer) Line(v any, columns []Column, row []string) error {
	p.lines++
	switch p.Format {
	case JSON:
		e := json.NewEncoder(p.Out)
		e.SetEscapeHTML(false)
		return e.Encode(v)
	case YAML:
		if _, err := io.WriteString(p.Out, "---\n"); err != nil {
			return err
		}
		return p.yaml(v)
	}
	var b strings.Builder
	if p.lines == 1 && !p.NoHeaders {
		p.fixed(&b, columns, header(columns))
	}
	p.fixed(&b, columns, row)
	_, err := io.WriteString(p.Out, b.String())
	return err
}

func header(columns []Column) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.Name
	}
	return names
}

func (p *Printer) visible(columns []Column, row []string) []string {
	var cells []string
	for i, c := range columns {
		if !c.Wide || p.Format == Wide {
			cells = append(cells, printable(row[i]))
		}
	}
	return cells
}

func (p *Printer) row(w io.Writer, columns []Column, row []string) {
	// tabwriter keeps the first error for Flush.
	fmt.Fprintln(w, strings.Join(p.visible(columns, row), "\t"))
}

func (p *Printer) fixed(b *strings.Builder, columns []Column, row []string) {
	var widths []int
	for _, c := range columns {
		if !c.Wide || p.Format == Wide {
			widths = append(widths, c.Width)
		}
	}
	var line strings.Builder
	for i, cell := range p.visible(columns, row) {
		fmt.Fprintf(&line, "%-*s  ", widths[i], cell)
	}
	b.WriteString(strings.TrimRight(line.String(), " "))
	b.WriteByte('\n')
}

// printable keeps what peers say from steering the terminal or the table, and
// shows an empty cell as a dash.
func printable(cell string) string {
	if cell == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, cell)
}

// yaml prints v with its JSON names, in their order: JSON is YAML already, only
// the style differs.
func (p *Printer) yaml(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return err
	}
	blockStyle(&doc)
	e := yaml.NewEncoder(p.Out)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return err
	}
	return e.Close()
}

func blockStyle(n *yaml.Node) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!str":
		// The encoder quotes Go strings that some YAML reader might take for
		// something else ("yes", "12"); a node it leaves as it is.
		_ = n.Encode(n.Value)
	case len(n.Content) > 0:
		n.Style = 0
	}
	for _, c := range n.Content {
		blockStyle(c)
	}
}
