package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"rserpool/cmd/internal/cli"
)

// outcome is one request and what became of it.
type outcome struct {
	answer
	err        error
	start, end time.Time
}

// record is an outcome as printed. Its names are interface.
type record struct {
	Type     string  `json:"type"` // "request"
	Number   int     `json:"number"`
	Time     string  `json:"time"`
	Seconds  float64 `json:"seconds"`
	Element  string  `json:"element,omitempty"`
	Address  string  `json:"address,omitempty"`
	Attempts int     `json:"attempts"`
	Answer   string  `json:"answer,omitempty"`
	Error    string  `json:"error,omitempty"`
}

// summary is what is printed at the end. Its names are interface.
type summary struct {
	Type       string         `json:"type"` // "summary"
	Requests   int            `json:"requests"`
	Answered   int            `json:"answered"`
	Failed     int            `json:"failed"`
	Failovers  int            `json:"failovers"`           // attempts beyond the first
	LongestGap float64        `json:"longest_gap_seconds"` // longest wait for an answer
	Median     float64        `json:"median_seconds"`
	P99        float64        `json:"p99_seconds"`
	Elements   []elementCount `json:"elements"`
}

type elementCount struct {
	Element string `json:"element"`
	Answers int    `json:"answers"`
}

// maxElements bounds the elements counted one by one.
const maxElements = 1000

// samples bounds the durations kept for the summary's percentiles.
const samples = 100_000

var recordColumns = []cli.Column{
	{Name: "NUMBER", Width: 7}, {Name: "ELEMENT", Width: 10}, {Name: "ADDRESS", Width: 21}, {Name: "ATTEMPTS", Width: 8},
	{Name: "SECONDS", Width: 8}, {Name: "ANSWER", Width: 40},
}

// report prints outcomes and sums them up.
type report struct {
	u       *user
	printer cli.Printer
	raw     bool
	sum     summary
	took    []time.Duration
	first   error
}

func newReport(u *user) *report {
	return &report{
		u: u, printer: cli.Printer{Out: u.out, Format: u.Output},
		raw: u.Raw || (u.Output == cli.Table && !u.Quiet && u.Repeat == 1),
		sum: summary{Type: "summary", Elements: []elementCount{}},
	}
}

// add takes in an outcome and prints it. A request that was interrupted is none: it
// says nothing about the pool.
func (r *report) add(ctx context.Context, o outcome) error {
	if o.err != nil && ctx.Err() != nil {
		return nil
	}
	r.sum.Requests++
	r.sum.Failovers += max(o.attempts-1, 0)
	if o.err != nil {
		r.sum.Failed++
		if r.first == nil {
			r.first = o.err
		}
		if r.raw {
			if r.u.Lines || r.u.Repeat != 1 { // else it is the run's error
				r.u.log.WithError(o.err).Error("request not answered")
			}
			return nil
		}
		return r.line(o)
	}
	r.sum.Answered++
	r.count(o.element.ID.String())
	// The gap is what a caller sees who waits for answers: the interval
	// between two requests is no part of it.
	gap := o.end.Sub(o.start)
	r.sum.LongestGap = max(r.sum.LongestGap, gap.Seconds())
	if len(r.took) < samples {
		r.took = append(r.took, gap)
	}
	if r.raw {
		data := o.data
		if !bytes.HasSuffix(data, []byte("\n")) && len(data) > 0 {
			data = append(data, '\n')
		}
		_, err := r.u.out.Write(data)
		return err
	}
	return r.line(o)
}

func (r *report) count(element string) {
	i := slices.IndexFunc(r.sum.Elements, func(e elementCount) bool { return e.Element == element })
	if i < 0 && len(r.sum.Elements) >= maxElements {
		i = len(r.sum.Elements) - 1 // all further ones
		r.sum.Elements[i].Element = "others"
	}
	if i < 0 {
		i = len(r.sum.Elements)
		r.sum.Elements = append(r.sum.Elements, elementCount{Element: element})
	}
	r.sum.Elements[i].Answers++
}

func (r *report) line(o outcome) error {
	if r.u.Quiet {
		return nil
	}
	rec := record{
		Type: "request", Number: r.sum.Requests, Time: o.start.Format(time.RFC3339Nano),
		Seconds: o.end.Sub(o.start).Seconds(), Attempts: o.attempts, Answer: string(o.data),
	}
	if o.element.ID != 0 {
		rec.Element = o.element.ID.String()
	}
	if addrs := o.element.User.AddrPorts(); len(addrs) > 0 {
		rec.Address = addrs[0].String()
	}
	text := firstLine(o.data)
	if o.err != nil {
		rec.Error = o.err.Error()
		text = "error: " + rec.Error
	}
	return r.printer.Line(rec, recordColumns, []string{
		strconv.Itoa(rec.Number), rec.Element, rec.Address, strconv.Itoa(rec.Attempts), fmt.Sprintf("%.4f", rec.Seconds), text,
	})
}

func firstLine(data []byte) string {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return string(line[:min(len(line), 200)])
}

// end prints the summary and returns the first error, as the run's. For requests
// without number, an interruption is the regular end.
func (r *report) end(ctx context.Context) error {
	slices.Sort(r.took)
	if n := len(r.took); n > 0 {
		r.sum.Median, r.sum.P99 = r.took[n/2].Seconds(), r.took[n*99/100].Seconds()
	}
	slices.SortFunc(r.sum.Elements, func(a, b elementCount) int { return b.Answers - a.Answers })
	if !r.raw {
		if err := r.printSummary(); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil && (r.u.Lines || r.sum.Requests == 0 || r.sum.Requests < r.u.Repeat):
		return context.Cause(ctx)
	case r.first == nil:
		return nil
	case r.sum.Requests > 1:
		return cli.Exit(codeOf(r.first, r.sum.Answered), fmt.Errorf("%d of %d requests not answered, first error: %w", r.sum.Failed, r.sum.Requests, r.first))
	}
	return r.first
}

// codeOf: where some requests were answered, the others failed; where none was,
// the first error says why.
func codeOf(err error, answered int) cli.ExitCode {
	if answered > 0 {
		return cli.Failed
	}
	return cli.CodeOf(exit(err))
}

func (r *report) printSummary() error {
	s := r.sum
	if r.u.Output == cli.JSON || r.u.Output == cli.YAML {
		return r.printer.Line(s, nil, nil)
	}
	out := fmt.Sprintf("%d requests, %d answered, %d failed, %d failovers; longest gap %.3f s, median %.4f s, p99 %.4f s\n",
		s.Requests, s.Answered, s.Failed, s.Failovers, s.LongestGap, s.Median, s.P99)
	for _, e := range s.Elements {
		out += fmt.Sprintf("  %s answered %d\n", e.Element, e.Answers)
	}
	_, err := r.u.out.Write([]byte(out))
	return err
}
