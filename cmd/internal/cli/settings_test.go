package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

type testConfig struct {
	Listen   []string
	Interval time.Duration
	Limit    Size
	Share    float64
	Strict   bool
	Name     string
	Retries  int
}

func declareTest(fs *pflag.FlagSet, c *testConfig) {
	fs.StringSliceVar(&c.Listen, "listen", []string{"auto"}, "addresses")
	fs.DurationVar(&c.Interval, "keep-alive-interval", 5*time.Second, "interval")
	SizeVar(fs, &c.Limit, "max-message", 64<<10, "limit")
	fs.Float64Var(&c.Share, "removal-share", 0.5, "share")
	fs.BoolVar(&c.Strict, "rfc-strict", false, "strict")
	fs.StringVar(&c.Name, "name", "", "name")
	fs.IntVar(&c.Retries, "retries", 3, "retries")
}

func (c *testConfig) Validate() error {
	var errs []error
	if c.Interval <= 0 {
		errs = append(errs, errors.New("keep-alive-interval: must be above zero"))
	}
	if c.Retries > 100 {
		errs = append(errs, errors.New("retries: at most 100"))
	}
	return errors.Join(errs...)
}

// program runs a small program with these settings in a directory of its own.
type program struct {
	t        *testing.T
	dir      string
	settings *Settings[testConfig]
	stdout   bytes.Buffer
	stderr   bytes.Buffer
}

func newProgram(t *testing.T) *program {
	return &program{t: t, dir: t.TempDir()}
}

func (p *program) file(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) run(f func(testConfig) error, args ...string) ExitCode {
	root := &cobra.Command{Use: "prog", Args: cobra.NoArgs}
	p.settings = NewSettings("prog", declareTest, (*testConfig).Validate)
	p.settings.dir = p.dir
	p.settings.Bind(root)
	root.RunE = p.settings.Run(func(_ *cobra.Command, _ []string, c testConfig, _ *logrus.Logger) error { return f(c) })
	p.stdout.Reset()
	p.stderr.Reset()
	return Run(context.Background(), root, args, &p.stdout, &p.stderr)
}

func (p *program) load(args ...string) testConfig {
	p.t.Helper()
	var got testConfig
	if code := p.run(func(c testConfig) error { got = c; return nil }, args...); code != OK {
		p.t.Fatalf("exit %d: %s", code, p.stderr.String())
	}
	return got
}

func TestFirstOfFlagEnvironmentFileDefaultWins(t *testing.T) {
	for mask := range 8 {
		t.Run(fmt.Sprintf("%03b", mask), func(t *testing.T) {
			p := newProgram(t)
			want, args := 3, []string(nil)
			if mask&1 != 0 {
				p.file("prog.yaml", "retries: 10\n")
				want = 10
			}
			if mask&2 != 0 {
				t.Setenv("RSERPOOL_RETRIES", "20")
				want = 20
			}
			if mask&4 != 0 {
				args = []string{"--retries", "30"}
				want = 30
			}
			if got := p.load(args...).Retries; got != want {
				t.Errorf("retries = %d, want %d", got, want)
			}
		})
	}
}

