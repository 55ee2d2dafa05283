// Package poolhttp sends HTTP requests to pools. Its Transport is an
// http.RoundTripper for http://POOL/path:
//
//	client := &http.Client{Transport: transport}
//	res, err := client.Get("http://web/status")
//
// # Which element
//
// The host of the URL is the pool handle, as pooluser.Host writes it; a port in it
// means nothing. Each request goes to the element that the pool's policy selects,
// for policies with a key that of pooluser.WithKey. Connections are kept and used
// again per element. The Host field of the request is the URL's host, so that all
// elements see the same name; https asks elements for a certificate with that name
// unless the TLS configuration has another one.
//
// # When an element fails
//
//   - It can't be connected to: nothing was sent, so any request goes to another
//     element, and the element is reported to the registrar.
//   - The connection breaks before the answer comes: idempotent requests go to
//     another element; for others the error is the caller's. The element is left out,
//     and a connection attempt beside finds out whether it lives: if not, it is
//     reported, or else used again. (A server that ends one connection may have
//     nothing worse than a bad request.)
//   - It does not answer within ResponseHeaderTimeout (Config.Base): the same, but it
//     is left out for Config.Rest and not reported: it may just be slow.
//   - The connection breaks within the answer's body: the reader of the body gets the
//     error; the element is dealt with as above.
//   - It answers 503 with Retry-After: it is left out for that time, at most
//     Config.MaxRest, and idempotent requests go to another element. If all that are
//     asked say so, the last one's answer is returned. Without Retry-After a 503 is an
//     answer like any other. RoundTrip never waits for an element to be ready again.
//
// To policies that go by response times (selection.PickPeakEWMA), connections that
// break and answers from 500 on are failures, however fast.
//
// Idempotent are GET, HEAD, OPTIONS, TRACE, PUT and DELETE (RFC 9110, section 9.2.2)
// and what has an Idempotency-Key or X-Idempotency-Key header, which with an empty
// list of values is not sent; Config.Retry decides otherwise. A request with a body is
// sent again only if it has GetBody, as http.NewRequest makes it for bodies in memory,
// or if nothing was read of its body: a Transport keeps no bodies. No request goes to
// more than Config.MaxTries elements.
package poolhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"rserpool/asap/param"
	"rserpool/pooluser"
)

// ErrScheme says that a URL is neither http nor https. It comes wrapped.
var ErrScheme = errors.New("unsupported protocol scheme")

// Config describes a Transport. Resolver is required; a zero field otherwise means its
// default.
type Config struct {
	// Resolver resolves pools, selects elements and connects to them.
	Resolver *pooluser.Resolver
	// Base has the settings of connections: time-outs, how many are kept (per
	// element), TLS, HTTP/2. A copy is used, with its own Dial functions and
	// without Proxy. Default: http.DefaultTransport's, which waits for answers
	// for ever; with a ResponseHeaderTimeout hung elements are noticed.
	Base *http.Transport
	// MaxTries bounds the elements that a request is sent to. Default 3.
	MaxTries int
	// Rest is how long an element is left out that did not answer in time, if
	// there are others. Default 10 s.
	Rest time.Duration
	// MaxRest bounds the time that an element gets by Retry-After. Default 60 s.
	MaxRest time.Duration
	// Retry tells whether a request may be sent again when it may have reached
	// an element already. Default: Idempotent.
	Retry func(*http.Request) bool
}

func (cfg Config) withDefaults() Config {
	if cfg.Base == nil {
		cfg.Base = &http.Transport{
			ForceAttemptHTTP2: true, MaxIdleConns: 100, IdleConnTimeout: 90 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second, ExpectContinueTimeout: time.Second,
		}
	}
	if cfg.MaxTries == 0 {
		cfg.MaxTries = 3
	}
	if cfg.Rest == 0 {
		cfg.Rest = 10 * time.Second
	}
	if cfg.MaxRest == 0 {
		cfg.MaxRest = 60 * time.Second
	}
	if cfg.Retry == nil {
		cfg.Retry = Idempotent
	}
	return cfg
}

