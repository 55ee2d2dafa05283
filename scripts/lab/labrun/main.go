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
	// needs are the folders of the programs of this project that it starts;
	// with .test behind it, the folder of a package whose tests it runs.
	needs []string
	run   func(*lab)
}

// groups in the order in which they run.
var groups = []group{
	{name: "sctp", about: "tests of asap/transport/sctp", needs: []string{"asap/transport/sctp.test"}, run: sctpPackage},
	{name: "sanity", about: "rsplib's own programs work together here", run: sanity},
	{name: "capture", about: "records rsplib's messages for testdata", extra: true, run: capture},
}

func main() {
	out := flag.String("out", "", "the lab's folder: programs in bin, logs in log")
	names := flag.String("groups", "", "comma-separated groups to run instead of all that are not extra")
	list := flag.Bool("list", false, "list the groups and end")
	needs := flag.Bool("needs", false, "list what the groups need to be built and end")
	send := flag.String("send", "", "send the messages given as arguments, in hexadecimal, to the first registrar by this protocol, asap or enrp, and end")
	flag.Parse()

	if *send != "" {
		if err := sendRaw(*send, flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, "labrun:", err)
			os.Exit(1)
		}
		return
	}
	wanted, err := choose(*names)
	if err != nil {
		fmt.Fprintln(os.Stderr, "labrun:", err)
		os.Exit(2)
	}
	switch {
	case *list:
		for _, g := range groups {
			fmt.Printf("%-10s %s%s\n", g.name, g.about, map[bool]string{true: " (extra)"}[g.extra])
		}
		return
	case *needs:
		var all []string
		for _, g := range wanted {
			all = append(all, g.needs...)
		}
		slices.Sort(all)
		fmt.Println(strings.Join(slices.Compact(all), "\n"))
		return
	}

	l := &lab{out: *out, started: time.Now()}
	if err := l.buildNetwork(); err != nil {
		fmt.Printf("FAIL network: %v\n0 passed, 1 failed\n", err)
		os.Exit(1)
	}
	for _, g := range wanted {
		l.runGroup(g)
	}
	fmt.Printf("%d passed, %d failed\n", l.passed, l.failed)
	if l.failed > 0 {
		os.Exit(1)
	}
}

// choose returns the groups named, or all that are not extra, in their order.
func choose(names string) ([]group, error) {
	list := slices.DeleteFunc(strings.Split(names, ","), func(s string) bool { return s == "" })
	all := len(list) == 0
	var chosen []group
	for _, g := range groups {
		if slices.Contains(list, g.name) || all && !g.extra {
			chosen = append(chosen, g)
		}
		list = slices.DeleteFunc(list, func(s string) bool { return s == g.name })
	}
	if len(list) > 0 {
		return nil, fmt.Errorf("no group %s", strings.Join(list, ", "))
	}
	return chosen, nil
}
