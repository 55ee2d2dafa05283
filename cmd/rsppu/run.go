package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/pooluser"
)

// maxLine bounds a request read from standard input.
const maxLine = 1 << 20

// user is one run of the program.
type user struct {
	settings
	resolver *pooluser.Resolver
	pool     param.PoolHandle
	log      logrus.FieldLogger
	in       io.Reader
	out      io.Writer

	conn *pooluser.Conn // with Sticky, between requests
}

func (u *user) run(ctx context.Context) error {
	ctx = pooluser.WithKey(ctx, u.Key)
	if u.Request == "" && !u.Lines && u.HTTP == "" && u.Exec == "" {
		if u.Repeat == 1 {
			return u.stream(ctx)
		}
		request, err := io.ReadAll(io.LimitReader(u.in, maxLine))
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		u.Request = string(request)
	}
	defer func() {
		if u.conn != nil {
			_ = u.conn.Close()
		}
	}()
	if u.Lines {
		return u.lines(ctx)
	}
	return u.repeat(ctx)
}

// lines sends each line of the input as a request and prints the answers.
func (u *user) lines(ctx context.Context) error {
	in := bufio.NewScanner(u.in)
	in.Buffer(nil, maxLine)
	report := newReport(u)
	for ctx.Err() == nil && in.Scan() {
		if err := report.add(ctx, u.timed(ctx, in.Bytes())); err != nil {
			return err
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	return report.end(ctx)
}

// repeat sends the same request again and again.
func (u *user) repeat(ctx context.Context) error {
	report := newReport(u)
	ticker := time.NewTicker(max(u.Interval, 1))
	defer ticker.Stop()
	for n := 1; u.Repeat == 0 || n <= u.Repeat; n++ {
		if n > 1 && u.Interval > 0 {
			select {
			case <-ticker.C:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			break
		}
		if err := report.add(ctx, u.timed(ctx, []byte(u.Request))); err != nil {
			return err
		}
	}
	return report.end(ctx)
}

// timed makes a request and notes when.
func (u *user) timed(ctx context.Context, request []byte) outcome {
	start := time.Now()
	a, err := u.exchange(ctx, request)
	return outcome{answer: a, err: err, start: start, end: time.Now()}
}

// errLost: a stream ended in a failure.
var errLost = errors.New("connection to the element lost")

// stream connects the input and the output to the pool.
func (u *user) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	input := make(chan []byte)
	go pump(ctx, u.in, input)
	var pending []byte
	for {
		conn, err := u.dial(ctx)
		if err != nil {
			return err
		}
		u.log.WithFields(logrus.Fields{"element": conn.Element.ID, "address": conn.RemoteAddr()}).Info("connected")
		pending, err = u.carry(ctx, conn, input, pending)
		switch {
		case err == nil:
			return conn.Close()
		case ctx.Err() != nil:
			return errors.Join(context.Cause(ctx), conn.Close())
		case !errors.Is(err, errLost):
			return errors.Join(err, conn.Close())
		}
		u.log.WithError(err).Warn("trying another element; what was on its way may be lost")
		if err := conn.Failed(ctx); err != nil {
			u.log.WithError(err).Debug("give up connection")
		}
	}
}

func (u *user) dial(ctx context.Context) (*pooluser.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, u.Timeout, fmt.Errorf("%w: %v", errTimeout, u.Timeout))
	defer cancel()
	return u.resolver.Dial(ctx, u.pool)
}

// pump reads the input. A read that waits for a terminal can't be interrupted;
// it ends with the program.
func pump(ctx context.Context, in io.Reader, to chan<- []byte) {
	defer close(to)
	for {
		buf := make([]byte, 16384)
		n, err := in.Read(buf)
		if n > 0 {
			select {
			case to <- buf[:n]:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// carry moves data both ways until the element has closed the connection. When
// that is lost it returns errLost and what it could not send.
func (u *user) carry(ctx context.Context, conn *pooluser.Conn, input <-chan []byte, pending []byte) ([]byte, error) {
	received := make(chan error, 1)
	go func() {
		_, err := io.Copy(onlyWriter{u.out}, conn)
		var output *outputError
		if err != nil && !errors.As(err, &output) {
			err = fmt.Errorf("%w: %w", errLost, err)
		}
		received <- err
	}()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	wait := func(left []byte) ([]byte, error) {
		_ = conn.Close()
		<-received
		return left, errLost
	}
	for {
		if pending != nil {
			if _, err := conn.Write(pending); err != nil {
				return wait(pending)
			}
		}
		select {
		case err := <-received:
			return nil, err
		case data, ok := <-input:
			pending = data
			if !ok {
				closeWrite(conn)
				return nil, <-received
			}
		}
	}
}

// outputError is an error of our output, which no other element mends.
type outputError struct{ error }

func (e *outputError) Unwrap() error { return e.error }

// onlyWriter hides other methods of the output from io.Copy and marks its errors.
type onlyWriter struct{ w io.Writer }

func (o onlyWriter) Write(p []byte) (int, error) {
	n, err := o.w.Write(p)
	if err != nil {
		return n, &outputError{err}
	}
	return n, nil
}
