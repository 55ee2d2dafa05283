package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const rows = `
{"system":"ring","members":3,"senders":1,"payload_octets":100,"send":"max","ordered_per_second":1845123,"cpu_seconds_per_message":5.7e-7}
{"system":"other","members":3,"senders":1,"payload_octets":100,"send":"max","ordered_per_second":900,"cpu_seconds_per_message":1.23e-5}
{"system":"ring","members":3,"senders":3,"payload_octets":1048576,"send":"max","ordered_per_second":300,"network":"1gbit"}
{"system":"ring","members":5,"senders":1,"payload_octets":100,"send":"one-at-a-time","ordered_per_second":7000,"agreed_p50_seconds":5.5e-5,"agreed_p99_seconds":0.0012345,"cpu_seconds_per_message":1e-6}
{"system":"ring","members":3,"senders":3,"payload_octets":100,"send":"rate","offered_per_second":1000,"ordered_per_second":1000.4,"agreed_p50_seconds":5e-5,"agreed_p99_seconds":6e-5}
`

func TestTables(t *testing.T) {
	var out strings.Builder
	if err := run(strings.NewReader(rows), &out, "max,one-at-a-time,rate", ""); err != nil {
		t.Fatal(err)
	}
	const want = `| network | members | octets | senders | ring | other |
|---|---:|---:|---:|---:|---:|
| - | 3 | 100 | 1 | 1,850,000 (0.57 µs) | 900 (12 µs) |
| 1gbit | 3 | 1,048,576 | 3 | 300 (-) | - |

| system | members | ordered/s | agreed p50 | p99 | stable p50 | p99 | CPU per message |
|---|---:|---:|---:|---:|---:|---:|---:|
| ring | 5 | 7,000 | 55 µs | 1,230 µs | - | - | 1.0 µs |

| system | members | offered/s | ordered/s | agreed p50 | p99 | stable p50 | p99 | CPU per message |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
| ring | 3 | 1,000 | 1,000 | 50 µs | 60 µs | - | - | - |
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestPlotsWhatIsThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ring.svg")
	if err := run(strings.NewReader(rows), &strings.Builder{}, "", file); err != nil {
		t.Fatal(err)
	}
	if drawn, err := os.ReadFile(file); err != nil || !strings.Contains(string(drawn), "</svg>") {
		t.Errorf("%d octets, %v", len(drawn), err)
	}
	if err := run(strings.NewReader(""), &strings.Builder{}, "", file); err == nil {
		t.Error("nothing is drawn without a complaint")
	}
}
