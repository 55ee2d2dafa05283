//go:build unix

package endtoend

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"rserpool/asap"
	"rserpool/asap/param"
	"rserpool/asap/transport/transporttest"
	"rserpool/registrar/admin"
	"rserpool/registrar/admin/client"
)

// pool is the one that all tests use; each has registrars of its own.
const pool = "echo"

// host is where processes run.
type host struct {
	w *world
	// namespace is the network namespace, "" for the one of the test.
	namespace string
	// address is where others reach the host, the first of its addresses.
	address string
	// dial connects from here.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// here is the host of the test itself.
func (w *world) here() *host {
	return &host{w: w, address: "127.0.0.1", dial: new(net.Dialer).DialContext}
}

// command runs a program of the suite on the host.
func (h *host) command(program string, args ...string) *exec.Cmd {
	if !filepath.IsAbs(program) {
		program = filepath.Join(bin, program)
	}
	if h.namespace != "" {
		program, args = "ip", append([]string{"netns", "exec", h.namespace, program}, args...)
	}
	cmd := exec.Command(program, args...)
	// Nothing of the caller's settings.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	return cmd
}

// registrar is a running rspd.
type registrar struct {
	*process
	host  *host
	flags []string
	// at is the URL by which elements and users find it, enrp the one for tools,
	// api that of administrators.
	at, enrp, api string
	admin         *client.Client
}

// registrar starts a registrar with these flags and waits until it is ready.
func (h *host) registrar(flags ...string) *registrar {
	h.w.t.Helper()
	r := &registrar{host: h, at: "tcp://" + h.address, enrp: "tcp://" + h.address, api: "http://" + admin.DefaultAddress}
	if strings.Contains(h.address, ":") {
		r.at, r.enrp = "tcp://["+h.address+"]", "tcp://["+h.address+"]"
	}
	if h.namespace == "" {
		asap, enrp, api := transporttest.FreeAddress(h.w.t), transporttest.FreeAddress(h.w.t), transporttest.FreeAddress(h.w.t)
		r.at, r.enrp, r.api = "tcp://"+asap, "tcp://"+enrp, "http://"+api
		r.flags = []string{"--listen", r.at, "--enrp-listen", r.enrp, "--admin", api}
	}
	r.flags = append(append(r.flags, "--timers", "fast"), flags...)
	var err error
	if r.admin, err = client.New(r.api, &http.Transport{DialContext: h.dial, DisableKeepAlives: true}); err != nil {
		h.w.t.Fatal(err)
	}
	r.restart()
	return r
}

// restart starts the registrar again after its end.
func (r *registrar) restart() {
	r.host.w.t.Helper()
	r.process = r.host.w.start("rspd "+r.at, r.host.command("rspd", r.flags...), nil)
	r.host.w.until("the registrar to be ready", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s, err := r.admin.Status(ctx)
		return err == nil && s.Ready
	})
}

// asap is the address at which elements and users find the registrar.
func (r *registrar) asap() string {
	if r.host.namespace != "" {
		return net.JoinHostPort(r.host.address, strconv.Itoa(asap.Port))
	}
	return strings.TrimPrefix(r.at, "tcp://")
}

// pool returns what the registrar knows of the pool; nothing if it knows none.
func (r *registrar) pool() (admin.Pool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p, err := r.admin.Pool(ctx, pool)
	if errors.Is(err, client.ErrNotFound) {
		return admin.Pool{}, nil
	}
	return p, err
}

