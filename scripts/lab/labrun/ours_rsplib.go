package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// rsplibAtOurs is our registrar with rsplib's elements and users.
func rsplibAtOurs(l *lab) {
	registrar := l.registrar(pr1, "rspd", "--compat", "rsplib", "--timers", "rsplib", "--announce", "auto")

	services := map[string]string{ // service and its usual pool
		"echo": "EchoPool", "discard": "DiscardPool", "daytime": "DaytimePool",

		"pingpong": "PingPongPool", "calcapp": "CalcAppPool", "scripting": "ScriptingPool",
	}
	elements := map[string]*process{}
	for service := range services {
		elements[service] = l.rsplibElement(pe1, service, service, pr1)
	}
	for service, name := range services {
		_, err := l.members(pr1, name, 1, 10*time.Second)
		l.check(service+" registers", errors.Join(err, elements[service].running()))
	}

	// The second of each pool with sessions; the echo element finds the
	// registrar by its announcements.
	elements["pingpong2"] = l.rsplibElement(pe2, "pingpong2", "pingpong", pr1)
	elements["calcapp2"] = l.rsplibElement(pe2, "calcapp2", "calcapp", pr1, "-capcookiemaxtime=1")
	elements["echo2"] = l.mustStart(pe2, "echo2", "rspserver", "-echo", "-logcolor=off", "-loglevel=4")
	for _, name := range []string{"PingPongPool", "CalcAppPool", "EchoPool"} {
		_, err := l.members(pr1, name, 2, 10*time.Second)
		l.check("second element in "+name, err)
	}

	terminal := l.rsplibUser(pu1, "terminal", "rspterminal", pr1)
	fmt.Fprintln(terminal.in, "hello pool")
	l.check("rspterminal gets an echo", terminal.says("hello pool", 1, 10*time.Second))
	daytime := l.rsplibUser(pu1, "daytime-user", "rspterminal", pr1, "-poolhandle=DaytimePool")
	l.check("rspterminal gets the time", daytime.says(time.Now().Format("2006"), 2, 10*time.Second))
	// rspserver 3.4.4 refuses its own option -chargen, so ours serves that pool.
	l.server(pe1, "chargen", "chargen", "sctp://"+pe1.a()+":19")
	l.mustStart(pe1, "chargen-element", l.element(pr1, "CharGenPool", "--service", "sctp://"+pe1.a()+":19", "--compat", "rsplib", "--control-channel")...)
	l.check("rsppe registers chargen", second(l.members(pr1, "CharGenPool", 1, 10*time.Second)))
	chargen := l.rsplibUser(pu1, "chargen-user", "rspterminal", pr1, "-poolhandle=CharGenPool")
	l.check("rspterminal gets characters", chargen.says("ABCDEFGHIJ", 10, 10*time.Second))
	chargen.stop()
	discard := l.rsplibUser(pu1, "discard-user", "rspterminal", pr1, "-poolhandle=DiscardPool")
	fmt.Fprintln(discard.in, "into the void")
	l.check("rspserver discards", elements["discard"].says("void", 0, 0))
	lost := l.rsplibUser(pu2, "lost", "rspterminal", pr1, "-poolhandle=NoSuchPool")
	fmt.Fprintln(lost.in, "anybody?")
	l.check("unknown pool is told", lost.says("did not find new pool element", 1, 10*time.Second))
	lost.stop()

	pings := l.rsplibUser(pu1, "pingpongclient", "pingpongclient", pr1, "-interval=100")
	calc := l.rsplibUser(pu2, "calcappclient", "calcappclient", pr1, "-jobsize=3000000", "-jobinterval=0.5")
	l.check("pingpongclient gets answers", pings.says("Ack #", 10, 15*time.Second))
	l.check("calcappclient finishes jobs", calc.says("completed", 2, 30*time.Second))

	l.check("scriptingclient gets its results", l.scripting(pu1, pr1))

	before := pings.text()
	elements["pingpong"].stop()
	l.check("killed element is gone", second(l.members(pr1, "PingPongPool", 1, 3*time.Second)))
	l.check("pingpongclient fails over", pings.says("Ack #", strings.Count(before, "Ack #")+20, 15*time.Second))
	calcBefore := strings.Count(calc.text(), "completed")
	elements["calcapp"].stop()
	l.check("calcappclient fails over", calc.says("completed", calcBefore+2, 40*time.Second))

	l.check("hsdump reads our table", l.handlespaceHas(pu2, pr1, 10*time.Second, "EchoPool", "ScriptingPool"))

	// After more than two keep-alives of each, all is as before.
	time.Sleep(12 * time.Second)
	_, err := l.members(pr1, "EchoPool", 2, 0)
	l.check("elements stay", errors.Join(err, elements["echo"].running(), elements["echo2"].running()))
	l.check("rspserver deregisters at its end", elements["echo2"].end(syscall.SIGINT, 5*time.Second))
	l.check("and is gone", second(l.members(pr1, "EchoPool", 1, time.Second)))

	l.check("registrar runs", registrar.running())
	l.check("registrar ends on SIGTERM", registrar.end(syscall.SIGTERM, 10*time.Second))
}

func second[T any](_ T, err error) error { return err }

// scripting lets scriptingclient upload a script and an input and fetch the
// result.
func (l *lab) scripting(user, registrar host) error {
	input, output := l.file("in.tar.gz"), "/tmp/scripting-out.tar.gz"
	const script = "#!/bin/sh\ntr a-z A-Z < in.txt > out.txt && tar czf \"$1\" out.txt\n"
	if err := writeArchive(input, map[string]string{"ssrun": script, "in.txt": "carried by a pool"}); err != nil {
		return err
	}
	client := l.rsplibUser(user, "scriptingclient", "scriptingclient", registrar,
		"-runid=lab", "-input="+input, "-output="+output, "-retrydelay=1000")
	if err := client.wait(60 * time.Second); err != nil {
		return fmt.Errorf("%w: %s", err, tail(client.text()))
	}
	got, err := readArchive(output, "out.txt")
	if err == nil && got != "CARRIED BY A POOL" {
		err = fmt.Errorf("result is %q", got)
	}
	return err
}

func writeArchive(path string, files map[string]string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z := gzip.NewWriter(f)
	t := tar.NewWriter(z)
	for name, text := range files {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			return err
		}
		if _, err := io.WriteString(t, text); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}

func readArchive(path, name string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return "", err
	}
	t := tar.NewReader(z)
	for {
		h, err := t.Next()
		if err != nil {
			return "", fmt.Errorf("%s in %s: %w", name, path, err)
		}
		if strings.TrimPrefix(h.Name, "./") == name {
			text, err := io.ReadAll(t)
			return string(text), err
		}
	}
}
