// Package comments has the comments of the messages and fields that objects are made of. They
// describe fields to people, in the command line and in OpenAPI documents. The comments are
// embedded, since descriptors that are compiled into a program have none.
package comments

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"fmt"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
)

//go:generate bash -c "set -o pipefail; go tool -modfile=../../../tools/go.mod buf build ../../../proto --as-file-descriptor-set -o -#format=binpb | go run ./generate comments.json.gz"

//go:embed comments.json.gz
var compressed []byte

// All returns the comments by full name of message or field, each as one paragraph. The map is
// shared. It fails only if the embedded file is damaged.
var All = sync.OnceValues(func() (map[protoreflect.FullName]string, error) {
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, fmt.Errorf("embedded comments: %w", err)
	}
	var all map[protoreflect.FullName]string
	if err := json.NewDecoder(r).Decode(&all); err != nil {
		return nil, fmt.Errorf("embedded comments: %w", err)
	}
	return all, nil
})
