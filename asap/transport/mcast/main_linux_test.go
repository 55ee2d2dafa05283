package mcast

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// inNamespace marks the process that has a network namespace of its own.
const inNamespace = "MCAST_TEST_IN_NAMESPACE"

// TestMain runs the tests in a network namespace with an interface that has
// multicast, where the machine lets us; loopback has none for IPv6.
func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) != "" {
		testInterface = "test0"
		for _, command := range []string{
			"ip link set lo up",
			"ip link add test0 type veth peer name test1",
			"ip link set test0 up",
			"ip link set test1 up",
			"ip address add 192.0.2.1/24 dev test0",
			"ip address add 2001:db8::1/64 dev test0 nodad",
		} {
			words := strings.Fields(command)
			if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
				fmt.Printf("%s: %v %s\n", command, err, out)
				testInterface = ""
				break
			}
		}
		goleak.VerifyTestMain(m)
		return
	}
	child := exec.Command(os.Args[0], os.Args[1:]...)
	child.Env = append(os.Environ(), inNamespace+"=1")
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		child.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	err := child.Run()
	var failed *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &failed):
		os.Exit(1)
	}
	fmt.Printf("no network namespace (%v): tests run on the loopback interface\n", err)
	goleak.VerifyTestMain(m)
}
