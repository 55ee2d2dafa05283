package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ErrSignal is part of the cause of a command's context that SIGINT or SIGTERM
// ended.
var ErrSignal = errors.New("interrupted")

// Main runs the program and exits with its code. The command's context ends with
// the first SIGINT or SIGTERM; the second one exits at once. A command that
// returns nil after that, as daemons do when they have left politely, exits 0.
func Main(root *cobra.Command) {
	ctx, stop := signalContext(context.Background(), os.Exit)
	code := Run(ctx, root, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(int(code))
}

// Run runs the program with the given arguments and output and returns its exit
// code. An error is printed once, to stderr, as JSON when the output format is
// JSON. Errors of the command line itself exit with Usage, others as CodeOf says.
func Run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) ExitCode {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if root.Version == "" {
		root.Version = Version()
	}
	root.SetFlagErrorFunc(flagError)
	ran := false
	eachCommand(root, func(c *cobra.Command) {
		if c.HasSubCommands() && c.Args == nil {
			c.Args = knownCommand
			if !c.Runnable() {
				c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
			}
		}
		if run := c.RunE; run != nil {
			c.RunE = func(c *cobra.Command, args []string) error {
				ran = true
				return run(c, args)
			}
		}
	})
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return OK
	}
	code := CodeOf(err)
	if !ran {
		code = Usage
	}
	var exit *ExitError
	if code == Interrupted || errors.As(err, &exit) && exit.Err == nil {
		return code
	}
	if f := cmd.Flag("output"); f != nil && f.Value.String() == string(JSON) {
		line, _ := json.Marshal(struct {
			Error string `json:"error"`
			Exit  string `json:"exit"`
			Code  int    `json:"code"`
		}{err.Error(), code.String(), int(code)})
		fmt.Fprintf(stderr, "%s\n", line)
		return code
	}
	fmt.Fprintf(stderr, "%s: %v\n", root.Name(), err)
	if !ran {
		fmt.Fprintf(stderr, "Try '%s --help'.\n", cmd.CommandPath())
	}
	return code
}

func eachCommand(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, sub := range c.Commands() {
		eachCommand(sub, f)
	}
}

// knownCommand refuses an argument where a command is expected, and names the
// nearest one.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	hint := ""
	if near := nearest(args[0], names); near != "" {
		hint = fmt.Sprintf(" (the nearest is %q)", near)
	}
	return fmt.Errorf("unknown command %q for %q%s", args[0], c.CommandPath(), hint)
}

// flagError adds the nearest flag to the error about an unknown one.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
		return err
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if near := nearest(unknown.GetSpecifiedName(), names); near != "" {
		return fmt.Errorf("%w (the nearest is --%s)", err, near)
	}
	return err
}

// signalContext returns a context that the first SIGINT or SIGTERM ends; the
// second one calls exit. stop releases it.
func signalContext(parent context.Context, exit func(int)) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case s := <-signals:
				if n > 0 {
					exit(int(Interrupted))
					return
				}
				cancel(fmt.Errorf("%w by signal (%v)", ErrSignal, s))
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		<-ended
		cancel(nil)
	}
}

// Hangups returns a channel that gets each SIGHUP, by custom the wish for a
// reload, and a function that ends this. Wishes that come while one waits are
// one wish.
func Hangups() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// Version describes the running build: module version, revision, Go version.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version, revision, dirty := info.Main.Version, "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = ", modified"
			}
		}
	}
	if version == "" {
		version = "(devel)"
	}
	if revision != "" {
		version += " (" + revision[:min(12, len(revision))] + dirty + ")"
	}
	return version + " " + info.GoVersion
}
