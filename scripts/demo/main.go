// Command demo shows a pool that survives: one registrar, three servers with a
// side-car each, and a user that asks every few milliseconds. It kills a server,
// then takes the registrar away and brings it back, and prints what the user saw.
//
//	demo BIN            the directory with rspd and rsppe
//	demo server NAME ADDRESS
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"rserpool/registrar/admin"
	"rserpool/scripts/stage"
)

const (
	pool    = "squares"
	gapMax  = time.Second            // after the kill
	calmMax = 400 * time.Millisecond // at all other times: a pause of the machine, not of the pool
)

func main() {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "server":
		err = serve(os.Args[2], os.Args[3])
	case len(os.Args) == 2:
		err = show(os.Args[1])
	default:
		err = errors.New("usage: demo BIN")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// play is the running demonstration.
type play struct {
	stage            *stage.Stage
	ctx              context.Context
	bin, asap, admin string // where programs are, where the registrar listens
	user             *user
	start            time.Time
	shown            int // answers that were reported
}

func show(bin string) (err error) {
	dir, err := os.MkdirTemp("", "rserpool-demo-")
	if err != nil {
		return err
	}
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(interrupted, 28*time.Second)
	p := &play{stage: stage.New(dir), ctx: ctx, bin: bin}
	defer func() {
		cancel()
		p.stage.Wait()
		if err != nil {
			err = fmt.Errorf("%w\n%s(all logs: %s)", err, p.stage.Tails(12), dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	return p.run()
}

func (p *play) run() error {
	var err error
	if p.asap, err = stage.FreePort(); err != nil {
		return err
	}
	if p.admin, err = stage.FreePort(); err != nil {
		return err
	}
	p.say("a registrar on tcp://%s", p.asap)
	registrar, err := p.registrar()
	if err != nil {
		return err
	}
	p.say("three small HTTP servers, a side-car beside each that puts it into the pool %q", pool)
	servers := make(map[string]*stage.Process)
	for _, name := range []string{"anna", "berta", "clara"} {
		if servers[name], err = p.element(name); err != nil {
			return err
		}
	}
	if err := p.elements(3); err != nil {
		return err
	}

	p.say("a user asks the pool for squares, one request every %v", pace)
	if p.user, err = newUser("tcp://"+p.asap, pool); err != nil {
		return err
	}
	userCtx, leave := context.WithCancel(p.ctx)
	defer leave()
	p.start = time.Now()
	gone := make(chan struct{})
	go func() { defer close(gone); p.user.run(userCtx) }()
	defer func() { leave(); <-gone }()
	p.watch(3 * time.Second)

	p.say("kill -9 of the server berta")
	killed := time.Now()
	if err := servers["berta"].End(syscall.SIGKILL); err != nil {
		return err
	}
	if err := p.elements(2); err != nil {
		return err
	}
	p.say("the registrar has taken berta out of the pool, %v after the kill", time.Since(killed).Round(time.Millisecond))
	p.watch(3 * time.Second)

	p.say("the registrar is stopped")
	away := time.Now()
	if err := registrar.End(syscall.SIGTERM); err != nil {
		return err
	}
	p.watch(4 * time.Second)
	p.say("the registrar starts again, knowing nothing")
	if _, err = p.registrar(); err != nil {
		return err
	}
	restarted := time.Now()
	if err := p.elements(2); err != nil {
		return err
	}
	p.say("anna and clara have registered again by themselves, %v after the start", time.Since(restarted).Round(time.Millisecond))
	p.watch(3 * time.Second)
	back := time.Now()

	leave()
	<-gone
	return p.verdict(killed, away, back)
}

// registrar starts rspd and waits until it is ready.
func (p *play) registrar() (*stage.Process, error) {
	proc, err := p.stage.Start(p.ctx, "rspd", filepath.Join(p.bin, "rspd"),
		"--listen", "tcp://"+p.asap, "--enrp-listen", "off", "--admin", p.admin)
	if err != nil {
		return nil, err
	}
	return proc, p.until(proc, "the registrar to be ready", func() bool {
		resp, err := http.Get("http://" + p.admin + admin.PathReady)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// element starts a server and its side-car, and returns the server.
func (p *play) element(name string) (*stage.Process, error) {
	addr, err := stage.FreePort()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	server, err := p.stage.Start(p.ctx, "server-"+name, self, "server", name, addr)
	if err != nil {
		return nil, err
	}
	_, err = p.stage.Start(p.ctx, "rsppe-"+name, filepath.Join(p.bin, "rsppe"),
		"--registrar", "tcp://"+p.asap, "--pool", pool, "--policy", "rr", "--service", "tcp://"+addr,
		"--check", "http://"+addr+"/healthy", "--check-interval", "200ms", "--timers", "fast")
	return server, err
}

// elements waits until the registrar knows just n elements of the pool.
func (p *play) elements(n int) error {
	return p.until(nil, fmt.Sprintf("%d elements in the pool", n), func() bool {
		resp, err := http.Get("http://" + p.admin + admin.PoolPath(pool))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		var got admin.Pool
		return json.NewDecoder(resp.Body).Decode(&got) == nil && got.Elements == n
	})
}

// until waits for a condition, a second's fraction at a time, showing progress.
func (p *play) until(proc *stage.Process, what string, condition func() bool) error {
	var died <-chan struct{}
	if proc != nil {
		died = proc.Done
	}
	deadline := time.After(10 * time.Second)
	for {
		if condition() {
			return nil
		}
		select {
		case <-p.ctx.Done():
			return fmt.Errorf("interrupted, or out of time, while waiting for %s", what)
		case <-died:
			return fmt.Errorf("%s ended while waiting for %s", proc.Name, what)
		case <-deadline:
			return fmt.Errorf("waited in vain for %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// watch shows what the user gets for a while.
func (p *play) watch(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end) && p.ctx.Err() == nil; {
		select {
		case <-p.ctx.Done():
		case <-time.After(time.Second):
		}
		p.progress()
	}
}

func (p *play) progress() {
	answers := p.user.since(p.shown)
	if len(answers) == 0 {
		fmt.Printf("%6.1fs    no answers\n", time.Since(p.start).Seconds())
		return
	}
	t := sum(answers, answers[0].at)
	p.shown += len(answers)
	fmt.Printf("%6.1fs    %3d answers: %s\n", time.Since(p.start).Seconds(), t.requests-t.unanswered-t.wrong, servers(t))
}

func servers(t tally) string {
	var names []string
	for name := range t.perServer {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, t.perServer[name])
	}
	return strings.Join(names, ", ")
}

func (p *play) say(format string, args ...any) {
	at := 0.0
	if !p.start.IsZero() {
		at = time.Since(p.start).Seconds()
	}
	fmt.Printf("%6.1fs  %s\n", at, fmt.Sprintf(format, args...))
}

// verdict prints what the user saw and fails when it saw a failure.
func (p *play) verdict(killed, away, back time.Time) error {
	answers := p.user.since(0)
	all := sum(answers, p.start)
	kill := sum(between(answers, killed, away), killed)
	without := sum(between(answers, away, back), away)

	fmt.Printf(`
What the user saw
  requests                        %d
  answered                        %d (%s)
  tried a second server           %d
  unanswered                      %d
  wrong answers                   %d
  longest gap                     %v
  longest gap after the kill      %v (allowed: %v)
  longest gap without registrar   %v (allowed: %v)
`, all.requests, all.requests-all.unanswered-all.wrong, servers(all), all.retried, all.unanswered, all.wrong,
		all.gap.Round(time.Millisecond), kill.gap.Round(time.Millisecond), gapMax,
		without.gap.Round(time.Millisecond), calmMax)

	switch {
	case all.requests == 0:
		return errors.New("the user asked nothing")
	case all.wrong+all.unanswered > 0:
		return fmt.Errorf("%d requests went wrong, the first: %w", all.wrong+all.unanswered, all.firstErr)
	case len(all.perServer) != 3:
		return fmt.Errorf("only %d servers answered", len(all.perServer))
	case kill.gap > gapMax:
		return fmt.Errorf("a gap of %v after the kill", kill.gap)
	case without.gap > calmMax:
		return fmt.Errorf("a gap of %v while the registrar was away", without.gap)
	}
	fmt.Println("Every request was answered, and rightly.")
	return nil
}
