// Command demo-session shows a session that survives its servers: a user lets a pool
// of three elements compute a picture, and the elements are killed (kill -9) one after
// the other. What each failover cost is shown beside what the cookies allow, and the
// picture is compared with one that nothing happened to.
//
//	demo-session BIN    the directory with rspd and services
package main

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/pooluser"
	"rserpool/scripts/services/fractal"
	"rserpool/scripts/stage"
)

const (
	// cookieEvery and rate are those of the elements: a cookie for each 3,240 points,
	// and a computation that one can watch.
	cookieEvery = 10
	rate        = 26000

	gapMax  = 2 * time.Second // from one part of the picture to the next
	longest = 40 * time.Second
)

// picture is what is computed: 256,000 points.
var picture = fractal.Parameters{Width: 640, Height: 400, Iterations: 1000, C1: complex(-0.6, -1.25), C2: complex(2.1, 1.25)}

// names of the elements; their identifiers count from 1.
var names = []string{"anna", "berta", "clara"}

func nameOf(id param.PEID) string {
	if i := int(id) - 1; i >= 0 && i < len(names) {
		return names[i]
	}
	return id.String()
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo-session BIN")
		os.Exit(2)
	}
	if err := show(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "demo-session:", err)
		os.Exit(1)
	}
}

func show(bin string) (err error) {
	dir, err := os.MkdirTemp("", "rserpool-demo-session-")
	if err != nil {
		return err
	}
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(interrupted, longest)
	p := &play{bin: bin, dir: dir, stage: stage.New(dir), screen: newScreen(), elements: make(map[param.PEID]*stage.Process), start: time.Now()}
	defer func() {
		cancel()
		p.stage.Wait()
		if err != nil {
			err = fmt.Errorf("%w\n%s(all logs: %s)", err, p.stage.Tails(12), dir)
			return
		}
		err = os.RemoveAll(dir)
	}()
	return p.run(ctx)
}

// play is the running demonstration.
type play struct {
	bin, dir  string
	registrar string // where it listens
	stage     *stage.Stage
	screen    *screen
	start     time.Time

	elements map[param.PEID]*stage.Process
	changes  []fractal.Change
	kills    int
	due      uint64    // points, at the next kill
	killed   time.Time // the last one
	back     []comeback
	last     time.Time // of the last part
	gap      time.Duration
	painted  time.Time
	told     int
}

// comeback is an element that starts again.
type comeback struct {
	id param.PEID
	at time.Time
}

