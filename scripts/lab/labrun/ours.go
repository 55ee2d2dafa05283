package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// sctpOn returns the SCTP endpoint of a host with its addresses on both networks.
func sctpOn(h host, port int) string {
	return fmt.Sprintf("sctp://%s,%s:%d", h.a(), h.b(), port)
}

// registrar starts rspd on a host, with addresses on both networks, and waits
// until it listens.
func (l *lab) registrar(h host, name string, args ...string) *process {
	p := l.mustStart(h, name, l.rspd(h, args...)...)
	l.needPorts(h, p, 3863, 9901)
	return p
}

// rspd returns the command line of rspd.
func (l *lab) rspd(h host, args ...string) []string {
	return append([]string{l.bin("rspd"), "--listen", sctpOn(h, 3863), "--enrp-listen", sctpOn(h, 9901), "--insecure"}, args...)
}

// needPorts waits until a program on a host listens on these SCTP ports.
func (l *lab) needPorts(h host, p *process, ports ...int) {
	var errs []error
	for _, port := range ports {
		errs = append(errs, l.listens(h, port, 10*time.Second))
	}
	l.need(p.name+" listens", errors.Join(append(errs, p.running())...))
}

// user returns the command line of rsppu.
func (l *lab) user(registrar host, pool string, args ...string) []string {
	return append([]string{l.bin("rsppu"), pool, "--registrar", sctpOn(registrar, 3863)}, args...)
}

// element returns the command line of rsppe.
func (l *lab) element(registrar host, pool string, args ...string) []string {
	return append([]string{l.bin("rsppe"), "--pool", pool, "--registrar", sctpOn(registrar, 3863)}, args...)
}

// ctl runs rspctl with JSON output on a host and decodes what it prints into v.
func (l *lab) ctl(h host, v any, args ...string) error {
	l.commands++
	out, err := l.output(15*time.Second, h, fmt.Sprintf("rspctl-%d", l.commands),
		append([]string{l.bin("rspctl"), "-o", "json"}, args...)...)
	if err != nil {
		return fmt.Errorf("rspctl %s: %w: %s", strings.Join(args, " "), err, tail(out))
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("rspctl %s: %w: %s", strings.Join(args, " "), err, tail(out))
	}
	return nil
}

// pool is what rspctl says about a pool.
type pool struct {
	Handle  string
	Policy  string
	Members []member
}

type member struct {
	ID, State     string
	Home          string
	UserTransport struct {
		Protocol  string
		Port      int
		Addresses []string
	} `json:"user_transport"`
}

// members waits until a pool of the registrar on a host, asked by its admin API,
// has so many members.
func (l *lab) members(registrar host, name string, want int, limit time.Duration) (pool, error) {
	var p pool
	return p, within(limit, func() error {
		p = pool{}
		if err := l.ctl(registrar, &p, "pool", "show", name); err != nil && want > 0 {
			return err
		}
		if len(p.Members) != want {
			return fmt.Errorf("%s has %d elements, not %d", name, len(p.Members), want)
		}
		return nil
	})
}

// file returns the path of a file in the log folder.
func (l *lab) file(name string) string { return filepath.Join(l.out, "log", l.group+"-"+name) }
