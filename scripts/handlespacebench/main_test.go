package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCompare measures small handlespaces beside a rival that says what it is told.
func TestCompare(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "handlespacebench")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	rival := filepath.Join(dir, "rival")
	if err := os.WriteFile(rival, []byte("#!/bin/sh\nprintf 'register\\t%d\\nmemory\\t77\\n' $(($2 * $3))\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "--rival", "other="+rival, "--runs", "1", "--shapes", "rr:1:200,lu:50:2,wrand:1:100").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != 2+len(operations) {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	for i, line := range lines[2:] {
		if !strings.HasPrefix(line, "| "+operations[i]+", ") {
			t.Errorf("line %d is %q", i, line)
		}
	}
	for i, want := range []string{" / 200 ", " / 100 ", " / 100 "} {
		if cell := strings.Split(lines[2], "|")[2+i]; !strings.HasSuffix(cell, want) || strings.HasPrefix(cell, " -") {
			t.Errorf("cell %d of %q does not end in %q", i, lines[2], want)
		}
	}
}
