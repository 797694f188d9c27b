package resolver

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// op says what a frame on the control socket is. A frame is the op, the length of its content as
// four bytes with the highest first, and the content. The values are a contract between an agent
// and the process that an agent of another version started: opHello and opHandOver keep theirs for
// ever.
type op byte

const (
	// opHello begins a connection: the process sends a hello as JSON.
	opHello op = 'S'
	// opHandOver asks for the sockets; the process answers with a frame of the same op that carries
	// their descriptors, and goes on serving.
	opHandOver op = 'H'

	// The objects, each whole, or only its metadata where it was deleted.
	opService        op = 'v'
	opServiceDeleted op = 'w'
	opSlice          op = 'l'
	opSliceDeleted   op = 'm'
	// opSynced ends the objects that there were when the connection was made. From then on names are
	// answered from them, and the process answers with a frame of the same op once it serves.
	opSynced op = 'y'
	// opMetrics asks for the metrics, which come as frames of the same op with a metric family each;
	// an empty one ends them.
	opMetrics op = 'x'
)

// maxFrame bounds a frame: an object has at most 1.5 MiB.
const maxFrame = 4 << 20

func writeFrame(w io.Writer, what op, content []byte) error {
	if len(content) > maxFrame {
		return fmt.Errorf("frame of %d bytes is larger than the limit of %d", len(content), maxFrame)
	}
	header := [5]byte{byte(what)}
	binary.BigEndian.PutUint32(header[1:], uint32(len(content)))
	if _, err := w.Write(header[:]); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}

func writeMessage(w io.Writer, what op, m proto.Message) error {
	content, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return writeFrame(w, what, content)
}

func readFrame(r *bufio.Reader) (op, []byte, error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes is larger than the limit of %d", size, maxFrame)
	}
	content := make([]byte, size)
	_, err := io.ReadFull(r, content)
	return op(header[0]), content, err
}

// sendFiles writes an opHandOver frame that carries the descriptors.
func sendFiles(conn *net.UnixConn, files ...*os.File) error {
	var numbers []int
	for _, f := range files {
		numbers = append(numbers, int(f.Fd()))
	}
	_, _, err := conn.WriteMsgUnix([]byte{byte(opHandOver), 0, 0, 0, 0}, unix.UnixRights(numbers...), nil)
	return err
}

// receiveFiles reads an opHandOver frame with as many descriptors. Nothing may have been read ahead
// of it.
func receiveFiles(conn *net.UnixConn, count int) ([]*os.File, error) {
	data, control := make([]byte, 5), make([]byte, unix.CmsgSpace(4*count))
	n, controls, _, _, err := conn.ReadMsgUnix(data, control)
	if err != nil {
		return nil, err
	}
	if n != len(data) || op(data[0]) != opHandOver {
		return nil, fmt.Errorf("unexpected response %q to the request for the sockets", data[:n])
	}
	messages, err := unix.ParseSocketControlMessage(control[:controls])
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		numbers, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // something else than descriptors
		}
		for _, fd := range numbers {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "socket"))
		}
	}
	if len(files) != count {
		return nil, errors.Join(fmt.Errorf("received %d sockets, want %d", len(files), count), closeAll(files))
	}
	return files, nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
