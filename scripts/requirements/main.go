// Command requirements prints how many of the numbered requirements in
// docs/conformance.md have a test that is named after them.
//
// A test belongs to requirement ASAP-3.1-24 when a test function or a subtest's
// name contains ASAP_3_1_24, with no digit behind it.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// requirement is one row of the tables in docs/conformance.md.
type requirement struct {
	id, level string
	roles     []string
}

var (
	row  = regexp.MustCompile(`^\| ((?:ASAP|ENRP|PAR|POL|THR)-[0-9.]+-[0-9]+) \|(.*)$`)
	name = regexp.MustCompile(`(?:\b|_|Test|Fuzz|Example)((?:ASAP|ENRP|PAR|POL|THR)_[0-9_]*[0-9])`)
)

func main() {
	list := flag.Bool("missing", false, "list the requirements without a test")
	flag.Parse()
	reqs, err := readRequirements("docs/conformance.md")
	if err != nil {
		log.Fatal(err)
	}
	tests, err := readTestNames(".")
	if err != nil {
		log.Fatal(err)
	}
	report(reqs, tests, *list)
}

func readRequirements(path string) ([]requirement, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []requirement
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		m := row.FindStringSubmatch(sc.Text())
		if m == nil {
			continue
		}
		cells := strings.Split(m[2], " | ")
		r := requirement{id: m[1]}
		// The threat table has one column more in front of the level.
		for i := 0; i+1 < len(cells) && i < 3; i++ {
			level := strings.TrimSpace(cells[i])
			if !regexp.MustCompile(`^(MUST|SHOULD|MAY|D|none)\b|^(MUST|SHOULD)-`).MatchString(level) {
				continue
			}
			r.level = strings.Fields(level)[0]
			for _, role := range strings.Split(cells[i+1], ",") {
				r.roles = append(r.roles, strings.TrimSpace(role))
			}
			break
		}
		if len(r.roles) == 0 {
			return nil, fmt.Errorf("%s: row %s has no level and role", path, r.id)
		}
		out = append(out, r)
	}
	return out, sc.Err()
}

// readTestNames returns the requirement identifiers, with underscores, that
// occur in the test files below dir.
func readTestNames(dir string) (map[string]bool, error) {
	found := make(map[string]bool)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range name.FindAllStringSubmatch(string(text), -1) {
			found[m[1]] = true
		}
		return nil
	})
	return found, err
}

// aside says why a requirement does not count yet, or "".
func aside(r requirement) string {
	switch {
	case strings.HasPrefix(r.id, "ASAP-9."), strings.HasPrefix(r.id, "THR-"):
		return "security layer"
	case strings.HasPrefix(r.id, "ASAP-3.8"), strings.HasPrefix(r.id, "ASAP-3.9"), strings.HasPrefix(r.id, "ASAP-6.5.5"):
		return "sessions"
	}
	return ""
}

func report(reqs []requirement, tests map[string]bool, list bool) {
	type tally struct{ covered, total int }
	roles := map[string]*tally{"PR": {}, "PE": {}, "PU": {}}
	asides := make(map[string]*tally)
	all := tally{}
	var missing []string
	for _, r := range reqs {
		id := strings.NewReplacer(".", "_", "-", "_").Replace(r.id)
		ok := tests[id]
		if why := aside(r); why != "" {
			if asides[why] == nil {
				asides[why] = &tally{}
			}
			asides[why].total++
			if ok {
				asides[why].covered++
			}
			continue
		}
		all.total++
		if ok {
			all.covered++
		} else {
			missing = append(missing, fmt.Sprintf("%-16s %-8s %s", r.id, r.level, strings.Join(r.roles, ",")))
		}
		for _, role := range r.roles {
			if t := roles[role]; t != nil {
				t.total++
				if ok {
					t.covered++
				}
			}
		}
	}
	fmt.Printf("requirements with a named test: %d of %d", all.covered, all.total)
	for _, role := range []string{"PR", "PE", "PU"} {
		fmt.Printf(", %s %d of %d", role, roles[role].covered, roles[role].total)
	}
	fmt.Println()
	var whys []string
	for why := range asides {
		whys = append(whys, why)
	}
	sort.Strings(whys)
	for _, why := range whys {
		fmt.Printf("set aside (%s): %d of %d have a test already\n", why, asides[why].covered, asides[why].total)
	}
	if list {
		for _, m := range missing {
			fmt.Println("  no test:", m)
		}
	}
}
