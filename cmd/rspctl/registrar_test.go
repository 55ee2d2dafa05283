package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"rserpool/asap/transport"
	"rserpool/asap/transport/tcp"
	"rserpool/cmd/internal/cli"
	"rserpool/registrar"
	"rserpool/registrar/admin"
)

// ours is a registrar of this suite on loopback, with its three addresses as
// rspctl takes them.
type ours struct {
	networks          *transport.Networks
	admin, enrp, asap string
}

func startRegistrar(t *testing.T) ours {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	o := ours{networks: transport.NewNetworks(tcp.New())}
	loopback := []transport.Endpoint{{Network: transport.TCP, Hosts: []string{"127.0.0.1"}}}
	limits := registrar.DefaultLimits()
	limits.TablePage = 1400
	r, err := registrar.New(registrar.Config{
		ID: 0x0a0b0c0d, Networks: o.networks, ASAP: loopback, ENRP: loopback,
		Admin: registrar.AdminConfig{Address: "127.0.0.1:0"}, Limits: limits, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	o.admin = r.AdminAddr()
	for _, a := range r.Addrs() {
		endpoint := fmt.Sprintf("tcp://%v", a.Addrs[0])
		if a.Protocol == "enrp" {
			o.enrp = endpoint
		} else {
			o.asap = endpoint
		}
	}
	return o
}

func (o ours) rspctl(t *testing.T, server string, code cli.ExitCode, args ...string) string {
	t.Helper()
	got, stdout, stderr := rspctl(t.Context(), o.networks, append(args, "-s", server)...)
	if got != code {
		t.Errorf("rspctl %s: exit %d, want %d: %s", strings.Join(args, " "), got, code, stderr)
	}
	return stdout + stderr
}

// What the admin API says and what the protocols of the RFCs say is the same.
func TestOurRegistrarByBothWays(t *testing.T) {
	o := startRegistrar(t)
	const elements = 60 // several pages
	for i := 1; i <= elements; i++ {
		o.rspctl(t, o.admin, cli.OK, "register", "many", "--id", fmt.Sprint(i), "-t", fmt.Sprintf("tcp://127.0.0.1:%d", 9000+i), "-p", fmt.Sprintf("wrr:%d", i), "--life", "10m")
	}
	o.rspctl(t, o.admin, cli.OK, "register", `\x00/../ü`, "-t", "sctp://127.0.0.1:7", "--control", "-p", "plu:0.25:0.5")

	for _, args := range [][]string{{"pools"}, {"pools", "-o", "json"}, {"pool", "show", "many"}, {"pool", "show", `\x00/../ü`}} {
		if a, e := o.rspctl(t, o.admin, cli.OK, args...), o.rspctl(t, o.enrp, cli.OK, args...); a != e {
			t.Errorf("%v: admin API\n%sENRP\n%s", args, a, e)
		}
	}
	var byAdmin, byENRP admin.Status
	for server, status := range map[string]*admin.Status{o.admin: &byAdmin, o.enrp: &byENRP} {
		if err := json.Unmarshal([]byte(o.rspctl(t, server, cli.OK, "status", "-o", "json")), status); err != nil {
			t.Fatal(err)
		}
	}
	if byAdmin.Registrar != byENRP.Registrar || byAdmin.Elements != byENRP.Elements || byAdmin.Pools != 2 || byAdmin.Checksum != byENRP.Checksum {
		t.Errorf("status by admin API %+v, by ENRP %+v", byAdmin, byENRP)
	}
	// The calls before this one spoke ENRP, too: a registrar forgets such a guest
	// when it sees its connection closed.
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		list := o.rspctl(t, o.enrp, cli.OK, "registrars", "--no-headers")
		if strings.HasPrefix(list, "0x0a0b0c0d  yes  61") && strings.Count(list, "\n") == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("registrars, nobody but the one asked:\n%s", list)
		}
	}
	for _, server := range []string{o.admin, o.asap} {
		if got := o.rspctl(t, server, cli.OK, "resolve", "many", "--items", "2", "--no-headers"); strings.Count(got, "active") != 2 {
			t.Errorf("two elements from %s:\n%s", server, got)
		}
		o.rspctl(t, server, cli.NotFound, "resolve", "nowhere")
	}
	o.rspctl(t, o.admin, cli.NotFound, "pool", "show", "nowhere")
	o.rspctl(t, o.enrp, cli.NotFound, "pool", "show", "nowhere")
	if got := o.rspctl(t, o.admin, cli.Failed, "register", "many", "-t", "tcp://127.0.0.1:1", "-p", "rand"); !strings.Contains(got, "Inconsistent Pooling Policy") {
		t.Errorf("another policy: %s", got)
	}
	if got := o.rspctl(t, o.asap, cli.Failed, "deregister", "many", "1"); !strings.Contains(got, "security") {
		t.Errorf("deregistration by others: %s", got)
	}
	o.rspctl(t, o.asap, cli.OK, "register", "passing", "-t", "tcp://127.0.0.1:1", "--life", "60s")
	o.rspctl(t, o.admin, cli.OK, "deregister", "many", "1")
	o.rspctl(t, o.admin, cli.NotFound, "deregister", "many", "1")
}

func TestWatchOfOurRegistrar(t *testing.T) {
	o := startRegistrar(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	reader, writer := io.Pipe()
	code := make(chan cli.ExitCode, 1)
	go func() {
		defer writer.Close()
		code <- cli.Run(ctx, newCommand(o.networks), []string{"watch", "p", "-o", "json", "-s", o.admin}, writer, io.Discard)
	}()
	var got []string
	lines := bufio.NewScanner(reader)
	for lines.Scan() {
		var e admin.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Type+" "+e.ID)
		switch len(got) {
		case 1: // the snapshot: from here on nothing is missed
			o.rspctl(t, o.admin, cli.OK, "register", "other", "-t", "tcp://127.0.0.1:1")
			for _, policy := range []string{"wrr:1", "wrr:2"} {
				o.rspctl(t, o.admin, cli.OK, "register", "p", "--id", "7", "-t", "tcp://127.0.0.1:1", "-p", policy)
			}
			o.rspctl(t, o.admin, cli.OK, "deregister", "p", "7")
		case 4:
			cancel(cli.ErrSignal)
		}
	}
	want := []string{"snapshot ", "registered 0x00000007", "updated 0x00000007", "removed 0x00000007"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if c := <-code; c != cli.Interrupted {
		t.Errorf("exit %d", c)
	}
}
