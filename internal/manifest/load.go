package manifest

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// extensions are those of the files that are read from a directory. Files named one by one may have
// any name.
var extensions = []string{".yaml", ".yml", ".json"}

// Load is Reader.Load.
func Load(paths []string, recursive bool, stdin io.Reader) ([]Document, error) {
	return (&Reader{Kinds: compiledIn()}).Load(paths, recursive, stdin)
}

// Load reads the manifests at paths, in their order: files, directories, and "-" for stdin. Of a
// directory it reads the .yaml, .yml and .json files by name, and with recursive those of its
// subdirectories too.
//
// All errors of all manifests are returned together, as Errors, along with the objects that are
// valid. A path that does not exist, and a directory without manifests, is an error.
func (m *Reader) Load(paths []string, recursive bool, stdin io.Reader) ([]Document, error) {
	var docs []Document
	var errs Errors
	add := func(name string, r io.Reader) {
		found, err := m.Decode(name, r)
		docs = append(docs, found...)
		if more, ok := errors.AsType[Errors](err); ok {
			errs = append(errs, more...)
		}
	}
	for _, path := range paths {
		if path == "-" {
			add("stdin", stdin)
			continue
		}
		files, err := filesAt(path, recursive)
		if err != nil {
			errs = append(errs, &Error{Source: path, Err: err})
			continue
		}
		for _, file := range files {
			f, err := os.Open(file)
			if err != nil {
				errs = append(errs, &Error{Source: file, Err: cause(err)})
				continue
			}
			add(file, f)
			f.Close()
		}
	}
	if len(errs) > 0 {
		return docs, errs
	}
	return docs, nil
}

// cause drops the path from a file error, because the place before it says the same.
func cause(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}

func filesAt(path string, recursive bool) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, cause(err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && file != path && !recursive:
			return filepath.SkipDir
		case !entry.IsDir() && slices.Contains(extensions, strings.ToLower(filepath.Ext(file))):
			files = append(files, file)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, errors.New("the directory has no .yaml, .yml or .json file")
	}
	return files, nil
}
