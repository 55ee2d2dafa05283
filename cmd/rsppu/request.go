package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"rserpool/asap/param"
	"rserpool/pooluser"
)

// maxAnswer bounds an answer.
const maxAnswer = 16 << 20

// errTimeout: no element answered in time.
var errTimeout = errors.New("no answer in time")

// answer is what a request brought.
type answer struct {
	element  param.PoolElement
	data     []byte
	attempts int
}

// exchange sends a request to one element after the other until one answers.
func (u *user) exchange(ctx context.Context, request []byte) (answer, error) {
	var a answer
	err := tryUntil(ctx, u.Timeout, func(ctx context.Context) (again bool, err error) {
		a.attempts++
		err = u.attempt(ctx, request, &a)
		var refused *pooluser.DialError
		if err == nil || errors.As(err, &refused) {
			return false, err
		}
		if ctx.Err() == nil {
			u.log.WithError(err).WithField("element", a.element.ID).Warn("element failed, trying another")
		}
		return true, err
	})
	return a, err
}

// tryUntil makes attempts until one says that there shall be no other, or time is over.
func tryUntil(ctx context.Context, timeout time.Duration, attempt func(context.Context) (again bool, err error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w: %v", errTimeout, timeout))
	defer cancel()
	var last error // why the attempt before failed
	for {
		again, err := attempt(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil && last != nil:
			// That time cut this attempt off says less than why there was another before.
			return fmt.Errorf("%w; last error: %w; cut off: %w", context.Cause(ctx), last, err)
		case ctx.Err() != nil:
			return fmt.Errorf("%w; last error: %w", context.Cause(ctx), err)
		case !again:
			return err
		}
		last = err
	}
}

// attempt sends the request to the element that is connected or selected.
func (u *user) attempt(ctx context.Context, request []byte, a *answer) error {
	if u.Exec != "" {
		return u.attemptExec(ctx, request, a)
	}
	conn := u.conn
	if conn == nil {
		var err error
		if conn, err = u.resolver.Dial(ctx, u.pool); err != nil {
			return err
		}
	}
	a.element = conn.Element
	if conn != u.conn {
		a.attempts += len(conn.Tried)
	}
	u.conn = nil
	answered := conn.Measure()
	data, err := u.converse(ctx, conn, request)
	answered(errors.Join(err, ctx.Err()))
	if err != nil {
		if ctx.Err() != nil {
			return errors.Join(err, conn.Close())
		}
		return errors.Join(err, conn.Failed(ctx))
	}
	a.data = data
	if u.Sticky {
		u.conn = conn
		return nil
	}
	return conn.Close()
}

// converse sends the request on the connection and reads the answer.
func (u *user) converse(ctx context.Context, conn net.Conn, request []byte) ([]byte, error) {
	deadline := time.Now().Add(u.AttemptTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if u.HTTP != "" {
		return converseHTTP(conn, string(u.pool), u.HTTP)
	}
	if u.Read == "line" {
		request = append(request[:len(request):len(request)], '\n')
	}
	if len(request) > 0 {
		if _, err := conn.Write(request); err != nil {
			return nil, err
		}
	}
	switch u.Read {
	case "message":
		buf := make([]byte, 65536)
		n, err := conn.Read(buf)
		if err != nil {
			return nil, noAnswer(err)
		}
		return buf[:n], nil
	case "eof":
		closeWrite(conn)
		return io.ReadAll(io.LimitReader(conn, maxAnswer))
	}
	return readLine(conn)
}

// readLine reads up to the end of a line and not beyond it.
func readLine(r io.Reader) ([]byte, error) {
	var line []byte
	buf := make([]byte, 4096)
	for len(line) < maxAnswer {
		n, err := r.Read(buf)
		line = append(line, buf[:n]...)
		if len(line) > 0 && line[len(line)-1] == '\n' {
			return line[:len(line)-1], nil
		}
		if err != nil {
			return nil, noAnswer(err)
		}
	}
	return nil, fmt.Errorf("a line of more than %d octets", maxAnswer)
}

func noAnswer(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("closed without an answer")
	}
	return err
}

// closeWrite tells the element that no more will come, where the transport can.
func closeWrite(conn net.Conn) {
	if c, ok := conn.(*pooluser.Conn); ok {
		conn = c.Conn
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		// A connection that can't be closed is seen to fail when read.
		_ = half.CloseWrite()
	}
}

func converseHTTP(conn net.Conn, host, path string) ([]byte, error) {
	at, err := url.ParseRequestURI(path)
	if err != nil {
		return nil, err
	}
	request := &http.Request{Method: http.MethodGet, URL: at, Host: url.PathEscape(host), Close: true, Header: http.Header{"User-Agent": {"rsppu"}}}
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 500 {
		return nil, fmt.Errorf("answered %s", response.Status)
	}
	return body, nil
}

// limitedBuffer keeps the first max octets and swallows the rest.
type limitedBuffer struct {
	data []byte
	max  int
	cut  bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	keep := p[:min(len(p), b.max-len(b.data))]
	b.cut = b.cut || len(keep) < len(p)
	b.data = append(b.data, keep...)
	return len(p), nil
}

// attemptExec runs the command for a selected element.
func (u *user) attemptExec(ctx context.Context, request []byte, a *answer) error {
	element, err := u.resolver.Select(ctx, u.pool)
	if err != nil {
		return &pooluser.DialError{Pool: u.pool, Err: err}
	}
	a.element = element
	ctx, cancel := context.WithTimeout(ctx, u.AttemptTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", u.Exec)
	cmd.WaitDelay = time.Second // a grandchild may hold the pipes
	cmd.Stderr = os.Stderr
	env := []string{"RSPPU_POOL=" + string(u.pool), "RSPPU_ELEMENT=" + element.ID.String()}
	if addrs := element.User.AddrPorts(); len(addrs) > 0 {
		env = append(env, "RSPPU_ADDRESS="+addrs[0].String(), "RSPPU_HOST="+addrs[0].Addr().String(),
			"RSPPU_PORT="+strconv.Itoa(int(addrs[0].Port())))
	}
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to end its children too
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out := limitedBuffer{max: maxAnswer}
	cmd.Stdout = &out
	answered := u.resolver.Measure(u.pool, element.ID)
	err = cmd.Run()
	answered(errors.Join(err, ctx.Err()))
	if err == nil && out.cut {
		err = fmt.Errorf("more than %d octets of output", maxAnswer)
	}
	if err == nil {
		a.data = out.data
		return nil
	}
	err = fmt.Errorf("command failed: %w", err)
	if ctx.Err() != nil && context.Cause(ctx) != context.DeadlineExceeded {
		return err
	}
	_, reportErr := u.resolver.Report(context.WithoutCancel(ctx), u.pool, element.ID)
	return errors.Join(err, reportErr)
}
