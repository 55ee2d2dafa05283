package main

import (
	"fmt"
	"strings"
	"time"
)

// sctpPackage runs the tests of asap/transport/sctp, one check for each.
func sctpPackage(l *lab) {
	out, err := l.output(3*time.Minute, host{}, "tests", "env", "RSERPOOL_LAB=1", l.bin("sctp.test"), "-test.v", "-test.timeout=170s")
	tests := 0
	for line := range strings.Lines(out) {
		verdict, name, ok := strings.Cut(strings.TrimPrefix(line, "--- "), ": ")
		if !ok || !strings.HasPrefix(line, "--- ") {
			continue
		}
		name, _, _ = strings.Cut(name, " ")
		tests++
		switch {
		case verdict == "PASS":
			l.check(name, nil)
		case verdict == "SKIP" && name == "TestUnavailableSaysWhy":
		default:
			l.check(name, fmt.Errorf("%s", verdict))
		}
	}
	if err == nil && tests < 10 {
		err = fmt.Errorf("only %d tests", tests)
	}
	if err != nil {
		err = fmt.Errorf("%w: %s", err, tail(out))
	}
	l.check("all tests ended well", err)
}
