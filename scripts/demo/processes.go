package main

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

// process is one program of the demonstration. Its output goes to a file.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
}

// stage starts processes, and ends whatever still runs when the show is over.
type stage struct {
	dir string // of the logs
	mu  sync.Mutex
	all []*process
}

// start runs a program until ctx ends or it is killed.
func (s *stage) start(ctx context.Context, name, program string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p := &process{name: name, cmd: exec.CommandContext(ctx, program, args...), log: log, done: make(chan struct{})}
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
		close(p.done)
	}()
	s.mu.Lock()
	s.all = append(s.all, p)
	s.mu.Unlock()
	return p, nil
}

// signal sends sig and waits for the process to end.
func (p *process) signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("%s did not end on %v", p.name, sig)
	}
}

// wait waits for all processes to end, after their context has.
func (s *stage) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.all {
		<-p.done
	}
}

// tails returns the last lines of every log, for a show that went wrong.
func (s *stage) tails(lines int) string {
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

// freePort returns a TCP port on loopback that nobody uses at the moment.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
