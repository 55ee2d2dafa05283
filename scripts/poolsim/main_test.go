package main

import (
	"bytes"
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rserpool/selection"
)

// The same command prints, writes and draws the same, however the work is shared
// among cores.
func TestSameCommandSameOctets(t *testing.T) {
	t.Parallel()
	var first map[string][]byte
	for range 2 {
		dir := t.TempDir()
		made := map[string][]byte{}
		var out bytes.Buffer
		if err := run([]string{"-seeds", "2", "-requests", "60", "-svg", dir, "-csv", filepath.Join(dir, "rows.csv"), "equal", "replies", "priority"}, &out); err != nil {
			t.Fatal(err)
		}
		made["table"] = out.Bytes()
		for _, name := range []string{"equal.svg", "replies.svg", "priority.svg", "rows.csv"} {
			content, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			made[name] = content
		}
		if first == nil {
			first = made
			continue
		}
		for name, content := range made {
			if len(content) == 0 || !bytes.Equal(content, first[name]) {
				t.Errorf("%s: %d and %d octets, not the same", name, len(first[name]), len(content))
			}
		}
	}
	rows, err := csv.NewReader(bytes.NewReader(first["rows.csv"])).ReadAll()
	if err != nil || len(rows) < 10 || len(rows[1]) != len(header) {
		t.Errorf("the CSV file has %d rows: %v", len(rows), err)
	}
}

func TestOwnPool(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run([]string{"-seeds", "2", "-requests", "100", "-capacities", "5,20", "-policies", "rr,wrr,lu", "-sizes", "pareto"}, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 5 { // a title, a header, three policies
		t.Errorf("printed:\n%s", out.String())
	}
	for _, args := range [][]string{
		{"-capacities", "5,x"}, {"-capacities", "5,-1"}, {"-capacities", "5", "-policies", "rr,none"}, {"-capacities", "5", "-sizes", "none"},
		{"-capacities", "5", "-load", "0"}, {"-seeds", "1"}, {"nothing"}, {"equal", "nothing"}, {"-unknown"},
	} {
		if err := run(args, &out); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
}

// docs/policies.md tells of every policy, and shows every picture.
func TestPoliciesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[string]bool{}
	for _, make := range figures {
		f := make(effort{seeds: 2, requests: 1})
		if !bytes.Contains(text, []byte("(policies/"+f.name+".svg)")) {
			t.Errorf("docs/policies.md does not show policies/%s.svg", f.name)
		}
		if _, err := os.Stat("../../docs/policies/" + f.name + ".svg"); err != nil {
			t.Errorf("run make poolsim: %v", err)
		}
		for _, r := range f.rows {
			drawn[r.policy.name] = true
		}
	}
	for _, d := range selection.All() {
		if !bytes.Contains(text, []byte("### `"+d.Name)) && !bytes.Contains(text, []byte("`"+d.Name+"`")) {
			t.Errorf("docs/policies.md says nothing of %s, %s", d.Name, d.Title)
		}
		if !drawn[d.Name] {
			t.Errorf("no figure shows %s, %s", d.Name, d.Title)
		}
	}
}
