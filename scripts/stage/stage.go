// Package stage runs the processes of a demonstration or a measurement: their output
// goes to files, and nothing is left behind.
package stage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Process is a running program. Its output goes to a file.
type Process struct {
	// Name is that of Start.
	Name string
	// Done is closed when it has ended.
	Done <-chan struct{}

	cmd *exec.Cmd
}

// Stage starts processes, and ends whatever still runs when the show is over. It may be
// used concurrently.
type Stage struct {
	dir string
	mu  sync.Mutex
	all []*Process
}

// New returns a stage with its logs in a directory.
func New(dir string) *Stage { return &Stage{dir: dir} }

// Start runs a program until ctx ends or it is killed. The log is name's; a second
// process of the name continues it.
func (s *Stage) Start(ctx context.Context, name, program string, args ...string) (*Process, error) {
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	p := &Process{Name: name, Done: done, cmd: exec.CommandContext(ctx, program, args...)}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A demonstration that dies leaves nothing behind.
	p.cmd.SysProcAttr = dieWithParent()
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its log, and part of the show
		_ = log.Close()
		close(done)
	}()
	s.mu.Lock()
	s.all = append(s.all, p)
	s.mu.Unlock()
	return p, nil
}

// PID returns the process identifier.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends sig.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// End sends sig and waits for the process to end.
func (p *Process) End(sig os.Signal) error {
	if err := p.Signal(sig); err != nil {
		return err
	}
	select {
	case <-p.Done:
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("%s did not end on %v", p.Name, sig)
	}
}

// Wait waits for all processes to end, after their context has.
func (s *Stage) Wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.all {
		<-p.Done
	}
}

// Tails returns the last lines of every log, for a show that went wrong.
func (s *Stage) Tails(lines int) string {
	paths, _ := filepath.Glob(filepath.Join(s.dir, "*.log"))
	var out string
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		var last []string
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if last = append(last, sc.Text()); len(last) > lines {
				last = last[1:]
			}
		}
		_ = f.Close()
		out += "--- " + filepath.Base(path) + "\n"
		for _, l := range last {
			out += l + "\n"
		}
	}
	return out
}

// FreePort returns an address on loopback with a TCP port that nobody uses at the
// moment.
func FreePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
