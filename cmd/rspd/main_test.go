package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"rserpool/asap/param"
	"rserpool/cmd/internal/cli"
	"rserpool/registrar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run1(t *testing.T, args ...string) (cli.ExitCode, string, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := cli.Run(context.Background(), command(), args, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestCheckConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rspd.yaml")
	for _, tt := range []struct {
		name, text string
		args       []string
		want       cli.ExitCode
		says       string
	}{
		{"defaults", "", nil, cli.OK, "valid"},
		{"several endpoints", "listen: [\"tcp://127.0.0.1:0\", \"tcp://[::1]:0\"]\nenrp-listen: \"off\"\n", nil, cli.OK, "valid"},
		{"unknown key", "keep-alive-intervall: 1s\n", nil, cli.Usage, "keep-alive-interval"},
		{"bad endpoint", "", []string{"--listen", "ipx://1"}, cli.Usage, "unknown network"},
		{"bad identifier", "", []string{"--id", "0"}, cli.Usage, "id:"},
		{"bad preset", "", []string{"--timers", "slow"}, cli.Usage, "slow"},
		{"bad compat", "", []string{"--compat", "other"}, cli.Usage, "other"},
		{"bad group", "", []string{"--announce", "192.0.2.1:3863"}, cli.Usage, "announce"},
		{"bad results", "", []string{"--results", "rr=0"}, cli.Usage, "results"},
		{"policies", "policies: [\"batch-*=allow:lu,lud\", web*=pin:rr, \"*=forbid:rand\"]\n", nil, cli.OK, "valid"},
		{"bad policies", "policies: [a=pin:lu, b=pin:none, c=let:lu, d]\n", nil, cli.Usage, `b=pin:none": unknown policy "none"`},
		{"bad rules for policies", "", []string{"--policies", "a=pin:lu", "--policies", "a=allow:lu,lu"}, cli.Usage, "never used"},
		{"no removals at all", "", []string{"--removal-share", "0"}, cli.Usage, "removal-share"},
		{"two problems", "", []string{"--timers", "slow", "--table-page", "1"}, cli.Usage, "table page"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			code, stdout, stderr := run1(t, append([]string{"--check-config", "--config", file}, tt.args...)...)
			if code != tt.want || !strings.Contains(stdout+stderr, tt.says) {
				t.Errorf("exit %v, says %q %q", code, stdout, stderr)
			}
		})
	}
}

func TestSettingsReachTheRegistrar(t *testing.T) {
	var got registrar.Config
	s := cli.NewSettings("rspd", func(fs *pflag.FlagSet, c *settings) { c.declare(fs) }, nil)
	root := command()
	root.ResetFlags()
	s.BindAlone(root)
	root.RunE = s.Run(func(_ *cobra.Command, _ []string, c settings, log *logrus.Logger) error {
		l, err := c.cluster.links(log)
		if err == nil {
			got, err = c.build(l, log, true)
		}
		return err
	})
	code := cli.Run(context.Background(), root, []string{
		"--timers", "fast", "--keep-alive-timeout", "3s", "--compat", "rsplib", "--announce", "auto", "--id", "0x0a0b0c0d",
		"--results", "wrr=7", "--limit-message-size", "32KiB", "--listen", "sctp://192.0.2.1,192.0.2.2:4000", "--enrp-listen", "off",
		"--admin", "off", "--max-bad-pe-reports", "5",
		"--policies", "batch-*=allow:lu,LeastUsedDegradation", "--policies", "a=b=pin:hrw", "--policies", "*=forbid:rand",
	}, io.Discard, io.Discard)
	if code != cli.OK {
		t.Fatal(code)
	}
	if got.Timers.KeepAlive.Timeout != 3*time.Second || got.Timers.KeepAlive.Interval != registrar.FastTimers().KeepAlive.Interval {
		t.Errorf("timers %+v", got.Timers)
	}
	if got.ID != 0x0a0b0c0d || got.Compat != registrar.CompatRsplib || len(got.Announce) != 1 || got.Admin.Address != "" {
		t.Errorf("configuration %+v", got)
	}
	if got.Limits.Results[param.WeightedRoundRobin] != 7 || got.Limits.MessageSize != 32<<10 || got.Limits.MaxBadPEReports != 5 {
		t.Errorf("limits %+v", got.Limits)
	}
	rules := []registrar.PolicyRule{
		{Pools: "batch-*", Allow: []param.PolicyType{param.LeastUsed, param.LeastUsedDegradation}},
		{Pools: "a=b", Pin: param.RendezvousHashing},
		{Pools: "*", Forbid: []param.PolicyType{param.Random}},
	}
	if !reflect.DeepEqual(got.Policies, rules) {
		t.Errorf("policies %v", got.Policies)
	}
	if len(got.ASAP) != 1 || got.ASAP[0].String() != "sctp://192.0.2.1,192.0.2.2:4000" || len(got.ENRP) != 0 {
		t.Errorf("endpoints %v, %v", got.ASAP, got.ENRP)
	}
}

