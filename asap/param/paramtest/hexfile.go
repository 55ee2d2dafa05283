package paramtest

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// Vector is one message of a file.
type Vector struct {
	Name string // the comment line directly above, without '#'
	Data []byte
}

// ID returns the vector's identifier, the first word of its name.
func (v Vector) ID() string {
	id, _, _ := strings.Cut(v.Name, " ")
	return id
}

// ReadVectors returns the messages of a text file: hexadecimal, one message per
// line, spaces anywhere, lines that start with '#' are comments. It fails the test
// if the file can't be read or holds none.
func ReadVectors(tb testing.TB, path string) []Vector {
	tb.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	var out []Vector
	name := ""
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if comment, ok := strings.CutPrefix(line, "#"); ok {
			name = strings.TrimSpace(comment)
			continue
		}
		if line == "" {
			continue
		}
		b, err := hex.DecodeString(strings.ReplaceAll(line, " ", ""))
		if err != nil {
			tb.Fatalf("%s:%d: %v", path, i+1, err)
		}
		out = append(out, Vector{Name: name, Data: b})
	}
	if len(out) == 0 {
		tb.Fatalf("%s: no message", path)
	}
	return out
}
