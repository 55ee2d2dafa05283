package pooluser_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"rserpool/pooluser"
)

// The text and the code do not drift apart.
func TestHowtoUser(t *testing.T) {
	text, err := os.ReadFile("../docs/howto-user.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("example_session_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```go\n")
	if len(blocks) != 5 {
		t.Fatalf("%d blocks of code in the text", len(blocks)-1)
	}
	for _, block := range blocks[1:] {
		if block, _, _ = strings.Cut(block, "```"); !strings.Contains(string(code), block) {
			t.Errorf("not in example_session_test.go:\n%s", block)
		}
	}
}

// The table of timers is that of the presets.
func TestTimersInTheText(t *testing.T) {
	text, err := os.ReadFile("../docs/sessions.md")
	if err != nil {
		t.Fatal(err)
	}
	presets := []pooluser.Timers{pooluser.Fast, pooluser.Default, pooluser.Patient}
	row := func(name string, value func(pooluser.Timers) string) {
		var cells []string
		for _, p := range presets {
			cells = append(cells, value(p))
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "| `"+name+"`") && strings.HasSuffix(line, "| "+strings.Join(cells, " | ")+" |\n") {
				return
			}
		}
		t.Errorf("no row for %s with %q", name, cells)
	}
	for name, value := range map[string]func(pooluser.Timers) time.Duration{
		"Connect":   func(p pooluser.Timers) time.Duration { return p.Connect },
		"Heartbeat": func(p pooluser.Timers) time.Duration { return p.Heartbeat },
		"Silence":   func(p pooluser.Timers) time.Duration { return p.Silence },
		"Pace":      func(p pooluser.Timers) time.Duration { return p.Pace },
		"Total":     func(p pooluser.Timers) time.Duration { return p.Total },
	} {
		row(name, func(p pooluser.Timers) string {
			switch d := value(p); {
			case d < time.Second:
				return fmt.Sprintf("%d ms", d.Milliseconds())
			case d < time.Minute:
				return fmt.Sprintf("%d s", d/time.Second)
			default:
				return fmt.Sprintf("%d min", d/time.Minute)
			}
		})
	}
	row("Tries", func(p pooluser.Timers) string { return fmt.Sprint(p.Tries) })
}
