package main

import (
	"fmt"
	"os"
	"strings"
)

// screen is where the show takes place: lines of what happens, and below them in a
// terminal a picture that is painted again and again.
type screen struct {
	out     *os.File
	live    bool
	painted []string
}

func newScreen() *screen {
	info, err := os.Stdout.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	return &screen{out: os.Stdout, live: terminal && os.Getenv("PLAIN") == ""}
}

// say prints a line above the picture.
func (s *screen) say(format string, args ...any) {
	var b strings.Builder
	s.wipe(&b)
	fmt.Fprintf(&b, format+"\n", args...)
	s.put(&b)
}

// paint replaces the picture.
func (s *screen) paint(lines []string) {
	var b strings.Builder
	s.wipe(&b)
	s.painted = lines
	s.put(&b)
}

// leave lets the picture stand and goes on below it.
func (s *screen) leave() { s.painted = nil }

// wipe takes the picture away.
func (s *screen) wipe(b *strings.Builder) {
	if len(s.painted) > 0 {
		fmt.Fprintf(b, "\x1b[%dA\x1b[J", len(s.painted))
	}
}

func (s *screen) put(b *strings.Builder) {
	for _, line := range s.painted {
		b.WriteString(line)
		b.WriteByte('\n')
	}
	_, _ = s.out.WriteString(b.String()) // a show has nowhere else to complain
}

// bar returns a progress bar.
func bar(share float64, width int) string {
	full := int(share * float64(width))
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + fmt.Sprintf("] %3.0f %%", 100*share)
}
