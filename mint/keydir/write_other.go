//go:build !unix

package keydir

import "io/fs"

const noFollow = 0

func ownedByAnother(fs.FileInfo) (uid uint32, another bool) { return 0, false }

func readOnlyMount(string) bool { return false }

// othersMayWrite knows nothing of the access lists of Windows.
func othersMayWrite(fs.FileInfo) bool { return false }
