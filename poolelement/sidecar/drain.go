package sidecar

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// drainLook is the time between two counts of connections.
const drainLook = 100 * time.Millisecond

// Connections counts the connections that clients have to local TCP ports, as the
// kernel of Linux tells; elsewhere it returns an error.
func Connections(ports ...uint16) (int, error) {
	n, err := connections("/proc/net/tcp", ports)
	if err != nil {
		return 0, err
	}
	n6, err := connections("/proc/net/tcp6", ports)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // a system without IPv6
	}
	return n + n6, err
}

func connections(table string, ports []uint16) (int, error) {
	f, err := os.Open(table)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return countConnections(f, ports)
}

// countConnections reads a table of sockets: the second column is the local address
// and port in hexadecimal, the fourth the state (proc(5)).
func countConnections(table io.Reader, ports []uint16) (int, error) {
	n := 0
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		columns := strings.Fields(lines.Text())
		if len(columns) < 4 || columns[3] != "01" && columns[3] != "08" { // ESTABLISHED, CLOSE_WAIT
			continue
		}
		_, port, _ := strings.Cut(columns[1], ":")
		if number, err := strconv.ParseUint(port, 16, 16); err == nil && slices.Contains(ports, uint16(number)) {
			n++
		}
	}
	return n, lines.Err()
}

// AwaitNone waits until count returns 0 or fails, or ctx ends, and returns the last
// count.
func AwaitNone(ctx context.Context, count func() (int, error)) (left int, err error) {
	ticker := time.NewTicker(drainLook)
	defer ticker.Stop()
	for {
		if left, err = count(); left == 0 || err != nil {
			return left, err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return left, nil
		}
	}
}
