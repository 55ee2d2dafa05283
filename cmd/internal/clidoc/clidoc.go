// Package clidoc keeps the reference pages of the programs the same as their
// --help: docs/cli/*.md is checked in, man pages are made for packages.
package clidoc

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// Environment variables of Check. scripts/docs.sh sets them.
const (
	envUpdate = "DOCS_UPDATE" // not empty: write docs/cli anew
	envMan    = "DOCS_MAN"    // an absolute directory: write man pages there
)

// Check compares the program's pages in docs/cli with its commands. It is called
// from a test of the program's main package, as that can't be imported. section
// is the manual section: 1 for commands, 8 for daemons.
func Check(t *testing.T, root *cobra.Command, section int) {
	t.Helper()
	disableTag(root)
	made := t.TempDir()
	if err := doc.GenMarkdownTree(root, made); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join("..", "..", "docs", "cli")
	kept := pages(t, dir, root.Name())
	if os.Getenv(envUpdate) != "" {
		for _, name := range kept {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.CopyFS(dir, os.DirFS(made)); err != nil {
			t.Fatal(err)
		}
		kept = pages(t, dir, root.Name())
	}
	for _, name := range pages(t, made, root.Name()) {
		want, err := os.ReadFile(filepath.Join(made, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/cli/%s is not what the commands say: run scripts/docs.sh", name)
		}
	}
	for _, name := range kept {
		if _, err := os.Stat(filepath.Join(made, name)); err != nil {
			t.Errorf("docs/cli/%s belongs to no command: run scripts/docs.sh", name)
		}
	}
	if man := os.Getenv(envMan); man != "" {
		// No date: the same commands make the same pages.
		header := &doc.GenManHeader{Section: strconv.Itoa(section), Source: "rserpool", Manual: "Reliable Server Pooling", Date: &time.Time{}}
		if err := doc.GenManTree(root, header, man); err != nil {
			t.Fatal(err)
		}
	}
}

// pages lists the pages of one program.
func pages(t *testing.T, dir, program string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if n := e.Name(); n == program+".md" || strings.HasPrefix(n, program+"_") && strings.HasSuffix(n, ".md") {
			names = append(names, n)
		}
	}
	return names
}

func disableTag(c *cobra.Command) {
	c.DisableAutoGenTag = true
	for _, sub := range c.Commands() {
		disableTag(sub)
	}
}
