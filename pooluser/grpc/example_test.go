package poolgrpc_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"rserpool/asap/param"
	"rserpool/pooluser"
	poolgrpc "rserpool/pooluser/grpc"
	"rserpool/pooluser/internal/localpool"
)

// A gRPC client of a pool of two servers, of which one is dead.
func Example() {
	// Two servers, and a registrar that has them in its pool "echo".
	registrar, err := localpool.New()
	if err != nil {
		log.Fatal(err)
	}
	defer registrar.Stop()
	var elements []param.PoolElement
	for i := 1; i <= 2; i++ {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			log.Fatal(err)
		}
		elements = append(elements, localpool.Element(param.PEID(i), listener.Addr().String()))
		if i == 1 {
			listener.Close()
			continue
		}
		server := grpc.NewServer()
		healthpb.RegisterHealthServer(server, health.NewServer())
		go server.Serve(listener)
		defer server.Stop()
	}
	registrar.Set("echo", param.RoundRobin, elements...)

	// The client.
	resolver, err := pooluser.New(registrar.Config()) // Config.Registrars say where to ask
	if err != nil {
		log.Fatal(err)
	}
	resolver.Start()
	defer resolver.Stop()
	options := append(poolgrpc.DialOptions(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("rserpool:///echo", options...)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(context.Background(), &healthpb.HealthCheckRequest{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.GetStatus())
	// Output: SERVING
}
