package tcp

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// stream is a socket that is read and written without telling the scheduler of each
// system call, as none of these waits: for the scheduler to take note, and to watch
// those that might wait, costs a busy process a tenth of its time. One goroutine at a
// time may read, and one write.
type stream struct {
	*net.TCPConn
	raw           syscall.RawConn
	reads, writes transfer
}

// transfer is one direction of a stream.
type transfer struct {
	b    []byte
	n    int // so far
	err  error
	once func(fd uintptr) bool
}

func newStream(tcp *net.TCPConn) net.Conn {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return tcp // it will say so itself
	}
	s := &stream{TCPConn: tcp, raw: raw}
	s.reads.once, s.writes.once = s.reads.read, s.writes.write
	return s
}

// read reads once there is something.
func (t *transfer) read(fd uintptr) (done bool) {
	n, err := call(syscall.SYS_READ, fd, t.b)
	switch {
	case err == syscall.EAGAIN:
		return false
	case err != 0:
		t.err = os.NewSyscallError("read", err)
	case n == 0 && len(t.b) > 0:
		t.err = io.EOF
	}
	t.n = n
	return true
}

// write writes as much as goes, and again when there is room for more.
func (t *transfer) write(fd uintptr) (done bool) {
	n, err := tryWrite(fd, t.b[t.n:])
	t.n += n
	t.err = err
	return err != nil || t.n == len(t.b)
}

func (s *stream) Read(b []byte) (int, error) { return s.reads.transfer(b, s.raw.Read) }

func (s *stream) Write(b []byte) (int, error) { return s.writes.transfer(b, s.raw.Write) }

func (t *transfer) transfer(b []byte, with func(func(uintptr) bool) error) (int, error) {
	t.b, t.n, t.err = b, 0, nil
	err := with(t.once)
	t.b = nil
	if err == nil {
		err = t.err
	}
	return t.n, err
}

// tryWrite writes what the kernel takes at once, which may be nothing.
func tryWrite(fd uintptr, b []byte) (int, error) {
	n, err := call(syscall.SYS_WRITE, fd, b)
	if err != 0 && err != syscall.EAGAIN {
		return 0, os.NewSyscallError("write", err)
	}
	return n, nil
}

// call reads or writes on a descriptor that does not wait.
func call(what, fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, err := syscall.RawSyscall(what, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		if err == 0 {
			return int(n), 0
		}
		if err != syscall.EINTR {
			return 0, err
		}
	}
}
