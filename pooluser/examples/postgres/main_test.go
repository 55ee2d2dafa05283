package main

import (
	"bytes"
	"context"
	"log"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"rserpool/asap/param"
	"rserpool/pooluser"
	"rserpool/pooluser/internal/localpool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// settings keep to the simple query protocol, which the server of the test speaks.
const settings = "user=reader dbname=shop sslmode=disable default_query_exec_mode=simple_protocol"

// databases starts two servers and puts them into the pool; the first goes first.
func databases(registrar *localpool.Registrar, pool param.PoolHandle) ([]*server, error) {
	var servers []*server
	var elements []param.PoolElement
	for i, name := range []string{"primary", "standby"} {
		s, err := newServer(name)
		if err != nil {
			return nil, err
		}
		e := localpool.Element(param.PEID(i+1), s.listener.Addr().String())
		e.Policy = param.Policy{Type: param.Priority, Priority: uint32(2 - i)}
		servers, elements = append(servers, s), append(elements, e)
	}
	registrar.Set(pool, param.Priority, elements...)
	return servers, nil
}

func TestDatabaseGoesOnWithAnotherServer(t *testing.T) {
	registrar := localpool.Start(t)
	pool := param.PoolHandle("my db:5432") // no host name at all
	servers, err := databases(registrar, pool)
	if err != nil {
		t.Fatal(err)
	}
	defer servers[0].stop()
	defer servers[1].stop()
	db, err := open(registrar.User(t), pool, settings)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var out bytes.Buffer
	ask(t.Context(), db, "select name", 3, time.Millisecond, &out)
	if err := db.PingContext(t.Context()); err != nil {
		t.Error(err)
	}
	servers[0].stop()
	ask(t.Context(), db, "select name", 10, 10*time.Millisecond, &out)
	got := strings.Fields(out.String())
	if !slices.Equal(got[:3], []string{"primary", "primary", "primary"}) || got[len(got)-1] != "standby" || slices.Contains(got[4:], "primary") {
		t.Errorf("answers\n%s", &out)
	}
	// What was on its way when the server died may be lost: one question at most.
	if errors := strings.Count(out.String(), "error"); errors > 1 {
		t.Errorf("%d errors:\n%s", errors, &out)
	}
	if got := registrar.Reports(); !slices.Equal(got, []param.PEID{1}) {
		t.Errorf("reported %v, want 1", got)
	}
}

func Example() {
	registrar, err := localpool.New()
	if err != nil {
		log.Fatal(err)
	}
	defer registrar.Stop()
	servers, err := databases(registrar, "db")
	if err != nil {
		log.Fatal(err)
	}
	servers[0].stop()
	defer servers[1].stop()
	resolver, err := pooluser.New(registrar.Config())
	if err != nil {
		log.Fatal(err)
	}
	resolver.Start()
	defer resolver.Stop()
	db, err := open(resolver, "db", settings)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ask(context.Background(), db, "select name", 2, 0, os.Stdout)
	// Output:
	// standby
	// standby
}
