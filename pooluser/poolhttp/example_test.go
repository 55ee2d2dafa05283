package poolhttp_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"rserpool/asap/param"
	"rserpool/pooluser"
	"rserpool/pooluser/internal/localpool"
	"rserpool/pooluser/poolhttp"
)

// A client that asks a pool of two web servers for a page, while one of them dies.
func Example() {
	// Two servers, and a registrar that has them in its pool "web".
	registrar, err := localpool.New()
	if err != nil {
		log.Fatal(err)
	}
	defer registrar.Stop()
	var servers []*httptest.Server
	var elements []param.PoolElement
	for i := 1; i <= 2; i++ {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello from server %d of %s", i, r.Host)
		}))
		defer s.Close()
		servers = append(servers, s)
		elements = append(elements, localpool.Element(param.PEID(i), s.Listener.Addr().String()))
	}
	registrar.Set("web", param.RoundRobin, elements...)

	// The client.
	resolver, err := pooluser.New(registrar.Config()) // Config.Registrars say where to ask
	if err != nil {
		log.Fatal(err)
	}
	resolver.Start()
	defer resolver.Stop()
	transport, err := poolhttp.New(poolhttp.Config{Resolver: resolver})
	if err != nil {
		log.Fatal(err)
	}
	defer transport.Close()
	client := &http.Client{Transport: transport}
	for i := range 4 {
		if i == 2 {
			servers[0].Close()
		}
		res, err := client.Get("http://web/greeting")
		if err != nil {
			log.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		if err != nil {
			log.Fatal(err)
		}
		res.Body.Close()
		fmt.Println(string(text))
	}
	// Output:
	// hello from server 1 of web
	// hello from server 2 of web
	// hello from server 2 of web
	// hello from server 2 of web
}
