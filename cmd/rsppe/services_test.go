package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rserpool/asap"
	"rserpool/asap/hunt"
	"rserpool/asap/param"
	"rserpool/asap/transport/transporttest"
	"rserpool/cmd/internal/cli"
	"rserpool/poolelement"
)

// refuse answers registrations as a registrar does whose pool has another policy.
func refuse(msg asap.Message) asap.Message {
	m, ok := msg.(*asap.Registration)
	if !ok {
		return oblige(msg)
	}
	cause := param.PolicyCause(param.CauseInconsistentPolicy, param.Policy{Type: param.LeastUsed})
	return &asap.RegistrationResponse{Reject: true, Handle: m.Handle, ID: m.Element.ID, Error: param.OperationError{cause}}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// both returns the registrations of two services, in the order of their pools.
func both(t *testing.T, r *registrar) [2]*asap.Registration {
	t.Helper()
	a, b := expect[*asap.Registration](t, r), expect[*asap.Registration](t, r)
	if a.Handle > b.Handle {
		a, b = b, a
	}
	return [2]*asap.Registration{a, b}
}

func TestServicesOfAFile(t *testing.T) {
	r := newRegistrar(t, oblige)
	file := filepath.Join(t.TempDir(), "rsppe.yaml")
	text := `
registrar: ["` + r.addr + `"]
check: none
life: 1m
services:
  - {pool: db, service: tcp://127.0.0.1:7001, policy: wrr:3}
  - {pool: web, service: tcp://127.0.0.1:7002, life: 2m}
`
	write(t, file, text)
	p := start(t, "--config", file)
	regs := both(t, r)
	for i, want := range []struct {
		pool   param.PoolHandle
		port   uint16
		policy param.Policy
		life   param.Life
	}{
		{"db", 7001, param.Policy{Type: param.WeightedRoundRobin, Weight: 3}, 60},
		{"web", 7002, param.Policy{Type: param.RoundRobin}, 120},
	} {
		if e := regs[i].Element; regs[i].Handle != want.pool || e.User.Port != want.port || e.Policy != want.policy || e.Life != want.life {
			t.Errorf("registered %+v, want %+v", regs[i], want)
		}
	}
	if regs[0].Element.ID == regs[1].Element.ID {
		t.Error("both have the same identifier")
	}
	t.Run("Reload", func(t *testing.T) {
		write(t, file, strings.Replace(text, "wrr:3", "wrr:4", 1))
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if reg := expect[*asap.Registration](t, r); reg.Handle != "db" || reg.Element.Policy.Weight != 4 {
			t.Errorf("registered %+v", reg)
		}
		write(t, file, text+"  - {pool: more, service: tcp://127.0.0.1:7003}\n")
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if reg := expect[*asap.Registration](t, r); reg.Handle != "db" || reg.Element.Policy.Weight != 3 {
			t.Errorf("registered %+v", reg)
		}
		until(t, "a warning", func() bool { return strings.Contains(p.stderr.String(), "at the next start") })
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		until(t, "the same warning", func() bool { return strings.Count(p.stderr.String(), "at the next start") == 2 })
		// A service that the file had left out.
		write(t, file, strings.Replace(text, "  - {pool: db, service: tcp://127.0.0.1:7001, policy: wrr:3}\n", "", 1))
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		until(t, "one more", func() bool { return strings.Count(p.stderr.String(), "at the next start") == 3 })
		write(t, file, strings.Replace(text, "wrr:3", "wrr:5", 1))
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if reg := expect[*asap.Registration](t, r); reg.Handle != "db" || reg.Element.Policy.Weight != 5 {
			t.Errorf("registered %+v", reg)
		}
	})
	p.terminate()
	expect[*asap.Deregistration](t, r)
	expect[*asap.Deregistration](t, r)
	p.expectExit(t, cli.OK, "")
}

// A command may serve several services; they come and go with it.
func TestServicesOfOneCommand(t *testing.T) {
	r := newRegistrar(t, oblige)
	address := transporttest.FreeAddress(t)
	file := filepath.Join(t.TempDir(), "rsppe.yaml")
	write(t, file, `
registrar: ["`+r.addr+`"]
service: tcp://`+address+`
check-start: 5ms
restart-min: 10ms
services: [{pool: a}, {pool: b}]
`)
	t.Setenv(envRole, "serve:"+address)
	p := start(t, "--config", file, "--", os.Args[0])
	for range 2 {
		if regs := both(t, r); regs[0].Handle != "a" || regs[1].Handle != "b" {
			t.Errorf("registered %+v and %+v", regs[0], regs[1])
		}
		fmt.Fprintln(connect(t, address), "exit 3")
		expect[*asap.Deregistration](t, r)
		expect[*asap.Deregistration](t, r)
	}
	both(t, r)
	p.terminate()
	p.expectExit(t, cli.OK, "exit code 3")
}

// One service that a registrar refuses is no reason to give the others up.
func TestOneServiceRefused(t *testing.T) {
	r := newRegistrar(t, func(msg asap.Message) asap.Message {
		if m, ok := msg.(*asap.Registration); ok && m.Handle == "bad" {
			return refuse(msg)
		}
		return oblige(msg)
	})
	file := filepath.Join(t.TempDir(), "rsppe.yaml")
	write(t, file, `
check: none
services:
  - {pool: bad, service: tcp://127.0.0.1:7001}
  - {pool: good, service: tcp://127.0.0.1:7002}
`)
	p := start(t, "--config", file, "--registrar", r.addr)
	both(t, r)
	until(t, "the refusal", func() bool { return strings.Contains(p.stderr.String(), "service given up") })
	p.terminate()
	if m := expect[*asap.Deregistration](t, r); m.Handle != "good" {
		t.Errorf("deregistered from %q", m.Handle)
	}
	p.expectExit(t, cli.Failed, `tcp://127.0.0.1:7001 in pool "bad": `)
}

func TestServicesThatClash(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rsppe.yaml")
	for text, want := range map[string]string{
		"{pool: a, service: tcp://127.0.0.1:1}, {pool: a, service: tcp://127.0.0.1:1}":                               "services 1 and 2 have the same pool and service",
		"{pool: a, service: tcp://127.0.0.1:1, id: 7}, {pool: a, service: tcp://127.0.0.1:2, id: 7}":                 "services 1 and 2 have the same pool and id, 7",
		"{pool: a, service: tcp://127.0.0.1:1, listen: ':9'}, {pool: b, service: tcp://127.0.0.1:1, listen: ':9'}":   "services 1 and 2 have the same listen, :9",
		"{pool: a, service: tcp://127.0.0.1:1}, {pool: a, service: tcp://127.0.0.1}":                                 `service 2, tcp://127.0.0.1 in pool "a": service: `,
		"{pool: a, service: tcp://127.0.0.1:1}, {pool: a, service: tcp://127.0.0.1:2, restart: never}":               `unknown key "restart"`,
		"{pool: a, service: tcp://127.0.0.1:1}, {pool: b, service: tcp://127.0.0.1:2, check: tcp, check-rise: zero}": "check-rise: ",
	} {
		write(t, file, "services: ["+text+"]\n")
		start(t, "--config", file, "--registrar", "192.0.2.1").expectExit(t, cli.Usage, want)
	}
}

// Connections to a server elsewhere don't show here, so its clients get the whole time.
func TestOnlyConnectionsOfThisMachineAreCounted(t *testing.T) {
	hosts := map[string]bool{
		"": true, "localhost": true, "127.0.0.1": true, "127.8.0.1": true, "::1": true, "0.0.0.0": true, "::": true,
		"203.0.113.1": false, "2001:db8::1": false, "db.example": false,
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own {
		hosts[a.(*net.IPNet).IP.String()] = true
	}
	for host, want := range hosts {
		if here(host) != want {
			t.Errorf("%q is here: %v", host, !want)
		}
	}
}

// With --give-up what counts is the time without a registrar.
func TestAloneForTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &member{final: make(chan error, 1)}
		m.alone = alone{time.Second, time.AfterFunc(time.Second, func() { m.finish(hunt.ErrNoRegistrar) })}
		for range 3 {
			time.Sleep(900 * time.Millisecond)
			m.follow(poolelement.Event{Type: poolelement.HomeFound})
			time.Sleep(time.Hour)
			m.follow(poolelement.Event{Type: poolelement.HomeLost})
		}
		time.Sleep(999 * time.Millisecond)
		if len(m.final) > 0 {
			t.Fatal(<-m.final)
		}
		time.Sleep(2 * time.Millisecond)
		if len(m.final) != 1 {
			t.Error("goes on without a registrar")
		}
	})
}