// members names the elements that the registrar has, with a '?' behind suspects.
func (r *registrar) members() (string, error) {
	p, err := r.pool()
	if err != nil {
		return "", err
	}
	names := []string{}
	for _, m := range p.Members {
		name := nameOf(m.ID)
		if m.State == admin.StateSuspect {
			name += "?"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " "), nil
}

// hasMembers waits until the registrar has just these elements.
func (r *registrar) hasMembers(want string) {
	r.w.t.Helper()
	r.w.within(patience, func() string {
		switch got, err := r.members(); {
		case err != nil:
			return fmt.Sprintf("the registrar does not tell its elements: %v", err)
		case got != want:
			return fmt.Sprintf("the registrar %s has the elements %q, want %q", r.at, got, want)
		}
		return ""
	})
}

// member returns what the registrar knows of an element that it has.
func (r *registrar) member(name string) admin.Element {
	r.w.t.Helper()
	p, err := r.pool()
	if err != nil {
		r.w.t.Fatal(err)
	}
	i := slices.IndexFunc(p.Members, func(e admin.Element) bool { return nameOf(e.ID) == name })
	if i < 0 {
		r.w.t.Fatalf("the registrar has no element %q", name)
	}
	return p.Members[i]
}

// answeredKeepAlives returns how many keep-alives elements have answered.
func (r *registrar) answeredKeepAlives() int {
	r.w.t.Helper()
	resp, err := (&http.Client{Transport: &http.Transport{DialContext: r.host.dial, DisableKeepAlives: true}}).Get(r.api + admin.PathMetrics)
	if err != nil {
		r.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	n := 0
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), `rserpool_keep_alives_total{result="acknowledged"} `); ok {
			if n, err = strconv.Atoi(value); err != nil {
				r.w.t.Fatal(err)
			}
		}
	}
	return n
}

// element is a server with its side-car.
type element struct {
	server, car *process
	service     string // where the server is
}

// idOf and nameOf turn an element's name, one letter, to its identifier and back.
func idOf(name string) string { return param.PEID(name[0]).String() }

func nameOf(id string) string {
	n, err := admin.ParseID(id)
	if err != nil || n > 'z' {
		return id
	}
	return string(rune(n))
}

// registrarFlags name registrars to elements and users.
func registrarFlags(registrars []string) []string {
	var flags []string
	for _, r := range registrars {
		flags = append(flags, "--registrar", r)
	}
	return flags
}

// element starts a server and a side-car with these flags for it.
func (h *host) element(name string, registrars []string, flags ...string) *element {
	h.w.t.Helper()
	e := &element{service: "127.0.0.1:7000"}
	listen := ":7000"
	if h.namespace == "" {
		e.service = transporttest.FreeAddress(h.w.t)
		listen = e.service
	}
	self, err := os.Executable()
	if err != nil {
		h.w.t.Fatal(err)
	}
	server := h.command(self)
	server.Env = append(server.Env, serverName+"="+name, serverAddress+"="+listen)
	e.server = h.w.start("server "+name, server, nil)
	h.w.until("the server to listen", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn, err := h.dial(ctx, "tcp", e.service)
		return err == nil && conn.Close() == nil
	})
	e.car = h.sidecar(name, e.service, registrars, flags...)
	return e
}

// sidecar starts a side-car for a server.
func (h *host) sidecar(name, service string, registrars []string, flags ...string) *process {
	h.w.t.Helper()
	args := append([]string{
		"--pool", pool, "--id", idOf(name), "--service", "tcp://" + service,
		"--timers", "fast", "--check-interval", "100ms", "--log-level", "debug",
	}, registrarFlags(registrars)...)
	return h.w.start("rsppe "+name, h.command("rsppe", append(args, flags...)...), nil)
}

// signal sends a signal to the server and the side-car.
func (e *element) signal(s syscall.Signal) {
	e.server.signal(s)
	e.car.signal(s)
}

// request is what rsppu prints for a request.
type request struct {
	Type     string  `json:"type"`
	Element  string  `json:"element"`
	Address  string  `json:"address"`
	Attempts int     `json:"attempts"`
	Seconds  float64 `json:"seconds"`
	Answer   string  `json:"answer"`
	Error    string  `json:"error"`
}

// summary is what rsppu prints at its end.
type summary struct {
	Type       string  `json:"type"`
	Requests   int     `json:"requests"`
	Answered   int     `json:"answered"`
	Failed     int     `json:"failed"`
	LongestGap float64 `json:"longest_gap_seconds"`
}

