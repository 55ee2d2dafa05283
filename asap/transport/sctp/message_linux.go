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
	// batch is how many messages one system call sends.
	batch = 16
)

var (
	controlLen   = unix.CmsgLen(infoLen)
	controlSpace = unix.CmsgSpace(infoLen)
)

// controlBuffer has room for one SCTP_SNDRCV control message on every machine.
type controlBuffer [64]byte

// incoming is the argument of recvmsg, kept so that a call allocates nothing.
type incoming struct {
	header  unix.Msghdr
	data    unix.Iovec
	control controlBuffer

	// What the last call gave.
	n     int
	flags int
	errno syscall.Errno
}

// receive fills buf, which must not be empty, without waiting.
func (in *incoming) receive(fd uintptr, buf []byte) {
	in.data.Base = &buf[0]
	in.data.SetLen(len(buf))
	in.header = unix.Msghdr{Iov: &in.data, Control: &in.control[0]}
	in.header.SetIovlen(1)
	in.header.SetControllen(len(in.control))
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&in.header)), unix.MSG_DONTWAIT)
	in.n, in.flags, in.errno = int(n), int(in.header.Flags), errno
	in.data.Base = nil // the buffer is the caller's
}

// info returns the stream and PPID that came with the data.
func (in *incoming) info() (stream uint16, ppid uint32) {
	rest := in.control[:min(int(in.header.Controllen), len(in.control))]
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

// outgoing is the argument of sendmmsg for up to a batch of messages.
type outgoing struct {
	headers  [batch]mmsghdr
	data     [batch]unix.Iovec
	controls [batch]controlBuffer
}

// mmsghdr is the kernel's struct of that name.
type mmsghdr struct {
	header unix.Msghdr
	len    uint32
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
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&out.headers[from].header)), flags)
		if errno != 0 {
			return 0, errno
		}
		return 1, 0
	}
	sent, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&out.headers[from])), uintptr(n), flags, 0, 0)
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
