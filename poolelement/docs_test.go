package poolelement

import (
	"os"
	"strings"
	"testing"
)

// TestHowtoShowsCodeThatRuns checks that what the page shows is in the examples.
func TestHowtoShowsCodeThatRuns(t *testing.T) {
	page, err := os.ReadFile("../docs/howto-element.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```go\n")[1:]
	if len(blocks) < 4 {
		t.Fatalf("%d blocks of code found", len(blocks))
	}
	for _, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		if !strings.Contains(string(code), block) {
			t.Errorf("not in example_test.go:\n%s", block)
		}
	}
}
