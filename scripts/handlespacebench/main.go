// Handlespacebench measures what the operations of a handlespace cost, beside
// another implementation of one, each in a process of its own, in turns:
//
//	handlespacebench --rival 'rsplib=COMMAND' --runs 3
//
// prints a table of nanoseconds of CPU time for each operation (garbage collection
// included), and of octets of memory for each element. COMMAND gets what
//
//	handlespacebench measure POLICY POOLS ELEMENTS RUNS
//
// gets, and prints the same: a line with name, tab and number for each operation.
// Elements, ELEMENTS in each pool, have random identifiers and one IPv4 address. They
// are registered again and removed in random order.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// shape is a column of the table.
type shape struct {
	policy          string
	pools, elements int
}

func (s shape) String() string {
	name := map[string]string{"rr": "Round Robin", "lu": "Least Used", "wrand": "Weighted Random"}[s.policy]
	return fmt.Sprintf("%s, %d x %d", name, s.pools, s.elements)
}

// operations are the rows, as the measuring processes name them.
var operations = []string{"register", "re-register", "deregister", "expire", "choose 1", "choose 3", "memory"}

func main() {
	err := error(nil)
	if len(os.Args) > 1 && os.Args[1] == "measure" {
		err = measure(os.Args[2:])
	} else {
		err = compare(os.Args[1:])
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "handlespacebench:", err)
		os.Exit(1)
	}
}

func compare(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	names, commands := []string{"ours"}, [][]string{{self, "measure"}}
	fs := flag.NewFlagSet("handlespacebench", flag.ContinueOnError)
	runs := fs.Int("runs", 3, "measurements of each; medians are printed")
	text := fs.String("shapes", "rr:1:100000,rr:1:1000000,lu:1:1000000,wrand:1:1000000,rr:10000:10", "what to measure, `POLICY:POOLS:ELEMENTS,...` with rr, lu or wrand")
	fs.Func("rival", "another implementation, `NAME=COMMAND`; repeatable", func(v string) error {
		name, command, ok := strings.Cut(v, "=")
		if !ok || command == "" {
			return fmt.Errorf("%q is not NAME=COMMAND", v)
		}
		names, commands = append(names, name), append(commands, strings.Fields(command))
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return err
	}
	shapes, err := parse(*text)
	if err != nil {
		return err
	}
	found := make([]map[string][]float64, len(shapes)) // by shape, then contender and operation
	for i, s := range shapes {
		found[i] = make(map[string][]float64)
		for range *runs {
			for k, command := range commands {
				if err := once(command, s, func(operation string, n float64) {
					key := names[k] + operation
					found[i][key] = append(found[i][key], n)
				}); err != nil {
					return fmt.Errorf("%s, %v: %w", names[k], s, err)
				}
			}
		}
	}
	fmt.Print("| operation |")
	for _, s := range shapes {
		fmt.Printf(" %v |", s)
	}
	fmt.Print("\n|---|", strings.Repeat("---:|", len(shapes)), "\n")
	for _, operation := range operations {
		unit := "ns"
		if operation == "memory" {
			unit = "octets"
		}
		fmt.Printf("| %s, %s, %s |", operation, unit, strings.Join(names, " / "))
		for i := range shapes {
			var cells []string
			for _, name := range names {
				all := found[i][name+operation]
				slices.Sort(all)
				if len(all) == 0 {
					cells = append(cells, "-")
					continue
				}
				cells = append(cells, fmt.Sprintf("%.0f", all[len(all)/2]))
			}
			fmt.Printf(" %s |", strings.Join(cells, " / "))
		}
		fmt.Println()
	}
	return nil
}

func parse(text string) ([]shape, error) {
	var all []shape
	for item := range strings.SplitSeq(text, ",") {
		parts := strings.Split(item, ":")
		if len(parts) != 3 {
			return nil, fmt.Errorf("%q is not POLICY:POOLS:ELEMENTS", item)
		}
		pools, err := strconv.Atoi(parts[1])
		elements, err2 := strconv.Atoi(parts[2])
		if err := errors.Join(err, err2); err != nil {
			return nil, err
		}
		all = append(all, shape{parts[0], pools, elements})
	}
	return all, nil
}

// once has a shape measured once.
func once(command []string, s shape, found func(operation string, n float64)) error {
	args := append(slices.Clone(command[1:]), s.policy, strconv.Itoa(s.pools), strconv.Itoa(s.elements), "1")
	cmd := exec.Command(command[0], args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	for line := range bytes.Lines(out) {
		name, number, ok := strings.Cut(strings.TrimSpace(string(line)), "\t")
		n, err := strconv.ParseFloat(number, 64)
		if !ok || err != nil {
			return fmt.Errorf("printed %q", line)
		}
		found(name, n)
	}
	return nil
}
