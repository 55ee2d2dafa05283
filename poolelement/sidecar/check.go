package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Check looks after a service once. It returns nil when the service is well and
// otherwise says what is wrong. It ends when ctx does.
type Check interface {
	Check(ctx context.Context) error
	// String describes the check for people.
	String() string
}

// TCPCheck passes when a TCP connection to Address (host:port) comes up.
type TCPCheck struct{ Address string }

func (c TCPCheck) String() string { return "tcp " + c.Address }

// Check connects and closes at once.
func (c TCPCheck) Check(ctx context.Context) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", c.Address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// StatusRange is a range of HTTP status codes or of exit codes, both ends
// included.
type StatusRange struct{ From, To int }

// ParseStatusRange reads "200" or "200-399".
func ParseStatusRange(s string) (StatusRange, error) {
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	a, errA := strconv.Atoi(from)
	b, errB := strconv.Atoi(to)
	if errA != nil || errB != nil || a < 0 || b < a {
		return StatusRange{}, fmt.Errorf("%q is neither a number nor a range such as 200-399", s)
	}
	return StatusRange{a, b}, nil
}

func (r StatusRange) contains(n int) bool { return r.From <= n && n <= r.To }

func (r StatusRange) String() string {
	if r.From == r.To {
		return strconv.Itoa(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// HTTPCheck passes when a GET of URL is answered with a status in Expect.
// Redirections are not followed.
type HTTPCheck struct {
	URL    string
	Expect StatusRange
}

func (c HTTPCheck) String() string { return "http " + c.URL }

// Check makes the request.
func (c HTTPCheck) Check(ctx context.Context) error {
	resp, err := get(ctx, c.URL)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !c.Expect.contains(resp.StatusCode) {
		return fmt.Errorf("answered %s, expected %v", resp.Status, c.Expect)
	}
	return nil
}

// client makes each request over a connection of its own: one that is kept says
// little about the next client's chances.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, Proxy: nil},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func get(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "rsppe")
	return client.Do(req)
}

// ExecCheck passes when the command, given to /bin/sh, ends with a code in
// Expect. When its time is over, it and its children are killed.
type ExecCheck struct {
	Command string
	Expect  StatusRange
}

func (c ExecCheck) String() string { return "exec " + c.Command }

// Check runs the command.
func (c ExecCheck) Check(ctx context.Context) error {
	out, err := run(ctx, c.Command)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		code = exit.ExitCode()
	} else if err != nil {
		return err
	}
	if !c.Expect.contains(code) {
		return fmt.Errorf("exit code %d, expected %v%s", code, c.Expect, firstLine(out))
	}
	return nil
}

// maxOutput bounds what is kept of a command's or server's output, in octets.
const maxOutput = 4096

// outputDelay is how long the output of a command that has ended may be held
// open by processes that it left behind.
const outputDelay = time.Second

// run runs a shell command and returns the beginning of what it writes to its
// standard output.
func run(ctx context.Context, command string) (string, error) {
	var out limitedBuffer
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stdout = &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = outputDelay
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.String(), err
}

// limitedBuffer keeps the first maxOutput octets and swallows the rest.
type limitedBuffer struct{ strings.Builder }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.Builder.Write(p[:min(len(p), maxOutput-b.Len())])
	return len(p), nil
}

var _ io.Writer = (*limitedBuffer)(nil)

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if s == "" {
		return ""
	}
	return ": " + s
}

// ParseCheck reads a check written as
//
//	none                  no check: the service counts as well
//	tcp                   connect to the service
//	tcp://HOST:PORT       connect there
//	http://..., https://...   GET
//	exec:COMMAND          run by /bin/sh
//
// service is the host:port to check for "tcp". status is what http expects,
// exit what exec does.
func ParseCheck(s, service string, status, exit StatusRange) (Check, error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch kind {
	case "none":
		return nil, nil
	case "tcp":
		if rest != "" {
			service = strings.TrimPrefix(rest, "//")
		}
		if _, _, err := net.SplitHostPort(service); err != nil {
			return nil, fmt.Errorf("check %q: %w", s, err)
		}
		return TCPCheck{service}, nil
	case "http", "https":
		if err := checkURL(s); err != nil {
			return nil, fmt.Errorf("check %q: %w", s, err)
		}
		return HTTPCheck{URL: s, Expect: status}, nil
	case "exec":
		if strings.TrimSpace(rest) == "" {
			return nil, fmt.Errorf("check %q: no command", s)
		}
		return ExecCheck{Command: rest, Expect: exit}, nil
	}
	return nil, fmt.Errorf("check %q: unknown kind (one of none, tcp, tcp://HOST:PORT, http://..., https://..., exec:COMMAND)", s)
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err == nil && u.Host == "" {
		err = errors.New("no host")
	}
	return err
}
