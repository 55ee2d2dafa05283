// Package client talks to the admin API of a registrar: see package admin for
// what the API says.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"rserpool/asap/param"
	"rserpool/registrar/admin"
)

// Errors of all calls; test with errors.Is.
var (
	// ErrUnreachable: nothing answered at the address.
	ErrUnreachable = errors.New("admin API not reachable")
	// ErrNotFound: there is no such pool or element.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: the registrar can't do it now; later, or another one, may.
	ErrUnavailable = admin.ErrUnavailable
)

// Error is an answer that is not a success.
type Error struct {
	Status  int // HTTP status
	Problem admin.Problem
}

func (e *Error) Error() string {
	text := e.Problem.Detail
	if text == "" {
		text = e.Problem.Title
	}
	if text == "" {
		text = "HTTP status " + strconv.Itoa(e.Status)
	}
	for _, c := range e.Problem.Causes {
		text += fmt.Sprintf("; cause %s (%s)", c.Code, c.Name)
	}
	return text
}

// Is says that a 404 is ErrNotFound, and a 503 ErrUnavailable.
func (e *Error) Is(target error) bool {
	return target == ErrNotFound && e.Status == http.StatusNotFound ||
		target == ErrUnavailable && e.Status == http.StatusServiceUnavailable
}

const (
	pageSize = 1000
	// maxAnswer bounds one answer, in octets: some 2 million elements.
	maxAnswer = 1 << 30
	// maxProblem bounds an error answer, in octets.
	maxProblem = 1 << 16
)

// Client calls one registrar's admin API. It may be used concurrently.
type Client struct {
	base string
	http *http.Client
}

// New returns a client for the API at address: an http or https URL without a
// path, or host:port for http. An empty address means admin.DefaultAddress.
// transport may be nil.
func New(address string, transport http.RoundTripper) (*Client, error) {
	if address == "" {
		address = admin.DefaultAddress
	}
	base := address
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("admin API address %q: not http://host:port", address)
	}
	if u.Port() == "" && u.Scheme == "http" {
		_, port, _ := net.SplitHostPort(admin.DefaultAddress)
		u.Host = net.JoinHostPort(u.Hostname(), port)
	}
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.Proxy = nil // the API is on loopback or inside the site
		transport = t
	}
	return &Client{base: u.Scheme + "://" + u.Host, http: &http.Client{Transport: transport}}, nil
}

// Address returns the URL of the API.
func (c *Client) Address() string { return c.base }

// Close drops idle connections. A call that still runs goes on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status says how the registrar is.
func (c *Client) Status(ctx context.Context) (s admin.Status, err error) {
	return s, c.call(ctx, http.MethodGet, admin.PathStatus, nil, nil, &s)
}

// Pools lists all pools, without their members.
func (c *Client) Pools(ctx context.Context) ([]admin.Pool, error) {
	var pools []admin.Pool
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	for {
		var page admin.PoolList
		if err := c.call(ctx, http.MethodGet, admin.PathPools, query, nil, &page); err != nil {
			return nil, err
		}
		pools = append(pools, page.Pools...)
		if page.Next == "" || len(page.Pools) == 0 {
			return pools, nil
		}
		query.Set("after", page.Next)
	}
}

// Pool shows one pool with its members.
func (c *Client) Pool(ctx context.Context, h param.PoolHandle) (p admin.Pool, err error) {
	return p, c.call(ctx, http.MethodGet, admin.PoolPath(h), nil, nil, &p)
}

// Registrars lists the registrars; the first is the one asked.
func (c *Client) Registrars(ctx context.Context) ([]admin.RegistrarInfo, error) {
	var list admin.RegistrarList
	err := c.call(ctx, http.MethodGet, admin.PathRegistrars, nil, nil, &list)
	return list.Registrars, err
}

// Ring describes the ring of the registrar; ErrNotFound without one.
func (c *Client) Ring(ctx context.Context) (r admin.Ring, err error) {
	return r, c.call(ctx, http.MethodGet, admin.PathRing, nil, nil, &r)
}

// RingMerges lists the latest merges of the ring, newest first.
func (c *Client) RingMerges(ctx context.Context) ([]admin.RingMerge, error) {
	var list admin.RingMergeList
	err := c.call(ctx, http.MethodGet, admin.PathRingMerges, nil, nil, &list)
	return list.Merges, err
}

// Resolve resolves a pool handle as a pool user does, which moves the pool's
// selection on. items is how many elements are wanted; 0 leaves it to the
// registrar.
func (c *Client) Resolve(ctx context.Context, h param.PoolHandle, items uint32) (r admin.Resolution, err error) {
	query := url.Values{"pool": {admin.EscapeHandle(h)}}
	if items > 0 {
		query.Set("items", strconv.FormatUint(uint64(items), 10))
	}
	return r, c.call(ctx, http.MethodGet, admin.PathResolve, query, nil, &r)
}

// Register adds or replaces an element and returns it as it is stored. With id 0
// the registrar chooses the identifier.
func (c *Client) Register(ctx context.Context, h param.PoolHandle, id param.PEID, r admin.RegisterRequest) (e admin.Element, err error) {
	if id == 0 {
		return e, c.call(ctx, http.MethodPost, admin.PoolPath(h), nil, r, &e)
	}
	return e, c.call(ctx, http.MethodPut, admin.ElementPath(h, id), nil, r, &e)
}

// Deregister removes an element, dead or alive.
func (c *Client) Deregister(ctx context.Context, h param.PoolHandle, id param.PEID) error {
	return c.call(ctx, http.MethodDelete, admin.ElementPath(h, id), nil, nil, nil)
}

// call makes one request with body as JSON, if any, and decodes the answer into
// out, if any.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	req, err := c.request(ctx, method, path, query, content)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s: answer to %s %s: %w", c.base, method, path, err)
	}
	return nil
}

func (c *Client) request(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Request, error) {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// do sends the request. The answer, if there is one, is a success and its body
// is the caller's to close.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		ctx := req.Context()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", c.base, context.Cause(ctx))
		}
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the URL is said already
		}
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, c.base, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	failure := &Error{Status: resp.StatusCode}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if json.Unmarshal(text, &failure.Problem) != nil {
		// Something else than a registrar answers there.
		failure.Problem = admin.Problem{Detail: fmt.Sprintf("%s answers %s", c.base, resp.Status)}
	}
	return nil, failure
}
