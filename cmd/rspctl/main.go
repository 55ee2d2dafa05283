// Command rspctl inspects and administers pools and registrars.
package main

import (
	"rserpool/asap/transport"
	"rserpool/asap/transport/sctp"
	"rserpool/asap/transport/tcp"
	"rserpool/cmd/internal/cli"
)

func main() {
	cli.Main(newCommand(transport.NewNetworks(sctp.New(), tcp.New())))
}
