package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
	"rserpool/poolelement"
)

// churnPools are shared by the elements of both makers at all registrars, and come
// and go with them.
const churnPools = 4

// churnPatience is how long an element waits for the acknowledgement of a registration
// or deregistration: several of rsplib's and our own time-outs.
const churnPatience = 30 * time.Second

// churned is what a churn has done: requests that the registrar has acknowledged, and
// elements that stand at its end.
type churned struct {
	Registered, Deregistered, Standing int
	Errors                             []string
}

// enter puts an element into a pool and returns when the registrar has acknowledged
// that; so does leave.
type enter func(pool string) (leave func() error, err error)

// churn lets so many elements of a maker join and leave pools at one registrar again
// and again for a time. Each ends registered. It prints what it has done, and leaves
// all pools on SIGTERM.
func churn(maker, at string, elements int, d time.Duration) error {
	endpoint, err := transport.ParseEndpoint(at, transport.SCTP, 3863)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var (
		mu    sync.Mutex
		done  churned
		group sync.WaitGroup
		stand []func() error
		end   = time.Now().Add(d)
	)
	count := func(n *int, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			done.Errors = append(done.Errors, fmt.Sprintf("%v: %v", time.Now().Format("15:04:05.000"), err))
			return
		}
		*n++
	}
	for slot := range elements {
		element := ourElement(endpoint, param.PEID(os.Getpid()<<8|slot+1))
		if maker == "rsplib" {
			element = theirElement(endpoint)
		}
		group.Go(func() {
			for i := slot; ; i++ {
				leave, err := element(fmt.Sprint("Churn", i%churnPools))
				count(&done.Registered, err)
				if time.Now().After(end) {
					if err == nil {
						mu.Lock()
						stand = append(stand, leave)
						mu.Unlock()
					}
					return
				}
				time.Sleep(rand.N(200 * time.Millisecond))
				if err == nil {
					count(&done.Deregistered, leave())
				}
			}
		})
	}
	group.Wait()
	done.Standing = len(stand)
	if err := json.NewEncoder(os.Stdout).Encode(done); err != nil {
		return err
	}
	<-ctx.Done()
	var errs []error
	for _, leave := range stand {
		errs = append(errs, leave())
	}
	return errors.Join(errs...)
}

// ourElement makes elements with the same identifier, one after the other, like rsppe.
func ourElement(registrar transport.Endpoint, id param.PEID) enter {
	networks := transport.NewNetworks(sctp.New())
	return func(pool string) (func() error, error) {
		registered := make(chan struct{})
		var once sync.Once
		var failed error
		element, err := poolelement.New(poolelement.Config{
			Handle: param.PoolHandle(pool), ID: id,
			// rspserver's echo elements have a control channel, and a pool is for one kind.
			User:       param.Transport{Type: param.TypeSCTPTransport, Port: 7, Use: param.DataAndControl},
			Registrars: []transport.Endpoint{registrar},
			Networks:   networks,
			Compat:     poolelement.Rsplib,
			OnEvent: func(e poolelement.Event) {
				switch e.Type {
				case poolelement.RegistrationFailed, poolelement.RegistrationLost:
					once.Do(func() { failed = e.Err; close(registered) })
				case poolelement.RegistrationAccepted:
					once.Do(func() { close(registered) })
				}
			},
		})
		if err != nil {
			return nil, err
		}
		if err := element.Start(context.Background()); err != nil {
			return nil, err
		}
		leave := func() error { return element.Stop(context.Background()) }
		select {
		case <-registered:
		case <-time.After(churnPatience):
			failed = errors.New("no acknowledgement")
		}
		if failed != nil {
			return nil, errors.Join(fmt.Errorf("join %s: %w", pool, failed), leave())
		}
		return leave, nil
	}
}

// theirElement makes elements by starting rspserver, which ends if this program does.
func theirElement(registrar transport.Endpoint) enter {
	return func(pool string) (func() error, error) {
		out := new(output)
		cmd := exec.Command("stdbuf", "-oL", "rspserver", "-echo", "-poolhandle="+pool, "-logcolor=off", "-loglevel=7",
			fmt.Sprintf("-registrar=%s:%d", registrar.Hosts[0], registrar.Port))
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		ended := make(chan error, 1)
		started := make(chan error)
		go func() {
			runtime.LockOSThread() // Pdeathsig counts from the end of this thread
			err := cmd.Start()
			started <- err
			if err == nil {
				ended <- cmd.Wait()
			}
		}()
		if err := <-started; err != nil {
			return nil, err
		}
		says := func(text string) error {
			return within(churnPatience, func() error {
				if !strings.Contains(out.String(), text) {
					return fmt.Errorf("rspserver did not say %q: %s", text, tail(out.String()))
				}
				return nil
			})
		}
		leave := func() error {
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				return err
			}
			select {
			case err := <-ended:
				return errors.Join(err, says("Deregistration result is: okay"))
			case <-time.After(churnPatience):
				return errors.Join(errors.New("rspserver did not end"), cmd.Process.Kill())
			}
		}
		if err := errors.Join(says("Registration result is: okay"), within(churnPatience, func() error { return catches(cmd.Process.Pid, syscall.SIGINT) })); err != nil {
			fmt.Fprintln(os.Stderr, out)
			return nil, errors.Join(err, leave())
		}
		return leave, nil
	}
}

// catches returns an error if a signal would just end a process: rspserver prepares for
// it only when it is registered.
func catches(pid int, s syscall.Signal) error {
	mask, err := statusOf(pid, "SigCgt")
	if err != nil {
		return err
	}
	bits, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return err
	}
	if bits&(1<<(s-1)) == 0 {
		return fmt.Errorf("process %d does not catch %v", pid, s)
	}
	return nil
}

// output collects what a program prints.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