// Validate names everything that is wrong with the configuration.
func (cfg Config) Validate() error {
	var errs []error
	if cfg.Resolver == nil {
		errs = append(errs, errors.New("no resolver"))
	}
	if cfg.MaxTries < 0 {
		errs = append(errs, fmt.Errorf("MaxTries is %d, must not be negative", cfg.MaxTries))
	}
	if cfg.Rest < 0 || cfg.MaxRest < 0 {
		errs = append(errs, fmt.Errorf("Rest is %v and MaxRest %v, must not be negative", cfg.Rest, cfg.MaxRest))
	}
	return errors.Join(errs...)
}

// Idempotent tells whether a request may be repeated without harm, by its method or its
// header.
func Idempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if _, ok := req.Header[name]; ok {
			return true
		}
	}
	return false
}

// Transport is an http.RoundTripper to pools. It may be used concurrently. It has the
// goroutines of an http.Transport, which end with its connections, and at most
// maxProbes that find out whether elements live; Close ends those.
type Transport struct {
	cfg    Config
	base   *http.Transport
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex
	probes map[string]bool // by element
}

// New returns a Transport.
func New(cfg Config) (*Transport, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("HTTP to pools: %w", err)
	}
	t := &Transport{cfg: cfg.withDefaults(), probes: map[string]bool{}}
	t.base = t.cfg.Base.Clone()
	t.base.Proxy = nil
	t.base.DialContext = t.dial
	t.base.DialTLSContext = t.dialTLS
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// CloseIdleConnections closes the connections that serve no request.
func (t *Transport) CloseIdleConnections() { t.base.CloseIdleConnections() }

// Close ends what goes on beside requests, and closes the connections that serve none.
// The Transport must not be used any more.
func (t *Transport) Close() {
	t.mu.Lock()
	t.cancel()
	t.mu.Unlock()
	t.work.Wait()
	t.base.CloseIdleConnections()
}

// Element returns the element that an answer came from; false for an answer that did
// not come through a Transport.
func Element(res *http.Response) (param.PoolElement, bool) {
	if res == nil || res.Request == nil {
		return param.PoolElement{}, false
	}
	to, ok := res.Request.Context().Value(targetKey{}).(target)
	return to.element, ok
}

// target is where a request goes.
type target struct {
	pool    param.PoolHandle
	element param.PoolElement
	name    string // for certificates
}

type targetKey struct{}

// host names the element for the pool of connections. An element that comes back at
// another address is another one.
func (to target) host() string {
	var at []byte
	if addrs := to.element.User.AddrPorts(); len(addrs) > 0 {
		at, _ = addrs[0].MarshalBinary() // never fails
	}
	return fmt.Sprintf("%x.%x.%08x.%s", int(to.element.User.Type), at, uint32(to.element.ID), pooluser.Host(to.pool))
}

// notSent is an error of a connection that did not come about.
type notSent struct{ error }

func (e notSent) Unwrap() error { return e.error }

// dial connects to the element that the request goes to. Resolver.DialTo reports one
// that does not answer.
func (t *Transport) dial(ctx context.Context, _, address string) (net.Conn, error) {
	to, ok := ctx.Value(targetKey{}).(target)
	if !ok {
		return nil, fmt.Errorf("no element for %q", address)
	}
	conn, err := t.cfg.Resolver.DialTo(ctx, to.pool, to.element)
	if err != nil {
		var failed *pooluser.DialError
		if errors.As(err, &failed) && len(failed.Attempts) == 1 {
			err = failed.Attempts[0].Err
		}
		return nil, notSent{err}
	}
	return conn, nil
}

func (t *Transport) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := t.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{}
	if t.base.TLSClientConfig != nil {
		cfg = t.base.TLSClientConfig.Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName = ctx.Value(targetKey{}).(target).name
	}
	if limit := t.base.TLSHandshakeTimeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, notSent{errors.Join(fmt.Errorf("TLS: %w", err), conn.Close())}
	}
	return secured, nil
}
