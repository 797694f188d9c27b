package storage

import "context"

// Reader reads one object, at a revision that its maker chooses: what the cache holds, or what is
// current. An object that does not exist is ErrNotFound.
type Reader func(ctx context.Context, key Key) (*Object, error)
