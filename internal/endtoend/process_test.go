//go:build unix

package endtoend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds each wait that has no bound of its own. It is far above what
// the programs need, as the machine may have other things to do.
const patience = time.Minute

// slow is how late elements may be where none of them dies: they and the registrars
// share their processors with other tests.
const slow = "10s"

// world is all that one test starts. At the end of the test nothing is left of it.
type world struct {
	t         *testing.T
	mu        sync.Mutex
	processes []*process
}

// newWorld begins a test, which runs beside others.
func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, p := range w.processes {
			p.kill()
			for _, sign := range []string{"panic:", "fatal error:", "DATA RACE"} {
				if strings.Contains(p.log.String(), sign) {
					t.Errorf("%s: %s", p.name, sign)
				}
			}
		}
		if t.Failed() {
			for _, p := range w.processes {
				t.Logf("--- %s, %s\n%s", p.name, p.cmd.ProcessState, p.log.tail(80))
			}
		}
	})
	return w
}

// until waits for a condition.
func (w *world) until(what string, condition func() bool) {
	w.t.Helper()
	w.within(patience, func() string {
		if condition() {
			return ""
		}
		return "waited in vain: " + what
	})
}

// within waits until complaint returns nothing, and fails the test with the last
// complaint when that takes too long.
func (w *world) within(d time.Duration, complaint func() string) {
	w.t.Helper()
	for end := time.Now().Add(d); ; {
		text := complaint()
		if text == "" {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("after %v: %s", d, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// process is a running program and its descendants.
type process struct {
	w    *world
	name string
	cmd  *exec.Cmd
	log  *journal
	done chan struct{}
}

// start runs a command until the test ends. Its standard output goes to out, or to
// its log when that is nil.
func (w *world) start(name string, cmd *exec.Cmd, out io.Writer) *process {
	w.t.Helper()
	p := &process{w: w, name: name, cmd: cmd, log: &journal{}, done: make(chan struct{})}
	cmd.Stderr = p.log
	if cmd.Stdout = out; out == nil {
		cmd.Stdout = p.log
	}
	cmd.SysProcAttr = ownGroup()
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		w.t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
		close(p.done)
	}()
	w.mu.Lock()
	w.processes = append(w.processes, p)
	w.mu.Unlock()
	return p
}

// signal sends a signal to the process and its descendants.
func (p *process) signal(s syscall.Signal) {
	p.w.t.Helper()
	if err := syscall.Kill(-p.cmd.Process.Pid, s); err != nil {
		p.w.t.Errorf("%v to %s: %v", s, p.name, err)
	}
}

// kill ends the process at once.
func (p *process) kill() {
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		p.w.t.Errorf("kill %s: %v", p.name, err)
	}
	<-p.done
}

// end sends a signal and returns the exit code that follows.
func (p *process) end(s syscall.Signal) int {
	p.w.t.Helper()
	p.signal(s)
	return p.exitCode()
}

// exitCode waits for the end of the process.
func (p *process) exitCode() int {
	p.w.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.signal(syscall.SIGQUIT) // prints what its goroutines do
		select {
		case <-p.done:
		case <-time.After(time.Second): // it may be stopped
		}
		p.w.t.Fatalf("%s has not ended\n%s", p.name, p.log.tail(600))
	}
	return p.cmd.ProcessState.ExitCode()
}

// says waits until the log of the process contains a text.
func (p *process) says(text string) {
	p.w.t.Helper()
	p.w.until(fmt.Sprintf("%s to say %q", p.name, text), func() bool { return strings.Contains(p.log.String(), text) })
}

// journal keeps what a process says.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) tail(n int) string {
	lines := strings.SplitAfter(j.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// write makes a file for the test, or changes it at one stroke.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
