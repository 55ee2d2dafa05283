//go:build !386

package sctp

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	kernel "github.com/ishidawataru/sctp"
	"golang.org/x/sys/unix"

	"rserpool/asap/transport"
)

const (
	msgEOR          = unix.MSG_EOR
	msgNotification = kernel.MSG_NOTIFICATION

	infoLen = int(unsafe.Sizeof(kernel.SndRcvInfo{}))
	// batch is how many messages one system call sends or receives.
	batch = 16
	// aheadLen is how much of a message can be read ahead; the kernel gives the
	// rest as the next piece.
	aheadLen = 2048
)

var (
	controlLen   = unix.CmsgLen(infoLen)
	controlSpace = unix.CmsgSpace(infoLen)
)

// The calls below never wait in the kernel, so they are made without telling the
// scheduler. It would take the processor away from the goroutine when one takes
// longer than 20 us, and start another thread: that made a registrar's answer cost
// 1.5 times the time.

// controlBuffer has room for one SCTP_SNDRCV control message on every machine.
type controlBuffer [64]byte

// mmsghdr is the kernel's struct of that name.
type mmsghdr struct {
	header unix.Msghdr
	len    uint32
}

// incoming is the argument and the result of recvmmsg: up to a batch of pieces,
// each a message, a part of one, or (a part of) a notification. The first lies in
// the caller's buffer if there is one, the others have been read ahead.
type incoming struct {
	headers  [batch]mmsghdr
	data     [batch]unix.Iovec
	controls [batch]controlBuffer
	ahead    [batch][aheadLen]byte
	n, next  int // pieces there are, and the next to take
}

// piece is one of incoming, valid until the next receive.
type piece struct {
	data  []byte
	flags int // msgEOR, msgNotification
}

// receive fills buf if it is not empty, and then the room for reading ahead, up to so
// many pieces in all.
func (in *incoming) receive(fd uintptr, buf []byte, pieces int) syscall.Errno {
	for i := range pieces {
		room := buf
		if i > 0 || len(buf) == 0 {
			room = in.ahead[i][:]
		}
		in.data[i].Base = unsafe.SliceData(room)
		in.data[i].SetLen(len(room))
		in.headers[i] = mmsghdr{header: unix.Msghdr{Iov: &in.data[i], Control: &in.controls[i][0]}}
		in.headers[i].header.SetIovlen(1)
		in.headers[i].header.SetControllen(len(in.controls[i]))
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&in.headers)), uintptr(pieces), unix.MSG_DONTWAIT, 0, 0)
	in.data[0].Base = nil // the buffer is the caller's
	in.n, in.next = int(n), 0
	if errno != 0 {
		in.n = 0
	}
	return errno
}

// take returns the next piece. buf is what receive was given.
func (in *incoming) take(buf []byte) piece {
	i := in.next
	in.next++
	p := piece{data: buf, flags: int(in.headers[i].header.Flags)}
	if i > 0 || len(buf) == 0 {
		p.data = in.ahead[i][:]
	}
	p.data = p.data[:min(int(in.headers[i].len), len(p.data))]
	return p
}

// info returns the stream and PPID that came with the piece taken last.
func (in *incoming) info() (stream uint16, ppid uint32) {
	control, header := &in.controls[in.next-1], &in.headers[in.next-1].header
	rest := control[:min(int(header.Controllen), len(control))]
	for len(rest) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&rest[0]))
		size := int(h.Len)
		if size < unix.SizeofCmsghdr || size > len(rest) {
			break
		}
		if h.Level == unix.IPPROTO_SCTP && h.Type == kernel.SCTP_CMSG_SNDRCV && size >= controlLen {
			info := rest[unix.CmsgLen(0):]
			return binary.NativeEndian.Uint16(info), binary.BigEndian.Uint32(info[8:])
		}
		rest = rest[min(len(rest), unix.CmsgSpace(size-unix.CmsgLen(0))):]
	}
	return 0, 0
}

// whole reports whether a whole message has been read ahead.
func (in *incoming) whole() bool {
	for i := in.next; i < in.n; i++ {
		flags := int(in.headers[i].header.Flags)
		if flags&msgNotification == 0 && flags&msgEOR != 0 {
			return true
		}
	}
	return false
}

// outgoing is the argument of sendmmsg for up to a batch of messages.
type outgoing struct {
	headers  [batch]mmsghdr
	data     [batch]unix.Iovec
	controls [batch]controlBuffer
}

// fill prepares to send the first messages, at most a batch, and returns how
// many these are.
func (out *outgoing) fill(msgs []transport.Message, defaultPPID uint32) int {
	msgs = msgs[:min(len(msgs), batch)]
	for i, m := range msgs {
		ppid := m.PPID
		if ppid == 0 {
			ppid = defaultPPID
		}
		control := &out.controls[i]
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		h.Level, h.Type = unix.IPPROTO_SCTP, kernel.SCTP_CMSG_SNDRCV
		h.SetLen(controlLen)
		// SndRcvInfo: stream 2, SSN 2, flags 2, 2, PPID 4, and zeros.
		info := control[unix.CmsgLen(0):controlLen]
		clear(info)
		binary.NativeEndian.PutUint16(info, m.Stream)
		binary.BigEndian.PutUint32(info[8:], ppid)

		iov := &out.data[i]
		iov.Base = unsafe.SliceData(m.Data)
		iov.SetLen(len(m.Data))
		out.headers[i] = mmsghdr{header: unix.Msghdr{Iov: iov, Control: &control[0]}}
		out.headers[i].header.SetIovlen(1)
		out.headers[i].header.SetControllen(controlSpace)
	}
	return len(msgs)
}

// send sends n prepared messages beginning with the one at from, without
// waiting, and returns how many the kernel took.
func (out *outgoing) send(fd uintptr, from, n int) (int, syscall.Errno) {
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	if n == 1 {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&out.headers[from].header)), flags)
		if errno != 0 {
			return 0, errno
		}
		return 1, 0
	}
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&out.headers[from])), uintptr(n), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(sent), 0
}

// release forgets the callers' data in the first n messages.
func (out *outgoing) release(n int) {
	for i := range n {
		out.data[i].Base = nil
	}
}