func TestEverySourceSetsEveryType(t *testing.T) {
	want := "{[tcp://[::1]:1 sctp://a,b:2] 250ms 65536 0.25 true x: y 7}"
	t.Run("flags", func(t *testing.T) {
		got := newProgram(t).load("--listen", "tcp://[::1]:1", "--listen", `"sctp://a,b:2"`, "--keep-alive-interval=250ms",
			"--max-message=64KiB", "--removal-share=0.25", "--rfc-strict", "--name=x: y", "--retries=7")
		if s := fmt.Sprint(got); s != want {
			t.Errorf("got  %s\nwant %s", s, want)
		}
	})
	t.Run("environment", func(t *testing.T) {
		t.Setenv("RSERPOOL_LISTEN", `tcp://[::1]:1,"sctp://a,b:2"`)
		t.Setenv("RSERPOOL_KEEP_ALIVE_INTERVAL", "250ms")
		t.Setenv("RSERPOOL_MAX_MESSAGE", "64KiB")
		t.Setenv("RSERPOOL_REMOVAL_SHARE", "0.25")
		t.Setenv("RSERPOOL_RFC_STRICT", "true")
		t.Setenv("RSERPOOL_NAME", "x: y")
		t.Setenv("RSERPOOL_RETRIES", "7")
		if s := fmt.Sprint(newProgram(t).load()); s != want {
			t.Errorf("got  %s\nwant %s", s, want)
		}
	})
	t.Run("file, as --print-config prints it", func(t *testing.T) {
		p := newProgram(t)
		p.file("prog.yaml", "listen:\n- tcp://[::1]:1\n- sctp://a,b:2\nkeep-alive-interval: 250ms\n"+
			"max-message: 64KiB\nremoval-share: 0.25\nrfc-strict: true\nname: 'x: y'\nretries: 7\n")
		if s := fmt.Sprint(p.load()); s != want {
			t.Errorf("got  %s\nwant %s", s, want)
		}
		p.load("--print-config")
		p.file("prog.yaml", p.stdout.String())
		if s := fmt.Sprint(p.load()); s != want {
			t.Errorf("got  %s\nwant %s from\n%s", s, want, p.stdout.String())
		}
	})
}

func TestDropInsAreMergedInOrderOfTheirNames(t *testing.T) {
	p := newProgram(t)
	p.file("prog.yaml", "retries: 1\nname: main\n")
	p.file("prog.conf.d/20-b.yaml", "retries: 20\n")
	p.file("prog.conf.d/10-a.yaml", "retries: 10\nlisten: [a, b]\n")
	p.file("prog.conf.d/99-not-mine.txt", "retries: 99\n")
	p.file("other.conf.d/50.yaml", "retries: 50\n")
	got := p.load()
	if got.Retries != 20 || got.Name != "main" || fmt.Sprint(got.Listen) != "[a b]" {
		t.Errorf("got %+v", got)
	}
}

func TestPrintConfigNamesOrigins(t *testing.T) {
	p := newProgram(t)
	p.file("prog.yaml", "\nname: main\n")
	t.Setenv("RSERPOOL_RETRIES", "4")
	p.load("--rfc-strict", "--print-config")
	for _, line := range []string{
		"name: main # " + filepath.Join(p.dir, "prog.yaml") + ":2\n",
		"retries: 4 # RSERPOOL_RETRIES\n", "rfc-strict: true # flag\n", "listen: [auto] # default\n", "max-message: 64KiB # default\n",
	} {
		if !strings.Contains(p.stdout.String(), line) {
			t.Errorf("no %q in\n%s", line, p.stdout.String())
		}
	}
}

func TestAllProblemsAreNamedAtOnce(t *testing.T) {
	p := newProgram(t)
	p.file("prog.yaml", "lisen: [a]\nkeep-alive-interval: 5\nrfc-strict: perhaps\nname:\nmax-message: [1]\nremoval-share: {a: b}\nzzzzzzzzzz: 1\n")
	t.Setenv("RSERPOOL_RETRIES", "many")
	t.Setenv("RSERPOOL_LOG_FORMAT", "xml")
	if code := p.run(nil, "--check-config"); code != Usage {
		t.Errorf("exit %d, want %d", code, Usage)
	}
	for _, part := range []string{
		`prog.yaml:1: unknown key "lisen" (the nearest is "listen")`,
		"prog.yaml:2: keep-alive-interval:", "prog.yaml:3: rfc-strict:", `prog.yaml:4: key "name" has no value`,
		"prog.yaml:5: max-message: a list", `prog.yaml:6: key "removal-share"`, `prog.yaml:7: unknown key "zzzzzzzzzz"` + "\n",
		"RSERPOOL_RETRIES: retries:", `log-format: "xml"`,
	} {
		if !strings.Contains(p.stderr.String(), part) {
			t.Errorf("no %q in\n%s", part, p.stderr.String())
		}
	}
}

