package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a running program whose output goes to a file.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	in   io.WriteCloser
	done chan struct{} // closed when it has ended
	err  error         // valid then
}

// bin returns the path of one of this project's programs.
func (l *lab) bin(program string) string { return filepath.Join(l.out, "bin", program) }

// start starts a program on a host. name is unique in the group and names the
// output file. Output to pipes and files is line buffered.
func (l *lab) start(h host, name string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(l.out, "log", l.group+"-"+name+".log"), done: make(chan struct{})}
	file, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	argv := h.exec(append([]string{"stdbuf", "-oL"}, args...)...)
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.Dir = "/tmp"
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	l.processes = append(l.processes, p)
	return p, nil
}

// mustStart is start for programs that the group can't go on without.
func (l *lab) mustStart(h host, name string, args ...string) *process {
	p, err := l.start(h, name, args...)
	if err != nil {
		l.need("start "+name, err)
	}
	return p
}

// output runs a program on a host to its end and returns what it printed.
func (l *lab) output(limit time.Duration, h host, name string, args ...string) (string, error) {
	p, err := l.start(h, name, args...)
	if err != nil {
		return "", err
	}
	p.in.Close()
	err = p.wait(limit)
	return p.text(), err
}

// signal sends a signal to the program.
func (p *process) signal(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s) // it may have ended
}

// wait waits until the program has ended by itself, and kills it when that
// takes longer than limit.
func (p *process) wait(limit time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
		p.stop()
		return fmt.Errorf("%s still ran after %v", p.name, limit)
	}
}

// stop kills the program and waits for its end.
func (p *process) stop() {
	p.signal(syscall.SIGKILL)
	p.signal(syscall.SIGCONT)
	<-p.done
}

// end asks the program to end, and kills it if it doesn't within limit.
func (p *process) end(s syscall.Signal, limit time.Duration) error {
	p.signal(s)
	return p.wait(limit)
}

// running returns an error that tells how the program ended, or nil.
func (p *process) running() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s %w: %v: %s", p.name, errEnded, p.err, tail(p.text()))
	default:
		return nil
	}
}

// text returns the output until now.
func (p *process) text() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.ToValidUTF8(data, nil))
}

// says waits until the output contains text n times.
func (p *process) says(text string, n int, limit time.Duration) error {
	return within(limit, func() error {
		out := p.text()
		if got := strings.Count(out, text); got < n {
			return errors.Join(fmt.Errorf("%s printed %q %d times, not %d: %s", p.name, text, got, n, tail(out)), p.running())
		}
		return nil
	})
}

// status returns a field of /proc/PID/status, without its unit.
func (p *process) status(field string) (int, error) {
	text, err := statusOf(p.cmd.Process.Pid, field)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

func statusOf(pid int, field string) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.Fields(rest)[0], nil
		}
	}
	return "", fmt.Errorf("no field %s", field)
}

// stopAll kills what the group has started.
func (l *lab) stopAll() {
	for _, p := range l.processes {
		p.stop()
	}
	l.processes = nil
}

func tail(s string) string {
	if len(s) > 300 {
		s = "..." + s[len(s)-300:]
	}
	return strings.TrimSpace(s)
}

// exitCode returns nil if err is that a program ended with the code.
func exitCode(err error, code int) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == code {
		return nil
	}
	return fmt.Errorf("ended with %v, not exit code %d", err, code)
}
