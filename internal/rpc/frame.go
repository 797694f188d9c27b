package rpc

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Frame is one message in its wire form, without decoding or encoding. Servers made by NewServer
// and connections made by Dial take a *Frame wherever they take a proto.Message: sent, its bytes go
// out as they are; received, it holds the message's bytes as they came. A proxy passes messages
// through with it, and a server encodes a message once for many streams.
//
// A Frame made by NewFrame may be sent any number of times and from several goroutines. A received
// one belongs to one goroutine, which calls Free when done with it, and must not be received into
// twice without.
type Frame struct {
	data mem.BufferSlice
	move bool
}

// NewFrame returns a frame of the concatenated parts, which must not change afterwards.
func NewFrame(parts ...[]byte) *Frame {
	data := make(mem.BufferSlice, len(parts))
	for i, part := range parts {
		data[i] = mem.SliceBuffer(part)
	}
	return &Frame{data: data}
}

// Len returns the number of bytes.
func (f *Frame) Len() int { return f.data.Len() }

// Bytes returns the message's bytes, valid until Free. They must not be changed. Most frames lie in
// one piece and are returned as they are; others are copied together.
func (f *Frame) Bytes() []byte {
	switch len(f.data) {
	case 0:
		return nil
	case 1:
		return f.data[0].ReadOnlyData()
	}
	return f.data.Materialize()
}

// Head returns the first bytes of the message, at most n, valid until Free.
func (f *Frame) Head(n int) []byte {
	if len(f.data) == 0 {
		return nil
	}
	first := f.data[0].ReadOnlyData()
	if len(f.data) == 1 || len(first) >= n {
		return first[:min(n, len(first))]
	}
	head := make([]byte, min(n, f.data.Len()))
	f.data.CopyTo(head)
	return head
}

// Free gives the buffers of a received frame back; the frame is empty afterwards. Not calling it
// costs only their reuse.
func (f *Frame) Free() {
	f.data.Free()
	f.data = nil
}

// Move makes the next send of a received frame its last one: the send takes the buffers, as if by
// Free. It serves handlers of unary calls, which have no moment after the send. It returns f.
func (f *Frame) Move() *Frame {
	f.move = true
	return f
}

// codec passes frames through and leaves all else to the protobuf codec.
type codec struct {
	proto encoding.CodecV2
}

func newCodec() codec { return codec{proto: encoding.GetCodecV2(proto.Name)} }

func (c codec) Name() string { return proto.Name }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*Frame)
	if !ok {
		return c.proto.Marshal(v)
	}
	data := f.data
	if f.move {
		f.data, f.move = nil, false
		return data, nil
	}
	data.Ref()
	return data, nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*Frame)
	if !ok {
		return c.proto.Unmarshal(data, v)
	}
	data.Ref()
	f.data = data
	return nil
}
