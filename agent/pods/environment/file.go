package environment

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/xebec-project/xebec/agent/pods/objects"
	"github.com/xebec-project/xebec/agent/volumes"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// maxFile is the most bytes of a file of variables.
const maxFile = 1 << 20

// fileValue reads a variable from a file of a volume. Ok is false when the reference is optional
// and the file or the variable is missing. As in Kubernetes an empty value counts as missing. The
// error wraps objects.ErrConfig.
func fileValue(ref *corev1.FileKeySelector, volumeDir func(name string) string) (value string, ok bool, err error) {
	file := fmt.Sprintf("file %q of volume %q", ref.GetPath(), ref.GetVolumeName())
	content, err := volumes.ReadFile(volumeDir(ref.GetVolumeName()), ref.GetPath(), maxFile)
	if errors.Is(err, fs.ErrNotExist) && ref.GetOptional() {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("%w: couldn't read %s: %w", objects.ErrConfig, file, err)
	}
	value, err = fileVariable(content, ref.GetKey())
	if err != nil {
		return "", false, fmt.Errorf("%w: couldn't parse env %s: %w", objects.ErrConfig, file, err)
	}
	if value == "" && !ref.GetOptional() {
		return "", false, fmt.Errorf("%w: environment variable key %q not found in %s", objects.ErrConfig, ref.GetKey(), file)
	}
	return value, value != "", nil
}

// fileVariable returns the value of a variable in a file's content, empty for none. Lines are
// empty, comments after #, or NAME='value' with a comment after it. What is between the quotes is
// the value as it stands, also over several lines. A shell reads all of this in the same way. Other
// lines are errors, except that NAME= followed by a space sets an empty value. What follows the
// variable is not read.
func fileVariable(content []byte, key string) (string, error) {
	lines := bufio.NewScanner(bytes.NewReader(content))
	number := 0
	next := func() bool {
		number++
		return lines.Scan()
	}
	for next() {
		line := strings.TrimLeft(lines.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, assigned := strings.Cut(line, "=")
		switch {
		case !assigned:
			return "", fmt.Errorf("line %d: missing '='", number)
		case name == "":
			return "", fmt.Errorf("line %d: empty variable name", number)
		case strings.HasSuffix(name, " ") || strings.HasSuffix(name, "\t"):
			return "", fmt.Errorf("line %d: whitespace before '=' is not allowed", number)
		case strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "\t"):
			if name == key {
				return "", nil
			}
			continue
		case !strings.HasPrefix(rest, "'"):
			return "", fmt.Errorf("line %d: the value must be enclosed in single quotes", number)
		}
		began := number
		value, rest, closed := strings.Cut(rest[1:], "'")
		for !closed {
			if !next() {
				return "", errors.Join(fmt.Errorf("line %d: unclosed single quote", began), lines.Err())
			}
			var more string
			more, rest, closed = strings.Cut(lines.Text(), "'")
			value += "\n" + more
		}
		if rest = strings.TrimLeft(rest, " \t"); rest != "" && rest[0] != '#' {
			return "", fmt.Errorf("line %d: unexpected content after the closing quote", number)
		}
		if name == key {
			return value, nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("line %d: %w", number, err)
	}
	return "", nil
}
