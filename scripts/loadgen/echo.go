package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"rserpool/asap"
	"rserpool/asap/transport"
)

// echoCommand makes this program the echo server: loadgen echo-server REQUEST
// RESPONSE, the sizes in octets. It ends with its standard input.
const echoCommand = "echo-server"

// echoBuffer is the size of the echo server's buffers.
const echoBuffer = 64 << 10

// echoProcess is a running echo server.
type echoProcess struct {
	target *target
	cmd    *exec.Cmd
	stdin  io.Closer
}

// startEcho starts a server whose answers are as long as those of t.
func startEcho(ctx context.Context, requestSize int, t *target) (*echoProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, echoCommand, strconv.Itoa(requestSize), strconv.Itoa(t.responseSize))
	cmd.Stderr = os.Stderr
	stdin, errIn := cmd.StdinPipe()
	stdout, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	e := &echoProcess{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err == nil {
		e.target, err = parseTarget("bare echo=tcp://" + strings.TrimSpace(line))
	}
	if err != nil {
		e.stop()
		return nil, err
	}
	e.target.pid, e.target.responseSize = cmd.Process.Pid, t.responseSize
	return e, nil
}

func (e *echoProcess) stop() {
	_ = e.stdin.Close()
	_ = e.cmd.Wait() // it has nothing to tell
}

// serveEcho answers requests of one size by responses of another, and does
// nothing else.
func serveEcho(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: loadgen " + echoCommand + " REQUEST RESPONSE")
	}
	requestSize, err1 := strconv.Atoi(args[0])
	responseSize, err2 := strconv.Atoi(args[1])
	if err1 != nil || err2 != nil || requestSize < 4 || responseSize < 4 || responseSize > transport.MaxMessage {
		return fmt.Errorf("sizes %q", args)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go echo(c, requestSize, responseSize)
	}
}

// echo takes message by message, and writes when no more requests are there.
func echo(c net.Conn, requestSize, responseSize int) {
	defer c.Close()
	response := make([]byte, responseSize)
	response[0] = byte(asap.TypeHandleResolutionResponse)
	binary.BigEndian.PutUint16(response[2:], uint16(min(responseSize, 65535)))
	request := make([]byte, requestSize)
	in, out := bufio.NewReaderSize(c, echoBuffer), bufio.NewWriterSize(c, echoBuffer)
	for {
		if _, err := io.ReadFull(in, request); err != nil {
			return
		}
		if _, err := out.Write(response); err != nil {
			return
		}
		if in.Buffered() < requestSize && out.Flush() != nil {
			return
		}
	}
}
