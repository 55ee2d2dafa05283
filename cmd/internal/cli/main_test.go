package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree is a program with subcommands whose do returns err.
func tree(err error) *cobra.Command {
	root := &cobra.Command{Use: "prog"}
	s := NewSettings("prog", func(fs *pflag.FlagSet, f *Format) { FormatVar(fs, f) }, nil)
	s.dir = "/nonexistent"
	s.Bind(root)
	do := &cobra.Command{Use: "resolve", Args: cobra.ExactArgs(1)}
	do.RunE = s.Run(func(*cobra.Command, []string, Format, *logrus.Logger) error { return err })
	do.Flags().Int("items", 0, "local")
	pool := &cobra.Command{Use: "pool"}
	pool.AddCommand(&cobra.Command{Use: "show", RunE: do.RunE})
	root.AddCommand(do, pool)
	return root
}

func TestExitCodesAndErrorsOnStandardError(t *testing.T) {
	gone := errors.New("gone")
	for name, test := range map[string]struct {
		args   string
		err    error
		code   ExitCode
		stderr string
	}{
		"success":            {"resolve p", nil, 0, ""},
		"plain error":        {"resolve p", gone, 1, "prog: gone\n"},
		"wrapped code":       {"resolve p", fmt.Errorf("pool: %w", Exit(NotFound, gone)), 4, "prog: pool: gone\n"},
		"code only":          {"resolve p", Exit(Degraded, nil), 5, ""},
		"unreachable":        {"resolve p", Exitf(Unreachable, "no %s", "registrar"), 3, "prog: no registrar\n"},
		"deadline":           {"resolve p", fmt.Errorf("x: %w", context.DeadlineExceeded), 6, "prog: x: context deadline exceeded\n"},
		"interrupted":        {"resolve p", fmt.Errorf("x: %w", ErrSignal), 130, ""},
		"JSON":               {"resolve p -o json", Exit(NotFound, gone), 4, `{"error":"gone","exit":"not-found","code":4}` + "\n"},
		"unknown command":    {"resolv p", nil, 2, `unknown command "resolv" for "prog" (the nearest is "resolve")`},
		"unknown subcommand": {"pool shwo", nil, 2, `unknown command "shwo" for "prog pool" (the nearest is "show")`},
		"unknown flag":       {"resolve p --itens 3", nil, 2, "unknown flag: --itens (the nearest is --items)\nTry 'prog resolve --help'.\n"},
		"bad flag value":     {"resolve p -o xml", nil, 2, "none of table, wide, json, yaml"},
		"bad argument count": {"resolve", nil, 2, "accepts 1 arg(s), received 0"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := Run(context.Background(), tree(test.err), strings.Fields(test.args), &stdout, &stderr)
			if code != test.code {
				t.Errorf("exit %d, want %d", code, test.code)
			}
			if !strings.Contains(stderr.String(), test.stderr) || test.stderr == "" && stderr.Len() > 0 {
				t.Errorf("stderr %q, want %q", stderr.String(), test.stderr)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout %q", stdout.String())
			}
		})
	}
}

func TestEnvironmentReachesFlagsOfSubcommandsAndErrorFormat(t *testing.T) {
	t.Setenv("RSERPOOL_ITEMS", "x")
	t.Setenv("RSERPOOL_OUTPUT", "json")
	var stdout, stderr bytes.Buffer
	code := Run(context.Background(), tree(nil), []string{"resolve", "p"}, &stdout, &stderr)
	if code != Usage || !strings.HasPrefix(stderr.String(), `{"error":"RSERPOOL_ITEMS: `) {
		t.Errorf("exit %d, %s", code, stderr.String())
	}
}

func TestVersionAndCompletionExist(t *testing.T) {
	for _, args := range []string{"--version", "completion bash", "completion zsh", "completion fish"} {
		var stdout, stderr bytes.Buffer
		if code := Run(context.Background(), tree(nil), strings.Fields(args), &stdout, &stderr); code != OK || stdout.Len() == 0 {
			t.Errorf("%s: exit %d, %s", args, code, stderr.String())
		}
	}
}

func TestFirstSignalEndsContextSecondExits(t *testing.T) {
	exited := make(chan int, 1)
	ctx, stop := signalContext(context.Background(), func(code int) { exited <- code })
	defer stop()
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGTERM)
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("the signal did not end the context")
	}
	if err := context.Cause(ctx); !errors.Is(err, ErrSignal) || CodeOf(err) != Interrupted {
		t.Errorf("cause %v", err)
	}
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGINT)
	select {
	case code := <-exited:
		if code != 130 {
			t.Errorf("exit %d", code)
		}
	case <-time.After(time.Minute):
		t.Fatal("the second signal did not exit")
	}
}
