//go:build !unix

package keydir

import "io/fs"

func ownedByAnother(fs.FileInfo) (uid uint32, another bool) { return 0, false }

// othersMayWrite knows nothing of the access lists of Windows.
func othersMayWrite(fs.FileInfo) bool { return false }
