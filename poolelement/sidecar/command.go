package sidecar

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// command is a child of this process, with a process group of its own.
type command struct{ cmd *exec.Cmd }

// exec starts the command.
func (p *Process) exec() (child, error) {
	cmd := exec.Command(p.Command[0], p.Command[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.Env, p.Stdout, p.Stderr
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = outputDelay
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return command{cmd}, nil
}

func (c command) pid() int { return c.cmd.Process.Pid }

func (c command) wait() error {
	err := c.cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		if errors.Is(err, exec.ErrWaitDelay) {
			return nil // it succeeded; its output is held open by others
		}
		return err
	}
	ended := &EndedError{Code: exit.ExitCode()}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		ended.Signal = status.Signal()
	}
	return ended
}

func (c command) signal(s os.Signal) error { return c.cmd.Process.Signal(s) }

func (c command) signalGroup(s syscall.Signal) error { return syscall.Kill(-c.pid(), s) }

func (c command) groupEmpty() bool {
	for { // whose parent has died may be ours, if this is process 1
		if pid, err := syscall.Wait4(-c.pid(), nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
			break
		}
	}
	return errors.Is(syscall.Kill(-c.pid(), 0), syscall.ESRCH)
}
