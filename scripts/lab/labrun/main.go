// Labrun runs the lab's checks inside the guest that scripts/lab.sh boots: it
// makes several hosts (network namespaces on two bridges), starts the programs
// of this project and those of rsplib on them, and prints a line per check and a
// closing line.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// group is a set of checks that need the same scene.
type group struct {
	name  string
	about string
	extra bool // runs only when named
	run   func(*lab)
}

// groups in the order in which they run.
var groups = []group{
	{name: "sctp", about: "tests of asap/transport/sctp", run: sctpPackage},
	{name: "sanity", about: "rsplib's own programs work together here", run: sanity},
	{name: "capture", about: "records rsplib's messages for testdata", extra: true, run: capture},
}

func main() {
	out := flag.String("out", "", "the lab's folder: programs in bin, logs in log")
	names := flag.String("groups", "", "comma-separated groups to run instead of all that are not extra")
	list := flag.Bool("list", false, "list the groups, or check those given as arguments, and end")
	flag.Parse()

	wanted := slices.DeleteFunc(append(strings.Split(*names, ","), flag.Args()...), func(s string) bool { return s == "" })
	for _, name := range wanted {
		if !slices.ContainsFunc(groups, func(g group) bool { return g.name == name }) {
			fmt.Fprintf(os.Stderr, "labrun: no group %q\n", name)
			os.Exit(2)
		}
	}
	if *list {
		for _, g := range groups {
			fmt.Printf("%-10s %s%s\n", g.name, g.about, map[bool]string{true: " (extra)"}[g.extra])
		}
		return
	}

	l := &lab{out: *out, started: time.Now()}
	if err := l.buildNetwork(); err != nil {
		fmt.Printf("FAIL network: %v\n0 passed, 1 failed\n", err)
		os.Exit(1)
	}
	for _, g := range groups {
		if slices.Contains(wanted, g.name) || len(wanted) == 0 && !g.extra {
			l.runGroup(g)
		}
	}
	fmt.Printf("%d passed, %d failed\n", l.passed, l.failed)
	if l.failed > 0 {
		os.Exit(1)
	}
}
