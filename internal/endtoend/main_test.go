//go:build unix

// Package endtoend runs the programs as their users do, as processes, and looks
// at what their users see. On loopback it needs nothing; the tests with several
// hosts make themselves network namespaces, for which they must be root and find
// iproute2.
package endtoend

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// bin is the directory of the programs.
var bin string

// The test binary is the server of the pools too, when told so.
const serverName, serverAddress = "ENDTOEND_SERVER", "ENDTOEND_ADDRESS"

func TestMain(m *testing.M) {
	if name := os.Getenv(serverName); name != "" {
		fmt.Fprintln(os.Stderr, serve(name, os.Getenv(serverAddress)))
		os.Exit(1)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	flag.Parse()
	// The tests wait far more than they compute.
	parallel := false
	flag.Visit(func(f *flag.Flag) { parallel = parallel || f.Name == "test.parallel" })
	if !parallel {
		_ = flag.Set("test.parallel", "12")
	}
	var err error
	if bin, err = os.MkdirTemp("", "endtoend-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	build := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "./cmd/rspd", "./cmd/rsppe", "./cmd/rsppu", "./cmd/rspctl")
	build.Dir = filepath.Join("..", "..")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the programs:", err)
		return 1
	}
	return m.Run()
}

// serve answers each line with the server's name. It knows nothing of pools.
func serve(name, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if _, err := fmt.Fprintln(conn, name); err != nil {
					return
				}
			}
		}()
	}
}
