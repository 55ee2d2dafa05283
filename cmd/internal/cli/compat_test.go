package cli

import (
	"testing"

	"github.com/spf13/pflag"
)

func TestCompatIsNoneUnlessTold(t *testing.T) {
	var c Compat
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	CompatVar(fs, &c, "suit another make")
	if c != CompatNone {
		t.Errorf("default %q", c)
	}
	if err := fs.Parse([]string{"--compat", "rsplib"}); err != nil || c != CompatRsplib {
		t.Errorf("%q, %v", c, err)
	}
	for _, text := range []string{"", "Rsplib", "all"} {
		if err := c.Set(text); err == nil || c != CompatRsplib {
			t.Errorf("%q: %v, and now %q; want it refused", text, err, c)
		}
	}
}
