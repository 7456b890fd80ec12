//go:build unix

package publish

import (
	"io/fs"
	"syscall"
)

// inode is the number of the file behind a name.
func inode(info fs.FileInfo) any {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return nil
}
