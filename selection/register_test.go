package selection

import (
	"errors"
	"strings"
	"testing"

	"rserpool/asap/param"
)

// What is wrong is named at once, and nothing changes. What is right is shown by
// package selection/example.
func TestRegisterRefuses(t *testing.T) {
	const free param.PolicyType = 0x80006001
	for _, c := range []struct {
		d    Definition
		want []string
	}{
		{Definition{Type: free}, []string{"lower case letters"}},
		{Definition{Type: free, Name: "a:b"}, []string{"lower case letters"}},
		{Definition{Type: free, Name: "LU"}, []string{"lower case letters", `"lu" stands for Least Used, type 0x40000001`}},
		{Definition{Type: free, Name: "mine", Title: "Least-Used Degradation"}, []string{"stands for Least Used with Degradation"}},
		{Definition{Type: free, Name: "leastused"}, []string{"stands for Least Used"}},
		{Definition{Type: param.PowerOfTwoChoices, Name: "mine"}, []string{"is that of Power of Two Choices"}},
		{Definition{Type: param.LeastUsed, Name: "rr"}, []string{`"rr" stands for Round Robin`, "is that of Least Used"}},
		{Definition{Type: 0x40000009, Name: "mine"}, []string{"not for private use"}},
		{Definition{Name: "mine"}, []string{"not for private use"}},
		{Definition{Type: free, Name: "mine", Limit: -1}, []string{"negative"}},
		{Definition{Type: free, Name: "mine", Values: []Value{Load, Load}}, []string{"a value twice"}},
	} {
		err := Register(c.d)
		if !errors.Is(err, ErrDefinition) {
			t.Errorf("%+v: %v", c.d, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", c.d, err, want)
			}
		}
		if lines := strings.Split(err.Error(), "\n"); len(lines) != len(c.want) {
			t.Errorf("%+v: %d problems, want %d: %v", c.d, len(lines), len(c.want), err)
		}
	}
	if _, known := Lookup(free); known || len(All()) != len(standard) {
		t.Error("registered in spite of an error")
	}
}