// user is a running rsppu that asks and asks.
type user struct {
	*process
	mu       sync.Mutex
	half     []byte // of a line
	requests []request
	summary  summary
	bad      error
}

// user starts a user with steady requests and waits for its first answer.
func (h *host) user(registrars []string, flags ...string) *user {
	h.w.t.Helper()
	u := h.hopefulUser(registrars, flags...)
	h.w.until("the user to get an answer", func() bool {
		return slices.ContainsFunc(u.seen(0), func(r request) bool { return r.Error == "" })
	})
	return u
}

// hopefulUser starts a user that may get nothing.
func (h *host) hopefulUser(registrars []string, flags ...string) *user {
	h.w.t.Helper()
	u := &user{}
	args := append([]string{
		pool, "--request", "hello", "--repeat", "0", "--interval", "20ms", "--stale", "200ms",
		"--timers", "fast", "--attempt-timeout", "500ms", "-o", "json",
	}, registrarFlags(registrars)...)
	u.process = h.w.start("rsppu", h.command("rsppu", append(args, flags...)...), u)
	return u
}

// Write takes the user's output.
func (u *user) Write(b []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.half = append(u.half, b...)
	for {
		line, rest, ok := bytes.Cut(u.half, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		u.half = rest
		var r request
		err := json.Unmarshal(line, &r)
		switch {
		case err != nil:
			u.bad = fmt.Errorf("%w in %q", err, line)
		case r.Type == "summary":
			u.bad = errors.Join(u.bad, json.Unmarshal(line, &u.summary))
		default:
			u.requests = append(u.requests, r)
		}
	}
}

// seen returns the requests from the i-th on.
func (u *user) seen(i int) []request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.requests[i:len(u.requests):len(u.requests)]
}

// isServedBy waits until the user is served by just these elements, by each.
func (u *user) isServedBy(names string) {
	u.w.t.Helper()
	from := len(u.seen(0))
	u.w.within(patience, func() string {
		latest := u.seen(from)
		latest = latest[max(0, len(latest)-4*(len(names)+1)):]
		var got []string
		for _, r := range latest {
			name := r.Answer
			if r.Error != "" {
				name = r.Error
			}
			if !slices.Contains(got, name) {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != names {
			return fmt.Sprintf("the user is served by %q, want %q", text, names)
		}
		return ""
	})
}

// wasServed ends the user and fails the test unless every request was answered,
// none with a longer wait than this.
func (u *user) wasServed(gap time.Duration) {
	u.w.t.Helper()
	code := u.end(syscall.SIGINT)
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.summary
	if u.bad != nil || s.Requests == 0 {
		u.w.t.Errorf("the user printed no clean JSON: %v, summary %+v", u.bad, s)
	}
	u.w.t.Logf("longest gap %.3f s, bound %v", s.LongestGap, gap)
	if code != 0 || s.Failed > 0 || s.Answered != s.Requests || s.LongestGap > gap.Seconds() {
		u.w.t.Errorf("the user ended with exit code %d and %+v; want no failure and no gap above %v", code, s, gap)
	}
	for i, r := range u.requests {
		if r.Error != "" {
			u.w.t.Errorf("request %d: %s", i, r.Error)
		}
	}
}

// outcome is how a command ended.
type outcome struct {
	code           int
	stdout, stderr string
}

// ctl runs rspctl with the registrar's admin API and waits for its end.
func (r *registrar) ctl(args ...string) outcome {
	r.w.t.Helper()
	return r.host.run("rspctl", append([]string{"--server", r.api}, args...)...)
}

// run runs a program to its end.
func (h *host) run(program string, args ...string) outcome {
	h.w.t.Helper()
	var out journal
	p := h.w.start(program+" "+strings.Join(args, " "), h.command(program, args...), &out)
	return outcome{p.exitCode(), out.String(), p.log.String()}
}