// buffer is a log that can be waited on.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Write(p)
	select {
	case b.more <- struct{}{}:
	default:
	}
	return len(p), nil
}

// wait waits until the log contains the text n times, and returns it.
func (b *buffer) wait(t *testing.T, text string, n int) string {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		b.mu.Lock()
		log := b.text.String()
		b.mu.Unlock()
		if strings.Count(log, text) >= n {
			return log
		}
		select {
		case <-b.more:
		case <-deadline:
			t.Fatalf("never logged %q:\n%s", text, log)
		}
	}
}

// logged reads the lines of a log in JSON.
func logged(t *testing.T, log string) (lines []map[string]any) {
	t.Helper()
	for text := range strings.Lines(log) {
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		lines = append(lines, line)
	}
	return lines
}

// listens returns the first address of the last endpoint for a protocol.
func listens(t *testing.T, log, protocol string) (addr string) {
	t.Helper()
	for _, line := range logged(t, log) {
		if line["msg"] == "listening" && line["protocol"] == protocol {
			addr = line["addresses"].([]any)[0].(string)
		}
	}
	return addr
}

func TestServesReloadsAndLeaves(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rspd.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const base = "listen: tcp://127.0.0.1:0\nenrp-listen: \"off\"\nadmin: 127.0.0.1:0\nlog-format: json\n"
	write(base)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	log := &buffer{more: make(chan struct{}, 1)}
	done := make(chan cli.ExitCode)
	go func() { done <- cli.Run(ctx, command(), []string{"--config", file}, io.Discard, log) }()

	text := log.wait(t, "serving", 1)
	for _, want := range []string{`"starting"`, `"listening"`, `"protocol":"asap"`} {
		if !strings.Contains(text, want) {
			t.Errorf("does not say %q:\n%s", want, text)
		}
	}
	c, err := net.Dial("tcp", listens(t, text, "asap"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exchange := func(request, answer string) {
		t.Helper()
		b, err := hex.DecodeString(request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(answer)/2)
		if _, err := io.ReadFull(c, got); err != nil || hex.EncodeToString(got) != answer {
			t.Fatalf("got %x, %v, want %s", got, err, answer)
		}
	}
	exchange("010000380009000c4563686f506f6f6c000a002811223344000000000000012c0004001000070000000100087f0000010008000800000001",
		"030000180009000c4563686f506f6f6c000e000811223344")
	exchange("020000180009000c4563686f506f6f6c000e000811223344", "040000180009000c4563686f506f6f6c000e000811223344")
	exchange("0500000b0009000761626300", "060000140009000761626300000c000800090004")

	hangup := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	write(base + "limit-elements-per-client: 7\n")
	hangup()
	log.wait(t, "configuration read again", 1)
	write(base + "no-such-key: 1\n")
	hangup()
	log.wait(t, "the old one stays", 1)
	write(base + "listen: tcp://127.0.0.1:1\n")
	hangup()
	log.wait(t, "the old one stays", 2)
	resp, err := http.Post("http://"+listens(t, text, "http")+"/-/reload", "", nil)
	if err != nil || resp.StatusCode != http.StatusConflict {
		t.Errorf("reload by HTTP: %v %v", resp, err)
	} else {
		resp.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	exchange("0500000b0009000761626300", "060000140009000761626300000c000800090004")

	cancel()
	if code := <-done; code != cli.OK {
		t.Errorf("exit %v", code)
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection ended by %v", err)
	}
}
