// Poolsim simulates pools under every policy, prints what they did, and draws the
// pictures of docs/policies.md.
//
//	poolsim [-svg DIR] [-csv FILE] [-seeds N] [FIGURE...]
//	poolsim -capacities 5,5,20 [-policies rr,lu] ...   compares policies for your pool
//
// The same command prints and draws the same, octet for octet.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "poolsim:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("poolsim", flag.ContinueOnError)
	fs.SetOutput(out)
	svg := fs.String("svg", "", "draw each figure into this `directory`")
	csv := fs.String("csv", "", "write all results to this `file`")
	scale := effort{}
	fs.IntVar(&scale.seeds, "seeds", 6, "independent runs of each point")
	fs.IntVar(&scale.requests, "requests", 8000, "requests that are measured in each run")
	own := ownPool(fs)
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if scale.seeds < 2 || scale.requests < 1 {
		return fmt.Errorf("%d seeds and %d requests: need two and one at least", scale.seeds, scale.requests)
	}
	if own.capacities != "" {
		return own.compare(scale, out)
	}
	var chosen []figure
	var known []string
	for _, make := range figures {
		f := make(scale)
		known = append(known, f.name)
		if fs.NArg() == 0 || slices.Contains(fs.Args(), f.name) {
			chosen = append(chosen, f)
		}
	}
	for _, name := range fs.Args() {
		if !slices.Contains(known, name) {
			return fmt.Errorf("no figure %q: know %s", name, strings.Join(known, ", "))
		}
	}
	var rows []*row
	for _, f := range chosen {
		rows = append(rows, f.rows...)
	}
	if err := measure(rows, scale.seeds); err != nil {
		return err
	}
	if err := writeTable(out, rows); err != nil {
		return err
	}
	if *csv != "" {
		if err := writeFile(*csv, func(w io.Writer) error { return writeCSV(w, rows) }); err != nil {
			return err
		}
	}
	if *svg == "" {
		return nil
	}
	if err := os.MkdirAll(*svg, 0o777); err != nil {
		return err
	}
	for _, f := range chosen {
		s, err := f.sheet()
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := writeFile(filepath.Join(*svg, f.name+".svg"), s.draw); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func writeFile(name string, write func(io.Writer) error) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	return write(f)
}
