package pooltest_test

import (
	"os"
	"strings"
	"testing"
)

// The text and the code do not drift apart.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/howto-failover-test.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("howto_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```go\n")
	if len(blocks) != 4 {
		t.Fatalf("%d blocks of code in the text", len(blocks)-1)
	}
	for _, block := range blocks[1:] {
		if block, _, _ = strings.Cut(block, "```"); !strings.Contains(string(code), block) {
			t.Errorf("not in howto_test.go:\n%s", block)
		}
	}
}
