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
	ipv6  bool // the hosts have IPv6 addresses on the first network
	// needs are the folders of the programs of this project that it starts;
	// with .test behind it, the folder of a package whose tests it runs.
	needs []string
	run   func(*lab)
}

// groups in the order in which they run: the longest first, so that guests who share
// them end at about the same time.
var groups = []group{
	{name: "mixed", about: "a ring of ours and registrars of rsplib's in one scope, with elements of both that come and go", needs: []string{"cmd/rspd", "cmd/rsppe", "cmd/rspctl"}, run: mixed},
	{name: "sctp", about: "tests of asap/transport/sctp", needs: []string{"asap/transport/sctp.test"}, run: sctpPackage},
	{name: "ring-faults", about: "five of ours in a ring over SCTP that are cut off from each other one way and both ways, and start anew all at once", needs: []string{"cmd/rspd", "cmd/rsppe", "cmd/rsppu", "cmd/rspctl"}, run: ringFaults},
	{name: "ring", about: "three of ours in a ring over SCTP", needs: []string{"cmd/rspd", "cmd/rsppe", "cmd/rsppu", "cmd/rspctl"}, run: ring},
	{name: "tcp", about: "elements that register over TCP, with registrars of rsplib in the scope", needs: []string{"cmd/rspd", "cmd/rsppe", "cmd/rsppu", "cmd/rspctl"}, run: overTCP},
	{name: "failures", about: "elements of both makers are killed and stopped", needs: []string{"cmd/rspd", "cmd/rsppe", "cmd/rsppu", "cmd/rspctl"}, run: failures},
	{name: "rsplib-at-ours", about: "our registrar with elements and users of rsplib", needs: []string{"cmd/rspd", "cmd/rspctl"}, run: rsplibAtOurs},
	{name: "sessions", about: "users of both makers keep their sessions when elements of either die", needs: []string{"cmd/rspd", "cmd/rsppe", "cmd/rsppu", "cmd/rspctl", "scripts/services"}, run: sessions},
	{name: "peers", about: "registrars of ours and of rsplib's in one scope, with elements of both", needs: []string{"cmd/rspd", "cmd/rsppe", "cmd/rsppu", "cmd/rspctl"}, run: peers},
	{name: "paths", about: "ours with ours, two paths, one of them cut", needs: []string{"cmd/rspd", "cmd/rsppe", "cmd/rsppu", "cmd/rspctl"}, run: paths},
	{name: "takeover", about: "rsplib's registrars take our elements over", needs: []string{"cmd/rsppe", "cmd/rsppu"}, run: takeover},
	{name: "ours-at-rsplib", about: "rsplib's registrar with our element, user and rspctl", needs: []string{"cmd/rsppe", "cmd/rsppu", "cmd/rspctl"}, run: oursAtRsplib},
	{name: "many", about: "2000 associations at one registrar", needs: []string{"cmd/rspd", "cmd/rspctl"}, run: many},
	{name: "sanity", about: "rsplib's own programs work together here", run: sanity},
	{name: "bench", about: "handle resolutions, ours beside rsplib's, about 7 minutes", extra: true, needs: []string{"cmd/rspd", "scripts/loadgen"}, run: bench},
	{name: "session-failovers", about: "how long sessions wait when their element fails, over SCTP beside TCP, about 4 minutes", extra: true, needs: []string{"cmd/rspd", "scripts/sessionbench"}, run: sessionFailovers},
	{name: "capture", about: "records rsplib's messages for testdata", extra: true, ipv6: true, run: capture},
}

func main() {
	out := flag.String("out", "", "the lab's folder: programs in bin, logs in log")
	names := flag.String("groups", "", "comma-separated groups to run instead of all that are not extra; several guests with the same folder share them")
	list := flag.Bool("list", false, "list the groups and end")
	needs := flag.Bool("needs", false, "list what the groups need to be built and end")
	send := flag.String("send", "", "send the messages given as arguments, in hexadecimal, to the first registrar by this protocol, asap or enrp, and end")
	serving := flag.String("serve", "", "serve echo or chargen -at an endpoint and don't end")
	holding := flag.Int("hold", 0, "hold so many associations to the registrar -at an endpoint and don't end")
	tables := flag.String("table", "", "print what the registrar at an ENRP endpoint knows and end")
	churning := flag.String("churn", "", "let elements of a maker, ours or rsplib, join and leave pools at the registrar -at an endpoint -for a time and don't end")
	asking := flag.String("ask", "", "resolve this pool of -elements at the registrars given as arguments until SIGTERM")
	at := flag.String("at", "", "see -serve, -hold and -churn")
	elements := flag.Int("elements", 1, "see -churn and -ask")
	lasting := flag.Duration("for", 10*time.Second, "see -churn")
	flag.Parse()

	// The lab's own clients and servers.
	var program func() error
	switch {
	case *send != "":
		program = func() error { return sendRaw(*send, flag.Args()) }
	case *tables != "":
		program = func() error { return printTable(*tables) }
	case *serving != "":
		program = func() error { return serve(*serving, *at) }
	case *holding > 0:
		program = func() error { return hold(*holding, *at) }
	case *churning != "":
		program = func() error { return churn(*churning, *at, *elements, *lasting) }
	case *asking != "":
		program = func() error { return ask(*asking, *elements, flag.Args()) }
	}
	if program != nil {
		if err := program(); err != nil {
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
			fmt.Printf("%-17s %s%s\n", g.name, g.about, map[bool]string{true: " (extra)"}[g.extra])
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
	for _, g := range wanted {
		if l.take(g) {
			l.runGroup(g)
		}
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
