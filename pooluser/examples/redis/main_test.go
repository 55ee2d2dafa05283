package main

import (
	"bytes"
	"context"
	"log"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"go.uber.org/goleak"

	"rserpool/asap/param"
	"rserpool/pooluser"
	"rserpool/pooluser/internal/localpool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cache starts two Redis servers, each with a greeting of its own, and puts them into
// the pool; the first goes first.
func cache(registrar *localpool.Registrar, pool param.PoolHandle) ([]*miniredis.Miniredis, error) {
	var servers []*miniredis.Miniredis
	var elements []param.PoolElement
	for i, greeting := range []string{"hello from the first", "hello from the second"} {
		s := miniredis.NewMiniRedis()
		if err := s.Start(); err != nil {
			return nil, err
		}
		if err := s.Set("greeting", greeting); err != nil {
			return nil, err
		}
		e := localpool.Element(param.PEID(i+1), s.Addr())
		e.Policy = param.Policy{Type: param.Priority, Priority: uint32(2 - i)}
		servers, elements = append(servers, s), append(elements, e)
	}
	registrar.Set(pool, param.Priority, elements...)
	return servers, nil
}

func TestRedisGoesOnWithAnotherServer(t *testing.T) {
	registrar := localpool.Start(t)
	pool := param.PoolHandle("my cache:6379") // no host name at all
	servers, err := cache(registrar, pool)
	if err != nil {
		t.Fatal(err)
	}
	defer servers[0].Close()
	defer servers[1].Close()
	client := newClient(registrar.User(t), pool)
	defer client.Close()
	var out bytes.Buffer
	read(t.Context(), client, "greeting", 3, time.Millisecond, &out)
	read(t.Context(), client, "other", 1, time.Millisecond, &out)
	servers[0].Close()
	read(t.Context(), client, "greeting", 20, time.Millisecond, &out)
	want := "hello from the first\nhello from the first\nhello from the first\n(nothing)\n"
	for range 20 {
		want += "hello from the second\n"
	}
	if out.String() != want {
		t.Errorf("read\n%s", &out)
	}
	if got := registrar.Reports(); !slices.Equal(got, []param.PEID{1}) {
		t.Errorf("reported %v, want 1", got)
	}
	servers[1].Close()
	out.Reset()
	read(t.Context(), client, "greeting", 1, 0, &out)
	if !bytes.Contains(out.Bytes(), []byte("error: ")) {
		t.Errorf("with all servers dead: %s", &out)
	}
}

func Example() {
	registrar, err := localpool.New()
	if err != nil {
		log.Fatal(err)
	}
	defer registrar.Stop()
	servers, err := cache(registrar, "cache")
	if err != nil {
		log.Fatal(err)
	}
	defer servers[1].Close()
	resolver, err := pooluser.New(registrar.Config())
	if err != nil {
		log.Fatal(err)
	}
	resolver.Start()
	defer resolver.Stop()
	client := newClient(resolver, "cache")
	defer client.Close()
	ctx := context.Background()
	read(ctx, client, "greeting", 1, 0, os.Stdout)
	servers[0].Close()
	read(ctx, client, "greeting", 1, 0, os.Stdout)
	// Output:
	// hello from the first
	// hello from the second
}
