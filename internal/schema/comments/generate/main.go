// Command generate writes the comments of the protos that describe kinds of object, by full name,
// as compressed JSON. It reads a FileDescriptorSet with source info, as "buf build
// --as-file-descriptor-set" writes it, from standard input.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: generate FILE < DESCRIPTORS"))
	}
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(err)
	}
	out, err := compress(data)
	if err == nil {
		err = os.WriteFile(os.Args[1], out, 0o644)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "generate:", err)
	os.Exit(1)
}

// compress is the same for the same comments, whatever the time and the order of the files.
func compress(set []byte) ([]byte, error) {
	var files descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(set, &files); err != nil {
		return nil, err
	}
	registry, err := protodesc.NewFiles(&files)
	if err != nil {
		return nil, err
	}
	comments := map[string]string{}
	registry.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(string(f.Package()), "xebec.") {
			collect(comments, f.Messages())
		}
		return true
	})
	text, err := json.Marshal(comments) // Sorted by key.
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func collect(into map[string]string, messages protoreflect.MessageDescriptors) {
	add := func(d protoreflect.Descriptor) {
		if c := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments; c != "" {
			into[string(d.FullName())] = strings.Join(strings.Fields(c), " ")
		}
	}
	for i := range messages.Len() {
		m := messages.Get(i)
		if m.IsMapEntry() {
			continue
		}
		add(m)
		for j := range m.Fields().Len() {
			add(m.Fields().Get(j))
		}
		collect(into, m.Messages())
	}
}
