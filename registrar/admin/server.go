// Package admin is a registrar's interface for administrators: HTTP with JSON, an
// event stream, metrics, and probes for supervisors. It reads the handlespace and
// submits commands; it knows nothing of associations.
//
// There is no authentication: who reaches the address is an administrator. It
// therefore listens on loopback unless told otherwise, and refuses what a
// browser might be tricked into sending: requests that name a host that is not
// this one (DNS rebinding), and cross-origin ones.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"

	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
)

// ErrUnavailable is what a Backend says that can't do now what it is asked for: it
// is not serving yet, has lost its ring, is leaving, or has too much to do. The
// answer is 503: asked again later, or at another registrar, it may work.
var ErrUnavailable = errors.New("not available now")

// Backend is the registrar behind the API. Its methods may be called
// concurrently.
type Backend interface {
	Status() Status
	// Ready reports whether elements and users are served, Certain also whether
	// what is not in Space is nowhere: not while others may know more.
	Ready() bool
	Certain() bool
	Registrars() []RegistrarInfo
	// Space is the handlespace, to be read.
	Space() *handlespace.Space
	// Register proposes the registration of an element that the registrar
	// becomes home of.
	Register(ctx context.Context, handle param.PoolHandle, e param.PoolElement) ([]handlespace.Event, error)
	// Remove proposes an administrator's removal of an element.
	Remove(ctx context.Context, handle param.PoolHandle, id param.PEID) ([]handlespace.Event, error)
	// Ring describes the ring, RingMerges its latest merges, newest first;
	// ErrNoRing without one.
	Ring(ctx context.Context) (Ring, error)
	RingMerges(ctx context.Context) ([]RingMerge, error)
	// Reload reads the configuration anew.
	Reload() error
}

// Config describes the server. All but AllowRemote and Hosts is required.
type Config struct {
	// Address to listen on, host:port.
	Address string
	// AllowRemote permits an address that is not loopback.
	AllowRemote bool
	// Hosts are names that requests may name besides IP addresses and
	// localhost.
	Hosts    []string
	Backend  Backend
	Feed     *Feed
	Gatherer prometheus.Gatherer
	Log      logrus.FieldLogger
}

// Bounds of what clients can make the server spend.
const (
	maxBody       = 64 << 10
	maxHeader     = 256 << 10 // a pool handle in the path can be long
	maxPools      = 1000      // in one page
	headerTimeout = 5 * time.Second
	bodyTimeout   = 10 * time.Second
	idleTimeout   = time.Minute
	writeTimeout  = 30 * time.Second
	heartbeat     = 15 * time.Second // of event streams
)

// Server serves the API.
type Server struct {
	cfg      Config
	listener net.Listener
	http     *http.Server
	ctx      context.Context // of all requests
	cancel   context.CancelFunc
}

// ErrNotLoopback is the error for an address that is reachable from elsewhere
// without AllowRemote.
var ErrNotLoopback = errors.New("admin address is not loopback")

// Listen opens the listener; Serve answers requests.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	if a, ok := l.Addr().(*net.TCPAddr); !cfg.AllowRemote && !(ok && a.IP.IsLoopback()) {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrNotLoopback, l.Addr()), l.Close())
	}
	s := &Server{cfg: cfg, listener: l}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ErrorLog:          log.New(errorLog{cfg.Log}, "", 0),
	}
	return s, nil
}

// errorLog takes what the HTTP server has to say of broken connections.
type errorLog struct{ to logrus.FieldLogger }

func (l errorLog) Write(p []byte) (int, error) {
	l.to.Debug(strings.TrimSpace(string(p)))
	return len(p), nil
}

// Addr returns the address listened on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers requests until Shutdown or Close.
func (s *Server) Serve() {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		s.cfg.Log.WithError(err).Error("admin interface failed")
	}
}

// Shutdown ends event streams and waits for other requests; those that are still
// there when ctx ends are cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		// Somebody does not read.
		return s.http.Close()
	}
	return nil
}

// Close ends everything at once.
func (s *Server) Close() error {
	s.cancel()
	return errors.Join(ignoreClosed(s.http.Close()), ignoreClosed(s.listener.Close()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Handler returns the API as a handler, for tests and other servers.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	handle("GET "+PathStatus, s.status)
	handle("GET "+PathPools, s.pools)
	handle("GET "+PathPools+"/{handle}", s.pool)
	handle("POST "+PathPools+"/{handle}", s.register)
	handle("GET "+PathPools+"/{handle}/elements/{id}", s.element)
	handle("PUT "+PathPools+"/{handle}/elements/{id}", s.register)
	handle("DELETE "+PathPools+"/{handle}/elements/{id}", s.remove)
	handle("GET "+PathRegistrars, s.registrars)
	handle("GET "+PathResolve, s.resolve)
	handle("GET "+PathRing, s.ring)
	handle("GET "+PathRingMerges, s.ringMerges)
	handle("GET "+PathEvents, s.events)
	handle("GET "+PathHealthy, s.healthy)
	handle("GET "+PathReady, s.ready)
	handle("POST "+PathReload, s.reload)
	mux.Handle("GET "+PathMetrics, promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{}))
	return s.guard(http.NewCrossOriginProtection().Handler(mux))
}

// guard refuses requests for another host, and bounds bodies and the time to
// write an answer.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.knownHost(r.Host) {
			s.fail(w, r, &problem{http.StatusMisdirectedRequest, fmt.Sprintf("host %q is not served here", r.Host), nil})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		// Not supported by test recorders, which need none.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
		next.ServeHTTP(w, r)
	})
}

// knownHost reports whether a Host header names this server: an IP address, which
// nobody can rebind, localhost, or a configured name.
func (s *Server) knownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" {
		return true
	}
	return slices.ContainsFunc(s.cfg.Hosts, func(name string) bool { return strings.EqualFold(name, host) })
}

// problem is an error with an HTTP status.
type problem struct {
	status int
	detail string
	causes param.OperationError
}

func (p *problem) Error() string { return p.detail }

func badRequest(format string, args ...any) error {
	return &problem{http.StatusBadRequest, fmt.Sprintf(format, args...), nil}
}

func notFound(format string, args ...any) error {
	return &problem{http.StatusNotFound, fmt.Sprintf(format, args...), nil}
}

// absent is the answer about what is not in the handlespace.
func (s *Server) absent(format string, args ...any) error {
	if !s.cfg.Backend.Certain() {
		return fmt.Errorf("%w: "+format+" here, but other registrars may know more", append([]any{ErrUnavailable}, args...)...)
	}
	return notFound(format, args...)
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := &problem{http.StatusInternalServerError, err.Error(), nil}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
	case errors.As(err, &tooLarge):
		p.status = http.StatusRequestEntityTooLarge
	case errors.Is(err, ErrUnavailable), r.Context().Err() != nil:
		p.status = http.StatusServiceUnavailable
	default:
		s.cfg.Log.WithError(err).WithField("path", r.URL.Path).Warn("admin request failed")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	if p.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(p.status)
	s.encode(w, Problem{
		Type: "about:blank", Title: http.StatusText(p.status), Status: p.status,
		Detail: p.detail, Causes: showCauses(p.causes),
	})
}

// reply writes a JSON answer.
func (s *Server) reply(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	s.encode(w, v)
	return nil
}

func (s *Server) encode(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.cfg.Log.WithError(err).Debug("admin client has gone")
	}
}