func TestConfigurationFileErrors(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"not YAML":  {"a: [", "prog.yaml: yaml"},
		"a list":    {"- a\n", "prog.yaml:1: not a mapping"},
		"twice":     {"retries: 1\nretries: 2\n", "twice"},
		"validated": {"retries: 101\n", "at most 100"},
		"too long":  {"#" + strings.Repeat("x", maxFileSize), "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProgram(t)
			p.file("prog.yaml", test.text)
			if code := p.run(nil); code != Usage || !strings.Contains(p.stderr.String(), test.want) {
				t.Errorf("exit %d, %s, want %q", code, p.stderr.String(), test.want)
			}
		})
	}
	t.Run("named but absent", func(t *testing.T) {
		if code := newProgram(t).run(nil, "-c", "/nonexistent/x.yaml"); code != Usage {
			t.Errorf("exit %d, want %d", code, Usage)
		}
	})
	t.Run("empty", func(t *testing.T) {
		p := newProgram(t)
		p.file("prog.yaml", "# nothing\n")
		if got := p.load("--check-config"); got.Retries != 0 {
			t.Error("--check-config ran the command")
		}
	})
}

func TestReloadKeepsFlagsAndLeavesOldSettingsAloneWhenNewOnesAreBad(t *testing.T) {
	p := newProgram(t)
	p.file("prog.yaml", "retries: 1\nlisten: [a]\n")
	old := p.load("--name", "from-flag", "--listen", "x", "--listen", "y")

	p.file("prog.yaml", "retries: 1000\n")
	if _, err := p.settings.Load(); CodeOf(err) != Usage || !strings.Contains(err.Error(), "at most 100") {
		t.Errorf("bad file: error %v", err)
	}
	if fmt.Sprint(old) != "{[x y] 5s 65536 0.5 false from-flag 1}" {
		t.Errorf("the old settings changed: %v", old)
	}
	p.file("prog.yaml", "retries: 2\nlisten: [b]\nname: from-file\nlog-level: debug\n")
	fresh, err := p.settings.Load()
	if err != nil || fmt.Sprint(fresh) != "{[x y] 5s 65536 0.5 false from-flag 2}" {
		t.Errorf("reload gave %v, %v", fresh, err)
	}
	if p.settings.log.Level != logrus.DebugLevel {
		t.Errorf("log level %v after reload", p.settings.log.Level)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "65535": 65535, "64KiB": 65536, "1 MiB": 1 << 20, "2kB": 2000, "3B": 3, "8TiB": 8 << 40} {
		var s, again Size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%q: %d, %v, want %d", text, s, err, want)
		}
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%q: %q is read as %d", text, s.String(), again)
		}
	}
	for _, text := range []string{"", "KiB", "-1", "1.5MiB", "64K", "9999999TiB", "1e3"} {
		var s Size
		if err := s.Set(text); err == nil {
			t.Errorf("%q is taken as %d", text, s)
		}
	}
}

func FuzzConfigurationFile(f *testing.F) {
	for _, s := range []string{"", "a: 1\n", "a: [1, x]\nb: y\n", "a: {b: c}", "? [a]\n: b", "a: *x", "- a", "a: &x [*x]", "a: !!binary x", "---\n---\n", "\xff", "<<: {a: b}", "s: [{c: 1}, {c: [x]}]\na: 1\n", "s: {c: 1}", "s: [[a], {s: []}]"} {
		f.Add([]byte(s))
	}
	s := schema{keys: []string{"a", "b"}, sections: map[string][]string{"s": {"c"}}}
	f.Fuzz(func(t *testing.T, data []byte) {
		values, errs := parseFile("f", data, s)
		for k, v := range values {
			if k != "a" && k != "b" && k != "s" || k != "s" && v.items != nil {
				t.Errorf("unknown key %q was taken", k)
			}
			if !strings.HasPrefix(v.where, "f:") || v.isList != (v.list != nil) {
				t.Errorf("odd value %+v", v)
			}
			for _, item := range v.items {
				for k, v := range item {
					if k != "c" || v.items != nil {
						t.Errorf("key %q was taken in a section", k)
					}
				}
			}
		}
		for _, err := range errs {
			if err == nil || !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("error %v names no file", err)
			}
		}
	})
}
