package poolhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"rserpool/asap/param"
	"rserpool/pooluser"
)

const (
	// maxProbes bounds the elements that are probed at a time. Others stay left
	// out for Config.Rest.
	maxProbes = 16
	// maxDrain bounds what is read of an answer that is not used, so that its
	// connection can be used again.
	maxDrain = 64 << 10
)

// RoundTrip sends the request to an element of the pool and, as the package's
// documentation says, to others when that fails. The error is a *pooluser.DialError,
// which names every element tried and why it failed, unless the request itself is at
// fault.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	body := newBody(req)
	pool, err := pooluser.PoolOf(req.URL.Host)
	if err == nil && req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		err = fmt.Errorf("%w %q", ErrScheme, req.URL.Scheme)
	}
	var res *http.Response
	if err == nil {
		x := &exchange{Transport: t, req: req, pool: pool, body: body}
		res, err = x.run()
	}
	body.end(err)
	return res, err
}

// outcome is what became of an attempt.
type outcome int

const (
	answered outcome = iota
	unsent           // no connection came about
	unknown          // it failed when the request may have been sent
	unfit            // it is no fault of the element
)

// exchange is a request under way.
type exchange struct {
	*Transport
	req   *http.Request
	pool  param.PoolHandle
	body  *body
	tried []pooluser.Attempt
	// busy is the latest answer that was 503 with Retry-After.
	busy *http.Response
	// doubted are the elements to probe. Not before the end: one that lives would be
	// selected again, while there are others to try.
	doubted []target
}

func (x *exchange) run() (*http.Response, error) {
	defer func() {
		for _, to := range x.doubted {
			x.probe(to)
		}
	}()
	for {
		element, err := x.cfg.Resolver.Select(x.req.Context(), x.pool)
		if err != nil {
			return x.fail(err)
		}
		if x.busy != nil && slices.ContainsFunc(x.tried, func(a pooluser.Attempt) bool { return a.Element.ID == element.ID }) {
			return x.fail(nil) // all that are left have had their turn
		}
		res, outcome, err := x.try(target{pool: x.pool, element: element, name: x.req.URL.Hostname()})
		if outcome == answered {
			rest, busy := retryAfter(res, time.Now())
			if !busy {
				x.drop()
				return res, nil
			}
			x.cfg.Resolver.Avoid(x.pool, element.ID, min(rest, x.cfg.MaxRest))
			x.drop()
			x.busy = res
			err = fmt.Errorf("%s, Retry-After: %s", res.Status, res.Header.Get("Retry-After"))
		}
		x.tried = append(x.tried, pooluser.Attempt{Element: element, Err: err})
		switch {
		case x.req.Context().Err() != nil:
			return x.fail(context.Cause(x.req.Context()))
		case outcome == unfit:
			x.drop()
			return nil, err
		case len(x.tried) >= x.cfg.MaxTries, outcome != unsent && !x.cfg.Retry(x.req), !x.body.again():
			return x.fail(nil)
		}
	}
}

// fail ends the exchange: with an element's answer that it is busy, if there is one.
func (x *exchange) fail(err error) (*http.Response, error) {
	if x.busy != nil && x.req.Context().Err() == nil {
		return x.busy, nil
	}
	x.drop()
	return nil, &pooluser.DialError{Pool: x.pool, Attempts: x.tried, Err: err}
}

// drop gives up the answer that an element is busy.
func (x *exchange) drop() {
	if x.busy == nil {
		return
	}
	// What can't be read costs the connection, nothing else.
	_, _ = io.CopyN(io.Discard, x.busy.Body, maxDrain)
	_ = x.busy.Body.Close()
	x.busy = nil
}

// try sends the request to one element. It is to the caller's context what a
// connection does, but the answer's request has the URL that the caller asked for.
func (x *exchange) try(to target) (*http.Response, outcome, error) {
	var connected atomic.Bool
	ctx := context.WithValue(x.req.Context(), targetKey{}, to)
	out := x.req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	}))
	url := *x.req.URL
	url.Host = to.host()
	out.URL = &url
	if out.Host == "" {
		out.Host = x.req.URL.Host
	}
	out.Body = x.body.reader()
	done := x.cfg.Resolver.Measure(to.pool, to.element.ID)
	res, err := x.base.RoundTrip(out)
	switch {
	case err != nil && (x.body.failed() || ctx.Err() != nil):
		done(context.Canceled)
	case err == nil && res.StatusCode >= http.StatusInternalServerError:
		done(errors.New(res.Status)) // an element that refuses fast is not a fast one
	default:
		done(err)
	}
	if err == nil {
		res.Request = x.req.WithContext(ctx)
		if res.StatusCode != http.StatusSwitchingProtocols && res.Body != http.NoBody {
			res.Body = &watched{ReadCloser: res.Body, failed: func(err error) {
				if x.failed(ctx, to, err) {
					x.probe(to)
				}
			}}
		}
		return res, answered, nil
	}
	var missed notSent
	switch {
	case errors.As(err, &missed):
		return nil, unsent, missed.error
	case !connected.Load() || x.body.failed():
		return nil, unfit, err
	}
	if x.failed(ctx, to, err) {
		x.doubted = append(x.doubted, to)
	}
	return nil, unknown, err
}

// watched is the body of an answer.
type watched struct {
	io.ReadCloser
	failed func(error)
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, http.ErrBodyReadAfterClose) {
		w.failed(err)
	}
	return n, err
}

// failed leaves out an element that broke a connection or did not answer in time,
// unless it is the caller who does not want to wait. It tells whether to probe it.
func (t *Transport) failed(ctx context.Context, to target, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	t.cfg.Resolver.Avoid(to.pool, to.element.ID, t.cfg.Rest)
	var timeout net.Error
	return !errors.As(err, &timeout) || !timeout.Timeout()
}

// probe finds out, beside, whether the element lives.
func (t *Transport) probe(to target) {
	host := to.host()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil || t.probes[host] || len(t.probes) >= maxProbes {
		return
	}
	t.probes[host] = true
	t.work.Go(func() {
		conn, err := t.cfg.Resolver.DialTo(t.ctx, to.pool, to.element)
		if err == nil { // else it has been reported
			_ = conn.Close()
			t.cfg.Resolver.Recovered(to.pool, to.element.ID)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.probes, host)
	})
}

// retryAfter tells whether an element wants to be left alone, and how long.
func retryAfter(res *http.Response, now time.Time) (time.Duration, bool) {
	value := res.Header.Get("Retry-After")
	if res.StatusCode != http.StatusServiceUnavailable || value == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	until, err := http.ParseTime(value)
	return max(until.Sub(now), 0), err == nil
}
