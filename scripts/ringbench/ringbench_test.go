package main

import (
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rserpool/asap/transport/transporttest"
)

func TestSummarize(t *testing.T) {
	o := summarize([]result{
		{Seconds: 2, Ordered: 1000, CPU: 1, Agreed: &latency{P50: 1, P99: 10}, Stable: &latency{P50: 4, P99: 5}},
		{Seconds: 2, Ordered: 1010, CPU: 2, Agreed: &latency{P50: 2, P99: 30}},
		{Seconds: 2, Ordered: 990, CPU: 0, Agreed: &latency{P50: 3, P99: 20}},
	})
	want := outcome{rate: 495, cpu: 0.003, agreed: latency{P50: 2, P99: 20}, stable: latency{P50: 4, P99: 5}}
	if o != want {
		t.Errorf("got %+v, want %+v", o, want)
	}
	if o := summarize([]result{{Seconds: 1}}); o != (outcome{}) {
		t.Errorf("nothing sums up to %+v", o)
	}
}

// TestFlagsOfMember: what 'run' passes to members, and rivals, means what it was.
func TestFlagsOfMember(t *testing.T) {
	j := job{
		id: 3, listen: "tcp://h:1", peers: "tcp://a:1,tcp://b:2", members: 3, payload: 8000, send: sendRate, rate: 1234.5,
		outstanding: 7, warmup: 100 * time.Millisecond, duration: 2500 * time.Millisecond,
		delay: time.Millisecond,
	}
	var got job
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	got.flags(fs)
	if err := fs.Parse(j.args()); err != nil || got != j {
		t.Errorf("got %+v, %v; want %+v", got, err, j)
	}
	if err := got.check(); err != nil {
		t.Error(err)
	}
	got.send = "sideways"
	if got.check() == nil {
		t.Error("any way to send is taken")
	}
}

// TestRun measures groups of one on loopback, ours and a rival that says what it
// is told.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "ringbench")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	rival := filepath.Join(dir, "rival")
	script := "#!/bin/sh\necho ready\nread line\n" +
		`echo '{"member":1,"seconds":1,"ordered":500,"cpu_seconds":0.5,"agreed":{"p50":0.001,"p99":0.002}}'` + "\nread line\n"
	if err := os.WriteFile(rival, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(transporttest.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	var rows map[string]int
	// What was measured while this machine did something else all the time is measured again.
	for end := time.Now().Add(time.Minute); ; {
		cmd := exec.Command(program, "run", "--loopback", "--port", port, "--members", "1", "--payloads", "100", "--rates", "1000",
			"--runs", "1", "--seconds", "0.2", "--warmup", "50ms", "--outstanding", "100", "--json", "--rival", "other="+rival)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		idle := false
		rows = make(map[string]int)
		for d := json.NewDecoder(strings.NewReader(string(out))); ; {
			var r row
			err := d.Decode(&r)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			rows[r.System]++
			switch r.System {
			case "ring":
				if idle = idle || r.Rate == 0; r.Rate > 0 && (r.AgreedP50 <= 0 || r.StableP99 < r.AgreedP50 || r.CPU <= 0) {
					t.Errorf("ring: %+v", r)
				}
			case "other":
				if r.Rate != 500 || r.AgreedP99 != 0.002 || r.CPU != 0.001 {
					t.Errorf("rival: %+v", r)
				}
			}
		}
		if !idle {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no rate: %s", out)
		}
	}
	if rows["ring"] != 4 || rows["other"] != 4 {
		t.Errorf("rows: %v", rows)
	}
}