func (p *play) say(format string, args ...any) {
	p.screen.say("%6.1fs  %s", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

func (p *play) run(ctx context.Context) error {
	var err error
	if p.registrar, err = stage.FreePort(); err != nil {
		return err
	}
	key := make([]byte, 32)
	_, _ = cryptorand.Read(key) // never fails
	if err := os.WriteFile(filepath.Join(p.dir, "key"), key, 0o600); err != nil {
		return err
	}
	p.say("a registrar, and a pool of three elements that compute fractals: anna, berta and clara")
	if _, err := p.stage.Start(ctx, "rspd", filepath.Join(p.bin, "rspd"), "--listen", "tcp://"+p.registrar, "--enrp-listen", "off", "--admin", "off"); err != nil {
		return err
	}
	if err := p.until(ctx, "the registrar to listen", func(ctx context.Context) bool {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.registrar)
		return err == nil && conn.Close() == nil
	}); err != nil {
		return err
	}
	for i := range names {
		if err := p.element(ctx, param.PEID(i+1)); err != nil {
			return err
		}
	}
	endpoint, err := transport.ParseEndpoint("tcp://"+p.registrar, transport.TCP, 0)
	if err != nil {
		return err
	}
	resolver, err := pooluser.New(pooluser.Config{
		Registrars: []transport.Endpoint{endpoint}, Networks: transport.NewNetworks(tcp.New()),
		Stale: 500 * time.Millisecond, // elements come back soon here
	})
	if err != nil {
		return err
	}
	resolver.Start()
	defer resolver.Stop()
	if err := p.until(ctx, "the elements to register", func(ctx context.Context) bool {
		answer, err := resolver.Renew(ctx, fractal.Pool)
		return err == nil && len(answer.Elements) == len(names)
	}); err != nil {
		return err
	}
	p.say("a user wants a picture of %d points; a cookie comes with every %d", picture.Points(), cookieEvery*fractal.MaxPoints)
	p.last = time.Now()
	p.plan()
	c, err := fractal.User{OnData: p.watch, OnFailover: p.change}.Compute(ctx, resolver, fractal.Pool, picture, pooluser.SessionConfig{})
	if c != nil {
		p.paint(c, 0)
		p.screen.leave()
	}
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	return p.verdict(c)
}

// element starts an element.
func (p *play) element(ctx context.Context, id param.PEID) (err error) {
	p.elements[id], err = p.stage.Start(ctx, nameOf(id), filepath.Join(p.bin, "services"), "element", "fractal",
		"--registrar", "tcp://"+p.registrar, "--id", strconv.Itoa(int(id)), "--cookie-key", filepath.Join(p.dir, "key"),
		"--cookie-every", strconv.Itoa(cookieEvery), "--rate", strconv.Itoa(rate))
	return err
}

// until waits for a condition.
func (p *play) until(ctx context.Context, what string, condition func(context.Context) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("waited in vain for "+what))
	defer cancel()
	for !condition(ctx) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// plan draws when the next kill is due: a little after the next fifth of the picture.
func (p *play) plan() {
	p.due = uint64(p.kills+1)*picture.Points()/5 + rand.Uint64N(picture.Points()/20)
}

// watch sees each part of the picture that comes, and kills who sent it when that is
// due.
func (p *play) watch(ctx context.Context, c *fractal.Canvas, at param.PEID) error {
	now := time.Now()
	p.gap, p.last = max(p.gap, now.Sub(p.last)), now
	p.back = slices.DeleteFunc(p.back, func(b comeback) bool { return b.at.Before(now) && p.element(ctx, b.id) == nil })
	if p.kills < len(names) && c.Done() > p.due && len(p.changes) == p.kills {
		p.kills++
		p.plan()
		p.killed = now
		p.say("kill -9 of %s, who computes, at %d %%", nameOf(at), 100*c.Done()/picture.Points())
		if err := p.elements[at].Signal(os.Kill); err != nil {
			return err
		}
		p.back = append(p.back, comeback{at, now.Add(time.Second)})
	}
	p.paint(c, at)
	return nil
}

// change hears of failovers.
func (p *play) change(c fractal.Change) {
	p.changes = append(p.changes, c)
	p.say("%s goes on, %v after the kill: %s", nameOf(c.To), time.Since(p.killed).Round(time.Millisecond), lost(c))
}

func lost(c fractal.Change) string {
	return fmt.Sprintf("%d points came twice, the cookie interval allows %d", c.Had-c.Resumed, cookieEvery*fractal.MaxPoints)
}

// paint shows how far it is, ten times a second in a terminal, else now and then.
func (p *play) paint(c *fractal.Canvas, at param.PEID) {
	share := float64(c.Done()) / float64(picture.Points())
	if !p.screen.live {
		if tenth := int(10 * share); tenth > p.told {
			p.told = tenth
			p.say("%s", bar(share, 40))
		}
		return
	}
	if at != 0 && time.Since(p.painted) < 100*time.Millisecond {
		return
	}
	p.painted = time.Now()
	who := ""
	if at != 0 {
		who = nameOf(at) + " computes"
	}
	p.screen.paint(append(c.Draw(72, 20, true), fmt.Sprintf("%s %s", bar(share, 50), who)))
}

// verdict prints what the kills have cost, and fails when it is too much.
func (p *play) verdict(c *fractal.Canvas) error {
	if !p.screen.live {
		for _, line := range c.Draw(76, 20, false) {
			fmt.Println(line)
		}
	}
	fmt.Printf("\nWhat the kills have cost (a cookie every %d points, %.0f ms of work)\n", cookieEvery*fractal.MaxPoints, 1000*float64(cookieEvery*fractal.MaxPoints)/rate)
	var again uint64
	for i, change := range p.changes {
		n := change.Had - change.Resumed
		again += n
		fmt.Printf("  failover %d, %-5s to %-5s  %5d points = %3.0f ms of work (allowed: %d points)\n",
			i+1, nameOf(change.From), nameOf(change.To), n, 1000*float64(n)/rate, cookieEvery*fractal.MaxPoints)
	}
	fmt.Printf("  together                   %5d of %d points, %.1f %% (and up to %d each time that were not sent yet)\n", again, picture.Points(), 100*float64(again)/float64(picture.Points()), fractal.MaxPoints)
	fmt.Printf("  longest wait for a part    %v (allowed: %v)\n\n", p.gap.Round(time.Millisecond), gapMax)

	begin := time.Now()
	want := picture.Picture()
	switch {
	case !slices.Equal(c.Points(), want):
		return errors.New("the picture is not the one that is computed without a pool")
	case len(p.changes) != len(names) || p.kills != len(names):
		return fmt.Errorf("%d kills and %d failovers, not %d", p.kills, len(p.changes), len(names))
	case p.gap > gapMax:
		return fmt.Errorf("a wait of %v", p.gap)
	}
	for _, change := range p.changes {
		if n := change.Had - change.Resumed; n > cookieEvery*fractal.MaxPoints {
			return fmt.Errorf("%d points were lost from %s to %s", n, nameOf(change.From), nameOf(change.To))
		}
	}
	fmt.Printf("All three were killed, and each of %d points is right (compared in %v).\n", len(want), time.Since(begin).Round(10*time.Millisecond))
	return nil
}
