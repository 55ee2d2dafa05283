package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"rserpool/asap/param"
	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/registrar/admin/client"
)

// adminAddress and asapPort are where the registrars under test listen, the first in
// the namespace of each.
const (
	adminAddress = "127.0.0.1:3865"
	asapPort     = 3863
)

// place is where one registrar runs.
type place struct {
	namespace, address string
}

// cluster is a ring of registrars under test, which are started and killed.
type cluster struct {
	rspd   string
	places []place
	flags  []string // of all registrars
	logTo  string

	log     *os.File
	running []*exec.Cmd // nil: it does not run
	clients []*client.Client
}

// declare declares the flags that say what the cluster is.
func (c *cluster) declare(fs *flag.FlagSet) {
	fs.StringVar(&c.rspd, "rspd", "bin/rspd", "the registrar's program")
	fs.Func("in", "network namespace and address of a registrar, `NAMESPACE=ADDRESS`; three or more", func(v string) error {
		name, address, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("%q is not NAMESPACE=ADDRESS", v)
		}
		c.places = append(c.places, place{name, address})
		return nil
	})
	fs.Func("rspd-flags", "further `flags` of the registrars, separated by blanks", func(v string) error {
		c.flags = strings.Fields(v)
		return nil
	})
	fs.StringVar(&c.logTo, "log", os.DevNull, "`file` for what the registrars log")
}

// open prepares what the flags say. It starts nothing.
func (c *cluster) open() (err error) {
	if len(c.places) < 3 {
		return errors.New("three --in at least")
	}
	for _, p := range c.places {
		k, err := client.New(adminAddress, &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return dialIn(ctx, p.namespace, address)
		}})
		if err != nil {
			return err
		}
		c.clients = append(c.clients, k)
	}
	c.running = make([]*exec.Cmd, len(c.places))
	c.log, err = os.Create(c.logTo)
	return err
}

// close ends all registrars.
func (c *cluster) close() {
	c.stop()
	for _, k := range c.clients {
		k.Close()
	}
	_ = c.log.Close()
}

// startAll starts all registrars.
func (c *cluster) startAll() error {
	for i := range c.places {
		if err := c.start(i, c.log); err != nil {
			return err
		}
	}
	return nil
}

// start starts a registrar that logs to a writer. It runs until kill or stop.
func (c *cluster) start(i int, log io.Writer) error {
	p := c.places[i]
	args := []string{
		"netns", "exec", p.namespace, c.rspd,
		"--id", strconv.Itoa(i + 1), "--insecure", "--enrp-listen", "off",
		"--listen", fmt.Sprintf("tcp://%s:%d", p.address, asapPort),
		"--ring-listen", "tcp://" + p.address,
		"--admin", adminAddress,
	}
	for k, other := range c.places {
		if k != i {
			args = append(args, "--peer", "tcp://"+other.address)
		}
	}
	cmd := exec.Command("ip", append(args, c.flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	c.running[i] = cmd
	return nil
}

// kill ends a registrar by kill -9.
func (c *cluster) kill(i int) error {
	if err := c.running[i].Process.Kill(); err != nil {
		return err
	}
	_ = c.running[i].Wait() // it was killed
	c.running[i] = nil
	return nil
}

// stop ends all registrars.
func (c *cluster) stop() {
	for i, cmd := range c.running {
		if cmd != nil {
			_ = cmd.Process.Kill() // it may have ended by itself
			_ = cmd.Wait()
			c.running[i] = nil
		}
	}
}

// whole waits until all registrars that run are in one view, with nobody else, and
// know the same.
func (c *cluster) whole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !c.agreed(ctx) {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the registrars don't come together: %w", ctx.Err())
		}
	}
	return nil
}

func (c *cluster) agreed(ctx context.Context) bool {
	view, running := "", 0
	for _, cmd := range c.running {
		if cmd != nil {
			running++
		}
	}
	for i, k := range c.clients {
		if c.running[i] == nil {
			continue
		}
		r, err := k.Ring(ctx)
		if err != nil || !r.Synced || len(r.Members) != running || view != "" && r.View != view {
			return false
		}
		view = r.View
	}
	return true
}

// register registers elements of a pool at a registrar, over one connection.
func (c *cluster) register(ctx context.Context, i int, pool param.PoolHandle, elements int) (*elements, error) {
	endpoint, err := transport.ParseEndpoint("tcp://"+c.places[i].address, transport.TCP, asapPort)
	if err != nil {
		return nil, err
	}
	return register(ctx, transport.NewNetworks(tcp.New()), endpoint, &settings{pool: pool, register: elements})
}
